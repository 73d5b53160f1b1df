// SPDX-License-Identifier: MIT
//
// The backward of RMSNorm, both gradients in one pass over grad and x (16-bit types). With r of a row:
//
//   dx[k] = r g[k] u[k] - x[k] * (r^3 / K) * sum_j g[j] u[j] x[j]
//   dg[k] = sum over rows of u[k] x[k] r
//
// Rows of up to 4096 inputs: norm_backward_lanes.cuh. Longer ones, whose sums and inputs would take too many
// registers there: a block takes the rows of one part in order, and loads the next row while it computes. Thread t
// holds inputs 8 t .. 8 t + 7 of each of four steps of 8 * threads inputs, of u, x and of dg's sums, in registers.
//
//   shared   products g u x [K], fp32: thread j < 256 adds up those of k = j mod 256 in the order of k, as
//            lane_sum requires, so that dx has the CPU's bits
//            accumulators [2][256]
#include <algorithm>
#include <string>

#include "cuda/backward/norm_backward.h"
#include "cuda/backward/norm_backward_lanes.cuh"
#include "cuda/common/checks.h"

namespace trit::cuda {
namespace {

constexpr int kEight = 8;  // 16-bit inputs of 16 bytes
constexpr int kMaxThreads = 512;
constexpr int kSteps = 4;
constexpr std::int64_t kMaxFeatures = kEight * kMaxThreads * kSteps;
constexpr std::int64_t kMaxParts = 264;  // two blocks for each of an H200's 132 multiprocessors

template <bool kWeighted>
__device__ __forceinline__ void weigh_eight(float (&values)[kEight], const float* weight, int k) {
  if constexpr (kWeighted) {
    const auto* const four = reinterpret_cast<const float4*>(weight + k);
    const float4 low = four[0];
    const float4 high = four[1];
    const float g[kEight] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int i = 0; i < kEight; ++i) {
      values[i] = __fmul_rn(values[i], g[i]);
    }
  }
}

/// kWhole: the threads' steps end where a row does, and no access needs a branch.
template <DataType kType, bool kWeighted, bool kWhole>
__global__ __launch_bounds__(kMaxThreads) void norm_backward_columns_kernel(const NormBackward a) {
  const int features = static_cast<int>(a.in_features);
  auto* const products = reinterpret_cast<float*>(dynamic_shared());
  auto* const accumulators = products + features;
  const int thread = static_cast<int>(threadIdx.x);
  const int step = kEight * static_cast<int>(blockDim.x);
  const std::int64_t part = blockIdx.x;
  const std::int64_t begin = part * a.tokens / gridDim.x;
  const std::int64_t end = (part + 1) * a.tokens / gridDim.x;
  float sums[kSteps][kEight] = {};
  uint4 next_u[kSteps] = {};
  uint4 next_x[kSteps] = {};
  const auto fetch = [&](std::int64_t row) {
    const auto* const u_row = static_cast<const std::uint16_t*>(a.grad) + row * features;
    const auto* const x_row = static_cast<const std::uint16_t*>(a.x) + row * features;
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const int k = step * i + kEight * thread;
      if (kWhole || k < features) {
        next_u[i] = *reinterpret_cast<const uint4*>(u_row + k);
        next_x[i] = *reinterpret_cast<const uint4*>(x_row + k);
      }
    }
  };
  float next_rstd = 0;
  if (begin < end) {
    fetch(begin);
    next_rstd = a.rstd[begin];
  }
  for (std::int64_t row = begin; row < end; ++row) {
    uint4 u[kSteps];
    uint4 x[kSteps];
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      u[i] = next_u[i];
      x[i] = next_x[i];
    }
    const float rstd = next_rstd;
    const float cube = __fmul_rn(__fmul_rn(rstd, rstd), rstd);
    const float share = __fdiv_rn(cube, static_cast<float>(features));
    if (row + 1 < end) {
      fetch(row + 1);
      next_rstd = a.rstd[row + 1];
    }
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const int k = step * i + kEight * thread;
      if (kWhole || k < features) {
        float grad[kEight];
        float value[kEight];
        from_vector<kType>(u[i], grad);
        from_vector<kType>(x[i], value);
#pragma unroll
        for (int j = 0; j < kEight; ++j) {
          sums[i][j] = __fmaf_rn(grad[j], __fmul_rn(value[j], rstd), sums[i][j]);
        }
        weigh_eight<kWeighted>(grad, a.norm_weight, k);
        auto* const to = reinterpret_cast<float4*>(products + k);
        to[0] = {__fmul_rn(grad[0], value[0]), __fmul_rn(grad[1], value[1]), __fmul_rn(grad[2], value[2]),
                 __fmul_rn(grad[3], value[3])};
        to[1] = {__fmul_rn(grad[4], value[4]), __fmul_rn(grad[5], value[5]), __fmul_rn(grad[6], value[6]),
                 __fmul_rn(grad[7], value[7])};
      }
    }
    __syncthreads();
    // Two buffers: a thread may be one row ahead of another.
    float* const buffer = accumulators + (row - begin) % 2 * kLanes;
    for (int lane = thread; lane < kLanes; lane += static_cast<int>(blockDim.x)) {
      float acc = 0;
#pragma unroll 8
      for (int k = lane; k < features; k += kLanes) {
        acc = __fadd_rn(acc, products[k]);
      }
      buffer[lane] = acc;
    }
    __syncthreads();
    const float along = __fmul_rn(share, tree_sum(buffer, thread % 32));
    if (a.grad_x != nullptr) {
      auto* const to = static_cast<std::uint16_t*>(a.grad_x) + row * features;
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        const int k = step * i + kEight * thread;
        if (kWhole || k < features) {
          float grad[kEight];
          float value[kEight];
          for (std::uint32_t* const word :
               {&u[i].x, &u[i].y, &u[i].z, &u[i].w, &x[i].x, &x[i].y, &x[i].z, &x[i].w}) {
            ptx::opaque(*word);  // else the floats of the first pass stay in registers
          }
          from_vector<kType>(u[i], grad);
          from_vector<kType>(x[i], value);
          weigh_eight<kWeighted>(grad, a.norm_weight, k);
#pragma unroll
          for (int j = 0; j < kEight; ++j) {
            grad[j] = __fsub_rn(__fmul_rn(rstd, grad[j]), __fmul_rn(along, value[j]));
          }
          *reinterpret_cast<uint4*>(to + k) = to_vector<kType>(grad);
        }
      }
    }
  }
  if (a.grad_norm_weight != nullptr) {
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const int k = step * i + kEight * thread;
      if (kWhole || k < features) {
        auto* const out = reinterpret_cast<float4*>(a.grad_norm_weight + part * features + k);
        out[0] = {sums[i][0], sums[i][1], sums[i][2], sums[i][3]};
        out[1] = {sums[i][4], sums[i][5], sums[i][6], sums[i][7]};
      }
    }
  }
}

