// SPDX-License-Identifier: MIT
//
// The backward of RMSNorm, both gradients in one pass over grad and x (16-bit types). With r of a row:
//
//   dx[k] = r g[k] u[k] - x[k] * (r^3 / K) * sum_j g[j] u[j] x[j]
//   dg[k] = sum over rows of u[k] x[k] r
//
// A block takes the rows of one part in groups, in order, and loads the next group while it computes. Thread t
// holds inputs 8 t .. 8 t + 7 of every step of 8 * threads inputs, of u, x and dg's sums, in registers: four
// vectors of 16 bytes of u and of x, which are four rows of one step, two rows of two steps or one of four.
// Threads meet twice a group, for sums over a row:
//
//   shared   products g u x [rows][K], fp32: thread j < 256 adds up those of k = j mod 256 in the order of k, as
//            lane_sum requires, so that dx has the CPU's bits
//            accumulators [rows][256]
#include "cuda/backward/norm_backward.h"

#include <algorithm>
#include <string>

#include "cuda/common/checks.h"
#include "cuda/common/float_bits.cuh"
#include "cuda/common/lane_sum.cuh"
#include "cuda/common/launch.cuh"
#include "trit/cuda_backward.h"

namespace trit::cuda {
namespace {

constexpr int kEight = 8;  // 16-bit inputs of 16 bytes
constexpr int kMaxThreads = 512;
constexpr int kVectors = 4;  // of u, and of x, that a thread works on
constexpr std::int64_t kMaxFeatures = kEight * kMaxThreads * kVectors;
constexpr std::int64_t kMaxParts = 264;  // two blocks for each of an H200's 132 multiprocessors

__device__ __forceinline__ void load_eight(float (&g)[kEight], const float* from) {
  const float4 low = reinterpret_cast<const float4*>(from)[0];
  const float4 high = reinterpret_cast<const float4*>(from)[1];
  const float values[kEight] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
  for (int i = 0; i < kEight; ++i) {
    g[i] = values[i];
  }
}

template <DataType kType, bool kWeighted, int kSteps>
__global__ __launch_bounds__(kMaxThreads) void norm_backward_kernel(const NormBackward a) {
  constexpr int kRows = kVectors / kSteps;
  const int features = static_cast<int>(a.in_features);
  auto* const products = reinterpret_cast<float*>(dynamic_shared());
  auto* const accumulators = products + kRows * features;
  const int thread = static_cast<int>(threadIdx.x);
  const int step = kEight * static_cast<int>(blockDim.x);
  const std::int64_t part = blockIdx.x;
  const std::int64_t begin = part * a.tokens / gridDim.x;
  const std::int64_t end = (part + 1) * a.tokens / gridDim.x;
  float sums[kSteps][kEight] = {};
  uint4 next_u[kRows][kSteps] = {};
  uint4 next_x[kRows][kSteps] = {};
  float next_rstd[kRows] = {};
  const auto fetch = [&](std::int64_t first) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const std::int64_t row = first + r;
      if (row < end) {
        const auto* const u_row = static_cast<const std::uint16_t*>(a.grad) + row * features;
        const auto* const x_row = static_cast<const std::uint16_t*>(a.x) + row * features;
        next_rstd[r] = a.rstd[row];
#pragma unroll
        for (int i = 0; i < kSteps; ++i) {
          const int k = step * i + kEight * thread;
          if (k < features) {
            next_u[r][i] = *reinterpret_cast<const uint4*>(u_row + k);
            next_x[r][i] = *reinterpret_cast<const uint4*>(x_row + k);
          }
        }
      }
    }
  };
  fetch(begin);
  for (std::int64_t first = begin; first < end; first += kRows) {
    uint4 u[kRows][kSteps];
    uint4 x[kRows][kSteps];
    float rstd[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      rstd[r] = next_rstd[r];
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        u[r][i] = next_u[r][i];
        x[r][i] = next_x[r][i];
      }
    }
    fetch(first + kRows);
    const int rows = static_cast<int>(min(end - first, std::int64_t{kRows}));
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const int k = step * i + kEight * thread;
      if (k < features) {
        float g[kEight];
        if constexpr (kWeighted) {
          load_eight(g, a.norm_weight + k);
        }
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          if (r < rows) {
            float grad[kEight];
            float value[kEight];
            from_vector<kType>(u[r][i], grad);
            from_vector<kType>(x[r][i], value);
#pragma unroll
            for (int j = 0; j < kEight; ++j) {
              sums[i][j] = __fadd_rn(sums[i][j], __fmul_rn(grad[j], __fmul_rn(value[j], rstd[r])));
              if constexpr (kWeighted) {
                grad[j] = __fmul_rn(grad[j], g[j]);
              }
              grad[j] = __fmul_rn(grad[j], value[j]);
            }
            auto* const to = reinterpret_cast<float4*>(products + r * features + k);
            to[0] = {grad[0], grad[1], grad[2], grad[3]};
            to[1] = {grad[4], grad[5], grad[6], grad[7]};
          }
        }
      }
    }
    __syncthreads();
    for (int i = thread; i < rows * kLanes; i += static_cast<int>(blockDim.x)) {
      const float* const of_row = products + i / kLanes * features;
      float acc = 0;
#pragma unroll 8
      for (int k = i % kLanes; k < features; k += kLanes) {
        acc = __fadd_rn(acc, of_row[k]);
      }
      accumulators[i] = acc;
    }
    __syncthreads();
    float along[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r < rows) {
        const float cube = __fmul_rn(__fmul_rn(rstd[r], rstd[r]), rstd[r]);
        along[r] = __fmul_rn(__fdiv_rn(cube, static_cast<float>(features)),
                             tree_sum(accumulators + r * kLanes, thread % 32));
      }
    }
    if (a.grad_x == nullptr) {
      continue;
    }
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const int k = step * i + kEight * thread;
      if (k < features) {
        float g[kEight];
        if constexpr (kWeighted) {
          load_eight(g, a.norm_weight + k);
        }
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          if (r < rows) {
            float grad[kEight];
            float value[kEight];
            from_vector<kType>(u[r][i], grad);
            from_vector<kType>(x[r][i], value);
#pragma unroll
            for (int j = 0; j < kEight; ++j) {
              if constexpr (kWeighted) {
                grad[j] = __fmul_rn(grad[j], g[j]);
              }
              grad[j] = __fsub_rn(__fmul_rn(rstd[r], grad[j]), __fmul_rn(along[r], value[j]));
            }
            auto* const to = static_cast<std::uint16_t*>(a.grad_x) + (first + r) * features;
            *reinterpret_cast<uint4*>(to + k) = to_vector<kType>(grad);
          }
        }
      }
    }
  }
  if (a.grad_norm_weight != nullptr) {
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const int k = step * i + kEight * thread;
      if (k < features) {
        auto* const out = reinterpret_cast<float4*>(a.grad_norm_weight + part * features + k);
        out[0] = {sums[i][0], sums[i][1], sums[i][2], sums[i][3]};
        out[1] = {sums[i][4], sums[i][5], sums[i][6], sums[i][7]};
      }
    }
  }
}

