// SPDX-License-Identifier: MIT
//
// The main loop with group scales of a tile of 64 rows whose k two or four warpgroups share, for few rows that have to be
// spread over many multiprocessors: a warpgroup multiplies every second or fourth tile of 128 inputs, so that one's wgmma
// have the tensor cores while the others unpack, wait or add up.
//
//   warpgroup 0   wgmma of tile 0 | hand over 0 | wgmma of tile 2, acc += 0, 1 | hand over 2 | ...
//   warpgroup 1   wgmma of tile 1 | hand over 1 | wgmma of tile 3, acc += 0, 1 | hand over 3 | ...
//
// Each adds up its part of the sums, in the order of k, so it needs the others' for that part: they are handed over through
// shared memory, from a thread to the thread in the same place, since all have the same rows and tokens.
#pragma once

#include "cuda/gemm_sm90/group_sums.cuh"

namespace trit::cuda {

/// Shared memory in which the warpgroups that share k hand over sums; a round is a tile of each.
///
///   [round % 2][share][segment][one of the others][value / kStep][thread][kStep]
///   [share - 1][value / kStep][thread][kStep]                                       acc at the end
template <class T>
struct HandOver {
  static constexpr int segments() {
    if constexpr (T::Operand::kGrouped) {
      return T::Operand::kSegments;
    }
    return 0;
  }
  static constexpr int kOthers = T::kShares - 1;
  static constexpr int kPart = T::kAccumulators / T::kShares;  // values of a thread that a share adds up
  static constexpr int kStep = kPart % 4 == 0 ? 4 : 2;         // that are handed over at once
  static constexpr int kPartBytes = kPart * 128 * 4;
  static constexpr int kShareBytes = segments() * kOthers * kPartBytes;
  static constexpr int kRoundBytes = T::kShares * kShareBytes;
  static constexpr int kEnd = 2 * kRoundBytes;
  static constexpr int kBytes = T::kShares > 1 ? kEnd + kOthers* kPartBytes : 0;

  static_assert(T::kShares == 1 || kPart % kStep == 0);

