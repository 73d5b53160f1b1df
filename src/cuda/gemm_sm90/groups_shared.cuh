// SPDX-License-Identifier: MIT
//
// The main loop with group scales of a tile of 64 rows whose k two warpgroups share, for few rows that have to be
// spread over many multiprocessors: warpgroup 0 multiplies the even tiles of 128 inputs, warpgroup 1 the odd ones, so
// that one's wgmma have the tensor cores while the other one unpacks, waits or adds up.
//
//   warpgroup 0   wgmma of tile 0 | hand over 0 | wgmma of tile 2, acc += 0, 1 | hand over 2 | ...
//   warpgroup 1   wgmma of tile 1 | hand over 1 | wgmma of tile 3, acc += 0, 1 | hand over 3 | ...
//
// Each adds up one half of the tokens, in the order of k, so it needs the other one's sums for that half: they are handed
// over through shared memory, from a thread to the thread in the same place, since both have the same rows and tokens.
#pragma once

#include "cuda/gemm_sm90/group_sums.cuh"

namespace trit::cuda {

/// Shared memory in which two warpgroups that share k hand over sums.
///
///   [pair % 2][share][segment][value / 4][thread][4]   sums of the other one's half
///   [value / 4][thread][4]                             acc of share 1, at the end
template <class T>
struct HandOver {
  static constexpr int segments() {
    if constexpr (T::Operand::kGrouped) {
      return T::Operand::kSegments;
    }
    return 0;
  }
  static constexpr int kHalf = T::kAccumulators / 2;  // values of half of the tokens, or of the rows
  static constexpr int kPartBytes = kHalf * 128 * 4;
  static constexpr int kShareBytes = segments() * kPartBytes;
  static constexpr int kBytes = T::kShares == 2 ? 4 * kShareBytes + kPartBytes : 0;

  static_assert(T::kShares == 1 || kHalf % 4 == 0, "four values are handed over at once");

