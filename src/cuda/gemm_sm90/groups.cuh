// SPDX-License-Identifier: MIT
//
// The main loop of the persistent Hopper GEMM with group scales: the int32 sums of a group become
// acc = fma((float)isum, w, acc) in fp32 registers, group after group.
//
//   consumer, per group:   wgmma ... | wait | sums to acc | wgmma ... | wait | sums to acc
//   the other warpgroup:         | sums to acc | wgmma ... | wait | sums to acc | wgmma ...
//
// While one warpgroup adds up, the other one's wgmma has the tensor cores. Sums and acc take twice the registers of
// a tile without groups, so a tile has 128 rows.
#pragma once

#include "cuda/common/group_scales.cuh"
#include "cuda/gemm_sm90/tile.cuh"

namespace trit::cuda {

/// int8 with group scales. kSegments: segments of a tile of 128 inputs (groups.h). kGeneral: scales of float32,
/// and of tokens and groups; otherwise float16, which times 1/64, the weights' factor, is exact.
template <int kSegments_, bool kGeneral_>
struct GroupOperand : Int8Operand {
  static constexpr bool kGrouped = true;
  static constexpr int kSegments = kSegments_;
  static constexpr bool kGeneral = kGeneral_;
  __device__ static float value(std::int32_t acc) { return __int_as_float(acc); }
};

/// The weight scales of a thread's rows of one group.
template <class T>
struct ThreadScales {
  float of[T::kRowBlocks][2];