  /// The part that share `from` hands over to `to`, in its space of a round.
  __device__ static constexpr int part(int from, int to, int segment) {
    return from * kShareBytes + (segment * kOthers + (to + T::kShares - from) % T::kShares - 1) * kPartBytes;
  }
  __device__ __forceinline__ static void write(std::uint32_t part, std::int32_t thread,
                                               const std::int32_t* values) {
#pragma unroll
    for (int i = 0; i < kPart; i += kStep) {
      const std::uint32_t to = part + (i / kStep * 128 + thread) * (4 * kStep);
      if constexpr (kStep == 4) {
        ptx::shared_store(to, {values[i], values[i + 1], values[i + 2], values[i + 3]});
      } else {
        ptx::shared_store(to, static_cast<std::uint32_t>(values[i]));
        ptx::shared_store(to + 4, static_cast<std::uint32_t>(values[i + 1]));
      }
    }
  }
  __device__ __forceinline__ static void read(std::uint32_t part, std::int32_t thread,
                                              std::int32_t (&values)[kPart]) {
#pragma unroll
    for (int i = 0; i < kPart; i += kStep) {
      const std::uint32_t from = part + (i / kStep * 128 + thread) * (4 * kStep);
      if constexpr (kStep == 4) {
        const uint4 four = ptx::shared_load(from);
        values[i] = static_cast<std::int32_t>(four.x);
        values[i + 1] = static_cast<std::int32_t>(four.y);
        values[i + 2] = static_cast<std::int32_t>(four.z);
        values[i + 3] = static_cast<std::int32_t>(four.w);
      } else {
        uint2 two;
        ptx::shared_load(from, two);
        values[i] = static_cast<std::int32_t>(two.x);
        values[i + 1] = static_cast<std::int32_t>(two.y);
      }
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
  using Exchange = HandOver<T>;
  using Factors = typename GroupSums<T>::Factors;
  constexpr int kSegments = Operand::kSegments;
  constexpr int kSegmentSteps = 4 / kSegments;  // of wgmma
  constexpr int kShares = T::kShares;
  constexpr int kRounds = T::kStepTiles / kShares;  // of a stage
  constexpr int kPart = Exchange::kPart;
  static_assert(T::kStepTiles % kShares == 0 && T::kBlocks == 1 && !Operand::kGeneral);
  const std::int32_t slot_bytes = GroupRing<T>::slot_bytes(p.groups);
  const std::uint32_t scales_at = scales_of_thread<T>(ring, 0, thread, slot_bytes);
  const std::uint32_t weights =
      ring.data + T::kStepTokenBytes + kShare * T::kTileBytes + thread * Operand::kThreadBytes;
  // A warp waits for those of the other shares with the same rows alone. 1 and 2 are the warpgroups' own.
  const std::uint32_t barrier = 3 + static_cast<std::uint32_t>(thread / 32);
  std::int32_t sums[kSegments][T::kAccumulators];
  float kept[kSegments][kPart] = {};  // floats: ptxas would leave plain copies in wgmma's registers (C7511)
  float acc[kPart] = {};
  Factors factors[kShares * kSegments] = {};  // of the round before, 0 before the first one
  std::int32_t segments_left = p.groups.segments;
  std::uint32_t round_offset = 0;  // of the round's half of the memory
  std::uint32_t set[2][2][4];      // the A registers of a tile
  typename Operand::Words words;

  const auto load = [&](int round) {
    Operand::load(weights + position.stage * T::kStageBytes + round * kShares * T::kTileBytes, words);
  };
  const auto unpack = [&] {
    Operand::unpack_half(words, 0, set[0]);
    Operand::unpack_half(words, 1, set[1]);
  };
  // The round before: its own sums are kept, the others' are in shared memory.
  const auto add_round = [&] {
    std::int32_t others[kShares][kSegments][kPart];
    ptx::named_barrier(barrier, 32 * kShares);
    const std::uint32_t before = hand_over + (Exchange::kRoundBytes - round_offset);
#pragma unroll
    for (int from = 0; from < kShares; ++from) {
#pragma unroll
      for (int segment = 0; segment < kSegments && from != kShare; ++segment) {
        Exchange::read(before + Exchange::part(from, kShare, segment), thread, others[from][segment]);
      }
    }
#pragma unroll
    for (int at = 0; at < kShares * kSegments; ++at) {
#pragma unroll
      for (int i = 0; i < kPart; ++i) {
        const float sum = at / kSegments == kShare
                              ? kept[at % kSegments][i]
                              : __int2float_rn(others[at / kSegments][at % kSegments][i]);
        acc[i] = __fmaf_rn(sum, factors[at].of[(kShare * kPart + i) / 2 % 2], acc[i]);
      }
    }
  };
  ptx::barrier_wait(ring.full + 8 * position.stage, position.parity);
  load(0);
  unpack();
#pragma unroll 1
  for (std::int32_t first_tile = 0; first_tile < p.k_tiles; first_tile += T::kStepTiles) {
    const std::uint32_t empty = ring.empty + 8 * position.stage;
    const std::uint32_t stage_scales = scales_at + position.stage * GroupRing<T>::kStageBytes;
    const auto box = static_cast<std::uint32_t>(
        box_descriptor(ring.data + position.stage * T::kStageBytes + kShare * T::kTokenBytes));
#pragma unroll
    for (int round = 0; round < kRounds; ++round) {
      pin_operand(set[0]);
      pin_operand(set[1]);
      ptx::wgmma_fence();
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        // The upper half of all descriptors is one constant: a 64-bit sum would take four instructions more.
        const std::uint32_t low =
            box + static_cast<std::uint32_t>(round * kShares * T::kTokenBytes / 16) +
            static_cast<std::uint32_t>(k) * static_cast<std::uint32_t>(kDescriptorPerStep);
        Operand::template Wgmma<T::kTokens>::multiply(sums[k / kSegmentSteps], set[k / 2][k % 2],
                                                      (box_descriptor(0) & ~std::uint64_t{0xffffffffU}) | low,
                                                      k % kSegmentSteps == 0 ? 0 : 1);
      }
      ptx::wgmma_commit();
      if (round + 1 < kRounds) {
        load(round + 1);
      } else {
        // The next stage's first tile; the last stage takes its own once more, since a branch here makes ptxas add
        // a fence (C7519).
        RingPosition next = position;
        next.advance(ring.stages);
        const bool is_last = first_tile + T::kStepTiles >= p.k_tiles;
        position.stage = is_last ? position.stage : next.stage;
        position.parity = is_last ? position.parity : next.parity;
        ptx::barrier_wait(ring.full + 8 * position.stage, position.parity);
        load(0);
      }
      add_round();
#pragma unroll
      for (int at = 0; at < kShares * kSegments; ++at) {
        RowScales<T> scales;
        scales.load(stage_scales + (round * kShares * kSegments + at) * slot_bytes, slot_bytes);
        factors[at] = GroupSums<T>::factors(scales);
        const bool inside = segments_left > at;
        factors[at].of[0] = inside ? factors[at].of[0] : 0.0F;
        factors[at].of[1] = inside ? factors[at].of[1] : 0.0F;
      }
      segments_left -= kShares * kSegments;
      ptx::wgmma_wait<0>();
      const std::uint32_t now = hand_over + round_offset;
#pragma unroll
      for (int segment = 0; segment < kSegments; ++segment) {
        pin_sums(sums[segment]);
#pragma unroll
        for (int to = 0; to < kShares; ++to) {
          if (to != kShare) {
            Exchange::write(now + Exchange::part(kShare, to, segment), thread, sums[segment] + to * kPart);
          }
        }
#pragma unroll
        for (int i = 0; i < kPart; ++i) {
          kept[segment][i] = __int2float_rn(sums[segment][kShare * kPart + i]);
        }
      }
      unpack();
      round_offset = Exchange::kRoundBytes - round_offset;
    }
    give_back(empty, thread);
  }
  position.advance(ring.stages);
  add_round();
  std::int32_t part[kPart];
#pragma unroll
  for (int i = 0; i < kPart; ++i) {
    part[i] = static_cast<std::int32_t>(__float_as_uint(acc[i]));
  }
  if constexpr (kShare > 0) {
    Exchange::write(hand_over + Exchange::kEnd + (kShare - 1) * Exchange::kPartBytes, thread, part);
  }
  ptx::named_barrier(barrier, 32 * kShares);
  if constexpr (kShare == 0) {
#pragma unroll
    for (int share = 0; share < kShares; ++share) {
      if (share > 0) {
        Exchange::read(hand_over + Exchange::kEnd + (share - 1) * Exchange::kPartBytes, thread, part);
      }
#pragma unroll
      for (int i = 0; i < kPart; ++i) {
        result[0][share * kPart + i] = part[i];
      }
    }
  }
}

template <class T>
__device__ __forceinline__ void multiply_groups_shared(
    const Ring& ring, RingPosition& position, const GemmSm90Parameters& p, std::int32_t share,
    std::int32_t thread, std::uint32_t hand_over, std::int32_t (&result)[T::kRowBlocks][T::kAccumulators]) {
  if (share == 0) {
    multiply_groups_of_share<T, 0>(ring, position, p, thread, hand_over, result);
  } else if (share == 1) {
    multiply_groups_of_share<T, 1>(ring, position, p, thread, hand_over, result);
  } else if constexpr (T::kShares > 2) {
    if (share == 2) {
      multiply_groups_of_share<T, 2>(ring, position, p, thread, hand_over, result);
    } else {
      multiply_groups_of_share<T, 3>(ring, position, p, thread, hand_over, result);
    }
  }
}

}  // namespace trit::cuda
