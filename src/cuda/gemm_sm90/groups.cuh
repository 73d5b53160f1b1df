// SPDX-License-Identifier: MIT
//
// The main loops of the persistent Hopper GEMM with group scales: the int32 sums of a group become
// acc = fma((float)isum, w, acc) in fp32 registers, group after group. Sums and acc take twice the registers of a tile
// without groups, so a warpgroup has one row block.
//
// Adding up takes as long as multiplying, and the tensor cores' reads of registers slow it down, so a scheduler needs
// several warps:
//
//   192 rows   three warpgroups, each multiplies, waits, adds up (this file)
//   128 rows   two, each with two sets of sums: it adds one up while the next group is multiplied (groups_ahead.cuh)
//    64 rows   two that share k (groups_shared.cuh), or one as above
#pragma once

#include "cuda/gemm_sm90/groups_ahead.cuh"
#include "cuda/gemm_sm90/groups_shared.cuh"

namespace trit::cuda {

/// acc = the sum over all groups of a tile, as bits of float32; a consumer warpgroup of three. Every segment is a group.
template <class T>
__device__ __forceinline__ void multiply_groups_of_three(
    const Ring& ring, RingPosition& position, const GemmSm90Parameters& p, std::int32_t warpgroup,
    std::int32_t thread, GroupSums<T>& total, std::int32_t (&result)[T::kRowBlocks][T::kAccumulators]) {
  using Operand = typename T::Operand;
  constexpr int kSegments = Operand::kSegments;
  constexpr int kSegmentSteps = 4 / kSegments;  // of wgmma
  static_assert(T::kStepTiles == 1 && T::kRowBlocks == 1 && !Operand::kGeneral);
  const std::int32_t slot_bytes = GroupRing<T>::slot_bytes(p.groups);
  const std::uint32_t scales_at = scales_of_thread<T>(ring, warpgroup, thread, slot_bytes);
  const std::uint32_t weights =
      ring.data + T::kStepTokenBytes + warpgroup * T::kTileBytes + thread * Operand::kThreadBytes;
  std::int32_t sums[T::kAccumulators];
  std::uint32_t set[2][2][4];  // the A registers of a tile
  typename Operand::Words words;
  const auto unpack = [&] {
    Operand::unpack_half(words, 0, set[0]);
    Operand::unpack_half(words, 1, set[1]);
  };
  const auto load_words = [&] {
    ptx::barrier_wait(ring.full + 8 * position.stage, position.parity);
    Operand::load(weights + position.stage * T::kStageBytes, words);
  };
  load_words();
  unpack();
#pragma unroll 1
  for (std::int32_t step = 0; step < p.k_tiles; ++step) {
    const auto box = static_cast<std::uint32_t>(box_descriptor(ring.data + position.stage * T::kStageBytes));
    const std::uint32_t empty = ring.empty + 8 * position.stage;
    const std::uint32_t stage_scales = scales_at + position.stage * GroupRing<T>::kStageBytes;
#pragma unroll
    for (int segment = 0; segment < kSegments; ++segment) {
      pin_operand(set[0]);
      pin_operand(set[1]);
      ptx::wgmma_fence();
#pragma unroll
      for (int k = segment * kSegmentSteps; k < (segment + 1) * kSegmentSteps; ++k) {
        // The upper half of all descriptors is one constant: a 64-bit sum would take four instructions more.
        const std::uint64_t at =
            (box_descriptor(0) & ~std::uint64_t{0xffffffffU}) |
            (box + static_cast<std::uint32_t>(k) * static_cast<std::uint32_t>(kDescriptorPerStep));
        Operand::template Wgmma<T::kTokens>::multiply(sums, set[k / 2][k % 2], at,
                                                      k % kSegmentSteps > 0 ? 1 : 0);
      }
      ptx::wgmma_commit();
      RowScales<T> scales;
      scales.load(stage_scales + segment * slot_bytes, slot_bytes);
      if (segment == kSegments - 1) {
        // The next tile; the last one takes its own once more, since a branch here makes ptxas add a fence (C7519).
        RingPosition next = position;
        next.advance(ring.stages);
        const bool is_last = step + 1 == p.k_tiles;
        position.stage = is_last ? position.stage : next.stage;
        position.parity = is_last ? position.parity : next.parity;
        load_words();
      }
      const auto factors = total.next_factors(scales);
      ptx::wgmma_wait<0>();
      pin_sums(sums);
      if (segment == kSegments - 1) {
        give_back(empty, thread);
        unpack();
      }
      total.add(sums, factors);
    }
  }
  position.advance(ring.stages);
  total.move_to(result);
}

/// `share` of two that share k has the result if it is 0.
template <class T>
__device__ __forceinline__ void multiply_groups(const Ring& ring, RingPosition& position,
                                                const GemmSm90Parameters& p, std::int32_t warpgroup,
                                                std::int32_t share, std::int32_t thread, std::int32_t token,
                                                float* token_scales, std::uint32_t hand_over,
                                                std::int32_t (&result)[T::kRowBlocks][T::kAccumulators]) {
  if constexpr (T::kShares == 2) {
    multiply_groups_shared<T>(ring, position, p, share, thread, hand_over, result);
  } else {
    GroupSums<T> total(p, warpgroup, thread, token, token_scales);
    if constexpr (T::kWarpgroups >= 3) {
      multiply_groups_of_three<T>(ring, position, p, warpgroup, thread, total, result);
    } else {
      multiply_groups_ahead<T>(ring, position, p, warpgroup, thread, total, result);
    }
  }
}

}  // namespace trit::cuda
