// SPDX-License-Identifier: MIT
//
// The element types of the Hopper GEMM: ternary weights with int8 or 16-bit floats, and int8 with int8. A tile
// is 64 rows and as many inputs as fill the 128 bytes of a token in a box: 128 of int8, 64 of a 16-bit float. A
// wgmma step takes 32 of these bytes, so that a tile is four steps for every type.
//
// int8: the tile of fragments.cuh, 2 KiB. 16-bit floats: 1 KiB, 8 bytes for each thread of a warpgroup, a
// word for two steps. With g = lane / 4, c = lane % 4:
//
//   bits of a word   31 30  29 28  ...  17 16 | 15 14  13 12  ...  1 0
//   A register         0      1    ...    7   |   0      1    ...   7     0 .. 3: first step, 4 .. 7: second
//   step input                    odd              |         even
//
//   Registers 0 and 1 hold inputs 2c and 2c + 1 of the step's 16, registers 2 and 3 those 8 further; 0 and 2
//   are row g, 1 and 3 row g + 8.
//
// A code is 2-bit two's complement. Shifted left by 2r, the two top bits of each half are sign and highest
// exponent bit of a float: 0x4000 is 2 and 0xc000 is -2, in bfloat16 and in float16. So two weights take one
// shift and one AND, and the sum is twice too large, exactly.
#pragma once

#include <cstdint>

#include "cuda/common/fragments.cuh"
#include "cuda/common/ptx_sm90.cuh"
#include "cuda/gemm_sm90/wgmma.cuh"

namespace trit::cuda {

inline constexpr int kBoxRowBytes = 128;  // of a token in a box: the width of the swizzle

struct Int8Operand {
  static constexpr int kTileInputs = trit::cuda::kTileInputs;
  static constexpr int kTileBytes = trit::cuda::kTileBytes;
  static constexpr bool kScaled = true;    // each token has a scale
  static constexpr bool kGrouped = false;  // with group scales (groups.cuh)
  using Words = uint4;                     // of a thread and tile, one for each step
  static constexpr int kThreadBytes = 16;
  template <int kTokens>
  using Wgmma = ptx::Wgmma<kTokens>;
  __device__ static void load(std::uint32_t address, Words& words) { words = ptx::shared_load(address); }
  /// The A registers of two of the tile's four steps, in place before the fence.
  __device__ static void unpack_half(const Words& words, int half, std::uint32_t (&registers)[2][4]) {
    unpack(registers[0], half == 0 ? words.x : words.z);
    unpack(registers[1], half == 0 ? words.y : words.w);
#pragma unroll
    for (int r = 0; r < 8; ++r) {
      ptx::pin_register(registers[r / 4][r % 4]);
    }
  }
  /// The sum of t q.
  __device__ static float value(std::int32_t acc) { return static_cast<float>(acc >> kCodeShift); }
};

/// kType: bfloat16 or float16. The accumulators hold fp32.
template <DataType kType>
struct FloatOperand {
  static constexpr int kTileInputs = 64;
  static constexpr int kTileBytes = 1024;
  static constexpr bool kScaled = false;
  static constexpr bool kGrouped = false;
  using Words = uint2;  // one for two steps
  static constexpr int kThreadBytes = 8;
  template <int kTokens>
  using Wgmma = ptx::FloatWgmma<kType, kTokens>;
  __device__ static void load(std::uint32_t address, Words& words) { ptx::shared_load(address, words); }
  __device__ static void unpack_half(const Words& words, int half, std::uint32_t (&registers)[2][4]) {
    const std::uint32_t word = half == 0 ? words.x : words.y;
#pragma unroll
    for (int r = 0; r < 8; ++r) {
      registers[r / 4][r % 4] = (word << (2 * r)) & 0xc000c000U;
      ptx::pin_register(registers[r / 4][r % 4]);
    }
  }
  __device__ static float value(std::int32_t acc) { return __fmul_rn(__int_as_float(acc), 0.5F); }
};

/// int8 on both sides: a tile holds the A registers themselves, 16 bytes of each thread for each of the four
/// steps, one step after the other, so that a warp's loads have no bank conflicts.
struct PlainInt8Operand {
  static constexpr int kTileInputs = 128;
  static constexpr int kTileBytes = kTileRows * 128;
  static constexpr bool kScaled = true;
  static constexpr bool kGrouped = false;
  using Words = std::uint32_t;  // the thread's address in the tile: nothing is unpacked, so nothing is held
  static constexpr int kThreadBytes = 16;
  static constexpr int kStepBytes = 128 * kThreadBytes;
  template <int kTokens>
  using Wgmma = ptx::Wgmma<kTokens>;
  __device__ static void load(std::uint32_t address, Words& words) { words = address; }
  __device__ static void unpack_half(const Words& words, int half, std::uint32_t (&registers)[2][4]) {
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const uint4 step = ptx::shared_load(words + (2 * half + k) * kStepBytes);
      registers[k][0] = step.x;
      registers[k][1] = step.y;
      registers[k][2] = step.z;
      registers[k][3] = step.w;
    }
#pragma unroll
    for (int r = 0; r < 8; ++r) {
      ptx::pin_register(registers[r / 4][r % 4]);
    }
  }
  __device__ static float value(std::int32_t acc) { return __int2float_rn(acc); }
};

}  // namespace trit::cuda