  /// Of group g, or the last one. `at`: the element of group 0 of each row block.
  __device__ __forceinline__ void load(const Groups& groups, const std::int64_t (&at)[T::kRowBlocks],
                                       std::int32_t g) {
#pragma unroll
    for (int block = 0; block < T::kRowBlocks; ++block) {
      const std::int64_t i = at[block] + min(g, groups.count - 1) * kTileRows;
      if (!T::Operand::kGeneral || groups.half) {
        const std::uint32_t pair = ptx::global_load(static_cast<const std::uint16_t*>(groups.scale) + i);
        of[block][0] = ptx::from_float16(static_cast<std::uint16_t>(pair));
        of[block][1] = ptx::from_float16(static_cast<std::uint16_t>(pair >> 16U));
      } else {
        const float2 pair = *reinterpret_cast<const float2*>(static_cast<const float*>(groups.scale) + i);
        of[block][0] = pair.x;
        of[block][1] = pair.y;
      }
    }
  }
};

/// acc = the sum over all groups of a tile, as bits of float32; a consumer warpgroup, `row` its first row, `token`
/// the tile's first. `token_scales`: [2][kTokens] in shared memory, of this warpgroup.
template <class T>
__device__ __forceinline__ void multiply_groups(const Ring& ring, RingPosition& position,
                                                const GemmSm90Parameters& p, std::int32_t group,
                                                std::int32_t thread, std::int32_t row, std::int32_t token,
                                                float* token_scales,
                                                std::int32_t (&result)[T::kRowBlocks][T::kAccumulators]) {
  using Operand = typename T::Operand;
  constexpr int kSegmentSteps = 4 / Operand::kSegments;  // of wgmma
  constexpr float kFactor = 1.0F / (1 << kCodeShift);
  const Groups& groups = p.groups;
  const std::uint32_t weights =
      ring.data + T::kStepTokenBytes + group * T::kRowBlocks * T::kTileBytes + thread * Operand::kThreadBytes;
  std::int64_t scales_at[T::kRowBlocks];
#pragma unroll
  for (int block = 0; block < T::kRowBlocks; ++block) {
    // Rows beyond the matrix take the scales of its last row block: their outputs are not stored.
    const std::int64_t row_block = min(row / kTileRows + block, p.row_blocks - 1);
    scales_at[block] = row_block * groups.count * kTileRows + thread / 32 * kStripRows + thread % 32 / 4 * 2;
  }
  ThreadScales<T> next;
  next.load(groups, scales_at, 0);
  // Of the group at hand, for token `thread` of the tile.
  const bool has_token = thread < T::kTokens && token + thread < p.tokens;
  const float* const from_token = p.group_token_scales + std::int64_t{token + thread} * groups.count;
  const auto load_token = [&](std::int32_t g) {
    return groups.token_groups && has_token ? from_token[min(g, groups.count - 1)] : 1.0F;
  };
  float next_token = 1.0F;
  if constexpr (Operand::kGeneral) {
    static_assert(T::kTokens <= 128, "a thread loads one token's scale");
    next_token = load_token(0);
  }
  float acc[T::kRowBlocks][T::kAccumulators] = {};
  std::int32_t sums[T::kRowBlocks][T::kAccumulators];
  std::int32_t in_group = 0;  // segments that `sums` holds
  std::int32_t segments_left = groups.segments;
  std::int32_t g = 0;

  const auto add_group = [&] {
    const ThreadScales<T> scales = next;
    next.load(groups, scales_at, g + 1);
    const float* token_scale = token_scales + g % 2 * T::kTokens;
    if constexpr (Operand::kGeneral) {
      if (thread < T::kTokens) {
        token_scales[g % 2 * T::kTokens + thread] = next_token;
      }
      next_token = load_token(g + 1);
      ptx::named_barrier(1 + group, 128);
      token_scale += 2 * (thread % 4);
    }
#pragma unroll
    for (int block = 0; block < T::kRowBlocks; ++block) {
      const float folded[2] = {__fmul_rn(scales.of[block][0], kFactor),
                               __fmul_rn(scales.of[block][1], kFactor)};
#pragma unroll
      for (int i = 0; i < T::kAccumulators; ++i) {
        const float sum = __int2float_rn(sums[block][i]);
        float& to = acc[block][i];
        if constexpr (Operand::kGeneral) {
          const float w = __fmul_rn(scales.of[block][i / 2 % 2], token_scale[i / 4 * 8 + i % 2]);
          to = __fmaf_rn(__fmul_rn(sum, kFactor), w, to);
        } else {
          to = __fmaf_rn(sum, folded[i / 2 % 2], to);
        }
      }
    }
    ++g;
  };
  const auto end_segment = [&] {
    --segments_left;
    ++in_group;
    // What a last tile holds beyond the inputs is zero and belongs to no group.
    if (segments_left >= 0 && (in_group == groups.per_group || segments_left == 0)) {
      add_group();
      in_group = 0;
    }
  };
  const auto wait = [&] {
    ptx::wgmma_wait<0>();
#pragma unroll
    for (int block = 0; block < T::kRowBlocks; ++block) {
#pragma unroll
      for (int i = 0; i < T::kAccumulators; ++i) {
        ptx::pin_register(sums[block][i]);
      }
    }
  };

  // The A registers of a tile's first two k-steps and of its last two.
  std::uint32_t set[2][T::kRowBlocks][2][4];
  typename Operand::Words words[T::kRowBlocks];
  const auto load_words = [&] {
    ptx::barrier_wait(ring.full + 8 * position.stage, position.parity);
#pragma unroll
    for (int block = 0; block < T::kRowBlocks; ++block) {
      Operand::load(weights + position.stage * T::kStageBytes + block * T::kTileBytes, words[block]);
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
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (half == 1) {
        unpack_half(1);
      } else {
        // They were unpacked in the turn before: without this ptxas adds a fence of its own (C7519).
#pragma unroll
        for (int r = 0; r < T::kRowBlocks * 8; ++r) {
          ptx::pin_register(set[0][r / 8][r / 4 % 2][r % 4]);
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
                                                        at % kSegmentSteps == 0 ? in_group : 1);
        }
        if (at < 3 && (at + 1) % kSegmentSteps == 0) {
          ptx::wgmma_commit();
          wait();
          end_segment();
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
    __syncwarp();
    if (thread % 32 < kArrivingLanes) {
      ptx::barrier_arrive(empty);
    }
    end_segment();
  }
  position.advance(ring.stages);
#pragma unroll
  for (int block = 0; block < T::kRowBlocks; ++block) {
#pragma unroll
    for (int i = 0; i < T::kAccumulators; ++i) {
      result[block][i] = static_cast<std::int32_t>(__float_as_uint(acc[block][i]));
    }
  }
}

}  // namespace trit::cuda
