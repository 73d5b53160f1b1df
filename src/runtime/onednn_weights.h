// SPDX-License-Identifier: MIT
//
// The float layers' weights as oneDNN's primitives read them.
#pragma once

#include <memory>
#include <oneapi/dnnl/dnnl.hpp>
#include <optional>
#include <span>
#include <vector>

#include "runtime/winograd/winograd.h"

namespace trit::runtime {

/// Row-major, for any rank.
dnnl::memory::desc row_major(const dnnl::memory::dims& dims,
                             dnnl::memory::data_type type = dnnl::memory::data_type::f32);
/// Left to the primitive.
dnnl::memory::desc any_layout(const dnnl::memory::dims& dims,
                              dnnl::memory::data_type type = dnnl::memory::data_type::f32);

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

struct Layer {
  dnnl::memory::dims dims;  // of the weight
  Constant weight, bias;
  bool has_bias = false;
  std::unique_ptr<const WinogradConvolution> winograd;  // in the place of both, where it is faster

  // Of a convolution where bf16 pairs are allowed. The file's values are kept for the outputs that pairs
  // cannot give; `factors` is there once the layer runs in pairs, and then takes the place of `weight`.
  std::vector<float> weight_values, bias_values;
  std::optional<Constant> factors;
};

}  // namespace trit::runtime
