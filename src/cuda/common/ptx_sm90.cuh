// SPDX-License-Identifier: MIT
//
// One wrapper per instruction of compute capability 9.0: mbarriers, the bulk copy engine (TMA), clusters,
// stmatrix, setmaxnreg (wgmma is in gemm_sm90/wgmma.cuh). Under a C++ compiler the same names come from
// tests/cuda/emulator/ptx_sm90.h, written after the PTX manual.
//
// Addresses of shared memory are 32-bit, in the window of the block (shared::cta); an address that
// `cluster_address` made is in the window of the cluster (shared::cluster).
#pragma once

#include <cstdint>

#include "cuda/common/ptx.cuh"
#include "cuda/common/tensor_map.cuh"

#if !defined(__CUDACC__)
#include "cuda/emulator/ptx_sm90.h"
#else

namespace trit::cuda::ptx {

// ---- mbarriers ----

__device__ __forceinline__ void barrier_init(std::uint32_t barrier, std::uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

/// After the inits: the copy engine and the other blocks of the cluster see them.
__device__ __forceinline__ void fence_barrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void barrier_arrive(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/// Arrives, and makes the phase wait for `bytes` more of asynchronous copies.
__device__ __forceinline__ void barrier_arrive_expect(std::uint32_t barrier, std::uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}

/// Waits until the phase of this parity has ended. A new barrier is in phase 0, so parity 1 returns at once.
/// The default forms (.acquire, .cta): with .cluster a ring step costs hundreds of nanoseconds more.
__device__ __forceinline__ void barrier_wait(std::uint32_t barrier, std::uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred ended;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 ended, [%0], %1;\n"
      "@ended bra done;\n"
      "bra again;\n"
      "done:\n"
      "}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// ---- the copy engine ----

/// Ordinary writes of shared memory before this are seen by the copy engine (and wgmma) after it.
__device__ __forceinline__ void fence_async_proxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/// A contiguous copy, global to shared: addresses and bytes are multiples of 16.
__device__ __forceinline__ void bulk_load(std::uint32_t destination, const void* source, std::uint32_t bytes,
                                          std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
          destination),
      "l"(source), "r"(bytes), "r"(barrier)
      : "memory");
}

/// One box of a two-dimensional tensor, global to shared; `x` is the coordinate along the contiguous
/// dimension. Elements beyond the tensor arrive as zeros and count as bytes.
__device__ __forceinline__ void tensor_load(std::uint32_t destination, const TensorMap* map, std::int32_t x,
                                            std::int32_t y, std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], "
      "[%4];" ::"r"(destination),
      "l"(map), "r"(x), "r"(y), "r"(barrier)
      : "memory");
}

/// One box, shared to global; what lies beyond the tensor is not written, except that a row ends on a whole
/// unit: seen on an H200, where rows of an odd number of 16-bit elements had one more written.
__device__ __forceinline__ void tensor_store(const TensorMap* map, std::int32_t x, std::int32_t y,
                                             std::uint32_t source) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(map),
               "r"(x), "r"(y), "r"(source)
               : "memory");
}

__device__ __forceinline__ void store_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
/// The calling thread's committed stores have read their shared memory.
__device__ __forceinline__ void store_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}
/// The calling thread's committed stores are complete.
__device__ __forceinline__ void store_wait() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }

__device__ __forceinline__ void prefetch_tensor_map(const TensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// ---- clusters ----

__device__ __forceinline__ std::uint32_t cluster_rank() {
  std::uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

/// Number of the cluster along x.
__device__ __forceinline__ std::uint32_t cluster_index() {
  std::uint32_t index;
  asm volatile("mov.u32 %0, %%clusterid.x;" : "=r"(index));
  return index;
}

/// Every thread of the cluster arrives once; what it fenced before is seen by those who wait.
__device__ __forceinline__ void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}
__device__ __forceinline__ void cluster_wait() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

/// The address, in the block `rank` of the cluster, of what lies at `address` in this block.
__device__ __forceinline__ std::uint32_t cluster_address(std::uint32_t address, std::uint32_t rank) {
  std::uint32_t mapped;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(mapped) : "r"(address), "r"(rank));
  return mapped;
}

/// Writes 16 bytes into another block of the cluster (of two at least: on an H200 a block launched without a
/// cluster fails in it) and counts them on that block's barrier.
__device__ __forceinline__ void cluster_store(std::uint32_t address, const std::int32_t (&values)[4],
                                              std::uint32_t barrier) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(
          address),
      "r"(values[0]), "r"(values[1]), "r"(values[2]), "r"(values[3]), "r"(barrier)
      : "memory");
}

// ---- the rest ----

/// Writes 16 bytes of shared memory.
__device__ __forceinline__ void shared_store(std::uint32_t address, const std::int32_t (&values)[4]) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(values[0]), "r"(values[1]),
               "r"(values[2]), "r"(values[3])
               : "memory");
}

/// Stores four 8x8 matrices of 16-bit elements transposed: lane l holds of each matrix row l / 4, columns
/// 2 (l % 4) and + 1; lane l's `address` takes the 8 elements of column l % 8 of matrix l / 8.
__device__ __forceinline__ void store_transposed(std::uint32_t address, const std::uint32_t (&matrices)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
               "r"(matrices[0]), "r"(matrices[1]), "r"(matrices[2]), "r"(matrices[3])
               : "memory");
}

/// Registers of a warpgroup's threads: one warpgroup takes what another one gives back (all four warps
/// execute it).
template <int kRegisters>
__device__ __forceinline__ void registers_decrease() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void registers_increase() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

}  // namespace trit::cuda::ptx

#endif
