// SPDX-License-Identifier: MIT
//
// norm_quant with a rotation, with a scale for each group, or both. Rows of 16 bits that a block holds in
// registers: norm_quant_groups_held.cu. All others: a block of 256 threads per row.
//
//   x  ->  256 accumulators of lane_sum, thread j is accumulator j; x g, signed, to shared memory as fp32
//   rotation, in place: stages h = 1 .. 16 in the registers of a thread, then 32 .. 512, then 1024 and 2048
//   a warp per group, or the block: largest magnitude, scale, q
//
// Element k lies at k + k / 32, so that a thread's 32 neighbours and a warp's 32 neighbours are both in
// different banks.
#include "cuda/rows/norm_quant_groups.h"

#include <cmath>
#include <string>

#include "cuda/common/checks.h"
#include "cuda/common/launch.cuh"
#include "cuda/rows/rotation.cuh"
#include "trit/rotation.h"

namespace trit::cuda {
namespace {

constexpr int kHeaderBytes = kLanes * 4 + 64;  // accumulators, then the warps' maxima

__device__ __forceinline__ int padded(int k) { return k + k / 32; }

/// Stages h = 2^kBit .. 2^(kBit + kBits - 1) of all blocks.
template <int kBit, int kBits>
__device__ __forceinline__ void rotate_stages(float* z, int count, int thread) {
  constexpr int kSize = 1 << kBits;
#pragma unroll 1
  for (int item = thread; item < count >> kBits; item += kLanes) {
    const int first = (item >> kBit << (kBit + kBits)) | (item & ((1 << kBit) - 1));
    float v[kSize];
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      v[i] = z[padded(first + (i << kBit))];
    }
    rotate_registers<1, kSize / 2>(v);
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      z[padded(first + (i << kBit))] = v[i];
    }
  }
  __syncthreads();
}

template <DataType kType, bool kNorm>
__global__ __launch_bounds__(kLanes, 2) void norm_quant_groups_kernel(const GroupArguments args) {
  const NormQuantArguments& a = args.row;
  auto* accumulators = reinterpret_cast<float*>(dynamic_shared());    // [256]
  auto* maxima = reinterpret_cast<unsigned*>(accumulators + kLanes);  // [8]
  auto* z = reinterpret_cast<float*>(dynamic_shared() + kHeaderBytes);
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int warp = thread / 32;
  const std::int64_t row = blockIdx.x;
  const FloatBits<kType>* x = static_cast<const FloatBits<kType>*>(a.x) + row * a.x_stride;
  const float* g = kNorm ? a.norm_weight : nullptr;
  ptx::wait_for_predecessor();
  ptx::let_successor_start();
  const auto weighted = [&](int k, float v) { return g != nullptr ? __fmul_rn(v, g[k]) : v; };
  float acc = 0;
#pragma unroll 4
  for (int k = thread; k < a.in_features; k += kLanes) {
    float v = from_bits<kType>(x[k]);
    if constexpr (kNorm) {
      acc = __fmaf_rn(v, v, acc);
      v = weighted(k, v);
    }
    if (a.cached) {
      z[padded(k)] = args.signs != nullptr && args.signs[k] < 0 ? -v : v;
    }
  }
  accumulators[thread] = acc;
  __syncthreads();
  const float sum = kNorm ? tree_sum(accumulators, lane) : 0.0F;
  const RowNorm norm = row_norm<kNorm>(a, sum);
  if (thread == 0 && a.rstd != nullptr) {
    a.rstd[row] = norm.rstd;
  }
  if (args.block > 0) {
    rotate_stages<0, 5>(z, a.in_features, thread);
    if (args.block == 512) {
      rotate_stages<5, 4>(z, a.in_features, thread);
    } else {
      rotate_stages<5, 5>(z, a.in_features, thread);
    }
    if (args.block == 2048) {
      rotate_stages<10, 1>(z, a.in_features, thread);
    } else if (args.block == 4096) {
      rotate_stages<10, 2>(z, a.in_features, thread);
    }
  }
  const float block_scale = args.block_scale;
  const auto value = [&](int k) {
    if (k >= a.in_features) {
      return 0.0F;
    }
    if (!a.cached) {
      return weighted(k, from_bits<kType>(x[k]));
    }
    return args.block > 0 ? __fmul_rn(z[padded(k)], block_scale) : z[padded(k)];
  };
  // The largest magnitude's bits of inputs first .. last - 1, by threads `at` of `threads`.
  const auto largest_of = [&](int first, int last, int at, int threads) {
    unsigned largest = 0;
#pragma unroll 4
    for (int k = first + at; k < last; k += threads) {
      largest = max(largest, __float_as_uint(value(k)) & 0x7fffffffU);
    }
    return __reduce_max_sync(0xffffffffU, largest);
  };
  const auto quantize = [&](int first, int last, int at, int threads, const TokenScale& scale) {
#pragma unroll 2
    for (int k = first + 4 * at; k < last; k += 4 * threads) {
      std::uint32_t bytes = 0;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        bytes |= rounded_byte(__fmul_rn(value(k + i), scale.factor)) << (8 * i);
      }
      *reinterpret_cast<std::uint32_t*>(a.q + row * a.row_bytes + k) = scale.good ? bytes : 0U;
    }
  };
  if (args.group == 0) {
    unsigned largest = largest_of(0, a.in_features, thread, kLanes);
    if (lane == 0) {
      maxima[warp] = largest;
    }
    __syncthreads();
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      largest = max(largest, maxima[w]);
    }
    const TokenScale scale = token_scale<kNorm>(norm, __uint_as_float(largest));
    if (thread == 0) {
      a.scale[row] = scale.scale;
    }
    quantize(0, a.row_bytes, thread, kLanes, scale);
    return;
  }
