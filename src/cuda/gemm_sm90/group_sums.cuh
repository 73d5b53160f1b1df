// SPDX-License-Identifier: MIT
//
// acc = fma((float)isum, w, acc), group after group, in a consumer thread's registers.
#pragma once

#include "cuda/gemm_sm90/group_ring.cuh"

namespace trit::cuda {

/// What a consumer thread adds up over the groups of a tile.
///
/// Sums are 64 times too large, the factor of the weights. Except in the general form they are added up as they are, and the
/// total is multiplied by kWeightFactor. Unless something overflows, acc is exactly 64 times the acc of the contract: that
/// one is a multiple of u, the unit of the smallest scale (2^-24 or 2^-149). Below 2^24 u nothing is rounded, with or without
/// the factor; above, every rounding is to 24 bits. Finite float16 scales and at most kMaxGemmSm90Inputs inputs keep it
/// below 2^47; float32 scales may overflow (group_overflow.cuh).
template <class T>
class GroupSums {
  using Operand = typename T::Operand;
  static_assert(T::kRowBlocks == 1);
  static_assert(T::kPieces == 1 || !Operand::kGeneral, "the scales of tokens are those of one piece");

 public:
  /// `token`: the tile's first. `token_scales`: [2][kTokens] in shared memory, of this warpgroup.
  __device__ __forceinline__ GroupSums(const GemmSm90Parameters& p, std::int32_t warpgroup,
                                       std::int32_t thread, std::int32_t token, float* token_scales)
      : groups_(p.groups),
        segments_left_(p.groups.segments),
        warpgroup_(warpgroup),
        thread_(thread),
        has_token_(p.groups.token_groups && thread < T::kTokens && token + thread < p.tokens),
        from_token_(p.group_token_scales + std::int64_t{token + thread} * p.groups.count),
        token_scales_(token_scales) {
    if constexpr (Operand::kGeneral) {
      static_assert(T::kTokens <= 128, "a thread loads one token's scale");
      next_token_ = load_token(0);
    }
  }

  /// Counts a segment; true where it completes a group. What a last tile holds beyond the inputs is zero and
  /// belongs to no group.
  __device__ __forceinline__ bool end_segment() {
    --segments_left_;
    ++in_group_;
    const bool complete = segments_left_ >= 0 && (in_group_ == groups_.per_group || segments_left_ == 0);
    in_group_ = complete ? 0 : in_group_;
    return complete;
  }

  /// What sums are multiplied with: the scales of a thread's two rows.
  struct Factors {
    float of[2];
  };
  __device__ __forceinline__ static Factors factors(const RowScales<T>& scales) {
    Factors f;
    scales.floats(f.of);
    return f;
  }

  /// Adds the sums of a group, of a piece of the tokens.
  __device__ __forceinline__ void add(const std::int32_t (&sums)[T::kPieceAccumulators], int piece,
                                      const Factors& factors) {
    const float* token_scale = nullptr;
    if constexpr (Operand::kGeneral) {
      float* const of_group = token_scales_ + g_ % 2 * T::kTokens;
      if (thread_ < T::kTokens) {
        of_group[thread_] = next_token_;
      }
      next_token_ = load_token(++g_);
      ptx::named_barrier(1 + warpgroup_, 128);
      token_scale = of_group + 2 * (thread_ % 4);
    }
#pragma unroll
    for (int i = 0; i < T::kPieceAccumulators; ++i) {
      const float sum = __int2float_rn(sums[i]);
      float& to = acc_[piece * T::kPieceAccumulators + i];
      if constexpr (Operand::kGeneral) {
        const float w = __fmul_rn(factors.of[i / 2 % 2], token_scale[i / 4 * 8 + i % 2]);
        to = __fmaf_rn(__fmul_rn(sum, kWeightFactor), w, to);
      } else {
        to = __fmaf_rn(sum, factors.of[i / 2 % 2], to);
      }
    }
  }

  /// Bits of float32.
  __device__ __forceinline__ void move_to(std::int32_t (&result)[T::kRowBlocks][T::kAccumulators]) const {
#pragma unroll
    for (int i = 0; i < T::kAccumulators; ++i) {
      const float acc = Operand::kGeneral ? acc_[i] : __fmul_rn(acc_[i], kWeightFactor);
      result[0][i] = static_cast<std::int32_t>(__float_as_uint(acc));
    }
  }

 private:
  /// Of group g, for token `thread` of the tile.
  __device__ __forceinline__ float load_token(std::int32_t g) const {
    return has_token_ ? from_token_[min(g, groups_.count - 1)] : 1.0F;
  }

  const Groups& groups_;
  std::int32_t segments_left_;
  std::int32_t warpgroup_, thread_;
  bool has_token_;
  const float* from_token_;
  float* token_scales_;
  float next_token_ = 1.0F;
  std::int32_t in_group_ = 0;
  std::int32_t g_ = 0;
  float acc_[T::kAccumulators] = {};
};

/// The first n registers, in place.
template <int n>
__device__ __forceinline__ void pin_sums(std::int32_t (&sums)[n]) {
#pragma unroll
  for (int i = 0; i < n; ++i) {
    ptx::pin_register(sums[i]);
  }
}
__device__ __forceinline__ void pin_operand(std::uint32_t (&registers)[2][4]) {
#pragma unroll
  for (int r = 0; r < 8; ++r) {
    ptx::pin_register(registers[r / 4][r % 4]);
  }
}

/// A consumer warp has read a stage for the last time.
__device__ __forceinline__ void give_back(std::uint32_t empty, std::int32_t thread) {
  __syncwarp();
  if (thread % 32 < kArrivingLanes) {
    ptx::barrier_arrive(empty);
  }
}

/// Where a consumer thread's scales are in the slot of a stage.
template <class T>
__device__ __forceinline__ std::uint32_t scales_of_thread(const Ring& ring, std::int32_t warpgroup,
                                                          std::int32_t thread, std::int32_t slot_bytes) {
  const std::int32_t place = thread / 32 * kStripRows + thread % 32 / 4 * 2;
  return ring.scales + warpgroup * T::kRowBlocks * GroupRing<T>::kSlots * slot_bytes +
         place * (slot_bytes / kTileRows);
}

}  // namespace trit::cuda
