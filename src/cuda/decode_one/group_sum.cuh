// SPDX-License-Identifier: MIT
//
// decode_one with group scales: the sums of segments (common/groups.h) that the warps leave in shared memory, and the
// lane that adds up a row over all of its groups at the end.
//
// The eight columns of mma are four pairs, and one token needs one pair (multiply.cuh). So the inputs of segment s go
// to pair s % 4, the other columns are zeros, and a warp's accumulators hold four segments until they leave the
// registers, all lanes at once: lane (g, j) = (lane / 4, lane % 4) has rows g and g + 8 of segment j.
//
//   shared memory    sums [segment / 4][32 rows][4]    as floats where a segment is a group, otherwise int32
#pragma once

#include <type_traits>

#include "cuda/common/group_scales.cuh"
#include "cuda/decode_one/multiply.cuh"

namespace trit::cuda::one {

/// Where a lane's row of ldmatrix is for segments of either half of a tile, in tiles whose number modulo
/// 4 / kSegments is `turn`; kNever where its columns are never inputs.
template <int kSegments>
struct SegmentLanes {
  static constexpr unsigned kTurns = 4 / kSegments;
  static constexpr unsigned kNever = 8;
  std::uint32_t zeros;
  unsigned turn[2];

  __device__ __forceinline__ SegmentLanes(unsigned lane, std::uint32_t zero_bytes)
      : zeros(zero_bytes + (lane / 8 + 1) % 4 * 16) {
    const unsigned pair = lane % 8 / 2;
#pragma unroll
    for (unsigned half = 0; half < 2; ++half) {
      const unsigned segment = kSegments == 4 ? 2 * half + lane / 16 : (kSegments == 2 ? half : 0U);
      const bool real = (lane ^ lane / 8) % 2 == 0 && pair % kSegments == segment;
      turn[half] = real ? pair / kSegments : kNever;
    }
  }
  /// For address(): where the inputs lie that are this lane's in the first kTurns tiles of x.
  __device__ __forceinline__ std::uint32_t first(std::uint32_t x, unsigned lane) const {
    return x + lane / 8 * 16 + (kSegments == 4 ? 0U : lane % 8 / 2 / kSegments * kTileInputs);
  }
  /// In one of kTurns tiles; `x` is first()'s, or that many tiles further.
  __device__ __forceinline__ std::uint32_t address(unsigned tile, unsigned half, std::uint32_t x) const {
    return tile % kTurns == turn[kSegments == 1 ? 0 : half] ? x : zeros;
  }
};

/// acc = fma(isum, w, acc) over `count` groups, in their order. `load(first, batch)` gives kGroupBatch groups from
/// `first` on, of which those beyond the row are ignored; a batch has isum[i] and w(i).
///
/// A chain of fma, 4 clocks each; everything else hides behind it: a batch is loaded while another one is added up, and
/// what w(i) does with it comes when it has arrived.
template <typename Batch, typename Load>
__device__ __forceinline__ float sum_of_groups(unsigned count, const Load& load) {
  float acc = 0.0F;
  unsigned first = 0;
  const auto add = [&](const Batch& batch) {
#pragma unroll
    for (unsigned i = 0; i < kGroupBatch; ++i) {
      acc = __fmaf_rn(batch.isum[i], batch.w(i), acc);
    }
    first += kGroupBatch;
  };
  const auto add_last = [&](const Batch& batch) {
#pragma unroll
    for (unsigned i = 0; i < kGroupBatch; ++i) {
      const float next = __fmaf_rn(batch.isum[i], batch.w(i), acc);
      acc = first + i < count ? next : acc;
    }
    return acc;
  };
  Batch even;
  Batch odd;
  load(0U, even);
#pragma unroll 1
  while (true) {  // even and odd: no batch moves from register to register
    if (first + kGroupBatch >= count) {
      return add_last(even);
    }
    load(first + kGroupBatch, odd);
    add(even);
    if (first + kGroupBatch >= count) {
      return add_last(odd);
    }
    load(first + kGroupBatch, even);
    add(odd);
  }
}

/// Where a row's sum of a segment is among the 32 rows', in words.
__host__ __device__ constexpr unsigned sum_word(unsigned segment, unsigned row) {
  return segment / 4 * kSumWords + row * 4 + segment % 4;
}
/// A row's values of eight groups, from shared memory that holds [group / 4][32 rows][4]; `row`: the row's of group 0.
__device__ __forceinline__ void load_row(const float* row, unsigned first, float (&values)[kGroupBatch]) {
#pragma unroll
  for (unsigned i = 0; i < kGroupBatch / 4; ++i) {
    const float4 four = *reinterpret_cast<const float4*>(row + (first / 4 + i) * kSumWords);
    values[4 * i] = four.x;
    values[4 * i + 1] = four.y;
    values[4 * i + 2] = four.z;
    values[4 * i + 3] = four.w;
  }
}

/// How the scales of 32 rows lie in ring_groups.cu's shared memory: [group][32 places], or arranged as
/// [group / 8][32 rows][8].
enum class Scales : std::uint8_t { float32, float16, arranged };

/// Eight groups as they lie in shared memory; `scales`: the row's of group 0.
template <Scales kScales, bool kTokens>
struct ScaleBatch {
  static constexpr bool kArranged = kScales == Scales::arranged;
  using Scale = std::conditional_t<kScales == Scales::float32, float, std::uint16_t>;
  float isum[kGroupBatch];
  uint4 eight;
  Scale beta[kGroupBatch];
  float token_scale[kGroupBatch];

  __device__ __forceinline__ void load(const std::uint8_t* scales, unsigned first, const float* of_token) {
    if constexpr (kArranged) {
      eight = *reinterpret_cast<const uint4*>(scales + first * (kRingWarpRows * 2));
    }
#pragma unroll
    for (unsigned i = 0; i < kGroupBatch; ++i) {
      if constexpr (!kArranged) {
        beta[i] = reinterpret_cast<const Scale*>(scales)[(first + i) * kRingWarpRows];
      }
      if constexpr (kTokens) {
        token_scale[i] = of_token[first + i];
      }
    }
  }
  __device__ __forceinline__ float w(unsigned i) const {
    float scale;
    if constexpr (kArranged) {
      scale = ptx::from_float16(
          static_cast<std::uint16_t>(word_of(eight, static_cast<int>(i / 2)) >> (i % 2 * 16)));
    } else if constexpr (kScales == Scales::float16) {
      scale = ptx::from_float16(beta[i]);
    } else {
      scale = beta[i];
    }
    return kTokens ? __fmul_rn(scale, token_scale[i]) : scale;
  }
};

}  // namespace trit::cuda::one