#pragma unroll 1
  for (int group = warp; group < args.groups; group += kWarps) {
    const int first = group * args.group;
    const int last = min(first + args.group, a.in_features);
    const TokenScale scale = token_scale<kNorm>(norm, __uint_as_float(largest_of(first, last, lane, 32)));
    if (lane == 0) {
      a.scale[row * args.groups + group] = scale.scale;
    }
    // The last group ends with the bytes that pad a row.
    quantize(first, group + 1 == args.groups ? a.row_bytes : last, lane, 32, scale);
  }
}

}  // namespace

void norm_quant_groups(const Device& device, const NormQuant& args, NormQuantArguments row, Stream stream) {
  const bool rotated = args.rotation_block > 0;
  const std::int64_t cached_bytes = kHeaderBytes + (args.in_features + args.in_features / 32 + 1) * 4;
  row.cached = cached_bytes <= device.shared_bytes;
  if (rotated) {
    const std::int64_t block = args.rotation_block;
    if ((block != 512 && block != 1024 && block != 2048 && block != 4096) || args.in_features % block != 0) {
      throw Error("cuda::norm_quant: rotation of blocks of " + std::to_string(block) + " inputs for " +
                  std::to_string(args.in_features) + " inputs, wanted 512, 1024, 2048 or 4096, a divisor");
    }
    if (!row.cached) {
      throw Error("cuda::norm_quant: a rotation of " + std::to_string(args.in_features) +
                  " inputs, wanted at most " +
                  std::to_string((device.shared_bytes - kHeaderBytes) / 132 * 32) + " on this GPU");
    }
  } else if (args.rotation_signs != nullptr) {
    throw Error("cuda::norm_quant: signs of a rotation without its block");
  }
  const auto group =
      static_cast<int>(std::min<std::int64_t>(args.group, round_up<std::int64_t>(args.in_features, 32)));
  const GroupArguments arguments{
      .row = row,
      .group = group,
      .groups = static_cast<int>(groups_of(args.in_features, group)),
      .block = static_cast<int>(args.rotation_block),
      .block_scale = rotated ? 1.0F / std::sqrt(static_cast<float>(args.rotation_block)) : 1.0F,
      .signs = args.rotation_signs};
  if (norm_quant_groups_held(device, args, arguments, stream)) {
    return;
  }
  const LaunchShape shape{.grid = {static_cast<unsigned>(args.tokens)},
                          .block = {kLanes},
                          .shared_bytes = static_cast<unsigned>(row.cached ? cached_bytes : kHeaderBytes),
                          .programmatic = args.programmatic};
  for_type(args.x_type, [&]<DataType kType>() {
    if (args.norm == Norm::rms) {
      launch<norm_quant_groups_kernel<kType, true>>("norm_quant_groups", shape, stream, arguments);
    } else {
      launch<norm_quant_groups_kernel<kType, false>>("norm_quant_groups", shape, stream, arguments);
    }
  });
}

}  // namespace trit::cuda
