// SPDX-License-Identifier: MIT
//
// The main loop of the persistent Hopper GEMM with group scales: the int32 sums of a group become
// acc = fma((float)isum, w, acc) in fp32 registers, group after group.
//
//   consumer, per group:   wgmma ... | wait | sums to acc | wgmma ... | wait | sums to acc
//   the other warpgroup:         | sums to acc | wgmma ... | wait | sums to acc | wgmma ...
//
// While one warpgroup adds up, the other one's wgmma has the tensor cores. Sums and acc take twice the registers of
// a tile without groups, so a tile has 128 rows. A tile of 64 rows has one warpgroup (groups_ahead.cuh).
#pragma once

#include "cuda/gemm_sm90/groups_ahead.cuh"

namespace trit::cuda {

/// acc = the sum over all groups of a tile, as bits of float32; a consumer warpgroup of two.
template <class T>
__device__ __forceinline__ void multiply_groups_in_turn(
    const Ring& ring, RingPosition& position, const GemmSm90Parameters& p, std::int32_t warpgroup,
    std::int32_t thread, GroupSums<T>& total, std::int32_t (&result)[T::kRowBlocks][T::kAccumulators]) {
  using Operand = typename T::Operand;
  constexpr int kSegmentSteps = 4 / Operand::kSegments;  // of wgmma
  static_assert(T::kStepTiles == 1);
  const std::int32_t slot_bytes = GroupRing<T>::slot_bytes(p.groups);
  const std::uint32_t scales_at = scales_of_thread<T>(ring, warpgroup, thread, slot_bytes);
  const std::uint32_t weights = ring.data + T::kStepTokenBytes + warpgroup * T::kRowBlocks * T::kTileBytes +
                                thread * Operand::kThreadBytes;
  std::int32_t sums[T::kRowBlocks][T::kAccumulators];
  const auto wait = [&] {
    ptx::wgmma_wait<0>();
#pragma unroll
    for (int block = 0; block < T::kRowBlocks; ++block) {
      pin_sums(sums[block]);
    }
  };

  // The A registers of a tile's first two k-steps and of its last two.
  std::uint32_t set[2][T::kRowBlocks][2][4];
  typename Operand::Words words[T::kRowBlocks];
  RowScales<T> scales[Operand::kSegments];
  const auto load_words = [&] {
    ptx::barrier_wait(ring.full + 8 * position.stage, position.parity);
#pragma unroll
    for (int block = 0; block < T::kRowBlocks; ++block) {
      Operand::load(weights + position.stage * T::kStageBytes + block * T::kTileBytes, words[block]);
    }
  };
  const auto load_scales = [&] {
#pragma unroll
    for (int segment = 0; segment < Operand::kSegments; ++segment) {
      scales[segment].load(scales_at + position.stage * GroupRing<T>::kStageBytes + segment * slot_bytes,
                           slot_bytes);
    }
  };
  const auto unpack_half = [&](int half) {
#pragma unroll
    for (int block = 0; block < T::kRowBlocks; ++block) {
      Operand::unpack_half(words[block], half, set[half][block]);
    }
  };
  load_words();
  unpack_half(0);
#pragma unroll 1
  for (std::int32_t step = 0; step < p.k_tiles; ++step) {
    const std::uint64_t box = box_descriptor(ring.data + position.stage * T::kStageBytes);
    const std::uint32_t empty = ring.empty + 8 * position.stage;
    load_scales();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (half == 1) {
        unpack_half(1);
      } else {
        // They were unpacked in the turn before: without this ptxas adds a fence of its own (C7519).
#pragma unroll
        for (int block = 0; block < T::kRowBlocks; ++block) {
          pin_operand(set[0][block]);
        }
      }
      ptx::wgmma_fence();
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        const int at = 2 * half + k;
#pragma unroll
        for (int block = 0; block < T::kRowBlocks; ++block) {
          Operand::template Wgmma<T::kTokens>::multiply(sums[block], set[half][block][k],
                                                        box + at * kDescriptorPerStep,
                                                        at % kSegmentSteps == 0 ? total.in_group() : 1);
        }
        if (at < 3 && (at + 1) % kSegmentSteps == 0) {
          ptx::wgmma_commit();
          wait();
          if (total.end_segment()) {
            total.add(sums, scales[at / kSegmentSteps]);
          }
          ptx::wgmma_fence();
        }
      }
      ptx::wgmma_commit();
    }
    // The next tile's first registers are unpacked behind the last wgmma of this one, and before the sums are
    // added up, so that its wgmma follow at once. The last tile takes its own once more: a branch here makes
    // ptxas add a fence (C7519).
    RingPosition next_position = position;
    next_position.advance(ring.stages);
    const bool is_last = step + 1 == p.k_tiles;
    position.stage = is_last ? position.stage : next_position.stage;
    position.parity = is_last ? position.parity : next_position.parity;
    load_words();
    ptx::wgmma_wait<1>();
    unpack_half(0);
    wait();
    give_back(empty, thread);
    if (total.end_segment()) {
      total.add(sums, scales[Operand::kSegments - 1]);
    }
  }
  position.advance(ring.stages);
  total.move_to(result);
}

template <class T>
__device__ __forceinline__ void multiply_groups(const Ring& ring, RingPosition& position,
                                                const GemmSm90Parameters& p, std::int32_t warpgroup,
                                                std::int32_t thread, std::int32_t token, float* token_scales,
                                                std::int32_t (&result)[T::kRowBlocks][T::kAccumulators]) {
  GroupSums<T> total(p, warpgroup, thread, token, token_scales);
  if constexpr (T::kWarpgroups == 2) {
    multiply_groups_in_turn<T>(ring, position, p, warpgroup, thread, total, result);
  } else {
    multiply_groups_ahead<T>(ring, position, p, thread, total, result);
  }
}

}  // namespace trit::cuda
