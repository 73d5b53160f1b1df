// SPDX-License-Identifier: MIT
//
// oneDNN's primitives as steps of a program, and the weights that they read.
#pragma once

#include <cstdint>
#include <oneapi/dnnl/dnnl.hpp>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "runtime/program.h"

namespace trit::runtime {

/// Row-major, for any rank.
dnnl::memory::desc row_major(const dnnl::memory::dims& dims,
                             dnnl::memory::data_type type = dnnl::memory::data_type::f32);
/// Left to the primitive.
dnnl::memory::desc any_layout(const dnnl::memory::dims& dims,
                              dnnl::memory::data_type type = dnnl::memory::data_type::f32);
/// How oneDNN describes a value.
dnnl::memory::desc layout_of(const Value& value);
/// Value::inner of floats in this layout; nothing for a layout that no value has.
std::optional<std::int64_t> inner_of(const dnnl::memory::desc& layout);

/// A tensor that never changes, in each layout that a primitive has asked for.
class Constant {
 public:
  Constant() = default;
  Constant(const dnnl::engine& engine, const dnnl::memory::dims& dims, std::span<const float> values);

  /// The weight of a convolution, [out, in, height, width], as factors of the three products of bf16 pairs:
  /// [out, 3 * in, height, width].
  static Constant factors_of(const dnnl::engine& engine, dnnl::memory::dims dims,
                             std::span<const float> weight);

  const dnnl::memory& in(const dnnl::memory::desc& layout, dnnl::stream& stream);

 private:
  template <typename T>
  T* data() const {
    return static_cast<T*>(layouts_.front().get_data_handle());
  }

  std::vector<dnnl::memory> layouts_;
  bool first_used_ = false;  // a primitive holds layouts_[0]
};

/// A buffer as a primitive's argument.
struct Argument {
  int name;  // DNNL_ARG_*
  dnnl::memory::desc layout;
  std::size_t buffer;
};

/// Adds a primitive to a program; `constants` never change. A scratchpad is added where it is not empty.
void add_primitive(ProgramBuilder& builder, const dnnl::engine& engine, const dnnl::primitive& primitive,
                   std::vector<Argument> arguments, std::vector<std::pair<int, dnnl::memory>> constants,
                   const dnnl::memory::desc& scratchpad);
/// Adds a copy of a buffer into another layout.
void add_reorder(ProgramBuilder& builder, const dnnl::engine& engine, const Argument& from,
                 const Argument& to);
/// So that threads do not share one scratchpad.
dnnl::primitive_attr own_scratchpad();

/// Runs `function`, and turns oneDNN's exceptions into trit::Error.
[[noreturn]] void rethrow_onednn_error(const dnnl::error& error);
template <typename Function>
auto with_onednn_errors(const Function& function) {
  try {
    return function();
  } catch (const dnnl::error& error) {
    rethrow_onednn_error(error);
  }
}

}  // namespace trit::runtime
