// SPDX-License-Identifier: MIT
//
// norm_quant with a rotation of 512 or 1024 inputs, for 16-bit rows that are a multiple of 2048. A block stays and
// takes rows in turn.
//
//   a warp per 2048 inputs, 64 a lane; lane = 16 b + m holds
//     first   inputs 1024 b + 64 m + i, i < 64:                 stages h = 1 .. 32
//     then    inputs 1024 b + 64 i + 4 m + j, i < 16, j < 4:    stages h = 64 .. 512, codes four to a word
//   Between them the warp exchanges four neighbours at a time, through its part of shared memory.
//
//   shared   ring [3][row], 16 bits: 16-byte pieces, swizzled: the row that is worked on, the one whose squares are added
//            up meanwhile, and one that arrives
//            exchange [row / 2], fp32, four floats at a time, swizzled; the other half is the row's slot of the ring,
//            of which each warp has read its own part by then
//            accumulators [2][256]; maxima of 128 inputs [2][16 a warp]: a warp may be a row ahead of another
//
// All warps do the same: the next row's accumulators of lane_sum, two a thread, from shared memory; r of this row;
// stages and maxima; the row's one barrier, before which the row after next has arrived and after which another is
// fetched; scales and codes. One warp that makes r for all would be late at the barrier by more than r takes.
#pragma once

#include "cuda/rows/norm_quant_held.cuh"

