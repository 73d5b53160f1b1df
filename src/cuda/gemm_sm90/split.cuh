// SPDX-License-Identifier: MIT
//
// GEMM for few tokens (9 .. about 256): one block per tile and part of K, the parts of a tile in one cluster.
//
//   warps 0-3, 4-7   consumers: the tile's halves
//   warp 8           one thread: tokens by TMA
//   warp 9           one thread: weights by bulk copies; with programmatic launch it starts before the
//                    preceding kernel has ended
//
// A stage holds 256 inputs (two tiles of k): with 128 the two producer threads are the limit, not the tensor
// cores. At the end every block sends the accumulators of token octet o to block o % split of the cluster
// (st.async, counted on its barrier; its own by an ordinary store, since the thread that adds them up also
// wrote them), and adds up and stores the octets that it owns in a rolled loop. Straight-line code of this
// epilogue would take microseconds to fetch, in a kernel that runs through it once.
//
// 168 registers a thread at 320 threads: no setmaxnreg is needed.
#pragma once

#include <cstdint>

#include "cuda/common/launch.cuh"
#include "cuda/gemm_sm90/epilogue.cuh"
#include "cuda/gemm_sm90/launch.cuh"
#include "cuda/gemm_sm90/tile.cuh"

namespace trit::cuda {

inline constexpr int kConsumerThreads = 256;  // two warpgroups
inline constexpr int kConsumerWarps = kConsumerThreads / 32;
inline constexpr int kSplitThreads = kConsumerThreads + 64;
inline constexpr int kSplitStepTiles = 2;

/// Shared memory of the split kernel: the ring, the parts of the owned octets, the token scales, the
/// barriers.
template <class T>
struct SplitShared {
  /// Bytes that one block sends for one octet: 4 accumulators per consumer thread and row block.
  static constexpr int kOctetBytes = T::kRowBlocks * kConsumerThreads * 16;
  static constexpr int parts_bytes(int split) {
    return split * ((T::kOctets + split - 1) / split) * kOctetBytes;
  }
  static constexpr int fixed_bytes(int split) { return parts_bytes(split) + T::kTokens * 4 + 8; }
  static constexpr int stages(int split) {
    return (kSharedBytes - fixed_bytes(split)) / (T::kStageBytes + 16);
  }
  static constexpr int bytes(int split) { return fixed_bytes(split) + stages(split) * (T::kStageBytes + 16); }

