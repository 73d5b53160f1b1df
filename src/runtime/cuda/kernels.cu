// SPDX-License-Identifier: MIT
#include "runtime/cuda/kernels.h"

#include <algorithm>

#include "cuda/common/launch.cuh"
#include "cuda/common/ptx.cuh"
#include "runtime/ops/gelu.h"

namespace trit::runtime::gpu {
namespace {

using cuda::ceil_div;
using cuda::launch;

constexpr int kThreads = 256;
constexpr std::int64_t kMaxBlocks = 65536;

__device__ __forceinline__ std::int64_t first_index() {
  return std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
}
__device__ __forceinline__ std::int64_t index_step() { return std::int64_t{gridDim.x} * kThreads; }
// NaN and -0.0 pass, as they do in LibTorch's ReLU on a CPU; fmaxf would drop NaN.
__device__ __forceinline__ float relu_of(float value) { return value < 0 ? 0.0F : value; }

__global__ __launch_bounds__(kThreads) void normalize_kernel(const Normalize a) {
  const std::int64_t count = a.images * a.channels * a.plane;
  for (std::int64_t i = first_index(); i < count; i += index_step()) {
    const int channel = static_cast<int>(i / a.plane % a.channels);
    a.x[i] = (static_cast<float>(a.pixels[i]) / 255.0F - a.mean[channel]) / a.std[channel];
  }
}

__global__ __launch_bounds__(kThreads) void bias_relu_kernel(const BiasRelu a) {
  for (std::int64_t i = first_index(); i < a.count; i += index_step()) {
    float value = a.x[i];
    if (a.bias != nullptr) {
      value += a.bias[i / a.plane % a.channels];
    }
    a.y[i] = a.relu ? relu_of(value) : value;
  }
}

__global__ __launch_bounds__(kThreads) void scale_shift_kernel(const ScaleShift a) {
  for (std::int64_t i = first_index(); i < a.count; i += index_step()) {
    const std::int64_t channel = i / a.plane % a.channels;
    a.y[i] = a.x[i] * a.scale[channel] + a.shift[channel];
  }
}

__global__ __launch_bounds__(kThreads) void gelu_kernel(const Gelu a) {
  for (std::int64_t i = first_index(); i < a.count; i += index_step()) {
    a.y[i] = a.tanh ? gelu_tanh(a.x[i]) : gelu_exact(a.x[i]);
  }
}

__global__ __launch_bounds__(kThreads) void add_kernel(const float* a, const float* b, float* y,
                                                       std::int64_t count) {
  for (std::int64_t i = first_index(); i < count; i += index_step()) {
    y[i] = a[i] + b[i];
  }
}

__global__ __launch_bounds__(kThreads) void pool_kernel(const Pool a) {
  const int out_plane = a.out_height * a.out_width;
  const std::int64_t count = a.images * a.channels * out_plane;
  for (std::int64_t i = first_index(); i < count; i += index_step()) {
    const std::int64_t plane = i / out_plane;
    const int place = static_cast<int>(i % out_plane);
    const float* const window = a.x + plane * a.height * a.width +
                                std::int64_t{place / a.out_width} * a.stride * a.width +
                                place % a.out_width * a.stride;
    const auto input = [&](int row, int column) {
      float value = window[std::int64_t{row} * a.width + column];
      if (a.bias != nullptr) {
        value += a.bias[plane % a.channels];
      }
      return a.relu ? relu_of(value) : value;
    };
    float result = a.maximum ? input(0, 0) : 0.0F;
    for (int row = 0; row < a.kernel; ++row) {
      for (int column = 0; column < a.kernel; ++column) {
        const float value = input(row, column);
        if (!a.maximum) {
          result += value;
        } else if (value > result || value != value) {  // a NaN stays: nothing is larger
          result = value;
        }
      }
    }
    a.y[i] = a.maximum ? result : result / static_cast<float>(a.kernel * a.kernel);
  }
}

cuda::LaunchShape shape_of(std::int64_t threads) {
  return {.grid = {static_cast<unsigned>(std::min(ceil_div<std::int64_t>(threads, kThreads), kMaxBlocks))},
          .block = {kThreads}};
}

}  // namespace

void normalize(const Normalize& args, cuda::Stream stream) {
  launch<normalize_kernel>("normalize", shape_of(args.images * args.channels * args.plane), stream, args);
}

void bias_relu(const BiasRelu& args, cuda::Stream stream) {
  launch<bias_relu_kernel>("bias_relu", shape_of(args.count), stream, args);
}

void scale_shift(const ScaleShift& args, cuda::Stream stream) {
  launch<scale_shift_kernel>("scale_shift", shape_of(args.count), stream, args);
}

void gelu(const Gelu& args, cuda::Stream stream) {
  launch<gelu_kernel>("gelu", shape_of(args.count), stream, args);
}

void add(const float* a, const float* b, float* y, std::int64_t count, cuda::Stream stream) {
  launch<add_kernel>("add", shape_of(count), stream, a, b, y, count);
}

void pool(const Pool& args, cuda::Stream stream) {
  launch<pool_kernel>("pool", shape_of(args.images * args.channels * args.out_height * args.out_width),
                      stream, args);
}

}  // namespace trit::runtime::gpu
