// SPDX-License-Identifier: MIT
//
// GEMM for many tokens: one block per multiprocessor takes tile after tile.
//
//                                                                      registers a thread
//   warps 0-3     consumers, rows of the tile's first half              232, 64 to 168 of them accumulators
//   warps 4-7     consumers, rows of the second half                    232
//   warp 8        one thread: tokens by TMA                             40
//   warp 9        one thread: weights by bulk copies                    40
//   warp 10       one thread: group scales, where there are any         40
//   warp 11       nothing: setmaxnreg works on whole warpgroups         40
//
// A tile with one warpgroup of consumers (GeneralTile, group_tiles.cuh) has its producers in warps 4-6, and 255 registers for every
// thread.
//
// While the consumers write a tile's outputs the producers fill the ring with the next tile.
// Outputs of 16 bits go through shared memory: stmatrix transposes them into [token][64 rows] panels with
// 128-byte swizzle, and TMA stores a panel per row block while the next tile is multiplied. Other outputs are
// stored from registers: 8 lanes write 8 neighbouring rows, 32 bytes of fp32, a whole sector.
#pragma once

#include <cstdint>

#include "cuda/common/launch.cuh"
#include "cuda/gemm_sm90/epilogue.cuh"
#include "cuda/gemm_sm90/group_overflow.cuh"
#include "cuda/gemm_sm90/groups.cuh"
#include "cuda/gemm_sm90/launch.cuh"
#include "cuda/gemm_sm90/tile.cuh"

namespace trit::cuda {

template <class T>
struct PersistentShared {
  static constexpr int kPanelBytes = T::kTokens * 128;  // [token][64 rows of 16 bits]
  static constexpr int kStagingBytes = T::kBlocks * kPanelBytes;
  static constexpr int kScaleBytes =
      T::kWarpgroups * T::kTokens * 4;  // a copy each: each has its own barrier
  static constexpr int kGroupScaleBytes = T::Operand::kGrouped ? 2 * kScaleBytes : 0;  // two of each
  static constexpr int kFixedBytes = kStagingBytes + kScaleBytes + kGroupScaleBytes + HandOver<T>::kBytes;
  static constexpr int kRingScaleBytes = GroupRing<T>::kStageBytes;
  static constexpr int kStages = (kSharedBytes - kFixedBytes) / (T::kStageBytes + kRingScaleBytes + 16);
  static constexpr int kBytes = kFixedBytes + kStages * (T::kStageBytes + kRingScaleBytes + 16);

  static constexpr int kStaging = kStages * T::kStageBytes;
  static constexpr int kScales = kStaging + kStagingBytes;
  static constexpr int kGroupScales = kScales + kScaleBytes;
  static constexpr int kHandOver = kGroupScales + kGroupScaleBytes;
  static constexpr int kRingScales = kHandOver + HandOver<T>::kBytes;
  static constexpr int kBarriers = kRingScales + kStages * kRingScaleBytes;

  static_assert(kStages >= 3, "a ring of fewer than three stages does not hide the latency of memory");
};

struct TilePosition {
  std::int32_t row_tile;
  std::int32_t token_tile;
};

__device__ __forceinline__ std::int32_t quotient(const FastDivider& by, std::int32_t n) {
  return static_cast<std::int32_t>(
      (static_cast<std::uint64_t>(static_cast<std::uint32_t>(n)) * by.multiplier) >> by.shift);
}

__device__ __forceinline__ TilePosition tile_position(const TileOrder& order, std::int32_t index) {
  const std::int32_t group = quotient(order.per_group, index);
  const std::int32_t first = group * kTokenTileGroup;
  const std::int32_t inside = index - group * static_cast<std::int32_t>(order.per_group.divisor);
  const FastDivider& width = first == order.last_begin ? order.last_group : order.group;
  const std::int32_t row_tile = quotient(width, inside);
  return {row_tile, first + inside - row_tile * static_cast<std::int32_t>(width.divisor)};
}

/// The outputs of a warpgroup's rows of one tile into its panels, [token][64 rows] for each row block.
template <class T>
__device__ __forceinline__ void stage_tile(const GemmSm90Parameters& p, std::uint32_t staging,
                                           const float* scales, std::int32_t thread,
                                           const RowEpilogue (&rows)[T::kRowBlocks][2],
                                           const std::int32_t (&acc)[T::kRowBlocks][T::kAccumulators]) {
  const std::int32_t warp = thread / 32;
  const std::int32_t lane = thread % 32;
  // stmatrix: lanes 8 m .. 8 m + 7 address matrix m = (8 rows m % 2, octet m / 2), lane % 8 its token.
  const std::int32_t swizzled = ((2 * warp + (lane / 8) % 2) ^ (lane % 8)) * 16;
  const std::uint32_t target = staging + (8 * (lane / 16) + lane % 8) * 128 + swizzled;
  scales += 2 * (lane % 4);
#pragma unroll
  for (int block = 0; block < T::kRowBlocks; ++block) {
#pragma unroll
    for (int octet = 0; octet < T::kOctets; octet += 2) {
      std::uint32_t matrices[4];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float y[4];
        epilogue_octet<typename T::Operand>(&acc[block][4 * (octet + i)], scales + 8 * (octet + i),
                                            rows[block], y);
        matrices[2 * i] = pack_16bit(p.y_type, y[0], y[1]);
        matrices[2 * i + 1] = pack_16bit(p.y_type, y[2], y[3]);
      }
      ptx::store_transposed(target + (block * T::kTokens + octet * 8) * 128, matrices);
    }
  }
}