namespace trit::cuda {

inline constexpr int kRotatedInputsPerWarp = 2048;
inline constexpr int kRotatedHeld = 64;
inline constexpr int kRotatedRing = 3;
/// The longest row, and the blocks of 128 threads that a multiprocessor has: 168 registers, 66 KB each.
inline constexpr int kRotatedThreads = 128;
inline constexpr int kRotatedBlocks = 3;

/// Where 16-byte piece `piece` of a row lies: eight lanes that read pieces 8 apart find them in different banks.
__device__ __forceinline__ int rotated_piece(int piece) { return piece ^ (piece >> 3 & 7); }

/// lane_sum's accumulators of a row's x^2, before their tree; two a thread.
template <DataType kType>
__device__ __forceinline__ void add_rotated_squares(const std::uint16_t* row, int inputs, float* accumulators,
                                                    int thread, int threads) {
#pragma unroll 1
  for (int pair = thread; pair < kLanes / 2; pair += threads) {
    // Steps of 256 inputs are 32 pieces apart, so that every second one lies the same way.
    const auto* even =
        reinterpret_cast<const std::uint32_t*>(row + 8 * rotated_piece(pair >> 2)) + (pair & 3);
    const auto* odd =
        reinterpret_cast<const std::uint32_t*>(row + 8 * rotated_piece((pair >> 2) + 32)) + (pair & 3);
    float2 acc = {};
    const auto add = [&](std::uint32_t word) {
      const float2 x = from_word<kType>(word);
      acc = {__fmaf_rn(x.x, x.x, acc.x), __fmaf_rn(x.y, x.y, acc.y)};
    };
#pragma unroll 2
    for (int k = 0; k < inputs; k += kRotatedInputsPerWarp) {
#pragma unroll
      for (int i = 0; i < kRotatedInputsPerWarp / 2; i += kLanes) {
        add(even[i]);
        add(odd[i]);
      }
      even += kRotatedInputsPerWarp / 2;
      odd += kRotatedInputsPerWarp / 2;
    }
    reinterpret_cast<float2*>(accumulators)[pair] = acc;
  }
}

/// `exchange`: the 4 KiB of the lane's block. Places of a lane differ in bits 4 to 6 and by constants: an instruction
/// each.
__device__ __forceinline__ void exchange_rotated(float (&v)[kRotatedHeld], std::uint32_t exchange, int lane) {
  const auto m = static_cast<std::uint32_t>(lane % 16);
  std::uint32_t to = exchange + 256 * m + 16 * (m % 8);
  std::uint32_t from = exchange + 16 * m;
  ptx::opaque(to);  // else all of them stay in registers
  ptx::opaque(from);
#pragma unroll
  for (std::uint32_t i = 0; i < 16; ++i) {
    ptx::shared_store((to ^ 16 * (i % 8)) + 128 * (i / 8),
                      float4{v[4 * i], v[4 * i + 1], v[4 * i + 2], v[4 * i + 3]});
  }
  __syncwarp();
#pragma unroll
  for (std::uint32_t i = 0; i < 16; ++i) {
    float4 four;
    ptx::shared_load((from ^ 16 * (i % 8)) + 256 * i, four);
    v[4 * i] = four.x;
    v[4 * i + 1] = four.y;
    v[4 * i + 2] = four.z;
    v[4 * i + 3] = four.w;
  }
  __syncwarp();
}

/// The piece of 128 inputs, of the eight of a block, whose maximum a lane gets; and the lane that has it.
__device__ __forceinline__ int piece_of_lane(int lane) {
  return (lane & 1) << 2 | (lane & 2) | (lane >> 2 & 1);
}

/// The largest magnitude of piece piece_of_lane(lane) of the lane's block.
__device__ __forceinline__ float largest_of_piece(const float (&v)[kRotatedHeld], int lane) {
  float m[8];
#pragma unroll
  for (int piece = 0; piece < 8; ++piece) {
    const float* const of_it = v + 8 * piece;
    m[piece] = ptx::max_magnitude(largest_of_four(of_it), largest_of_four(of_it + 4));
  }
  // Each exchange halves the pieces of a lane and doubles the lanes that are part of a maximum.
#pragma unroll
  for (int pieces = 4; pieces >= 1; pieces /= 2) {
    const int distance = 4 / pieces;
    const bool upper = (lane & distance) != 0;
#pragma unroll
    for (int i = 0; i < pieces; ++i) {
      const float sent = upper ? m[i] : m[i + pieces];
      const float kept = upper ? m[i + pieces] : m[i];
      m[i] = ptx::max_magnitude(kept, __shfl_xor_sync(0xffffffffU, sent, distance));
    }
  }
  return ptx::max_magnitude(m[0], __shfl_xor_sync(0xffffffffU, m[0], 8));
}

/// kFolded: all scales are good, and the block's scale may be part of the factor.
template <bool kFolded>
__device__ __forceinline__ void store_codes(const float (&v)[kRotatedHeld], std::int8_t* to,
                                            float block_scale, const TokenScale& scale, int lane) {
  const float own = kFolded ? __fmul_rn(scale.factor, block_scale) : scale.factor;
  const unsigned good = kFolded ? 0xffffffffU : __ballot_sync(0xffffffffU, scale.good);
#pragma unroll
  for (int piece = 0; piece < 8; ++piece) {
    const int from = (lane & 16) | piece_of_lane(piece);
    const float factor = __shfl_sync(0xffffffffU, own, from);
#pragma unroll
    for (int i = 2 * piece; i < 2 * piece + 2; ++i) {
      float z[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        z[j] = kFolded ? v[4 * i + j] : __fmul_rn(v[4 * i + j], block_scale);
        z[j] = __fmul_rn(z[j], factor);
      }
      const std::uint32_t word = rounded_word(z[0], z[1], z[2], z[3]);
      *reinterpret_cast<std::uint32_t*>(to + 64 * i) = kFolded || (good >> from & 1U) != 0 ? word : 0U;
    }
  }
}

/// in_features is a multiple of 2048, 128 threads hold a row; x, norm_weight and signs are aligned to 16 bytes, rows
/// are a multiple of 8 inputs apart; the group is 0 or a multiple of 128.
template <DataType kType, bool kNorm, int kRotation>
__global__ __launch_bounds__(kRotatedThreads,
                             kRotatedBlocks) void norm_quant_rotated_kernel(const GroupArguments args) {
  static_assert(kRotation == 512 || kRotation == 1024);
  const NormQuantArguments& a = args.row;
  const int warps = static_cast<int>(blockDim.x) / 32;
  const int inputs = a.in_features;
  const int pieces = inputs / 128;
  auto* const ring = reinterpret_cast<std::uint16_t*>(dynamic_shared());
  auto* const exchanges = reinterpret_cast<float*>(ring + kRotatedRing * inputs);       // [inputs / 2]
  auto* const all_accumulators = exchanges + inputs / 2;                                // [2][256]
  auto* const all_maxima = reinterpret_cast<unsigned*>(all_accumulators + 2 * kLanes);  // [2][pieces]
  int thread = static_cast<int>(threadIdx.x);
  const int next = static_cast<int>(gridDim.x);
  const int first_row = static_cast<int>(blockIdx.x);
  ptx::wait_for_predecessor();
  ptx::let_successor_start();
  const auto fetch = [&](int row, int slot) {
    if (row < a.tokens) {
      const int lane = thread & 31;
      const int warp = thread >> 5;
      const auto* const from =
          static_cast<const std::uint16_t*>(a.x) + row * a.x_stride + kRotatedInputsPerWarp * warp + 8 * lane;
      // Pieces 32 apart: every second one lies the same way.
      std::uint16_t* const even = ring + slot + kRotatedInputsPerWarp * warp + 8 * rotated_piece(lane);
      std::uint16_t* const odd = ring + slot + kRotatedInputsPerWarp * warp + 8 * rotated_piece(lane + 32);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        ptx::cp_async_16(even + 512 * i, from + 512 * i);
        ptx::cp_async_16(odd + 512 * i, from + 512 * i + 256);
      }
    }
    ptx::cp_async_commit();
  };
#pragma unroll
  for (int i = 0; i < kRotatedRing; ++i) {
    fetch(first_row + i * next, i * inputs);
  }
  float weight[kRotatedHeld];
  load_weights<true>(weight, kNorm ? a.norm_weight : nullptr, args.signs, kRotatedHeld * thread, inputs);
  const int of_group = args.group / 128;
  int slot = 0;  // where the row's lies in the ring
  int next_slot = inputs;
  int parity = 0;
  ptx::cp_async_wait<1>();
  __syncthreads();
  if constexpr (kNorm) {
    add_rotated_squares<kType>(ring, inputs, all_accumulators, thread, 32 * warps);
    __syncthreads();
  }
#pragma unroll 1
  for (int row = first_row; row < a.tokens; row += next) {
    ptx::opaque(thread);  // else what follows from it stays in registers over the loop, and some are spilled
    const int lane = thread & 31;  // a remainder takes more: the sign is not known
    const int warp = thread >> 5;
    const int my_piece = 16 * warp + lane / 16 * 8 + piece_of_lane(lane);
    const int my_group = of_group == 1 ? my_piece : of_group == 0 ? 0 : my_piece / of_group;
    unsigned* const maxima = all_maxima + parity * pieces;
    if constexpr (kNorm) {
      add_rotated_squares<kType>(ring + next_slot, inputs, all_accumulators + (parity ^ 1) * kLanes, thread,
                                 32 * warps);
    }
    float v[kRotatedHeld];
    std::uint32_t own = ptx::shared_address(ring + slot) + 128 * static_cast<std::uint32_t>(thread) +
                        16 * static_cast<std::uint32_t>(lane % 8);
    ptx::opaque(own);
#pragma unroll
    for (int i = 0; i < kRotatedHeld / 8; ++i) {
      float values[8];
      from_vector<kType>(ptx::shared_load(own ^ 16 * static_cast<std::uint32_t>(i)), values);
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        v[8 * i + j] = __fmul_rn(values[j], weight[8 * i + j]);
      }
    }
    const RowNorm norm =
        row_norm<kNorm>(a, kNorm ? tree_sum(all_accumulators + parity * kLanes, lane) : 0.0F);
    rotate_registers<1, 32>(v);
    __syncwarp();
    exchange_rotated(v,
                     lane < 16 ? ptx::shared_address(ring + slot + kRotatedInputsPerWarp * warp)
                               : ptx::shared_address(exchanges + kRotatedInputsPerWarp / 2 * warp),
                     lane);
    rotate_registers<4, kRotation / 32>(v);
    const float piece_largest = largest_of_piece(v, lane);
    maxima[my_piece] = __float_as_uint(piece_largest);
    ptx::cp_async_wait<0>();
    __syncthreads();
    fetch(row + kRotatedRing * next, slot);
    slot = next_slot;
    next_slot = next_slot == (kRotatedRing - 1) * inputs ? 0 : next_slot + inputs;
    parity ^= 1;
    if (thread == 0 && a.rstd != nullptr) {
      a.rstd[row] = norm.rstd;
    }
    const unsigned largest =
        of_group == 1 ? __float_as_uint(piece_largest) : largest_of(maxima, my_group, of_group, pieces, lane);
    const TokenScale scale =
        token_scale<kNorm>(norm, __uint_as_float(scaled_largest(largest, args.block_scale)));
    if (of_group == 0 ? thread == 0 : (lane & 8) == 0 && my_group * of_group == my_piece) {
      a.scale[std::int64_t{row} * args.groups + my_group] = scale.scale;
    }
    std::int8_t* const to = a.q + std::int64_t{row} * a.row_bytes + kRotatedInputsPerWarp * warp +
                            lane / 16 * 1024 + 4 * (lane % 16);
    if (__all_sync(0xffffffffU, scale.good && is_part_of_factor(args.block_scale))) {
      store_codes<true>(v, to, args.block_scale, scale, lane);
    } else {
      store_codes<false>(v, to, args.block_scale, scale, lane);
    }
  }
}

constexpr std::int64_t rotated_shared_bytes(std::int64_t inputs) {
  return inputs * (kRotatedRing * 2 + 2) + 2 * kLanes * 4 + 2 * (inputs / 128) * 4;
}

}  // namespace trit::cuda
