// SPDX-License-Identifier: MIT
//
// Group scales in the order that the products read, and the sum over a row's groups.
//
//   scales    [64 output rows][group][64]: of each strip of 16 rows g, g + 8 are neighbours, g = 0 .. 7, since
//             a lane of mma holds sums of both
//
//   acc = fma((float)isum, w, acc), group after group; w is beta, or beta times the token's scale of the group
#pragma once

#include "cuda/common/fragments.cuh"
#include "cuda/common/groups.h"
#include "cuda/common/ptx.cuh"

namespace trit::cuda {

/// Where row 0 .. 63 of a block is among the block's scales of a group.
template <typename Integer>
__host__ __device__ constexpr Integer scale_place(Integer row) {
  return row / kStripRows * kStripRows + row % 8 * 2 + row / 8 % 2;
}
/// The inverse.
__host__ __device__ constexpr int row_of_scale_place(int place) {
  return place / kStripRows * kStripRows + place % kStripRows / 2 + place % 2 * 8;
}
template <bool kHalf>
__device__ __forceinline__ float scale_at(const void* scales, unsigned i) {
  if constexpr (kHalf) {
    return ptx::from_float16(static_cast<const std::uint16_t*>(scales)[i]);
  } else {
    return static_cast<const float*>(scales)[i];
  }
}

/// A warp copies the scales of the 16 kStrips rows that are number `rows` of such, of the groups that begin in its
/// `segments` segments from `first` on, to shared memory, without waiting for them: group g to `to` + (g - base)
/// times the bytes of these rows. `started`: also of the group in which the first segment lies, wherever it begins.
template <int kStrips>
__device__ __forceinline__ void copy_scales(const Groups& groups, unsigned rows, unsigned first,
                                            unsigned segments, bool started, unsigned base, std::uint8_t* to,
                                            unsigned lane) {
  static_assert(kStrips == 2 || kStrips == 4);
  constexpr unsigned kShares = 4 / kStrips;                      // of 64 rows
  const unsigned shift = kStrips / 2 + (groups.half ? 1U : 2U);  // of the rows' 16-byte units of a group
  const auto per_group = static_cast<unsigned>(groups.per_group);
  unsigned begin = first;
  unsigned end = min(first + segments, static_cast<unsigned>(groups.segments));
  if (per_group > 1) {
    begin = (started ? begin : begin + per_group - 1) / per_group;
    end = (end + per_group - 1) / per_group;
  }
  const std::uint8_t* const from =
      static_cast<const std::uint8_t*>(groups.scale) +
      ((std::uint64_t{rows / kShares} * static_cast<unsigned>(groups.count) * kShares + rows % kShares)
       << shift) *
          16;
  to -= (base << shift) * 16;
#pragma unroll 1
  for (unsigned i = (begin << shift) + lane; i < end << shift; i += 32) {
    const unsigned group = i >> shift;
    ptx::cp_async_16(to + i * 16, from + std::uint64_t{i + (group << shift) * (kShares - 1)} * 16);
  }
}

/// The sums of kValues tokens and one output row over the groups, from sums of segments that lie in shared
/// memory.
template <int kValues>
struct GroupSum {
  float acc[kValues] = {};
  std::int32_t isum[kValues] = {};  // of the group that is not complete

  /// Adds up `count` segments, of which `place` is the number of the first one within its group. `last`: of
  /// these segments, the one that ends the row; it completes a group. `segment(i, sums)` gives the sums of
  /// segment i, `scale(g)` the weight scale of the g-th group from the first segment's on, `token_scale(g, value)`
  /// a token's. Where a segment is a group, kBatch of them are loaded at a time.
  template <bool kTokenGroups, int kBatch, typename Segment, typename Scale, typename TokenScale>
  __device__ __forceinline__ void add(unsigned count, unsigned place, unsigned per_group, unsigned last,
                                      const Segment& segment, const Scale& scale,
                                      const TokenScale& token_scale) {
    const auto weight = [&](unsigned g, float(&w)[kValues]) {
      const float beta = scale(g);
#pragma unroll
      for (int v = 0; v < kValues; ++v) {
        w[v] = kTokenGroups ? __fmul_rn(beta, token_scale(g, v)) : beta;
      }
    };
    const auto complete = [&](unsigned g, const std::int32_t(&sums)[kValues]) {
      float w[kValues];
      weight(g, w);
#pragma unroll
      for (int v = 0; v < kValues; ++v) {
        acc[v] = __fmaf_rn(__int2float_rn(sums[v]), w[v], acc[v]);
      }
    };
    if (per_group == 1) {
      unsigned first = 0;
#pragma unroll 1
      for (; first + kBatch <= count; first += kBatch) {
        std::int32_t sums[kBatch][kValues];
        float w[kBatch][kValues];
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {  // all loads in flight
          segment(first + i, sums[i]);
          weight(first + i, w[i]);
        }
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
#pragma unroll
          for (int v = 0; v < kValues; ++v) {
            acc[v] = __fmaf_rn(__int2float_rn(sums[i][v]), w[i][v], acc[v]);
          }
        }
      }
#pragma unroll 4
      for (; first < count; ++first) {
        std::int32_t sums[kValues];
        segment(first, sums);
        complete(first, sums);
      }
      return;
    }
    unsigned g = 0;
#pragma unroll 1
    for (unsigned i = 0; i < count; ++i) {
      std::int32_t sums[kValues];
      segment(i, sums);
#pragma unroll
      for (int v = 0; v < kValues; ++v) {
        isum[v] += sums[v];
      }
      if (++place == per_group || i == last) {
        complete(g, isum);
#pragma unroll
        for (int v = 0; v < kValues; ++v) {
          isum[v] = 0;
        }
        place = 0;
        ++g;
      }
    }
  }

  /// The same with weight scales that lie in shared memory, that of the g-th group at `scales`[at + g * step].
  /// Batches of kTokenBatch where tokens have group scales, of kBatch else.
  template <int kTokenBatch, int kBatch, typename Segment, typename TokenScale>
  __device__ __forceinline__ void add(const Groups& groups, unsigned count, unsigned place, unsigned last,
                                      const Segment& segment, const void* scales, unsigned at, unsigned step,
                                      const TokenScale& token_scale) {
    const auto per_group = static_cast<unsigned>(groups.per_group);
    const auto half = [&](unsigned g) { return scale_at<true>(scales, at + g * step); };
    const auto single = [&](unsigned g) { return scale_at<false>(scales, at + g * step); };
    if (groups.token_groups) {
      const auto any = [&](unsigned g) { return groups.half ? half(g) : single(g); };
      add<true, kTokenBatch>(count, place, per_group, last, segment, any, token_scale);
    } else if (groups.half) {
      add<false, kBatch>(count, place, per_group, last, segment, half, token_scale);
    } else {
      add<false, kBatch>(count, place, per_group, last, segment, single, token_scale);
    }
  }
};

}  // namespace trit::cuda