  // The octets are shared out evenly or not: of the splits that a tile may have these need the most memory.
  static_assert(stages(T::kRows == 256 ? 3 : 5) >= 3 && stages(T::kRows == 256 ? 4 : 7) >= 3,
                "the parts leave a ring of three stages");
};

template <class T>
__global__ void __launch_bounds__(kSplitThreads, 1)
    gemm_sm90_split_kernel(const __grid_constant__ TensorMap x_map,
                           const __grid_constant__ GemmSm90Parameters p) {
  using Shared = SplitShared<T>;
  std::uint8_t* const shared = dynamic_shared();
  const std::uint32_t base = ptx::shared_address(shared);
  const std::uint32_t parts = base + p.stages * T::kStageBytes;
  const std::uint32_t part_bytes = p.groups_per_block * Shared::kOctetBytes;  // from one block
  const std::uint32_t scales_address = parts + p.split * part_bytes;
  const std::uint32_t barriers = scales_address + T::kTokens * 4;
  const Ring ring{base, barriers, barriers + 8 * p.stages, p.stages};
  const std::uint32_t parts_barrier = barriers + 16 * p.stages;

  const auto rank = static_cast<std::int32_t>(ptx::cluster_rank());
  const auto row_tile = static_cast<std::int32_t>(ptx::cluster_index());
  const std::int32_t token = static_cast<std::int32_t>(blockIdx.y) * T::kTokens;
  // The octets rank, rank + split, ...
  std::int32_t owned = 0;
#pragma unroll 1
  for (std::int32_t octet = rank; octet < T::kOctets; octet += p.split) {
    ++owned;
  }
  if (threadIdx.x == 0) {
    ring.initialise<T>();
    ptx::barrier_init(parts_barrier, 1);
    ptx::fence_barrier_init();
    ptx::barrier_arrive_expect(parts_barrier, owned * (p.split - 1) * Shared::kOctetBytes);
  }
  __syncthreads();
  // The other blocks may send once this one has made its barrier; the wait for them is before the sending.
  // A launch without a cluster has no such barrier.
  if (p.split > 1) {
    ptx::cluster_arrive();
  }

  const std::int32_t steps = p.steps_per_block + (rank < p.steps_over ? 1 : 0);
  const std::int32_t first_step = rank * p.steps_per_block + min(rank, p.steps_over);
  const std::int32_t warp = static_cast<std::int32_t>(threadIdx.x) / 32;
  RingPosition position;
  if (warp >= kConsumerWarps) {
    if (threadIdx.x == kConsumerThreads) {
      ptx::wait_for_predecessor();
      produce_tokens<T>(ring, position, &x_map, token, first_step, steps);
    } else if (threadIdx.x == kConsumerThreads + 32) {
      produce_weights<T>(ring, position, p, row_tile * T::kBlocks, first_step, steps);
    }
    __syncwarp();
    if (p.split > 1) {
      ptx::cluster_wait();
    }
    return;
  }

  const auto consumer = static_cast<std::int32_t>(threadIdx.x);
  const std::int32_t group = warp / 4;
  const std::int32_t lane = consumer % 32;
  const std::int32_t row =
      row_tile * T::kRows + group * T::kRowBlocks * kTileRows + 16 * (warp % 4) + lane / 4;
  ptx::wait_for_predecessor();
  ptx::let_successor_start();
  RowEpilogue rows[T::kRowBlocks][2];
#pragma unroll
  for (int block = 0; block < T::kRowBlocks; ++block) {
    rows[block][0] = row_epilogue(p, row + block * kTileRows);
    rows[block][1] = row_epilogue(p, row + block * kTileRows + 8);
  }
  auto* const scales = reinterpret_cast<float*>(shared + (scales_address - base));
  if (consumer < T::kTokens) {
    scales[consumer] = token + consumer < p.tokens ? p.token_scales[token + consumer] : 0.0F;
  }

  std::int32_t acc[T::kRowBlocks][T::kAccumulators];
  multiply<T>(ring, position, steps, group, consumer % 128, acc);

  if (p.split > 1) {
    ptx::cluster_wait();
  }
  {
    const std::uint32_t mine = parts + rank * part_bytes + consumer * 16;
    std::int32_t owner = 0;
    std::uint32_t target = mine;
#pragma unroll
    for (int octet = 0; octet < T::kOctets; ++octet) {
      if (owner == rank) {
#pragma unroll
        for (int block = 0; block < T::kRowBlocks; ++block) {
          const std::int32_t* d = &acc[block][4 * octet];
          ptx::shared_store(target + block * kConsumerThreads * 16, {d[0], d[1], d[2], d[3]});
        }
      } else {
        const std::uint32_t barrier = ptx::cluster_address(parts_barrier, owner);
        const std::uint32_t address = ptx::cluster_address(target, owner);
#pragma unroll
        for (int block = 0; block < T::kRowBlocks; ++block) {
          const std::int32_t* d = &acc[block][4 * octet];
          ptx::cluster_store(address + block * kConsumerThreads * 16, {d[0], d[1], d[2], d[3]}, barrier);
        }
      }
      if (++owner == p.split) {
        owner = 0;
        target += Shared::kOctetBytes;
      }
    }
  }
  ptx::named_barrier(1, kConsumerThreads);  // the token scales are in shared memory
  ptx::barrier_wait(parts_barrier, 0);
  const std::int32_t pair = 2 * (lane % 4);
#pragma unroll
  for (int block = 0; block < T::kRowBlocks; ++block) {
    OutputCursor cursor(p, token + 8 * rank + pair, row + block * kTileRows);
    std::uint32_t source = parts + (block * kConsumerThreads + consumer) * 16;
#pragma unroll 1
    for (std::int32_t octet = rank; octet < T::kOctets; octet += p.split) {
      std::int32_t sum[4] = {0, 0, 0, 0};
      std::uint32_t part = source;
#pragma unroll 1
      for (std::int32_t from = 0; from < p.split; ++from) {
        const uint4 values = ptx::shared_load(part);
        sum[0] += static_cast<std::int32_t>(values.x);
        sum[1] += static_cast<std::int32_t>(values.y);
        sum[2] += static_cast<std::int32_t>(values.z);
        sum[3] += static_cast<std::int32_t>(values.w);
        part += part_bytes;
      }
      float y[4];
      epilogue_octet<typename T::Operand>(sum, scales + 8 * octet + pair, rows[block], y);
      cursor.store(p, y);
      cursor.advance(p, 8 * p.split);
      source += Shared::kOctetBytes;
    }
  }
}

template <class T>
constexpr GemmSm90Instance split_instance() {
  return {{GemmSm90Kernel::split, T::kRows, T::kTokens}, [](const GemmSm90Launch& l) {
            using Shared = SplitShared<T>;
            GemmSm90Parameters p = l.parameters;
            const std::int32_t steps = ceil_div(p.k_tiles, T::kStepTiles);
            p.stages = Shared::stages(p.split);
            p.steps_per_block = steps / p.split;
            p.steps_over = steps % p.split;
            p.groups_per_block = ceil_div(T::kOctets, p.split);
            launch<gemm_sm90_split_kernel<T>>(
                "gemm_sm90_split",
                {.grid = {static_cast<unsigned>(l.row_tiles * p.split), static_cast<unsigned>(l.token_tiles)},
                 .block = {kSplitThreads},
                 .shared_bytes = static_cast<unsigned>(Shared::bytes(p.split)),
                 .programmatic = l.programmatic,
                 .cluster = static_cast<unsigned>(p.split)},
                l.stream, l.x_map, p);
          }};
}

}  // namespace trit::cuda
