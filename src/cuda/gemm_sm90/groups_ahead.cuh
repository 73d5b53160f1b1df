// SPDX-License-Identifier: MIT
//
// The main loop with group scales in which a warpgroup has two sets of int32 sums: while one is added up, the other one's
// wgmma are under way. What a set takes is a *unit*: a segment of a piece of the tokens. The pieces of a tile share its
// unpacked weights; fp32 sums, acc, are kept of all of them, int32 sums of two units only.
//
//   wgmma    unit 0 -> set 0 | 1 -> set 1      | 2 -> set 0      | 3 -> set 1      |                 | 4 -> set 0 ...
//   sums                     | set 0 to acc    | set 1 to acc    | set 0 to acc    | set 1 to acc    |
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
  constexpr int kTileUnits = kSegments * T::kPieces;
  constexpr int kUnits = T::kStepTiles * kTileUnits;
  static_assert(T::kStepTiles % 2 == 0 && T::kRowBlocks == 1);
  const std::int32_t slot_bytes = GroupRing<T>::slot_bytes(p.groups);
  const std::uint32_t scales_at = scales_of_thread<T>(ring, warpgroup, thread, slot_bytes);
  const std::uint32_t weights = ring.data + T::kStepTokenBytes + warpgroup * T::kStepTiles * T::kTileBytes +
                                thread * Operand::kThreadBytes;
  std::int32_t sums[2][T::kPieceAccumulators];
  std::int32_t carry[T::kPieceAccumulators] = {};
  const auto finish = [&](int unit, const RowScales<T>& scales) {
    const std::int32_t(&of)[T::kPieceAccumulators] = sums[unit % 2];
    const int piece = unit % T::kPieces;
    if constexpr (!Operand::kGeneral) {
      total.add(of, piece, total.factors(scales));
    } else {
#pragma unroll
      for (int i = 0; i < T::kPieceAccumulators; ++i) {
        carry[i] += of[i];
      }
      if (total.end_segment()) {
        total.add(carry, piece, total.factors(scales));
#pragma unroll
        for (int i = 0; i < T::kPieceAccumulators; ++i) {
          carry[i] = 0;
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
    const std::uint64_t box = box_descriptor(ring.data + position.stage * T::kStageBytes);
    const std::uint32_t empty = ring.empty + 8 * position.stage;
    RowScales<T> before{};  // the scales of the unit before
#pragma unroll
    for (int unit = 0; unit < kUnits; ++unit) {
      const int piece = unit % T::kPieces;
      const int segment = unit / T::kPieces % kSegments;
      const int tile = unit / kTileUnits;
      pin_operand(set[tile % 2][0]);
      pin_operand(set[tile % 2][1]);
      ptx::wgmma_fence();
#pragma unroll
      for (int k = segment * kSegmentSteps; k < (segment + 1) * kSegmentSteps; ++k) {
        Operand::template Wgmma<T::kPieceTokens>::multiply(
            sums[unit % 2], set[tile % 2][k / 2][k % 2],
            step_descriptor(box, tile * T::kTokenBytes + piece * T::kPieceTokens * kBoxRowBytes, k),
            k % kSegmentSteps == 0 ? 0 : 1);
      }
      ptx::wgmma_commit();
      if (unit > 0) {
        ptx::wgmma_wait<1>();
        pin_sums(sums[1 - unit % 2]);
      }
      const RowScales<T> of = before;
      before = scales[tile % 2][segment];
      // Both words and scales of the tile before are used up, but for `of`.
      const bool has_next = tile + 1 < T::kStepTiles;
      if (has_next && unit % kTileUnits == 0) {
        load(tile + 1);
      }
      if (unit > 0) {
        finish(unit - 1, of);
      }
      if (has_next && unit % kTileUnits == kTileUnits - 1) {
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
    pin_sums(sums[(kUnits - 1) % 2]);
    give_back(empty, thread);
    finish(kUnits - 1, before);
  }
  position.advance(ring.stages);
  total.move_to(result);
}

}  // namespace trit::cuda
