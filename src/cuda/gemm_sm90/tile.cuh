// SPDX-License-Identifier: MIT
//
// What the two Hopper GEMM kernels share: the tile, the ring of stages, the two producers and the
// multiplication.
//
//   acc[row, token] = sum over k of t[row, k] * q[token, k]        t ternary, q int8, acc int32: exact
//
// Operands are swapped: the weights are wgmma's A operand, unpacked in registers, and the tokens its B
// operand, in shared memory as TMA writes them. A block has 8 consumer warps in two warpgroups (or 4 in one); warpgroup g
// takes the row blocks (64 rows) g * kRowBlocks ... of the tile, and all of its tokens. Where few rows have group
// scales both take one row block, and share k (groups_shared.cuh).
//
// A ring stage is kStepTiles * 128 inputs:
//   tokens   kStepTiles boxes of [kTokens][128 bytes], 128-byte swizzle
//   weights  kBlocks row blocks of kStepTiles tiles of 2 KiB
//   scales   with group scales, elsewhere in shared memory (group_ring.cuh)
// Barriers per stage: full (2 arrivals: the token producer and the weight producer, each with its bytes; 3 with
// group scales), empty (8 or 4 arrivals: every consumer warp, since each of them reads weights).
#pragma once

#include <cstdint>

#include "cuda/common/ptx_sm90.cuh"
#include "cuda/gemm_sm90/operand.cuh"
#include "cuda/gemm_sm90/parameters.h"

namespace trit::cuda {

/// Arrivals that free a stage: one per warp, after __syncwarp. compute-sanitizer's racecheck does not follow
/// __syncwarp, so every lane arrives in its build (TRIT_RACECHECK).
#if defined(TRIT_RACECHECK)
inline constexpr int kArrivingLanes = 32;
#else
inline constexpr int kArrivingLanes = 1;
#endif
inline constexpr int kSharedAlignment = 1024;  // of a swizzled box
/// Dynamic shared memory that a block may ask for on compute capability 9.0.
inline constexpr int kSharedBytes = 227 * 1024;

/// kRowBlocks: blocks of 64 rows per consumer warpgroup. kStepTiles: 128-input tiles per stage. kWarpgroups: of
/// consumers, along the rows. kShares: warpgroups that have the same rows and share k. kPieces: of the tokens, multiplied
/// one after another with the same A registers (groups_ahead.cuh).
template <int kRowBlocks_, int kTokens_, int kStepTiles_, class Operand_ = Int8Operand, int kWarpgroups_ = 2,
          int kShares_ = 1, int kPieces_ = 1>
struct Tile {
  using Operand = Operand_;
  static constexpr int kWarpgroups = kWarpgroups_;
  static constexpr int kShares = kShares_;
  static constexpr int kConsumerWarps = 4 * kWarpgroups * kShares;
  static constexpr int kConsumerThreads = 32 * kConsumerWarps;
  static constexpr int kTileBytes = Operand::kTileBytes;
  static constexpr int kRowBlocks = kRowBlocks_;
  static constexpr int kTokens = kTokens_;
  static constexpr int kPieces = kPieces_;
  static constexpr int kPieceTokens = kTokens / kPieces;  // wgmma's N
  static constexpr int kStepTiles = kStepTiles_;
  static constexpr int kBlocks = kWarpgroups * kRowBlocks;
  static constexpr int kRows = kBlocks * kTileRows;
  static constexpr int kOctets = kTokens / 8;
  static constexpr int kAccumulators = kTokens / 2;            // per thread and row block
  static constexpr int kPieceAccumulators = kPieceTokens / 2;  // of them, one wgmma's
  static constexpr int kTokenBytes = kTokens * kBoxRowBytes;   // of one box
  static constexpr int kStepTokenBytes = kStepTiles * kTokenBytes;
  static constexpr int kStepWeightBytes = kBlocks * kStepTiles * kTileBytes;
  static constexpr int kStageBytes = kStepTokenBytes + kStepWeightBytes;