/// The same outputs from registers to memory, for any type and alignment.
template <class T>
__device__ __forceinline__ void store_tile(const GemmSm90Parameters& p, const float* scales,
                                           std::int32_t thread, std::int32_t row, std::int32_t token,
                                           const RowEpilogue (&rows)[T::kRowBlocks][2],
                                           const std::int32_t (&acc)[T::kRowBlocks][T::kAccumulators]) {
  const std::int32_t pair = 2 * (thread % 4);
  scales += pair;
#pragma unroll
  for (int block = 0; block < T::kRowBlocks; ++block) {
    OutputCursor cursor(p, token + pair, row + block * kTileRows + 16 * (thread / 32) + thread % 32 / 4);
#pragma unroll
    for (int octet = 0; octet < T::kOctets; ++octet) {
      float y[4];
      epilogue_octet<typename T::Operand>(&acc[block][4 * octet], scales + 8 * octet, rows[block], y);
      cursor.store(p, y);
      cursor.advance(p, 8);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(T::kConsumerThreads + 128, 1)
    gemm_sm90_persistent_kernel(const __grid_constant__ TensorMap x_map,
                                const __grid_constant__ TensorMap y_map,
                                const __grid_constant__ GemmSm90Parameters p) {
  using Shared = PersistentShared<T>;
  std::uint8_t* const shared = dynamic_shared();
  const std::uint32_t base = ptx::shared_address(shared);
  const Ring ring{base, base + Shared::kBarriers, base + Shared::kBarriers + 8 * Shared::kStages,
                  Shared::kStages, base + Shared::kRingScales};
  constexpr int kProducers = T::kConsumerThreads;  // the first of their threads
  const std::int32_t steps = T::kStepTiles == 1 ? p.k_tiles : ceil_div(p.k_tiles, T::kStepTiles);
  const std::int32_t warp = static_cast<std::int32_t>(threadIdx.x) / 32;
  if (threadIdx.x == 0) {
    ring.initialise<T>();
    ptx::fence_barrier_init();
  }
  __syncthreads();

  RingPosition position;
  const auto first_tile = static_cast<std::int32_t>(blockIdx.x);
  const auto tile_stride = static_cast<std::int32_t>(gridDim.x);
  if (warp >= T::kConsumerWarps) {
    if constexpr (T::kConsumerWarps == 8) {
      ptx::registers_decrease<40>();
    }
    if (threadIdx.x == kProducers) {
      ptx::prefetch_tensor_map(&x_map);
      ptx::wait_for_predecessor();
      for (std::int32_t tile = first_tile; tile < p.order.tiles; tile += tile_stride) {
        const TilePosition at = tile_position(p.order, tile);
        produce_tokens<T>(ring, position, &x_map, at.token_tile * T::kTokens, 0, steps);
      }
    } else if (threadIdx.x == kProducers + 32) {
      // Weights are never written by the kernel before: no wait for it.
      for (std::int32_t tile = first_tile; tile < p.order.tiles; tile += tile_stride) {
        const TilePosition at = tile_position(p.order, tile);
        produce_weights<T>(ring, position, p, at.row_tile * T::kBlocks, 0, steps);
      }
    } else if (T::Operand::kGrouped && threadIdx.x == kProducers + 64) {
      if constexpr (T::Operand::kGrouped) {
        for (std::int32_t tile = first_tile; tile < p.order.tiles; tile += tile_stride) {
          const TilePosition at = tile_position(p.order, tile);
          produce_scales<T>(ring, position, p, at.row_tile * T::kBlocks, steps);
        }
      }
    }
  } else {
    if constexpr (T::kConsumerWarps == 8) {
      ptx::registers_increase<232>();
    }
    const std::int32_t group = T::kShares == 2 ? 0 : warp / 4;
    // Of the warp's first lane: ptxas does not see that all lanes have the same, and serialises wgmma (C7518).
    const std::int32_t share = T::kShares == 2 ? __shfl_sync(0xffffffffU, warp / 4, 0) : 0;
    const std::int32_t thread = static_cast<std::int32_t>(threadIdx.x) % 128;
    const std::int32_t thread_row = 16 * (warp % 4) + (thread % 32) / 4;
    float* scales = reinterpret_cast<float*>(shared + Shared::kScales) + group * T::kTokens;
    const std::uint32_t staging = base + Shared::kStaging + group * T::kRowBlocks * Shared::kPanelBytes;
    ptx::wait_for_predecessor();
    ptx::let_successor_start();
    for (std::int32_t tile = first_tile; tile < p.order.tiles; tile += tile_stride) {
      const TilePosition at = tile_position(p.order, tile);
      const std::int32_t row = at.row_tile * T::kRows + group * T::kRowBlocks * kTileRows;
      const std::int32_t token = at.token_tile * T::kTokens;
      // Read now, needed after the multiplication: the latency is hidden.
      RowEpilogue rows[T::kRowBlocks][2];
#pragma unroll
      for (int block = 0; block < T::kRowBlocks; ++block) {
        rows[block][0] = row_epilogue(p, row + block * kTileRows + thread_row);
        rows[block][1] = row_epilogue(p, row + block * kTileRows + thread_row + 8);
      }
      float scale[(T::kTokens + 127) / 128];
#pragma unroll
      for (int i = 0; i < (T::kTokens + 127) / 128; ++i) {
        const std::int32_t mine = thread + 128 * i;
        scale[i] = 1.0F;
        if constexpr (T::Operand::kScaled) {
          if (mine < T::kTokens && (!T::Operand::kGrouped || p.token_scales != nullptr)) {
            scale[i] = token + mine < p.tokens ? p.token_scales[token + mine] : 0.0F;
          }
        }
      }
      std::int32_t acc[T::kRowBlocks][T::kAccumulators];
      if constexpr (T::Operand::kGrouped) {
        auto* const group_scales = reinterpret_cast<float*>(shared + Shared::kGroupScales);
        multiply_groups<T>(ring, position, p, group, share, thread, token,
                           group_scales + group * 2 * T::kTokens, base + Shared::kHandOver, acc);
        if (share == 1) {
          continue;  // the other one has all sums
        }
        if constexpr (T::Operand::kMayOverflow) {
          repair_overflow<T>(p, row + thread_row, token + 2 * (thread % 4), acc);
        }
      } else {
        multiply<T>(ring, position, steps, group, thread, acc);
      }
#pragma unroll
      for (int i = 0; i < (T::kTokens + 127) / 128; ++i) {
        if (thread + 128 * i < T::kTokens) {
          scales[thread + 128 * i] = scale[i];
        }
      }
      if (p.staged && thread == 0) {
        ptx::store_wait_read();  // the panels of the tile before have left shared memory
      }
      ptx::named_barrier(1 + group, 128);
      if (p.staged) {
        stage_tile<T>(p, staging, scales, thread, rows, acc);
        ptx::fence_async_proxy();
      } else {
        store_tile<T>(p, scales, thread, row, token, rows, acc);
      }
      ptx::named_barrier(1 + group, 128);  // the panels are full, and the scales read
      if (p.staged && thread == 0) {
        for (int block = 0; block < T::kRowBlocks; ++block) {
          ptx::tensor_store(&y_map, row + block * kTileRows, token, staging + block * Shared::kPanelBytes);
        }
        ptx::store_commit();
      }
    }
    if (p.staged && thread == 0) {
      ptx::store_wait();
    }
  }
}

template <class T>
constexpr GemmSm90Instance persistent_instance() {
  return {{GemmSm90Kernel::persistent, T::kRows, T::kTokens}, [](const GemmSm90Launch& l) {
            launch<gemm_sm90_persistent_kernel<T>>("gemm_sm90_persistent",
                                                   {.grid = {static_cast<unsigned>(l.blocks)},
                                                    .block = {T::kConsumerThreads + 128},
                                                    .shared_bytes = PersistentShared<T>::kBytes,
                                                    .programmatic = l.programmatic},
                                                   l.stream, l.x_map, l.y_map, l.parameters);
          }};
}

}  // namespace trit::cuda
