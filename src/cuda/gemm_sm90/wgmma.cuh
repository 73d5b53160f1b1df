// SPDX-License-Identifier: MIT
//
// wgmma, the matrix instruction of a warpgroup of compute capability 9.0. Under a C++ compiler the same names
// come from tests/cuda/emulator/wgmma.h, written after the PTX manual.
#pragma once

#include <cstdint>

#include "cuda/common/platform.cuh"
#include "trit/format.h"

#if !defined(__CUDACC__)
#include "cuda/emulator/wgmma.h"
#else

namespace trit::cuda::ptx {

/// Registers that wgmma will read are in place.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/// At most `kPending` committed groups are still running.
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

/// Holds a register at this point of the program: without it ptxas moves the unpacking of an A register past
/// the fence and then serialises every wgmma of the kernel (C7519, C7520).
__device__ __forceinline__ void pin_register(std::uint32_t& value) {
  asm volatile("" : "+r"(value)::"memory");
}
__device__ __forceinline__ void pin_register(std::int32_t& value) {
  asm volatile("" : "+r"(value)::"memory");
}

/// wgmma.m64nNk32.s32.s8.s8: d[64 rows, N tokens] = a[64, 32] * b[N, 32]ᵀ (+ d). A warpgroup of 128 threads;
/// thread (warp w, lane l) holds of a: row 16 w + l / 4 (registers 0, 2) and that + 8 (1, 3), inputs 4 (l %
/// 4) .. + 3 (0, 1) and those + 16 (2, 3); of d: d[4 j + 2 h + i] = row 16 w + l / 4 + 8 h, token 8 j + 2 (l
/// % 4) + i.
template <int kTokens>
struct Wgmma;

#define TRIT_R0 "%0, %1, %2, %3, %4, %5, %6, %7"
#define TRIT_R1 TRIT_R0 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define TRIT_R2 TRIT_R1 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define TRIT_R3 TRIT_R2 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define TRIT_R4 TRIT_R3 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define TRIT_R5 TRIT_R4 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define TRIT_R6 TRIT_R5 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define TRIT_R7 TRIT_R6 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define TRIT_R8 TRIT_R7 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define TRIT_R9 TRIT_R8 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define TRIT_R10 TRIT_R9 ", %80, %81, %82, %83, %84, %85, %86, %87"
#define TRIT_R11 TRIT_R10 ", %88, %89, %90, %91, %92, %93, %94, %95"
#define TRIT_R12 TRIT_R11 ", %96, %97, %98, %99, %100, %101, %102, %103"
#define TRIT_R13 TRIT_R12 ", %104, %105, %106, %107, %108, %109, %110, %111"
#define TRIT_R14 TRIT_R13 ", %112, %113, %114, %115, %116, %117, %118, %119"
#define TRIT_R15 TRIT_R14 ", %120, %121, %122, %123, %124, %125, %126, %127"

#define TRIT_D(i)                                                                                       \
  "+r"(d[i]), "+r"(d[(i) + 1]), "+r"(d[(i) + 2]), "+r"(d[(i) + 3]), "+r"(d[(i) + 4]), "+r"(d[(i) + 5]), \
      "+r"(d[(i) + 6]), "+r"(d[(i) + 7])
#define TRIT_D0 TRIT_D(0)
#define TRIT_D1 TRIT_D0, TRIT_D(8)
#define TRIT_D2 TRIT_D1, TRIT_D(16)
#define TRIT_D3 TRIT_D2, TRIT_D(24)
#define TRIT_D4 TRIT_D3, TRIT_D(32)
#define TRIT_D5 TRIT_D4, TRIT_D(40)
#define TRIT_D6 TRIT_D5, TRIT_D(48)
#define TRIT_D7 TRIT_D6, TRIT_D(56)
#define TRIT_D8 TRIT_D7, TRIT_D(64)
#define TRIT_D9 TRIT_D8, TRIT_D(72)
#define TRIT_D10 TRIT_D9, TRIT_D(80)
#define TRIT_D11 TRIT_D10, TRIT_D(88)
#define TRIT_D12 TRIT_D11, TRIT_D(96)
#define TRIT_D13 TRIT_D12, TRIT_D(104)
#define TRIT_D14 TRIT_D13, TRIT_D(112)
#define TRIT_D15 TRIT_D14, TRIT_D(120)

// `last` is the number of the last block of eight accumulators, a0..scale the operand numbers after them.
#define TRIT_WGMMA(tokens, last, a0, a1, a2, a3, b, scale)                                            \
  template <>                                                                                         \
  struct Wgmma<tokens> {                                                                              \
    __device__ static void multiply(std::int32_t (&d)[tokens / 2], const std::uint32_t (&a)[4],       \
                                    std::uint64_t b_descriptor, std::int32_t accumulate) {            \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #scale                                        \
                   ", 0;\n"                                                                           \
                   "wgmma.mma_async.sync.aligned.m64n" #tokens "k32.s32.s8.s8 {" TRIT_R##last         \
                   "}, {%" #a0 ", %" #a1 ", %" #a2 ", %" #a3 "}, %" #b ", p;\n}\n"                    \
                   : TRIT_D##last                                                                     \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b_descriptor), "r"(accumulate)); \
    }                                                                                                 \
  };

TRIT_WGMMA(16, 0, 8, 9, 10, 11, 12, 13)
TRIT_WGMMA(32, 1, 16, 17, 18, 19, 20, 21)
TRIT_WGMMA(64, 3, 32, 33, 34, 35, 36, 37)
TRIT_WGMMA(80, 4, 40, 41, 42, 43, 44, 45)
TRIT_WGMMA(96, 5, 48, 49, 50, 51, 52, 53)
TRIT_WGMMA(112, 6, 56, 57, 58, 59, 60, 61)
TRIT_WGMMA(128, 7, 64, 65, 66, 67, 68, 69)
TRIT_WGMMA(160, 9, 80, 81, 82, 83, 84, 85)
TRIT_WGMMA(192, 11, 96, 97, 98, 99, 100, 101)
TRIT_WGMMA(256, 15, 128, 129, 130, 131, 132, 133)

/// wgmma.m64nNk16.f32 of a 16-bit float type: d[64 rows, N tokens] = a[64, 16] * b[N, 16]ᵀ (+ d).
/// Accumulators are fp32 bits; thread (warp w, lane l) holds of a: row 16 w + l / 4 (registers 0, 2) and that
/// + 8 (1, 3), inputs 2 (l % 4) and + 1 (0, 1) and those + 8 (2, 3); of d as above.
template <DataType kType, int kTokens>
struct FloatWgmma;

#define TRIT_FLOAT_WGMMA(type, ptx_type, tokens, last, a0, a1, a2, a3, b, scale)                      \
  template <>                                                                                         \
  struct FloatWgmma<DataType::type, tokens> {                                                         \
    __device__ static void multiply(std::int32_t (&d)[tokens / 2], const std::uint32_t (&a)[4],       \
                                    std::uint64_t b_descriptor, std::int32_t accumulate) {            \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #scale                                        \
                   ", 0;\n"                                                                           \
                   "wgmma.mma_async.sync.aligned.m64n" #tokens "k16.f32." #ptx_type "." #ptx_type     \
                   " {" TRIT_R##last "}, {%" #a0 ", %" #a1 ", %" #a2 ", %" #a3 "}, %" #b              \
                                     ", p, 1, 1, 0;\n}\n"                                             \
                   : TRIT_D##last                                                                     \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b_descriptor), "r"(accumulate)); \
    }                                                                                                 \
  };
#define TRIT_FLOAT_WGMMAS(type, ptx_type)                          \
  TRIT_FLOAT_WGMMA(type, ptx_type, 128, 7, 64, 65, 66, 67, 68, 69) \
  TRIT_FLOAT_WGMMA(type, ptx_type, 192, 11, 96, 97, 98, 99, 100, 101)

TRIT_FLOAT_WGMMAS(bfloat16, bf16)
TRIT_FLOAT_WGMMAS(float16, f16)

}  // namespace trit::cuda::ptx

#endif
