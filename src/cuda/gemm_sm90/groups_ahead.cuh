// SPDX-License-Identifier: MIT
//
// The main loop with group scales of a tile of 64 rows, for few rows that have to be spread over many
// multiprocessors: its one warpgroup has two sets of sums, and the next segment's wgmma are on their way while one
// set is added up.
//
//   wgmma    segment 0 -> set 0 | 1 -> set 1   | 2 -> set 0   | 3 -> set 1   |              | 4 -> set 0 ...
//   sums                        | set 0 to acc | set 1 to acc | set 0 to acc | set 1 to acc |
#pragma once

#include "cuda/gemm_sm90/group_sums.cuh"

namespace trit::cuda {

/// acc = the sum over all groups of a tile, as bits of float32. A group of several segments is added up in `carry`,
/// since its segments are in both sets in turn.
template <class T>
__device__ __forceinline__ void multiply_groups_ahead(
    const Ring& ring, RingPosition& position, const GemmSm90Parameters& p, std::int32_t warpgroup,
    std::int32_t thread, GroupSums<T>& total, std::int32_t (&result)[T::kRowBlocks][T::kAccumulators]) {
  using Operand = typename T::Operand;
  constexpr int kSegments = Operand::kSegments;
  constexpr int kSegmentSteps = 4 / kSegments;  // of wgmma
  constexpr int kSlots = GroupRing<T>::kSlots;
  static_assert(T::kStepTiles % 2 == 0 && T::kRowBlocks == 1);
  const std::int32_t slot_bytes = GroupRing<T>::slot_bytes(p.groups);
  const std::uint32_t scales_at = scales_of_thread<T>(ring, warpgroup, thread, slot_bytes);
  const std::uint32_t weights = ring.data + T::kStepTokenBytes + warpgroup * T::kStepTiles * T::kTileBytes +
                                thread * Operand::kThreadBytes;
  std::int32_t sums[2][1][T::kAccumulators];
  std::int32_t carry[1][T::kAccumulators] = {};
  const auto finish = [&](const std::int32_t(&of)[1][T::kAccumulators], const RowScales<T>& scales) {
    if constexpr (!Operand::kGeneral) {
      total.add(of[0], total.next_factors(scales));
    } else {
#pragma unroll
      for (int i = 0; i < T::kAccumulators; ++i) {
        carry[0][i] += of[0][i];
      }
      if (total.end_segment()) {
        total.add(carry[0], total.factors(scales));
#pragma unroll
        for (int i = 0; i < T::kAccumulators; ++i) {
          carry[0][i] = 0;
        }
      }
    }
  };

  // The A registers of a tile and of the next one, and the scales of their segments.
  std::uint32_t set[2][2][2][4];
  RowScales<T> scales[2][kSegments];
  typename Operand::Words words;
  const auto load = [&](int tile) {
    Operand::load(weights + position.stage * T::kStageBytes + tile * T::kTileBytes, words);
#pragma unroll
    for (int segment = 0; segment < kSegments; ++segment) {
      scales[tile % 2][segment].load(
          scales_at + position.stage * GroupRing<T>::kStageBytes + (tile * kSegments + segment) * slot_bytes,
          slot_bytes);
    }
  };
  const auto unpack = [&](int tile) {
    Operand::unpack_half(words, 0, set[tile % 2][0]);
    Operand::unpack_half(words, 1, set[tile % 2][1]);
  };
  ptx::barrier_wait(ring.full + 8 * position.stage, position.parity);
  load(0);
  unpack(0);
#pragma unroll 1
  for (std::int32_t first_tile = 0; first_tile < p.k_tiles; first_tile += T::kStepTiles) {
    const std::uint32_t data = ring.data + position.stage * T::kStageBytes;
    const std::uint32_t empty = ring.empty + 8 * position.stage;
    const auto box = static_cast<std::uint32_t>(box_descriptor(data));
    RowScales<T> before{};  // the scales of the slot before
#pragma unroll
    for (int slot = 0; slot < kSlots; ++slot) {
      const int tile = slot / kSegments;
      const int first = slot % kSegments * kSegmentSteps;
      pin_operand(set[tile % 2][0]);
      pin_operand(set[tile % 2][1]);
      ptx::wgmma_fence();
#pragma unroll
      for (int k = first; k < first + kSegmentSteps; ++k) {
        Operand::template Wgmma<T::kTokens>::multiply(sums[slot % 2][0], set[tile % 2][k / 2][k % 2],
                                                      step_descriptor(box, tile * T::kTokenBytes, k),
                                                      k == first ? 0 : 1);
      }
      ptx::wgmma_commit();
      if (slot > 0) {
        ptx::wgmma_wait<1>();
        pin_sums(sums[1 - slot % 2][0]);
      }
      const RowScales<T> of = before;
      before = scales[tile % 2][slot % kSegments];
      // Both words and scales of the tile before are used up, but for `of`.
      const bool load_next = slot % kSegments == 0 && tile + 1 < T::kStepTiles;
      if (load_next) {
        load(tile + 1);
      }
      if (slot > 0) {
        finish(sums[1 - slot % 2], of);
      }
      if (load_next) {
        unpack(tile + 1);
      }
    }
    // The next stage's first tile; the last stage takes its own once more.
    RingPosition next = position;
    next.advance(ring.stages);
    const bool is_last = first_tile + T::kStepTiles >= p.k_tiles;
    position.stage = is_last ? position.stage : next.stage;
    position.parity = is_last ? position.parity : next.parity;
    ptx::barrier_wait(ring.full + 8 * position.stage, position.parity);
    load(0);
    unpack(0);
    // Across the end of the loop ptxas knows no sums that are complete (C7514): all of them are, here.
    ptx::wgmma_wait<0>();
    pin_sums(sums[1][0]);
    give_back(empty, thread);
    finish(sums[1], before);
  }
  position.advance(ring.stages);
  total.move_to(result);
}

}  // namespace trit::cuda
