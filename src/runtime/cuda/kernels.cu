// SPDX-License-Identifier: MIT
#include "runtime/cuda/kernels.h"

#include <algorithm>
#include <cmath>

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

// A block of threads for part blockIdx.y of rows: a block of the rotation, or kLookUpPart columns.
constexpr std::int64_t kLookUpPart = 1024;

__global__ __launch_bounds__(kThreads) void look_up_kernel(const LookUp a, const int part, const int group,
                                                           const float block_scale) {
  auto* const z = reinterpret_cast<float*>(cuda::dynamic_shared());  // [part], with a rotation
  const auto thread = static_cast<int>(threadIdx.x);
  const auto features = static_cast<int>(a.features);
  const int first = static_cast<int>(blockIdx.y) * part;
  const int width = features - first < part ? features - first : part;
  for (std::int64_t at = blockIdx.x; at < a.count; at += gridDim.x) {
    const auto row = static_cast<std::int64_t>(a.indexes[at]);
    const std::uint8_t* const codes = a.codes + row * ceil_div(features, 4);
    const float* const scale = a.scale + row * a.scale_step;
    float* const y = a.y + at * features + first;
    for (int i = thread; i < width; i += kThreads) {
      const int k = first + i;
      const unsigned code = codes[k / 4] >> (2 * (k % 4));
      const int t = static_cast<int>(code << 30) >> 30;  // 2-bit two's complement
      const float value = static_cast<float>(t) * scale[k / group];
      (a.block == 0 ? y : z)[i] = value;
    }
    if (a.block == 0) {
      continue;
    }
    for (int h = 1; h < part; h *= 2) {
      __syncthreads();
      for (int pair = thread; pair < part / 2; pair += kThreads) {
        const int j = (pair & ~(h - 1)) * 2 + (pair & (h - 1));
        const float below = z[j];
        const float above = z[j + h];
        z[j] = below + above;
        z[j + h] = below - above;
      }
    }
    __syncthreads();
    for (int i = thread; i < part; i += kThreads) {
      const float value = z[i] * block_scale;
      y[i] = a.signs != nullptr && a.signs[first + i] < 0 ? -value : value;
    }
    __syncthreads();
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

void look_up(const LookUp& args, cuda::Stream stream) {
  const std::int64_t part = args.block == 0 ? kLookUpPart : args.block;
  const std::int64_t group = args.group == 0 ? args.features : std::min(args.group, args.features);
  const float block_scale = args.block == 0 ? 1.0F : 1.0F / std::sqrt(static_cast<float>(args.block));
  launch<look_up_kernel>(
      "look_up",
      {.grid = {static_cast<unsigned>(std::min(args.count, kMaxBlocks)),
                static_cast<unsigned>(ceil_div(args.features, part))},
       .block = {kThreads},
       .shared_bytes =
           args.block == 0 ? 0U : static_cast<unsigned>(args.block * std::int64_t{sizeof(float)})},
      stream, args, static_cast<int>(part), static_cast<int>(group), block_scale);
}

void pool(const Pool& args, cuda::Stream stream) {
  launch<pool_kernel>("pool", shape_of(args.images * args.channels * args.out_height * args.out_width),
                      stream, args);
}

}  // namespace trit::runtime::gpu
