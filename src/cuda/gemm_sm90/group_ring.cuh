// SPDX-License-Identifier: MIT
//
// Group scales in the ring of the persistent Hopper GEMM. They come with a stage's tokens and weights, by a producer
// of their own: a load of a scale by the thread that needs it would be waited for once in every group.
//
//   scales of a stage    [row block][slot][64], a slot for each segment of the stage, whose group's scales it has
#pragma once

#include "cuda/common/group_scales.cuh"
#include "cuda/gemm_sm90/launch.cuh"
#include "cuda/gemm_sm90/tile.cuh"

namespace trit::cuda {

/// int8 with group scales. kSegments: segments of a tile of 128 inputs (groups.h). kScales: what
/// scales they are, and whether a group is a segment.
template <int kSegments_, GroupScales kScales>
struct GroupOperand : Int8Operand {
  static constexpr bool kGrouped = true;
  static constexpr int kSegments = kSegments_;
  static constexpr bool kHalf = kScales == GroupScales::float16;
  static constexpr bool kGeneral = kScales == GroupScales::any;
  static constexpr int kScaleBytes = kHalf ? 2 : 4;                      // at most
  static constexpr bool kMayOverflow = kScales == GroupScales::float32;  // group_overflow.cuh
  __device__ static float value(std::int32_t acc) { return __int_as_float(acc); }
};

/// The scales in a stage of the ring.
template <class T>
struct GroupRing {
  static constexpr int slots() {
    if constexpr (T::Operand::kGrouped) {
      return T::kStepTiles * T::Operand::kSegments;
    }
    return 0;
  }
  static constexpr int stage_bytes() {
    if constexpr (T::Operand::kGrouped) {
      return T::kBlocks * slots() * kTileRows * T::Operand::kScaleBytes;
    }
    return 0;
  }
  static constexpr int kSlots = slots();
  static constexpr int kStageBytes = stage_bytes();

  __device__ static std::int32_t slot_bytes(const Groups& groups) {
    return kTileRows * (T::Operand::kGeneral && groups.half ? 2 : T::Operand::kScaleBytes);
  }
};

/// One thread: the scales of all ring steps for the row blocks from `row_block` on, as produce_weights.
template <class T>
__device__ __forceinline__ void produce_scales(const Ring& ring, RingPosition& position,
                                               const GemmSm90Parameters& p, std::int32_t row_block,
                                               std::int32_t steps) {
  constexpr int kSlots = GroupRing<T>::kSlots;
  const Groups& groups = p.groups;
  const std::int32_t slot_bytes = GroupRing<T>::slot_bytes(groups);
  const std::uint8_t* source[T::kBlocks];
#pragma unroll
  for (int block = 0; block < T::kBlocks; ++block) {
    const std::int64_t inside = min(row_block + block, p.row_blocks - 1);
    source[block] = static_cast<const std::uint8_t*>(groups.scale) + inside * groups.count * slot_bytes;
  }
  std::int32_t group = 0;
  std::int32_t place = 0;  // of the next segment in its group
#pragma unroll 1
  for (; steps > 0; --steps) {
    const std::uint32_t full = ring.full + 8 * position.stage;
    const std::uint32_t data = ring.scales + position.stage * GroupRing<T>::kStageBytes;
    ptx::barrier_wait(ring.empty + 8 * position.stage, position.parity ^ 1U);
    if (groups.per_group == 1) {
      const std::int32_t bytes = min(kSlots, groups.count - group) * slot_bytes;
      if (bytes < kSlots * slot_bytes) {
        // What a last stage holds beyond the row has sums of 0, which times what lay here could be NaN.
        for (int block = 0; block < T::kBlocks; ++block) {
          for (std::int32_t at = bytes; at < kSlots * slot_bytes; at += 16) {
            ptx::shared_store(data + block * kSlots * slot_bytes + at, {0, 0, 0, 0});
          }
        }
        ptx::fence_async_proxy();  // the copies of later stages come after these zeros
      }
      ptx::barrier_arrive_expect(full, T::kBlocks * bytes);
#pragma unroll
      for (int block = 0; block < T::kBlocks; ++block) {
        ptx::bulk_load(data + block * kSlots * slot_bytes, source[block] + group * slot_bytes, bytes, full);
      }
      group += kSlots;
    } else {
      ptx::barrier_arrive_expect(full, T::kBlocks * kSlots * slot_bytes);
#pragma unroll 1
      for (int slot = 0; slot < kSlots; ++slot) {
        // What a last stage holds beyond the row takes the last group's: it is not added.
        const std::int32_t from = min(group, groups.count - 1) * slot_bytes;
#pragma unroll
        for (int block = 0; block < T::kBlocks; ++block) {
          ptx::bulk_load(data + (block * kSlots + slot) * slot_bytes, source[block] + from, slot_bytes, full);
        }
        if (++place == groups.per_group) {
          place = 0;
          ++group;
        }
      }
    }
    position.advance(ring.stages);
  }
}

/// The weight scales of a thread's two rows of a row block, for one segment.
template <class T>
struct RowScales {
  std::uint32_t of[T::Operand::kHalf ? 1 : 2];  // two float16, or two float32

  /// `at`: where the thread's are in the segment's slot.
  __device__ __forceinline__ void load(std::uint32_t at, std::int32_t slot_bytes) {
    if constexpr (T::Operand::kHalf) {
      ptx::shared_load(at, of[0]);
    } else {
      if (!T::Operand::kGeneral || slot_bytes == kTileRows * 4) {
        uint2 pair;
        ptx::shared_load(at, pair);
        of[0] = pair.x;
        of[1] = pair.y;
      } else {
        std::uint32_t pair;
        ptx::shared_load(at, pair);
        of[0] = __float_as_uint(ptx::from_float16(static_cast<std::uint16_t>(pair)));
        of[1] = __float_as_uint(ptx::from_float16(static_cast<std::uint16_t>(pair >> 16U)));
      }
    }
  }
  __device__ __forceinline__ void floats(float (&scale)[2]) const {
    if constexpr (T::Operand::kHalf) {
      scale[0] = ptx::from_float16(static_cast<std::uint16_t>(of[0]));
      scale[1] = ptx::from_float16(static_cast<std::uint16_t>(of[0] >> 16U));
    } else {
      scale[0] = __uint_as_float(of[0]);
      scale[1] = __uint_as_float(of[1]);
    }
  }
};

}  // namespace trit::cuda