template <DataType kType, bool kWeighted>
void run_columns(const NormBackward& args, Stream stream) {
  const auto threads = static_cast<unsigned>(
      round_up<std::int64_t>(ceil_div<std::int64_t>(args.in_features, kEight * kSteps), 32));
  const LaunchShape shape{
      .grid = {static_cast<unsigned>(args.parts)},
      .block = {threads},
      .shared_bytes = static_cast<unsigned>((args.in_features + 2 * kLanes) * std::int64_t{sizeof(float)})};
  if (args.in_features == std::int64_t{kEight * kSteps} * threads) {
    launch<norm_backward_columns_kernel<kType, kWeighted, true>>("norm_backward_columns", shape, stream,
                                                                 args);
  } else {
    launch<norm_backward_columns_kernel<kType, kWeighted, false>>("norm_backward_columns", shape, stream,
                                                                  args);
  }
}

template <DataType kType, bool kWeighted>
void run(const NormBackward& args, Stream stream) {
  // Two blocks of a multiprocessor, and shared memory for each that every GPU from compute capability 8.0 on has.
  if (args.in_features <= 10 * kLanes) {
    return launch_norm_backward_lanes<kType, kWeighted, 10, 3, 2, 2>(args, /*in_turn=*/false, stream);
  }
  if (args.in_features <= 16 * kLanes) {
    return launch_norm_backward_lanes<kType, kWeighted, 16, 2, 2, 2>(args, /*in_turn=*/false, stream);
  }
  run_columns<kType, kWeighted>(args, stream);
}

/// Calls call.operator()<type, weighted>().
template <typename Call>
void for_arguments(const NormBackward& args, const Call& call) {
  const bool weighted = args.norm_weight != nullptr;
  if (args.type == DataType::bfloat16) {
    weighted ? call.template operator()<DataType::bfloat16, true>()
             : call.template operator()<DataType::bfloat16, false>();
  } else {
    weighted ? call.template operator()<DataType::float16, true>()
             : call.template operator()<DataType::float16, false>();
  }
}

}  // namespace

std::int64_t norm_backward_parts(std::int64_t tokens) {
  return std::clamp<std::int64_t>(tokens / 4, 1, kMaxParts);
}

bool norm_backward_fits(const NormBackward& args) {
  return args.type != DataType::float32 && args.in_features % kEight == 0 && args.in_features >= kEight &&
         args.in_features <= kMaxFeatures && args.tokens >= 0 && args.parts >= 1 && args.parts <= INT32_MAX &&
         is_aligned(args.grad, 16) && is_aligned(args.x, 16) && is_aligned(args.norm_weight, 16) &&
         is_aligned(args.grad_x, 16) && is_aligned(args.grad_norm_weight, 16);
}

void norm_backward(const NormBackward& args, Stream stream) {
  if (!norm_backward_fits(args)) {
    throw Error("cuda::norm_backward: " + std::to_string(args.tokens) + " rows of " +
                std::to_string(args.in_features) + " " + std::string(name_of(args.type)) + " in " +
                std::to_string(args.parts) + " parts, wanted bfloat16 or float16 rows of 8 .. " +
                std::to_string(kMaxFeatures) +
                " inputs, a multiple of 8, aligned to 16 bytes, and 1 part or more");
  }
  for_arguments(args, [&]<DataType kType, bool kWeighted>() { run<kType, kWeighted>(args, stream); });
}

void norm_backward_in_columns(const NormBackward& args, Stream stream) {
  for_arguments(args, [&]<DataType kType, bool kWeighted>() { run_columns<kType, kWeighted>(args, stream); });
}

}  // namespace trit::cuda
