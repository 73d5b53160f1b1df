// SPDX-License-Identifier: MIT
#include "runtime/onednn_weights.h"

#include <algorithm>
#include <cstdint>

#include "runtime/bf16_pairs.h"

namespace trit::runtime {

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
