// SPDX-License-Identifier: MIT
//
// One wrapper per PTX instruction that has no CUDA C++ name: what sm_80 has and more (Hopper's own are in
// ptx_sm90.cuh). Under a C++ compiler the same names come from tests/cuda/emulator/ptx.h, written after the
// PTX manual.
#pragma once

#include "cuda/common/platform.cuh"

#if !defined(__CUDACC__)
#include "cuda/emulator/ptx.h"
#else
namespace trit::cuda::ptx {

__device__ __forceinline__ std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

/// d[16x8] += a[16x32] b[32x8], int8 in, int32 out; all 32 lanes. With g = lane / 4 and c = lane % 4:
///   a[0]  row g, k 4c..4c+3 (byte i is k + i);  a[1]  row g + 8;  a[2], a[3]  the same rows, k 16 further
///   b0    column g, k 4c..4c+3;  b1  k 16 further
///   d[0], d[1]  row g, columns 2c, 2c + 1;  d[2], d[3]  row g + 8
__device__ __forceinline__ void mma_m16n8k32(std::int32_t (&d)[4], const std::uint32_t (&a)[4],
                                             std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, "
      "%1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// The same with unsigned bytes in a.
__device__ __forceinline__ void mma_m16n8k32_u8(std::int32_t (&d)[4], const std::uint32_t (&a)[4],
                                                std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, "
      "%1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// (a ^ b) & c in one instruction.
__device__ __forceinline__ std::uint32_t and_of_xor(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  std::uint32_t d;
  asm("lop3.b32 %0, %1, %2, %3, 0x28;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}

/// Four matrices of 8 rows x 16 bytes: lane l gives the address of row l % 8 of matrix l / 8, 16-byte
/// aligned, and gets in r[i] bytes 4 (l % 4) .. + 3 of row l / 4 of matrix i. All 32 lanes.
__device__ __forceinline__ void ldmatrix_x4(std::uint32_t (&r)[4], std::uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row)
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x4(std::uint32_t (&r)[4], const void* row) {
  ldmatrix_x4(r, shared_address(row));
}

/// 16 bytes of shared memory.
__device__ __forceinline__ uint4 shared_load(std::uint32_t address) {
  uint4 value;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "r"(address)
               : "memory");
  return value;
}
__device__ __forceinline__ void shared_load(std::uint32_t address, float4& value) {
  asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(value.x), "=f"(value.y), "=f"(value.z), "=f"(value.w)
               : "r"(address)
               : "memory");
}
__device__ __forceinline__ void shared_load(std::uint32_t address, std::uint32_t& value) {
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(value) : "r"(address) : "memory");
}
__device__ __forceinline__ void shared_load(std::uint32_t address, uint2& value) {
  asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(value.x), "=r"(value.y) : "r"(address) : "memory");
}

/// 4 bytes to shared memory.
__device__ __forceinline__ void shared_store(std::uint32_t address, std::uint32_t value) {
  asm volatile("st.shared.u32 [%0], %1;" : : "r"(address), "r"(value) : "memory");
}
/// 16 bytes to shared memory.
__device__ __forceinline__ void shared_store(std::uint32_t address, const float4& value) {
  asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};"
               :
               : "r"(address), "f"(value.x), "f"(value.y), "f"(value.z), "f"(value.w)
               : "memory");
}

/// 4 bytes of global memory, from an address whose origin the compiler does not see.
__device__ __forceinline__ std::uint32_t global_load(const void* global) {
  std::uint32_t value;
  asm volatile("ld.global.u32 %0, [%1];" : "=r"(value) : "l"(global) : "memory");
  return value;
}

/// Copies `bytes` (0..16) of global memory and fills up to 16 with zeros; both addresses are 16-byte aligned.
/// L1 is passed by.
__device__ __forceinline__ void cp_async_16(void* shared, const void* global, unsigned bytes = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(shared_address(shared)), "l"(global), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void cp_async_16(std::uint32_t shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" : : "r"(shared), "l"(global) : "memory");
}
/// 4 bytes.
__device__ __forceinline__ void cp_async_4(std::uint32_t shared, const void* global) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" : : "r"(shared), "l"(global) : "memory");
}
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// All but the latest kPending groups of this thread have arrived; other threads see them after a barrier.
template <int kPending>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

/// 16 bytes that are read once: weights must not push x out of L1.
__device__ __forceinline__ uint4 load_once_16(const void* global) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(global));
  return v;
}

/// 4 bytes of rows that pass through: they must not push a norm weight out of L1. Not .nc, which is for memory that nobody
/// writes while the kernel runs: one that is launched programmatically runs before its predecessor has written the rows.
__device__ __forceinline__ std::uint32_t load_once_4(const void* global) {
  std::uint32_t v;
  asm volatile("ld.global.L1::no_allocate.L2::128B.u32 %0, [%1];" : "=r"(v) : "l"(global));
  return v;
}

/// A barrier of `threads` threads (a multiple of 32): hardware barrier `id`, of which 0 is __syncthreads'
/// own.
__device__ __forceinline__ void named_barrier(std::uint32_t id, std::uint32_t threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/// The same by a thread that does not wait.
__device__ __forceinline__ void named_barrier_arrive(std::uint32_t id, std::uint32_t threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/// What another block has written with atomicAdd, and what that block wrote before it fenced and did so.
__device__ __forceinline__ std::int32_t load_acquire(const std::int32_t* global) {
  std::int32_t value;
  asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(global) : "memory");
  return value;
}
/// In a loop that waits for another block.
__device__ __forceinline__ void spin() { __nanosleep(32); }

/// The compiler takes `value` for unknown from here on.
__device__ __forceinline__ void opaque(int& value) { asm volatile("" : "+r"(value)); }
__device__ __forceinline__ void opaque(std::uint32_t& value) { asm volatile("" : "+r"(value)); }
__device__ __forceinline__ void opaque(const std::uint8_t*& value) { asm volatile("" : "+l"(value)); }

/// float32 to 16 bits, half to even, denormals kept; any NaN becomes some NaN.
__device__ __forceinline__ std::uint16_t to_bfloat16(float value) {
  std::uint16_t bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
__device__ __forceinline__ std::uint16_t to_float16(float value) {
  std::uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
/// Two floats to two 16-bit elements, `low` in the low half; rounded to nearest even, denormals kept.
__device__ __forceinline__ std::uint32_t pack_bfloat16(float low, float high) {
  std::uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}
__device__ __forceinline__ std::uint32_t pack_float16(float low, float high) {
  std::uint32_t packed;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

/// The larger of |a| and |b|; NaN if one of them is.
__device__ __forceinline__ float max_magnitude(float a, float b) {
  float larger;
  asm("{\n\t.reg .f32 x, y;\n\tabs.f32 x, %1;\n\tabs.f32 y, %2;\n\tmax.NaN.f32 %0, x, y;\n\t}"
      : "=f"(larger)
      : "f"(a), "f"(b));
  return larger;
}

/// float16 to float32, exact.
__device__ __forceinline__ float from_float16(std::uint16_t bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}

/// Programmatic dependent launch (a no-op before sm_90): waits until the kernel before this one in the stream
/// has ended and its writes are visible; lets the next one start.
__device__ __forceinline__ void wait_for_predecessor() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void let_successor_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

}  // namespace trit::cuda::ptx
#endif
