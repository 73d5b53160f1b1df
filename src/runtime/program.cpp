// SPDX-License-Identifier: MIT
#include "runtime/program.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "runtime/dense.h"
#include "runtime/openmp_threads.h"
#include "runtime/relu_pool.h"

namespace trit::runtime {

std::int64_t Value::size() const {
  return shape.size() < 2 ? numel(shape)
                          : numel(shape) / std::max<std::int64_t>(shape[1], 1) * blocks() * inner;
}

ProgramBuilder::ProgramBuilder(Program& program, const ProgramParts& parts, std::int64_t batch)
    : program_(program),
      parts_(parts),
      nodes_(parts.network.graph.nodes),
      batch_(batch),
      values_(nodes_.size()) {}

void ProgramBuilder::build() {
  values_[0] = {shape(0), 1, new_buffer(0)};
  program_.input_ = values_[0].buffer;
  for (Step step : parts_.steps) {  // a copy: an operator takes out what it does itself
    const std::size_t before = program_.steps_.buffers();
    const Value value = nodes_[step.node].op->lower_on_cpu(*this, step);
    values_[step.result] = activate(step, value, value.buffer >= before);
  }
  bring_out(values_.back());
  program_.steps_.plan();
}

const Value& ProgramBuilder::input(const Step& step, std::size_t index) const {
  return values_[nodes_[step.node].inputs[index]];
}

Shape ProgramBuilder::shape(std::size_t node) const {
  Shape shape = parts_.network.shapes[node];
  shape.insert(shape.begin(), batch_);
  return shape;
}

const Pool* ProgramBuilder::pool_of(const Step& step) const {
  return step.pool ? nodes_[*step.pool].op->pool() : nullptr;
}

bool ProgramBuilder::read_as_rows(std::size_t node) const {
  return std::none_of(nodes_.begin(), nodes_.end(), [&](const Node& reader) {
    return std::find(reader.inputs.begin(), reader.inputs.end(), node) != reader.inputs.end() &&
           !reader.op->reads_rows();
  });
}

Value ProgramBuilder::new_value(Shape shape, std::int64_t inner) {
  Value value{std::move(shape), inner, 0};
  value.buffer = new_buffer(static_cast<std::size_t>(value.size()) * sizeof(float));
  return value;
}

Value ProgramBuilder::in_order(const Value& value, std::int64_t inner) {
  if (value.inner == inner) {
    return value;
  }
  const Value reordered = new_value(value.shape, inner);
  parts_.dense.reorder(*this, value, reordered);
  return reordered;
}

Value ProgramBuilder::activate(const Step& step, const Value& value, bool in_place) {
  if (step.pool) {
    return add_pool(step, value);
  }
  return step.relu ? add_relu(value, in_place) : value;
}

Value ProgramBuilder::add_relu(const Value& value, bool in_place) {
  const Value y = in_place ? value : new_value(value.shape, value.inner);
  add({value.buffer, y.buffer},
      [&parallel = parallel(), count = y.size(), from = value.buffer, to = y.buffer](
          const Addresses& memory) { relu(parallel, count, memory.at<float>(from), memory.at<float>(to)); });
  return y;
}

Value ProgramBuilder::add_pool(const Step& step, const Value& value) {
  const Pool& pool = *pool_of(step);
  const Value y =
      new_value(shape(step.pool.value()), value.inner);  // NOLINT(bugprone-unchecked-optional-access)
  const Pooling size{.outer = batch_ * value.blocks(),
                     .height = value.shape[2],
                     .width = value.shape[3],
                     .inner = value.inner,
                     .out_height = y.shape[2],
                     .out_width = y.shape[3],
                     .kernel = pool.kernel,
                     .stride = pool.stride,
                     .relu = step.relu};
  add({value.buffer, y.buffer}, [&parallel = parallel(), size, run = pool.maximum ? max_pool2d : avg_pool2d,
                                 from = value.buffer, to = y.buffer](const Addresses& memory) {
    run(parallel, size, memory.at<float>(from), memory.at<float>(to));
  });
  return y;
}

/// The output lies in the caller's memory. What lies there already, or in another order, is copied.
void ProgramBuilder::bring_out(const Value& value) {
  Value y = as_rows(value);
  if (y.buffer == program_.input_) {
    const Value copy = new_value(y.shape);
    add({y.buffer, copy.buffer},
        [bytes = static_cast<std::size_t>(y.size()) * sizeof(float), from = y.buffer, to = copy.buffer](
            const Addresses& memory) { std::memcpy(memory.at<float>(to), memory.at<float>(from), bytes); });
    y = copy;
  }
  program_.output_ = y.buffer;
  program_.steps_.place_outside(y.buffer);
}

Program::Program(const ProgramParts& parts, std::int64_t batch) {
  ProgramBuilder(*this, parts, batch).build();
}

void Program::run(const float* x, float* y, std::byte* arena) const {
  std::optional<OpenMpFloatingPoint> environment;
  if (uses_openmp_) {
    environment.emplace();
  }
  // The input is only read.
  steps_.run(arena, {{input_, reinterpret_cast<std::byte*>(const_cast<float*>(x))},
                     {output_, reinterpret_cast<std::byte*>(y)}});
}

}  // namespace trit::runtime
