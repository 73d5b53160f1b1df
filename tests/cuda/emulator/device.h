// SPDX-License-Identifier: MIT
//
// What a kernel's source needs of CUDA C++, for a C++ compiler: keywords, built-in variables, vector types,
// warp functions, atomics and the rounding intrinsics. src/cuda/common/platform.cuh includes it where the
// compiler is not nvcc.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "cuda/emulator/emulator.h"

// The names are CUDA's.
// NOLINTBEGIN(bugprone-reserved-identifier, readability-identifier-naming)

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)

using dim3 = trit::emulator::Dim3;
#define threadIdx (::trit::emulator::this_thread().index)
#define blockIdx (::trit::emulator::this_thread().block)
#define blockDim (::trit::emulator::this_launch().block)
#define gridDim (::trit::emulator::this_launch().grid)

struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

inline void __syncthreads() { trit::emulator::named_barrier(0, 0); }
inline void __threadfence() {}

namespace trit::emulator {

/// The warp's values, each lane's own at its index, and what each lane gets.
template <typename Value, typename Select>
Value exchange(std::uint32_t mask, std::string_view name, Value value, Select&& select) {
  struct Args {
    Value value, result;
    Select* select;
  } args{value, value, &select};
  collective(Group::warp, mask, name, &args, [mask](std::span<void* const> all) {
    for (unsigned lane = 0; lane < 32; ++lane) {
      if ((mask >> lane & 1U) != 0) {
        auto* me = static_cast<Args*>(all[lane]);
        me->result = (*me->select)(all, lane, [&](unsigned from) {
          return all[from] == nullptr ? me->value : static_cast<Args*>(all[from])->value;
        });
      }
    }
  });
  return args.result;
}

}  // namespace trit::emulator

inline void __syncwarp(std::uint32_t mask = 0xffffffffU) {
  trit::emulator::collective(trit::emulator::Group::warp, mask, "__syncwarp", nullptr, [](auto) {});
}
template <typename Value>
Value __shfl_sync(std::uint32_t mask, Value value, int from) {
  return trit::emulator::exchange(mask, "__shfl_sync", value, [from](auto, unsigned, auto&& of) {
    return of(static_cast<unsigned>(from) & 31U);
  });
}
template <typename Value>
Value __shfl_xor_sync(std::uint32_t mask, Value value, int bits) {
  return trit::emulator::exchange(mask, "__shfl_xor_sync", value, [bits](auto, unsigned lane, auto&& of) {
    return of((lane ^ static_cast<unsigned>(bits)) & 31U);
  });
}
template <typename Value>
Value __shfl_down_sync(std::uint32_t mask, Value value, unsigned by) {
  return trit::emulator::exchange(mask, "__shfl_down_sync", value, [by](auto, unsigned lane, auto&& of) {
    return of(lane + by < 32 ? lane + by : lane);
  });
}
inline unsigned __ballot_sync(std::uint32_t mask, bool value) {
  return trit::emulator::exchange(mask, "__ballot_sync", unsigned{value}, [mask](auto, unsigned, auto&& of) {
    unsigned bits = 0;
    for (unsigned lane = 0; lane < 32; ++lane) {
      bits |= (mask >> lane & 1U) != 0 && of(lane) != 0 ? 1U << lane : 0U;
    }
    return bits;
  });
}
inline bool __any_sync(std::uint32_t mask, bool value) { return __ballot_sync(mask, value) != 0; }
inline bool __all_sync(std::uint32_t mask, bool value) { return __ballot_sync(mask, value) == mask; }
inline unsigned __reduce_max_sync(std::uint32_t mask, unsigned value) {
  return trit::emulator::exchange(mask, "__reduce_max_sync", value, [mask](auto, unsigned, auto&& of) {
    unsigned largest = 0;
    for (unsigned lane = 0; lane < 32; ++lane) {
      largest = (mask >> lane & 1U) != 0 ? std::max<unsigned>(largest, of(lane)) : largest;
    }
    return largest;
  });
}
inline int __reduce_add_sync(std::uint32_t mask, int value) {
  return trit::emulator::exchange(mask, "__reduce_add_sync", value, [mask](auto, unsigned, auto&& of) {
    int sum = 0;
    for (unsigned lane = 0; lane < 32; ++lane) {
      sum += (mask >> lane & 1U) != 0 ? of(lane) : 0;
    }
    return sum;
  });
}
/// Byte i of the result is the one of b:a that bits 4 i .. 4 i + 2 of `selector` name.
inline std::uint32_t __byte_perm(std::uint32_t a, std::uint32_t b, std::uint32_t selector) {
  const std::uint64_t bytes = std::uint64_t{b} << 32U | a;
  std::uint32_t result = 0;
  for (unsigned i = 0; i < 4; ++i) {
    result |= static_cast<std::uint32_t>(bytes >> (8 * (selector >> (4 * i) & 7U)) & 0xffU) << (8 * i);
  }
  return result;
}
/// c plus the products of four signed bytes.
inline int __dp4a(int a, int b, int c) {
  for (int shift = 0; shift < 32; shift += 8) {
    c += int{static_cast<std::int8_t>(a >> shift)} * int{static_cast<std::int8_t>(b >> shift)};
  }
  return c;
}

// One fiber runs at a time, so these are atomic.
template <typename Value>
Value atomicAdd(Value* place, Value add) {
  const Value before = *place;
  *place = static_cast<Value>(before + add);
  return before;
}
template <typename Value>
Value atomicMax(Value* place, Value value) {
  const Value before = *place;
  *place = std::max(before, value);
  return before;
}

// The build has -ffp-contract=off: each is one rounding.
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline float __double2float_rn(double a) { return static_cast<float>(a); }
inline float __int2float_rn(int a) { return static_cast<float>(a); }
inline float __uint_as_float(unsigned a) { return std::bit_cast<float>(a); }
inline float __int_as_float(int a) { return std::bit_cast<float>(a); }
inline unsigned __float_as_uint(float a) { return std::bit_cast<unsigned>(a); }
inline int __ldcg(const int* p) { return *p; }
inline float __ldcg(const float* p) { return *p; }

// NOLINTEND(bugprone-reserved-identifier, readability-identifier-naming)