  __device__ __forceinline__ static void write(std::uint32_t part, std::int32_t thread,
                                               const std::int32_t* values) {
#pragma unroll
    for (int i = 0; i < kHalf; i += 4) {
      ptx::shared_store(part + (i / 4 * 128 + thread) * 16,
                        {values[i], values[i + 1], values[i + 2], values[i + 3]});
    }
  }
  __device__ __forceinline__ static void read(std::uint32_t part, std::int32_t thread,
                                              std::int32_t (&values)[kHalf]) {
#pragma unroll
    for (int i = 0; i < kHalf; i += 4) {
      const uint4 four = ptx::shared_load(part + (i / 4 * 128 + thread) * 16);
      values[i] = static_cast<std::int32_t>(four.x);
      values[i + 1] = static_cast<std::int32_t>(four.y);
      values[i + 2] = static_cast<std::int32_t>(four.z);
      values[i + 3] = static_cast<std::int32_t>(four.w);
    }
  }
};

/// The sum over all groups of a tile, as bits of float32, in `result` of the threads of share 0. Every segment is a group.
///
/// Each share has its code: a share that is known only as the kernel runs took twice the instructions.
template <class T, int kShare>
__device__ __forceinline__ void multiply_groups_of_share(
    const Ring& ring, RingPosition& position, const GemmSm90Parameters& p, std::int32_t thread,
    std::uint32_t hand_over, std::int32_t (&result)[T::kRowBlocks][T::kAccumulators]) {
  using Operand = typename T::Operand;
  constexpr int kSegments = Operand::kSegments;
  constexpr int kSegmentSteps = 4 / kSegments;  // of wgmma
  constexpr int kHalf = HandOver<T>::kHalf;
  constexpr int kKept = kShare * kHalf;  // the first value of its own half
  constexpr int kHanded = kHalf - kKept;
  static_assert(T::kStepTiles == 4 && T::kBlocks == 1 && !Operand::kGeneral);
  using Factors = typename GroupSums<T>::Factors;
  const std::int32_t slot_bytes = GroupRing<T>::slot_bytes(p.groups);
  const std::uint32_t scales_at = scales_of_thread<T>(ring, 0, thread, slot_bytes);
  const std::uint32_t weights =
      ring.data + T::kStepTokenBytes + kShare * T::kTileBytes + thread * Operand::kThreadBytes;
  // A warp waits for that of the other share with the same rows alone. 1 and 2 are the warpgroups' own.
  const std::uint32_t pair_barrier = 3 + static_cast<std::uint32_t>(thread / 32);
  const std::uint32_t written = hand_over + kShare * HandOver<T>::kShareBytes;
  const std::uint32_t read = hand_over + (1 - kShare) * HandOver<T>::kShareBytes;
  std::int32_t sums[kSegments][T::kAccumulators];
  float kept[kSegments][kHalf] = {};  // floats: ptxas would leave plain copies in wgmma's registers (C7511)
  float acc[kHalf] = {};
  Factors factors[2 * kSegments] = {};  // of the pair of tiles before, those of no segment 0
  std::uint32_t set[2][2][2][4];
  typename Operand::Words words;
  RingPosition ahead = position;  // of the words that are loaded next
  std::int32_t loaded = 0;        // tiles of the stages until there

  const auto load = [&](int pair) {
    if (pair == 0) {
      ptx::barrier_wait(ring.full + 8 * ahead.stage, ahead.parity);
    }
    Operand::load(weights + ahead.stage * T::kStageBytes + 2 * pair * T::kTileBytes, words);
    if (pair == 1) {
      // Beyond the last stage it is taken again: a branch here makes ptxas add a fence (C7519).
      loaded += T::kStepTiles;
      RingPosition next = ahead;
      next.advance(ring.stages);
      const bool is_last = loaded >= p.k_tiles;
      ahead.stage = is_last ? ahead.stage : next.stage;
      ahead.parity = is_last ? ahead.parity : next.parity;
    }
  };
  const auto unpack = [&](int pair) {
    Operand::unpack_half(words, 0, set[pair][0]);
    Operand::unpack_half(words, 1, set[pair][1]);
  };
  // The pair before: its own sums are kept, the others' are in shared memory.
  const auto add_pair = [&](int pair) {
    std::int32_t other[kSegments][kHalf];
    ptx::named_barrier(pair_barrier, 64);
#pragma unroll
    for (int segment = 0; segment < kSegments; ++segment) {
      HandOver<T>::read(read + (1 - pair) * 2 * HandOver<T>::kShareBytes + segment * HandOver<T>::kPartBytes,
                        thread, other[segment]);
    }
#pragma unroll
    for (int at = 0; at < 2 * kSegments; ++at) {
      const bool own = at / kSegments == kShare;
#pragma unroll
      for (int i = 0; i < kHalf; ++i) {
        const float sum = own ? kept[at % kSegments][i] : __int2float_rn(other[at % kSegments][i]);
        acc[i] = __fmaf_rn(sum, factors[at].of[i / 2 % 2], acc[i]);
      }
    }
  };
  load(0);
  unpack(0);
  load(1);
#pragma unroll 1
  for (std::int32_t first_tile = 0; first_tile < p.k_tiles; first_tile += T::kStepTiles) {
    const std::uint32_t empty = ring.empty + 8 * position.stage;
    const std::uint32_t stage_scales = scales_at + position.stage * GroupRing<T>::kStageBytes;
    const std::uint64_t box =
        box_descriptor(ring.data + position.stage * T::kStageBytes + kShare * T::kTokenBytes);
    position.advance(ring.stages);
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {
      pin_operand(set[pair][0]);
      pin_operand(set[pair][1]);
      ptx::wgmma_fence();
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        Operand::template Wgmma<T::kTokens>::multiply(sums[k / kSegmentSteps], set[pair][k / 2][k % 2],
                                                      step_descriptor(box, 2 * pair * T::kTokenBytes, k),
                                                      k % kSegmentSteps == 0 ? 0 : 1);
      }
      ptx::wgmma_commit();
      unpack(1 - pair);
      load(pair);  // of the next stage
      add_pair(pair);
#pragma unroll
      for (int at = 0; at < 2 * kSegments; ++at) {
        RowScales<T> scales;
        scales.load(stage_scales + (2 * pair * kSegments + at) * slot_bytes, slot_bytes);
        factors[at] = GroupSums<T>::factors(scales);
      }
      ptx::wgmma_wait<0>();
#pragma unroll
      for (int segment = 0; segment < kSegments; ++segment) {
        pin_sums(sums[segment]);
        HandOver<T>::write(written + pair * 2 * HandOver<T>::kShareBytes + segment * HandOver<T>::kPartBytes,
                           thread, sums[segment] + kHanded);
#pragma unroll
        for (int i = 0; i < kHalf; ++i) {
          kept[segment][i] = __int2float_rn(sums[segment][kKept + i]);
        }
      }
    }
    give_back(empty, thread);
  }
  add_pair(0);
  const std::uint32_t end = hand_over + 4 * HandOver<T>::kShareBytes;
  std::int32_t half[kHalf];
#pragma unroll
  for (int i = 0; i < kHalf; ++i) {
    half[i] = static_cast<std::int32_t>(__float_as_uint(__fmul_rn(acc[i], kWeightFactor)));
  }
  if (kShare == 1) {
    HandOver<T>::write(end, thread, half);
  }
  ptx::named_barrier(pair_barrier, 64);
  if (kShare == 0) {
    std::int32_t other[kHalf];
    HandOver<T>::read(end, thread, other);
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      result[0][i] = half[i];
      result[0][kHalf + i] = other[i];
    }
  }
}

template <class T>
__device__ __forceinline__ void multiply_groups_shared(
    const Ring& ring, RingPosition& position, const GemmSm90Parameters& p, std::int32_t share,
    std::int32_t thread, std::uint32_t hand_over, std::int32_t (&result)[T::kRowBlocks][T::kAccumulators]) {
  if (share == 0) {
    multiply_groups_of_share<T, 0>(ring, position, p, thread, hand_over, result);
  } else {
    multiply_groups_of_share<T, 1>(ring, position, p, thread, hand_over, result);
  }
}

}  // namespace trit::cuda
