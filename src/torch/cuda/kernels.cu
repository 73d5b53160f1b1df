// SPDX-License-Identifier: MIT
#include "torch/cuda/kernels.h"

#include "cuda/common/float_bits.cuh"
#include "cuda/common/lane_sum.cuh"
#include "cuda/common/launch.cuh"

namespace trit::torch_layer::cuda {
namespace {

using trit::cuda::ceil_div;
using trit::cuda::dynamic_shared;
using trit::cuda::FloatBits;
using trit::cuda::for_type;
using trit::cuda::from_bits;
using trit::cuda::launch;
using trit::cuda::NormBackward;
using trit::cuda::to_bits;
using trit::cuda::tree_sum;

constexpr int kThreads = kLanes;

template <DataType kType>
__device__ __forceinline__ float load(const void* from, std::int64_t i) {
  return from_bits<kType>(static_cast<const FloatBits<kType>*>(from)[i]);
}

template <DataType kType>
__device__ __forceinline__ void store(void* to, std::int64_t i, float value) {
  static_cast<FloatBits<kType>*>(to)[i] = to_bits<kType>(value);
}

struct Dequantize {
  const std::uint8_t* codes;
  std::int64_t out_features;
  std::int64_t in_features;
  const float* scale;  // or null
  bool per_row;
  std::int64_t group;
  std::int64_t first_column;
  std::int64_t columns;
  void* w;
};

// A thread unpacks the four weights of one byte of codes.
template <DataType kType>
__global__ __launch_bounds__(kThreads) void dequantize_kernel(const Dequantize a) {
  const std::int64_t row_bytes = ceil_div<std::int64_t>(a.in_features, 4);
  const std::int64_t bytes = ceil_div<std::int64_t>(a.columns, 4);
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= a.out_features * bytes) {
    return;
  }
  const std::int64_t row = i / bytes;
  const std::int64_t column = 4 * (i - row * bytes);
  const unsigned codes = a.codes[row * row_bytes + (a.first_column + column) / 4];
  const std::int64_t of_row = a.group == 0 ? (a.per_row ? row : 0)
                                           : row * ceil_div<std::int64_t>(a.in_features, a.group) +
                                                 (a.first_column + column) / a.group;
  const float scale = a.scale == nullptr ? 1.0F : a.scale[of_row];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if (column + j < a.columns) {
      // 2-bit two's complement, sign-extended.
      const int t = static_cast<int>(codes << (30 - 2 * j)) >> 30;
      store<kType>(a.w, row * a.columns + column + j, __fmul_rn(static_cast<float>(t), scale));
    }
  }
}

// The block's lane_sum of the accumulators that its threads hold; shared memory [256] floats.
__device__ __forceinline__ float block_sum(float acc) {
  auto* accumulators = reinterpret_cast<float*>(dynamic_shared());
  accumulators[threadIdx.x] = acc;
  __syncthreads();
  return tree_sum(accumulators, static_cast<int>(threadIdx.x) % 32);
}

// One block per row: thread j is accumulator j.
template <DataType kType>
__global__ __launch_bounds__(kThreads) void rms_norm_kernel(const RmsNorm a) {
  const std::int64_t start = std::int64_t{blockIdx.x} * a.features;
  float acc = 0;
  for (std::int64_t k = threadIdx.x; k < a.features; k += kThreads) {
    const float x = load<kType>(a.x, start + k);
    acc = __fadd_rn(acc, __fmul_rn(x, x));
  }
  const float mean = __fdiv_rn(block_sum(acc), static_cast<float>(a.features));
  const float rstd = __fdiv_rn(1.0F, __fsqrt_rn(__fadd_rn(mean, a.eps)));
  for (std::int64_t k = threadIdx.x; k < a.features; k += kThreads) {
    const float normed = __fmul_rn(load<kType>(a.x, start + k), rstd);
    store<kType>(a.y, start + k, a.weight == nullptr ? normed : __fmul_rn(normed, a.weight[k]));
  }
  if (threadIdx.x == 0) {
    a.rstd[blockIdx.x] = rstd;
  }
}

