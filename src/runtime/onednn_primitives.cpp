// SPDX-License-Identifier: MIT
#include "runtime/onednn_primitives.h"

#include <algorithm>
#include <memory>
#include <mutex>
#include <string>

#include "runtime/bf16_pairs.h"
#include "trit/error.h"

namespace trit::runtime {
namespace {

using Tag = dnnl::memory::format_tag;

/// A primitive with what it reads and writes. Memory objects are cheap to make but not free, and execution
/// wants its arguments as an array: both are made once per concurrent caller (a binding) and pointed at the
/// caller's memory.
class PrimitiveStep {
 public:
  PrimitiveStep(dnnl::engine engine, dnnl::primitive primitive, std::vector<Argument> arguments,
                std::vector<std::pair<int, dnnl::memory>> constants)
      : engine_(std::move(engine)),
        primitive_(std::move(primitive)),
        arguments_(std::move(arguments)),
        constants_(std::move(constants)) {}

  void run(const Addresses& memory) {
    with_onednn_errors([&] {
      auto binding = take_binding();
      for (std::size_t i = 0; i < arguments_.size(); ++i) {
        binding->memories[i].set_data_handle(memory.at<void>(arguments_[i].buffer));
      }
      dnnl::error::wrap_c_api(
          dnnl_primitive_execute(primitive_.get(), binding->stream.get(),
                                 static_cast<int>(binding->arguments.size()), binding->arguments.data()),
          "a primitive could not be executed");
      binding->stream.wait();
      const std::lock_guard lock(mutex_);
      free_.push_back(std::move(binding));
    });
  }

 private:
  struct Binding {
    dnnl::stream stream;
    std::vector<dnnl::memory> memories;
    std::vector<dnnl_exec_arg_t> arguments;
  };

  std::unique_ptr<Binding> take_binding() {
    {
      const std::lock_guard lock(mutex_);
      if (!free_.empty()) {
        auto binding = std::move(free_.back());
        free_.pop_back();
        return binding;
      }
    }
    auto binding = std::make_unique<Binding>();
    binding->stream = dnnl::stream(engine_);
    for (const Argument& argument : arguments_) {
      binding->memories.push_back(dnnl::memory(argument.layout, engine_, DNNL_MEMORY_NONE));
      binding->arguments.push_back({argument.name, binding->memories.back().get()});
    }
    for (const auto& [name, memory] : constants_) {
      binding->arguments.push_back({name, memory.get()});
    }
    return binding;
  }

  dnnl::engine engine_;
  dnnl::primitive primitive_;
  std::vector<Argument> arguments_;
  std::vector<std::pair<int, dnnl::memory>> constants_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Binding>> free_;
};

}  // namespace

void rethrow_onednn_error(const dnnl::error& error) {
  throw Error("oneDNN: " + std::string(error.what()) + " (status " +
              std::to_string(static_cast<int>(error.status)) + ")");
}

dnnl::primitive_attr own_scratchpad() {
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attributes;
}

void add_primitive(ProgramBuilder& builder, const dnnl::engine& engine, const dnnl::primitive& primitive,
                   std::vector<Argument> arguments, std::vector<std::pair<int, dnnl::memory>> constants,
                   const dnnl::memory::desc& scratchpad) {
  if (const std::size_t bytes = scratchpad.get_size(); bytes != 0) {
    arguments.push_back({DNNL_ARG_SCRATCHPAD, scratchpad, builder.new_buffer(bytes)});
  }
  std::vector<std::size_t> buffers;
  for (const Argument& argument : arguments) {
    buffers.push_back(argument.buffer);
  }
  const auto step =
      std::make_shared<PrimitiveStep>(engine, primitive, std::move(arguments), std::move(constants));
  builder.note_openmp();
  builder.add(buffers, [step](const Addresses& memory) { step->run(memory); });
}

void add_reorder(ProgramBuilder& builder, const dnnl::engine& engine, const Argument& from,
                 const Argument& to) {
  const dnnl::reorder::primitive_desc pd(engine, from.layout, engine, to.layout, own_scratchpad());
  add_primitive(builder, engine, dnnl::reorder(pd), {from, to}, {}, pd.scratchpad_desc());
}

dnnl::memory::desc layout_of(const Value& value) {
  if (value.inner == 1) {
    return row_major(value.shape);
  }
  const Tag tag = value.inner == value.shape[1] ? Tag::nhwc : value.inner == 16 ? Tag::nChw16c : Tag::nChw8c;
  return {value.shape, dnnl::memory::data_type::f32, tag};
}

std::optional<std::int64_t> inner_of(const dnnl::memory::desc& layout) {
  const dnnl::memory::dims dims = layout.get_dims();
  if (layout == row_major(dims)) {
    return 1;
  }
  for (const auto& [tag, inner] :
       {std::pair{Tag::nChw16c, std::int64_t{16}}, {Tag::nChw8c, std::int64_t{8}}, {Tag::nhwc, dims[1]}}) {
    if (dims.size() == 4 && layout == dnnl::memory::desc(dims, dnnl::memory::data_type::f32, tag)) {
      return inner;
    }
  }
  return std::nullopt;
}

dnnl::memory::desc row_major(const dnnl::memory::dims& dims, dnnl::memory::data_type type) {
  dnnl::memory::dims strides(dims.size());
  dnnl::memory::dim stride = 1;
  for (std::size_t i = dims.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= dims[i];
  }
  return {dims, type, strides};
}

dnnl::memory::desc any_layout(const dnnl::memory::dims& dims, dnnl::memory::data_type type) {
  return {dims, type, dnnl::memory::format_tag::any};
}

Constant::Constant(const dnnl::engine& engine, const dnnl::memory::dims& dims,
                   std::span<const float> values) {
  layouts_.emplace_back(row_major(dims), engine);
  std::copy(values.begin(), values.end(), data<float>());
}

Constant Constant::factors_of(const dnnl::engine& engine, dnnl::memory::dims dims,
                              std::span<const float> weight) {
  const auto out = static_cast<std::size_t>(dims[0]);
  const auto row = static_cast<std::size_t>(dims[1] * dims[2] * dims[3]);
  dims[1] *= kBf16Products;
  Constant split;
  split.layouts_.emplace_back(row_major(dims, dnnl::memory::data_type::bf16), engine);
  auto* const y = split.data<std::uint16_t>();
  for (std::size_t n = 0; n < out; ++n) {
    for (std::size_t i = 0; i < row; ++i) {
      const auto factors = weight_factors(bf16_pair(weight[n * row + i]));
      for (std::size_t p = 0; p < factors.size(); ++p) {
        y[(n * factors.size() + p) * row + i] = factors[p];
      }
    }
  }
  return split;
}

const dnnl::memory& Constant::in(const dnnl::memory::desc& layout, dnnl::stream& stream) {
  const auto at = std::find_if(layouts_.begin(), layouts_.end(),
                               [&](const dnnl::memory& memory) { return memory.get_desc() == layout; });
  if (at != layouts_.end()) {
    first_used_ = first_used_ || at == layouts_.begin();
    return *at;
  }
  dnnl::memory memory(layout, stream.get_engine());
  dnnl::reorder(layouts_.front(), memory).execute(stream, layouts_.front(), memory);
  stream.wait();
  if (!first_used_) {  // the file's layout was only the source
    layouts_.front() = std::move(memory);
    first_used_ = true;
    return layouts_.front();
  }
  return layouts_.emplace_back(std::move(memory));
}

}  // namespace trit::runtime
