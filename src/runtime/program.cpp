// SPDX-License-Identifier: MIT
#include "runtime/program.h"

#include <algorithm>
#include <cstring>

#include "runtime/memory_plan.h"
#include "runtime/relu_pool.h"

namespace trit::runtime {

Program::Program(const ProgramContext& context, DenseLibrary& library, std::int64_t batch)
    : context_(context), batch_(batch), buffer_of_value_(context.network.graph.nodes.size()) {
  const auto& storage = context.schedule.storage;
  std::vector<Lifetime> buffers;
  const auto value_bytes = [&](std::size_t value) {
    return static_cast<std::size_t>(batch * numel(context.network.shapes[value])) * sizeof(float);
  };
  const auto add_buffer = [&](std::size_t bytes, std::size_t step) {
    buffers.push_back({bytes, step, step});
    return buffers.size() - 1;
  };
  // The model's input and output lie in the caller's memory.
  const auto produce = [&](std::size_t value, std::size_t step) {
    const bool outside = value == storage.back();
    buffer_of_value_[value] = add_buffer(outside ? 0 : value_bytes(value), step);
  };
  const auto consume = [&](std::size_t value, std::size_t step) {
    if (storage[value] != 0) {
      buffers[buffer_of_value_[storage[value]]].last = step;
    }
  };
  for (std::size_t s = 0; s < context.schedule.steps.size(); ++s) {
    if (const auto* segment = std::get_if<DenseSegment>(&context.schedule.steps[s])) {
      DenseRun run{library.compile(*segment, batch), segment->inputs, segment->outputs, 0};
      run.scratch = add_buffer(run.segment->arena_bytes(), s);
      std::for_each(run.outputs.begin(), run.outputs.end(), [&](std::size_t value) { produce(value, s); });
      std::for_each(run.inputs.begin(), run.inputs.end(), [&](std::size_t value) { consume(value, s); });
      steps_.emplace_back(std::move(run));
      continue;
    }
    const auto& step = std::get<BitLinearStep>(context.schedule.steps[s]);
    const TernaryLayer& layer = *context.layers[step.node];
    const std::int64_t in = layer.weight.in_features();
    const std::int64_t rows = batch * (numel(context.network.shapes[step.input]) / in);
    const auto row_count = static_cast<std::size_t>(rows);
    const std::size_t q = add_buffer(row_count * static_cast<std::size_t>(padded_in_features(in)), s);
    const std::size_t scale = add_buffer(row_count * sizeof(float), s);
    const std::size_t q_sum = add_buffer(row_count * sizeof(std::int32_t), s);
    steps_.emplace_back(TernaryRun{&layer, step.input, step.output, step.relu, rows, q, scale, q_sum});
    produce(step.output, s);
    consume(step.input, s);
  }
  MemoryPlan plan = plan_memory(buffers);
  offsets_ = std::move(plan.offsets);
  arena_bytes_ = plan.bytes;
}

void Program::run(const float* x, float* y, std::byte* arena) const {
  const auto& storage = context_.schedule.storage;
  const auto write = [&](std::size_t value) {
    return storage[value] == storage.back()
               ? y
               : reinterpret_cast<float*>(arena + offsets_[buffer_of_value_[storage[value]]]);
  };
  const auto read = [&](std::size_t value) -> const float* { return storage[value] == 0 ? x : write(value); };
  std::vector<const float*> inputs;
  std::vector<float*> outputs;
  for (const auto& step : steps_) {
    if (const auto* ternary = std::get_if<TernaryRun>(&step)) {
      run_ternary(*ternary, read(ternary->input), write(ternary->output), arena);
      continue;
    }
    const auto& dense = std::get<DenseRun>(step);
    inputs.clear();
    outputs.clear();
    std::transform(dense.inputs.begin(), dense.inputs.end(), std::back_inserter(inputs), read);
    std::transform(dense.outputs.begin(), dense.outputs.end(), std::back_inserter(outputs), write);
    dense.segment->run(inputs, outputs, arena + offsets_[dense.scratch]);
  }
  if (storage.back() == 0) {  // a model of flattens alone
    std::memcpy(y, x, static_cast<std::size_t>(batch_ * numel(context_.network.shapes[0])) * sizeof(float));
  }
}

void Program::run_ternary(const TernaryRun& step, const float* x, float* y, std::byte* arena) const {
  const TernaryLayer& layer = *step.layer;
  const std::int64_t in = layer.weight.in_features();
  auto* const q = reinterpret_cast<std::int8_t*>(arena + offsets_[step.q]);
  auto* const scale = reinterpret_cast<float*>(arena + offsets_[step.scale]);
  auto* const q_sum = reinterpret_cast<std::int32_t*>(arena + offsets_[step.q_sum]);
  norm_quant(layer.weight.kernels(), context_.parallel,
             {.x = x,
              .x_type = DataType::float32,
              .tokens = step.rows,
              .in_features = in,
              .x_stride = in,
              .norm = layer.norm,
              .norm_weight = layer.norm_weight.empty() ? nullptr : layer.norm_weight.data(),
              .eps = layer.eps,
              .q = q,
              .scale = scale,
              .rstd = nullptr,
              .q_sum = q_sum});
  layer.weight.product(context_.parallel, {.q = q, .scale = scale, .q_sum = q_sum, .tokens = step.rows},
                       layer.bias.empty() ? nullptr : layer.bias.data(), DataType::float32, y);
  if (step.relu) {
    relu(context_.parallel, step.rows * layer.weight.out_features(), y, y);
  }
}

}  // namespace trit::runtime