// One block per row.
template <DataType kType>
__global__ __launch_bounds__(kThreads) void grad_x_kernel(const NormBackward a) {
  const std::int64_t start = std::int64_t{blockIdx.x} * a.in_features;
  const auto weighted = [&](std::int64_t k) {
    const float u = load<kType>(a.grad, start + k);
    return a.norm_weight == nullptr ? u : __fmul_rn(u, a.norm_weight[k]);
  };
  float acc = 0;
  for (std::int64_t k = threadIdx.x; k < a.in_features; k += kThreads) {
    acc = __fadd_rn(acc, __fmul_rn(weighted(k), load<kType>(a.x, start + k)));
  }
  const float rstd = a.rstd[blockIdx.x];
  const float cube = __fmul_rn(__fmul_rn(rstd, rstd), rstd);
  const float along = __fmul_rn(__fdiv_rn(cube, static_cast<float>(a.in_features)), block_sum(acc));
  for (std::int64_t k = threadIdx.x; k < a.in_features; k += kThreads) {
    const float x = load<kType>(a.x, start + k);
    store<kType>(a.grad_x, start + k, __fsub_rn(__fmul_rn(rstd, weighted(k)), __fmul_rn(along, x)));
  }
}

// A thread adds one column over the rows of one part.
template <DataType kType>
__global__ __launch_bounds__(kThreads) void grad_weight_kernel(const NormBackward a) {
  const std::int64_t k = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (k >= a.in_features) {
    return;
  }
  const std::int64_t part = blockIdx.y;
  float sum = 0;
  for (std::int64_t row = part * a.tokens / a.parts; row < (part + 1) * a.tokens / a.parts; ++row) {
    const std::int64_t i = row * a.in_features + k;
    sum = __fadd_rn(sum, __fmul_rn(load<kType>(a.grad, i), __fmul_rn(load<kType>(a.x, i), a.rstd[row])));
  }
  a.grad_norm_weight[part * a.in_features + k] = sum;
}

constexpr unsigned kSumBytes = kLanes * sizeof(float);

unsigned blocks(std::int64_t count, const char* what) {
  if (count > 2'147'483'647) {
    throw Error(std::string("cuda::") + what + ": " + std::to_string(count) +
                " blocks, wanted at most 2147483647");
  }
  return static_cast<unsigned>(count);
}

}  // namespace

void dequantize(const TernaryView& weight, std::int64_t first_column, std::int64_t columns, DataType w_type,
                void* w, Stream stream) {
  const std::int64_t threads = weight.out_features * ceil_div<std::int64_t>(columns, 4);
  if (threads == 0) {
    return;
  }
  const Dequantize args{.codes = weight.codes.data(),
                        .out_features = weight.out_features,
                        .in_features = weight.in_features,
                        .scale = weight.scale.data(),
                        .per_row = weight.granularity() == ScaleGranularity::row,
                        .group = weight.group,
                        .first_column = first_column,
                        .columns = columns,
                        .w = w};
  for_type(w_type, [&]<DataType kType>() {
    launch<dequantize_kernel<kType>>(
        "dequantize",
        {.grid = {blocks(ceil_div<std::int64_t>(threads, kThreads), "dequantize")}, .block = {kThreads}},
        stream, args);
  });
}

void rms_norm(const RmsNorm& args, Stream stream) {
  if (args.rows == 0) {
    return;
  }
  for_type(args.type, [&]<DataType kType>() {
    launch<rms_norm_kernel<kType>>(
        "rms_norm", {.grid = {blocks(args.rows, "rms_norm")}, .block = {kThreads}, .shared_bytes = kSumBytes},
        stream, args);
  });
}

void rms_norm_backward(const NormBackward& args, Stream stream) {
  for_type(args.type, [&]<DataType kType>() {
    if (args.grad_x != nullptr && args.tokens > 0) {
      launch<grad_x_kernel<kType>>("rms_norm_grad_x",
                                   {.grid = {blocks(args.tokens, "rms_norm_backward")},
                                    .block = {kThreads},
                                    .shared_bytes = kSumBytes},
                                   stream, args);
    }
    if (args.grad_norm_weight != nullptr) {
      launch<grad_weight_kernel<kType>>(
          "rms_norm_grad_weight",
          {.grid = {blocks(ceil_div<std::int64_t>(args.in_features, kThreads), "rms_norm_backward"),
                    static_cast<unsigned>(args.parts)},
           .block = {kThreads}},
          stream, args);
    }
  });
}

}  // namespace trit::torch_layer::cuda