template <DataType kType, bool kWeighted, int kSteps>
void run(const NormBackward& args, Stream stream) {
  constexpr std::int64_t kRows = kVectors / kSteps;
  const std::int64_t threads =
      round_up<std::int64_t>(ceil_div<std::int64_t>(args.in_features / kEight, kSteps), 32);
  launch<norm_backward_kernel<kType, kWeighted, kSteps>>(
      "norm_backward",
      {.grid = {static_cast<unsigned>(args.parts)},
       .block = {static_cast<unsigned>(threads)},
       .shared_bytes =
           static_cast<unsigned>(kRows * (args.in_features + kLanes) * std::int64_t{sizeof(float)})},
      stream, args);
}

template <DataType kType, bool kWeighted>
void run_steps(const NormBackward& args, int steps, Stream stream) {
  steps == 1   ? run<kType, kWeighted, 1>(args, stream)
  : steps == 2 ? run<kType, kWeighted, 2>(args, stream)
               : run<kType, kWeighted, 4>(args, stream);
}

template <DataType kType>
void run_type(const NormBackward& args, int steps, Stream stream) {
  args.norm_weight != nullptr ? run_steps<kType, true>(args, steps, stream)
                              : run_steps<kType, false>(args, steps, stream);
}

// Blocks have up to 512 threads.
int min_steps(std::int64_t features) {
  const std::int64_t eights = features / kEight;
  return eights <= kMaxThreads ? 1 : eights <= 2 * kMaxThreads ? 2 : 4;
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

void norm_backward(const NormBackward& args, int steps, Stream stream) {
  if (!norm_backward_fits(args)) {
    throw Error("cuda::norm_backward: " + std::to_string(args.tokens) + " rows of " +
                std::to_string(args.in_features) + " " + std::string(name_of(args.type)) + " in " +
                std::to_string(args.parts) + " parts, wanted bfloat16 or float16 rows of 8 .. " +
                std::to_string(kMaxFeatures) +
                " inputs, a multiple of 8, aligned to 16 bytes, and 1 part or more");
  }
  const int taken = std::max(steps, min_steps(args.in_features));
  args.type == DataType::bfloat16 ? run_type<DataType::bfloat16>(args, taken, stream)
                                  : run_type<DataType::float16>(args, taken, stream);
}

void norm_backward(const NormBackward& args, Stream stream) {
  // The fewest steps are the most rows between two barriers.
  norm_backward(args, min_steps(args.in_features), stream);
}

}  // namespace trit::cuda
