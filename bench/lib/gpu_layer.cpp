// SPDX-License-Identifier: MIT
#include "bench/lib/gpu_layer.h"

#include <algorithm>
#include <vector>

namespace trit::bench {
namespace {

namespace gpu = runtime::gpu;

constexpr std::size_t kMaxCopies = 256;

template <typename Value>
gpu::DeviceMemory upload(const Value* values, std::size_t count, const char* what) {
  gpu::DeviceMemory memory = gpu::allocate_device(count * sizeof(Value), what);
  gpu::check(cudaMemcpy(memory.get(), values, count * sizeof(Value), cudaMemcpyHostToDevice), what);
  return memory;
}

}  // namespace

GpuLayer::GpuLayer(LinearShape shape, std::int64_t max_tokens, std::uint64_t seed, Parallel& parallel,
                   std::size_t cache_bytes, cuda::Stream stream, std::int64_t group)
    : layer_(make_linear_case(shape, max_tokens, seed, parallel, group)),
      weight_bytes_(cuda::weight_bytes(shape.out_features, shape.in_features)),
      copy_bytes_(weight_bytes_ + (group == 0 ? 0
                                              : cuda::group_scale_bytes(shape.out_features, shape.in_features,
                                                                        group, DataType::float16))),
      copies_(static_cast<int>(std::clamp<std::size_t>(3 * cache_bytes / weight_bytes_ + 1, 1, kMaxCopies))),
      from_memory_(weight_bytes_ * static_cast<std::size_t>(copies_) > 2 * cache_bytes) {
  const auto n = static_cast<std::size_t>(shape.out_features);
  const auto k = static_cast<std::size_t>(shape.in_features);
  const auto m = static_cast<std::size_t>(max_tokens);
  const auto pitch = static_cast<std::size_t>(cuda::quantized_row_bytes(shape.in_features));
  const auto host_pitch = static_cast<std::size_t>(padded_in_features(shape.in_features));
  const gpu::DeviceMemory codes = upload(layer_.weight.codes.data(), layer_.weight.codes.size(), "codes");
  beta_ = upload(layer_.weight.scale.data(), layer_.weight.scale.size(), "a scale");
  const gpu::DeviceMemory beta = upload(layer_.grouped.scale.data(), layer_.grouped.scale.size(), "scales");
  weights_ = gpu::allocate_device(copy_bytes_ * static_cast<std::size_t>(copies_), "weights");
  for (int i = 0; i < copies_; ++i) {
    auto* const copy = const_cast<std::uint8_t*>(weights(i));
    cuda::prepare_weights(reinterpret_cast<const std::uint8_t*>(codes.get()), shape.out_features,
                          shape.in_features, copy, stream);
    if (group != 0) {
      cuda::prepare_group_scales(reinterpret_cast<const float*>(beta.get()), shape.out_features,
                                 shape.in_features, group, DataType::float16, copy + weight_bytes_, stream);
    }
  }
  x_ = upload(layer_.x.data(), m * k, "x");
  norm_ = upload(layer_.norm_weight.data(), k, "a norm");
  scale_ = upload(layer_.scale.data(), m, "scales");
  q_ = gpu::allocate_device(m * pitch, "q");
  gpu::check(cudaMemset(q_.get(), 0, m * pitch), "q");
  gpu::check(
      cudaMemcpy2D(q_.get(), pitch, layer_.q.data(), host_pitch, host_pitch, m, cudaMemcpyHostToDevice), "q");
  layer_q_ = gpu::allocate_device(m * pitch, "q");
  layer_scale_ = gpu::allocate_device(m * sizeof(float), "scales");
  y_ = gpu::allocate_device(m * n * sizeof(float), "y");
  gpu::check(cudaDeviceSynchronize(), "preparing a layer");
}

cuda::Product GpuLayer::product(std::int64_t tokens, int i, bool grouped) const {
  return {.weights = weights(i),
          .out_features = shape().out_features,
          .in_features = shape().in_features,
          .q = reinterpret_cast<const std::int8_t*>(q_.get()),
          .token_scale = reinterpret_cast<const float*>(scale_.get()),
          .tokens = tokens,
          .weight_scale = reinterpret_cast<const float*>(beta_.get()),
          .granularity = grouped ? ScaleGranularity::group : ScaleGranularity::tensor,
          .y = y_.get(),
          .group = grouped ? layer_.grouped.group : 0,
          .group_scale = grouped ? weights(i) + weight_bytes_ : nullptr,
          .group_scale_type = DataType::float16};
}

cuda::Product GpuLayer::product_behind_norm(std::int64_t tokens, int i, bool grouped) const {
  cuda::Product product = this->product(tokens, i, grouped);
  product.q = reinterpret_cast<const std::int8_t*>(layer_q_.get());
  product.token_scale = reinterpret_cast<const float*>(layer_scale_.get());
  return product;
}

cuda::NormQuant GpuLayer::quantize(std::int64_t tokens) const {
  return {.x = x_.get(),
          .tokens = tokens,
          .in_features = shape().in_features,
          .x_stride = shape().in_features,
          .norm = Norm::rms,
          .norm_weight = reinterpret_cast<const float*>(norm_.get()),
          .q = reinterpret_cast<std::int8_t*>(layer_q_.get()),
          .scale = reinterpret_cast<float*>(layer_scale_.get())};
}

void GpuLayer::poison(std::int64_t tokens) const {
  // NaN.
  gpu::check(
      cudaMemset(y_.get(), 0xff, static_cast<std::size_t>(tokens * shape().out_features) * sizeof(float)),
      "y");
}

void GpuLayer::check(std::int64_t tokens, std::string_view who, bool grouped) const {
  std::vector<float> found(static_cast<std::size_t>(tokens * shape().out_features));
  gpu::check(cudaDeviceSynchronize(), "a product");
  gpu::check(cudaMemcpy(found.data(), y_.get(), found.size() * sizeof(float), cudaMemcpyDeviceToHost), "y");
  check_outputs(layer_, tokens, found, who, grouped);
}

std::size_t second_level_cache_bytes() {
  int device = 0;
  int bytes = 0;
  gpu::check(cudaGetDevice(&device), "the current GPU");
  gpu::check(cudaDeviceGetAttribute(&bytes, cudaDevAttrL2CacheSize, device), "the size of the GPU's cache");
  return static_cast<std::size_t>(bytes);
}

}  // namespace trit::bench
