// SPDX-License-Identifier: MIT
//
// norm_quant with group scales or a rotation of 512 or 1024 inputs, of few 16-bit rows of a multiple of 1024 inputs: the
// time of one row counts. A block takes a row; a thread holds 16 inputs, so that the code is short: a kernel that starts
// waits for its instructions as it does for its inputs.
//
//   thread t      inputs                                                stages
//   first         K / 4 j + 4 t + i, i, j < 4: all loads at once        h = 1, 2; 4 and 8 between lanes
//   then          256 (t / 16) + t % 16 + 16 i, i < 16                  h = 16 .. 128
//   last          1024 (t / 64) + 256 j + 4 (t % 64) + i                h = 256, 512
//
// Neighbouring threads load neighbouring inputs: with 16 neighbours a thread each load would touch 16 cache lines.
//
//   shared   x as it is; x g, then the stages' results, fp32 (few_place); accumulators [256]; mean square and r;
//            maxima, of 128 inputs with a rotation and of 32 without
#pragma once

#include "cuda/rows/norm_quant_held.cuh"

namespace trit::cuda {

inline constexpr int kFewHeld = 16;
inline constexpr int kMostFewThreads = 1024;

/// Where float k of a row lies: no bank conflicts for 4 floats of neighbouring threads, nor for single ones of
/// neighbouring threads in two blocks of 256.
__device__ __forceinline__ int few_place(int k) { return k + k / 256 * 16; }

/// Stage h between lanes `distance` apart: the lower one's sum and the upper one's difference, each one rounding.
template <int kSize>
__device__ __forceinline__ void rotate_lanes(float (&v)[kSize], int distance, int lane) {
  const float sign = (lane & distance) != 0 ? -1.0F : 1.0F;
#pragma unroll
  for (int i = 0; i < kSize; ++i) {
    v[i] = __fmaf_rn(v[i], sign, __shfl_xor_sync(0xffffffffU, v[i], distance));
  }
}

template <DataType kType, bool kNorm, bool kRotated>
__global__ __launch_bounds__(kMostFewThreads) void norm_quant_few_kernel(const GroupArguments args) {
  const NormQuantArguments& a = args.row;
  constexpr int kPiece = kRotated ? 128 : 32;  // inputs of a maximum
  const int inputs = a.in_features;
  const int pieces = inputs / kPiece;
  const int threads = static_cast<int>(blockDim.x);
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  auto* const cache = reinterpret_cast<std::uint16_t*>(dynamic_shared());
  auto* const z = reinterpret_cast<float*>(cache + inputs);
  auto* const accumulators = z + (kRotated ? inputs + inputs / 16 : 0);
  auto* const shared_norm = reinterpret_cast<RowNorm*>(accumulators + kLanes);
  auto* const maxima = reinterpret_cast<unsigned*>(shared_norm + 2);
  const std::int64_t row = blockIdx.x;
  ptx::wait_for_predecessor();
  ptx::let_successor_start();

  const auto* const x =
      reinterpret_cast<const uint2*>(static_cast<const std::uint16_t*>(a.x) + row * a.x_stride);
  const auto* const norm_weight = kNorm ? reinterpret_cast<const float4*>(a.norm_weight) : nullptr;
  const auto* const signs = kRotated ? reinterpret_cast<const std::uint32_t*>(args.signs) : nullptr;
  uint2 raw[4];
  float4 g[4];
  std::uint32_t negative[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    raw[j] = x[threads * j + thread];
    g[j] = norm_weight != nullptr ? norm_weight[threads * j + thread] : float4{1, 1, 1, 1};
    negative[j] = signs != nullptr ? signs[threads * j + thread] : 0U;
  }
  float v[kFewHeld];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    reinterpret_cast<uint2*>(cache)[threads * j + thread] = raw[j];
    const float2 low = from_word<kType>(raw[j].x);
    const float2 high = from_word<kType>(raw[j].y);
    const float products[4] = {__fmul_rn(low.x, g[j].x), __fmul_rn(low.y, g[j].y), __fmul_rn(high.x, g[j].z),
                               __fmul_rn(high.y, g[j].w)};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      v[4 * j + i] = with_sign(products[i], negative[j], i);
    }
  }
  if constexpr (kRotated) {
    rotate_registers<1, 2>(v);
    rotate_lanes(v, 1, lane);
    rotate_lanes(v, 2, lane);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      *reinterpret_cast<float4*>(z + few_place(4 * (threads * j + thread))) = {v[4 * j], v[4 * j + 1],
                                                                               v[4 * j + 2], v[4 * j + 3]};
    }
  }
  __syncthreads();
  if constexpr (kNorm) {
#pragma unroll 1
    for (int j = thread; j < kLanes; j += threads) {
      float acc = 0;
#pragma unroll 16
      for (int k = j; k < inputs; k += kLanes) {
        const float value = from_bits<kType>(cache[k]);
        acc = __fmaf_rn(value, value, acc);
      }
      accumulators[j] = acc;
    }
  }
  if constexpr (kRotated) {
    float* const own = z + few_place(thread / 16 * 256) + thread % 16;
#pragma unroll
    for (int i = 0; i < kFewHeld; ++i) {
      v[i] = own[16 * i];
    }
    rotate_registers<1, 8>(v);
#pragma unroll
    for (int i = 0; i < kFewHeld; ++i) {
      own[16 * i] = v[i];
    }
  }
  __syncthreads();
  if (thread < 32) {
    *shared_norm = row_norm<kNorm>(a, kNorm ? tree_sum(accumulators, lane) : 0.0F);
  }
  // Of a warp's maxima lane `at` makes the scale; four inputs of a thread share a maximum.
  const int first = kRotated ? thread / 64 * 1024 + thread % 64 * 4 : 4 * thread;
  const int step = kRotated ? 256 : inputs / 4;
  int my_piece = 0;
  if constexpr (kRotated) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float4 four = *reinterpret_cast<const float4*>(z + few_place(first + step * j));
      v[4 * j] = four.x;
      v[4 * j + 1] = four.y;
      v[4 * j + 2] = four.z;
      v[4 * j + 3] = four.w;
    }
    rotate_registers<4, 4>(v);
    if (args.block == 1024) {
      rotate_registers<8, 8>(v);
    }
    my_piece = first / 128 + 2 * (lane % 4);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const unsigned largest = __reduce_max_sync(0xffffffffU, __float_as_uint(largest_of_four(v + 4 * j)));
      if (lane == j) {
        maxima[my_piece] = largest;
      }
    }
  } else {
    my_piece = inputs / 128 * (lane / 4 % 4) + thread / 32 * 4 + lane % 4;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      float largest = largest_of_four(v + 4 * j);
#pragma unroll
      for (int distance = 1; distance < 8; distance *= 2) {
        largest = ptx::max_magnitude(largest, __shfl_xor_sync(0xffffffffU, largest, distance));
      }
      if (lane % 8 == 0) {
        maxima[(first + step * j) / 32] = __float_as_uint(largest);
      }
    }
  }
  __syncthreads();
  const RowNorm norm = *shared_norm;
  if (thread == 0 && a.rstd != nullptr) {
    a.rstd[row] = norm.rstd;
  }
  const int of_group = args.group / kPiece;
  const int my_group = of_group == 0 ? 0 : my_piece / of_group;
  unsigned bits = largest_of(maxima, my_group, of_group, pieces, lane);
  if constexpr (kRotated) {
    bits = scaled_largest(bits, args.block_scale);
  }
  const TokenScale scale = token_scale<kNorm>(norm, __uint_as_float(bits));
  if (of_group == 0 ? thread == 0 : lane < (kRotated ? 4 : 16) && my_piece % of_group == 0) {
    a.scale[row * args.groups + my_group] = scale.scale;
  }
  std::int8_t* const q = a.q + row * a.row_bytes + first;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const int from = kRotated ? j : 4 * j + lane / 8;
    const float factor = __shfl_sync(0xffffffffU, scale.factor, from);
    const bool good = __shfl_sync(0xffffffffU, static_cast<int>(scale.good), from) != 0;
    const auto code = [&](int i) {
      const float value = kRotated ? __fmul_rn(v[4 * j + i], args.block_scale) : v[4 * j + i];
      return __fmul_rn(value, factor);
    };
    *reinterpret_cast<std::uint32_t*>(q + step * j) =
        good ? rounded_word(code(0), code(1), code(2), code(3)) : 0U;
  }
}

constexpr std::int64_t few_shared_bytes(std::int64_t inputs, bool rotated) {
  return inputs * 2 + (rotated ? (inputs + inputs / 16) * 4 : 0) + kLanes * 4 +
         2 * static_cast<std::int64_t>(sizeof(RowNorm)) + inputs / (rotated ? 128 : 32) * 4;
}

}  // namespace trit::cuda