  static_assert(kPieceTokens % 16 == 0 && kTokens == kPieces * kPieceTokens && kTokens <= 256,
                "a piece is a multiple of 16 that wgmma has, a tile no more than a box of TMA");
  static_assert(kTokenBytes % kSharedAlignment == 0 && kStageBytes % kSharedAlignment == 0,
                "every box starts on the swizzle's 1024 bytes");
};

/// Position in the ring: `parity` is that of the phase in which `stage` gets full.
struct RingPosition {
  std::int32_t stage = 0;
  std::uint32_t parity = 0;
  __device__ void advance(std::int32_t stages) {
    if (++stage == stages) {
      stage = 0;
      parity ^= 1U;
    }
  }
};

struct Ring {
  std::uint32_t data;   // stage i at data + i * kStageBytes
  std::uint32_t full;   // barrier i at full + 8 i
  std::uint32_t empty;  // barrier i at empty + 8 i
  std::int32_t stages;
  std::uint32_t scales = 0;  // of stage i at scales + i * GroupRing<T>::kStageBytes

  template <class T>
  __device__ void initialise() const {
    for (std::int32_t stage = 0; stage < stages; ++stage) {
      ptx::barrier_init(full + 8 * stage, T::Operand::kGrouped ? 3 : 2);
      ptx::barrier_init(empty + 8 * stage, T::kConsumerWarps * kArrivingLanes);
    }
  }
};

/// One thread: the boxes of `tokens` tokens from `token` on, steps [step, step + steps).
template <class T>
__device__ __forceinline__ void produce_tokens(const Ring& ring, RingPosition& position, const TensorMap* map,
                                               std::int32_t token, std::int32_t step, std::int32_t steps) {
#pragma unroll 1
  for (; steps > 0; --steps, ++step) {
    const std::uint32_t full = ring.full + 8 * position.stage;
    const std::uint32_t data = ring.data + position.stage * T::kStageBytes;
    ptx::barrier_wait(ring.empty + 8 * position.stage, position.parity ^ 1U);
    ptx::barrier_arrive_expect(full, T::kStepTokenBytes);
#pragma unroll
    for (int tile = 0; tile < T::kStepTiles; ++tile) {
      // A box beyond K arrives as zeros, so the weights of that tile do not matter.
      ptx::tensor_load(data + tile * T::kTokenBytes, map,
                       (step * T::kStepTiles + tile) * T::Operand::kTileInputs, token, full);
    }
    position.advance(ring.stages);
  }
}

/// One thread: the weights of the same steps for the row blocks from `row_block` on. Row blocks beyond the
/// matrix are taken from its last one: their outputs are not stored.
template <class T>
__device__ __forceinline__ void produce_weights(const Ring& ring, RingPosition& position,
                                                const GemmSm90Parameters& p, std::int32_t row_block,
                                                std::int32_t step, std::int32_t steps) {
  constexpr int kBlocks = T::kBlocks;
  const std::int64_t block_bytes = static_cast<std::int64_t>(p.k_tiles) * T::kTileBytes;
  const std::uint8_t* source[kBlocks];
#pragma unroll
  for (int block = 0; block < kBlocks; ++block) {
    const std::int32_t inside = min(row_block + block, p.row_blocks - 1);
    source[block] =
        p.weights + inside * block_bytes + static_cast<std::int64_t>(step) * T::kStepTiles * T::kTileBytes;
  }
#pragma unroll 1
  for (std::int32_t tile = step * T::kStepTiles; steps > 0; --steps, tile += T::kStepTiles) {
    const std::uint32_t full = ring.full + 8 * position.stage;
    const std::uint32_t data = ring.data + position.stage * T::kStageBytes + T::kStepTokenBytes;
    const std::int32_t bytes = min(T::kStepTiles, p.k_tiles - tile) * T::kTileBytes;
    ptx::barrier_wait(ring.empty + 8 * position.stage, position.parity ^ 1U);
    ptx::barrier_arrive_expect(full, kBlocks * bytes);
#pragma unroll
    for (int block = 0; block < kBlocks; ++block) {
      ptx::bulk_load(data + block * T::kStepTiles * T::kTileBytes, source[block], bytes, full);
      source[block] += T::kStepTiles * T::kTileBytes;
    }
    position.advance(ring.stages);
  }
}

/// Bits of an address of shared memory. Masked with them ptxas knows that sums with a descriptor do not carry: one
/// instruction for each in place of three.
inline constexpr std::uint32_t kSharedWindow = 0x3ffff;

/// wgmma's descriptor of a box at `address`: K-major rows of 128 bytes, 128-byte swizzle, 1024 bytes from 8
/// rows to the next 8. A k-step further on is 32 bytes, + 2 in its unit of 16.
__device__ __forceinline__ std::uint64_t box_descriptor(std::uint32_t address) {
  constexpr std::uint64_t kSwizzle128 = std::uint64_t{1} << 62U;
  constexpr std::uint64_t kEightRows = std::uint64_t{1024 >> 4} << 32U;
  constexpr std::uint64_t kUnusedWithSwizzle = std::uint64_t{1} << 16U;
  return kSwizzle128 | kEightRows | kUnusedWithSwizzle | ((address & kSharedWindow) >> 4U);
}
inline constexpr std::uint64_t kDescriptorPerStep = 2;
/// That of k-step `k` in a box `bytes` behind the one of `box`.
__device__ __forceinline__ std::uint64_t step_descriptor(std::uint64_t box, int bytes, int k) {
  return box + static_cast<std::uint64_t>(bytes / 16) + static_cast<std::uint64_t>(k) * kDescriptorPerStep;
}

/// acc = the operand's factor * the sum over `steps` ring steps; a consumer warpgroup. `thread` 0..127 in it,
/// `group` 0 or 1.
///
/// The A registers of a tile are two sets, for its first two k-steps and its last two. While wgmma reads
/// one set the other is unpacked; `ptx::wgmma_wait<1>` before each unpacking ensures that the set's last
/// readers have finished. The same wait, after the first set, ends the last reads of the step before, whose
/// stage is freed then.
template <class T>
__device__ __forceinline__ void multiply(const Ring& ring, RingPosition& position, std::int32_t steps,
                                         std::int32_t group, std::int32_t thread,
                                         std::int32_t (&acc)[T::kRowBlocks][T::kAccumulators]) {
  const std::uint32_t weights = ring.data + T::kStepTokenBytes +
                                group * T::kRowBlocks * T::kStepTiles * T::kTileBytes +
                                thread * T::Operand::kThreadBytes;
  std::uint32_t previous = 0;  // the empty barrier of the step before; 0 (never a barrier's address): none
  std::uint32_t set[2][T::kRowBlocks][2][4];
#pragma unroll 1
  for (std::int32_t step = 0; step < steps; ++step) {
    const std::uint32_t offset = position.stage * T::kStageBytes;
    ptx::barrier_wait(ring.full + 8 * position.stage, position.parity);
#pragma unroll 1  // two copies of the body make ptxas serialise wgmma (C7513)
    for (int tile = 0; tile < T::kStepTiles; ++tile) {
      const std::uint64_t box = box_descriptor(ring.data + offset + tile * T::kTokenBytes);
      typename T::Operand::Words words[T::kRowBlocks];
#pragma unroll
      for (int block = 0; block < T::kRowBlocks; ++block) {
        T::Operand::load(weights + offset + (block * T::kStepTiles + tile) * T::kTileBytes, words[block]);
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int block = 0; block < T::kRowBlocks; ++block) {
          T::Operand::unpack_half(words[block], half, set[half][block]);
        }
        ptx::wgmma_fence();
#pragma unroll
        for (int k = 0; k < 2; ++k) {
#pragma unroll
          for (int block = 0; block < T::kRowBlocks; ++block) {
            const bool may_be_first = half == 0 && k == 0;
            T::Operand::template Wgmma<T::kTokens>::multiply(acc[block], set[half][block][k],
                                                             step_descriptor(box, 0, 2 * half + k),
                                                             may_be_first ? step + tile : 1);
          }
        }
        ptx::wgmma_commit();
        ptx::wgmma_wait<1>();
        if (tile == 0 && half == 0 && previous != 0) {
          __syncwarp();
          if (thread % 32 < kArrivingLanes) {
            ptx::barrier_arrive(previous);
          }
        }
      }
    }
    previous = ring.empty + 8 * position.stage;
    position.advance(ring.stages);
  }
  ptx::wgmma_wait<0>();
#pragma unroll
  for (int block = 0; block < T::kRowBlocks; ++block) {
#pragma unroll
    for (int i = 0; i < T::kAccumulators; ++i) {
      ptx::pin_register(acc[block][i]);
    }
  }
  if (previous != 0) {
    __syncwarp();
    if (thread % 32 < kArrivingLanes) {
      ptx::barrier_arrive(previous);
    }
  }
}

}  // namespace trit::cuda
