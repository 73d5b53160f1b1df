// SPDX-License-Identifier: MIT
//
// norm_quant with a rotation or with group scales, for 16-bit rows that a block holds in registers. A block stays
// and takes rows in turn; the next ones are under way to shared memory.
//
//   a warp per 1024 inputs; thread t holds inputs 32 t .. 32 t + 31, and their g and signs for all rows
//     x g; four warps: the accumulators of lane_sum, two a thread, from shared memory
//     one of the other warps waits for these: mean square and r
//     stages h = 1 .. 16 of the rotation
//     exchange within the warp: register i of lane l is now input 32 i + l of the warp's 1024
//     stages h = 32 .. 512; from 1024 on with other warps, through shared memory
//     the largest magnitude of each 128 inputs (without a rotation: of 32)
//     the row's barrier; scales, q
//
//   shared   ring [kRowsAhead][1024 a warp], 16 bits: 16-byte pieces of a row, swizzled
//            exchange [1024 a warp], fp32, with a rotation: four floats at a time, swizzled
//            accumulators [256]; mean square and r [2]; maxima [2][8 or 32 a warp]
//
// What lies beyond the row is 0.
#pragma once

#include "cuda/rows/norm_quant_held.cuh"

namespace trit::cuda {

inline constexpr int kRowsAhead = 3;
/// Of a multiprocessor: 128 registers each.
inline constexpr int kHoldingThreads = 512;

/// Where 16-byte piece `piece` of a row lies. Eight lanes find theirs in different banks, both those that read
/// pieces 4 t of neighbouring threads t and those that read neighbouring pieces.
__device__ __forceinline__ int swizzled(int piece) { return piece ^ (piece >> 3 & 3); }

/// Copies the warp's inputs of a row to its part of a slot; kWhole: all of them are of the row.
template <bool kWhole>
__device__ __forceinline__ void fetch_inputs(const NormQuantArguments& a, std::int64_t row,
                                             std::uint16_t* slot, int first, int lane) {
  if (row < a.tokens) {
    const auto* const from = static_cast<const std::uint16_t*>(a.x) + row * a.x_stride + first + 8 * lane;
    std::uint16_t* const to = slot + first + 8 * swizzled(lane);
#pragma unroll
    for (int i = 0; i < kHeldInputs / 8; ++i) {
      if (kWhole || first + 8 * lane + 256 * i < a.in_features) {
        ptx::cp_async_16(to + 256 * i, from + 256 * i);
      }
    }
  }
  ptx::cp_async_commit();
}

/// Who computes r of a block's row `count`.
struct NormWarps {
  int makers;    // warps that make the accumulators, two a thread
  int first;     // of these
  int finisher;  // the warp that waits for them
};
__device__ __forceinline__ NormWarps norm_warps(int warps, int count) {
  constexpr int kMakers = kLanes / 2 / 32;
  if (warps < 2 * kMakers) {
    return {warps, 0, count % warps};
  }
  // In turn with four others, on the same schedulers; one of those, which have less to do, finishes.
  const int first = count % 2 * kMakers;
  return {kMakers, first, kMakers - first + count / 2 % kMakers};
}

/// lane_sum's accumulators of a row's x^2, before their tree, by `threads` threads.
template <DataType kType>
__device__ __forceinline__ void add_squares(const std::uint16_t* row, int warps, float* accumulators,
                                            int thread, int threads) {
  for (int pair = thread; pair < kLanes / 2; pair += threads) {
    const auto* column = reinterpret_cast<const std::uint32_t*>(row + 8 * swizzled(pair >> 2)) + (pair & 3);
    float2 acc = {};
#pragma unroll 4
    for (int i = 0; i < warps; ++i) {
#pragma unroll
      for (int k = 0; k < kInputsPerWarp; k += kLanes) {
        const float2 x = from_word<kType>(column[k / 2]);
        acc = {__fmaf_rn(x.x, x.x, acc.x), __fmaf_rn(x.y, x.y, acc.y)};
      }
      column += kInputsPerWarp / 2;
    }
    reinterpret_cast<float2*>(accumulators)[pair] = acc;
  }
}

/// The codes of a warp's inputs, of which `left` are of the row; lanes 0 .. 7 have the scales. kFolded: all scales
/// are good, and the block's scale may be part of the factor.
template <int kRotation, bool kFolded>
__device__ __forceinline__ void quantize_rotated(const float (&v)[kHeldInputs], std::int8_t* to, int left,
                                                 float block_scale, const TokenScale& scale) {
  const unsigned good = kFolded ? 0xffffffffU : __ballot_sync(0xffffffffU, scale.good);
  const float own = kFolded ? __fmul_rn(scale.factor, block_scale) : scale.factor;
#pragma unroll
  for (int piece = 0; piece < 8; ++piece) {
    const float factor = __shfl_sync(0xffffffffU, own, piece);
    if (kRotation > 512 || 128 * piece < left) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float z = kFolded ? v[4 * piece + i] : __fmul_rn(v[4 * piece + i], block_scale);
        const std::uint32_t byte = rounded_byte(__fmul_rn(z, factor));
        to[128 * piece + 32 * i] = static_cast<std::int8_t>(kFolded || (good >> piece & 1U) != 0 ? byte : 0U);
      }
    }
  }
}

/// in_features is a multiple of 8 and at most 16,384; x, norm_weight and signs are aligned to 16 bytes, rows are a
/// multiple of 8 inputs apart. With a rotation the group is 0 or a multiple of 128.
/// kRotation: 0, 512, or 1024 for blocks of 1024 and more.
template <DataType kType, bool kNorm, int kRotation>
__global__ __launch_bounds__(kHoldingThreads,
                             1) void norm_quant_groups_registers_kernel(const GroupArguments args) {
  const NormQuantArguments& a = args.row;
  constexpr bool kRotated = kRotation > 0;
  constexpr bool kWhole = kRotation > 512;     // the row is a multiple of 1024 inputs
  constexpr int kPiece = kRotated ? 128 : 32;  // inputs of a maximum
  const int warps = static_cast<int>(blockDim.x) / 32;
  const int padded = kInputsPerWarp * warps;
  const int pieces = padded / kPiece;
  auto* const ring = reinterpret_cast<std::uint16_t*>(dynamic_shared());
  auto* const exchange = reinterpret_cast<float*>(ring + kRowsAhead * padded);
  auto* const accumulators = exchange + (kRotated ? padded : 0);
  auto* const norms = reinterpret_cast<RowNorm*>(accumulators + kLanes);  // [2]
  auto* const all_maxima = reinterpret_cast<unsigned*>(norms + 2);        // [2][pieces]
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int warp = thread / 32;
  const std::int64_t next = gridDim.x;
  std::uint16_t* slot = ring;
  int count = 0;  // of rows before this one
  ptx::wait_for_predecessor();
  ptx::let_successor_start();

#pragma unroll
  for (int i = 0; i < kRowsAhead; ++i) {
    fetch_inputs<kWhole>(a, blockIdx.x + i * next, ring + i * padded, kInputsPerWarp * warp, lane);
  }
  for (int piece = a.in_features / 8 + thread; piece < padded / 8; piece += 32 * warps) {
    for (int i = 0; i < kRowsAhead; ++i) {
      *reinterpret_cast<uint4*>(ring + i * padded + 8 * swizzled(piece)) = make_uint4(0, 0, 0, 0);
    }
  }
  float weight[kHeldInputs];
  load_weights<kWhole>(weight, kNorm ? a.norm_weight : nullptr, args.signs, kHeldInputs * thread,
                       a.in_features);
  // With a rotation lanes 0 .. 7 make the scales of their warp's pieces.
  const int my_piece = kRotated ? 8 * warp + lane % 8 : thread;
  const int of_group = args.group / kPiece;
  const int my_group = of_group == 0 ? 0 : my_piece / of_group;
  const bool stores_scale =
      of_group == 0 ? thread == 0
                    : (!kRotated || lane < 8) && my_piece % of_group == 0 && my_group < args.groups;
  ptx::cp_async_wait<kRowsAhead - 1>();
  __syncthreads();
  for (std::int64_t row = blockIdx.x; row < a.tokens; row += next) {
    float v[kHeldInputs];
#pragma unroll
    for (int i = 0; i < kHeldInputs / 8; ++i) {
      float values[8];
      from_vector<kType>(*reinterpret_cast<const uint4*>(slot + 8 * swizzled(4 * thread + i)), values);
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        v[8 * i + j] = __fmul_rn(values[j], weight[8 * i + j]);
      }
    }
    // Two of each: a warp may be a row ahead of another.
    RowNorm* const shared_norm = norms + count % 2;
    unsigned* const maxima = all_maxima + count % 2 * pieces;
    if constexpr (kNorm) {
      const NormWarps of_row = norm_warps(warps, count);
      const bool makes = warp >= of_row.first && warp < of_row.first + of_row.makers;
      const unsigned threads = 32U * static_cast<unsigned>(of_row.makers + (of_row.makers < warps ? 1 : 0));
      if (makes) {
        add_squares<kType>(slot, warps, accumulators, thread - 32 * of_row.first, 32 * of_row.makers);
      }
      if (warp == of_row.finisher) {
        ptx::named_barrier(2, threads);
        *shared_norm = row_norm<kNorm>(a, tree_sum(accumulators, lane));
      } else if (makes) {
        ptx::named_barrier_arrive(2, threads);
      }
    } else if (thread == 0) {
      *shared_norm = row_norm<kNorm>(a, 0.0F);
    }
    if constexpr (kRotated) {
      rotate_registers<1, 16>(v);
      transpose_registers(v, exchange + kInputsPerWarp * warp, lane);
      rotate_registers<1, kRotation / 64>(v);
      if (args.block > kInputsPerWarp) {
        rotate_warps(v, exchange, args.block, warp, warps, lane);
      }
      unsigned largest[8];
#pragma unroll
      for (int piece = 0; piece < 8; ++piece) {
        largest[piece] = __reduce_max_sync(0xffffffffU, __float_as_uint(largest_of_four(v + 4 * piece)));
      }
      if (lane == 0) {
        auto* const to = reinterpret_cast<uint4*>(maxima + 8 * warp);
        to[0] = make_uint4(largest[0], largest[1], largest[2], largest[3]);
        to[1] = make_uint4(largest[4], largest[5], largest[6], largest[7]);
      }
    } else {
      float largest = v[0];
#pragma unroll
      for (int i = 1; i < kHeldInputs; ++i) {
        largest = ptx::max_magnitude(largest, v[i]);
      }
      maxima[my_piece] = __float_as_uint(largest);
    }
    ptx::cp_async_wait<kRowsAhead - 2>();
    __syncthreads();
    fetch_inputs<kWhole>(a, row + kRowsAhead * next, slot, kInputsPerWarp * warp, lane);
    slot = slot == ring + (kRowsAhead - 1) * padded ? ring : slot + padded;
    ++count;
    const RowNorm norm = *shared_norm;
    if (thread == 0 && a.rstd != nullptr) {
      a.rstd[row] = norm.rstd;
    }
    unsigned largest = largest_of(maxima, my_group, of_group, pieces, lane);
    if constexpr (kRotated) {
      largest = scaled_largest(largest, args.block_scale);
    }
    const TokenScale scale = token_scale<kNorm>(norm, __uint_as_float(largest));
    if (stores_scale) {
      a.scale[row * args.groups + my_group] = scale.scale;
    }
    std::int8_t* const q = a.q + row * a.row_bytes;
    if constexpr (kRotated) {
      std::int8_t* const to = q + kInputsPerWarp * warp + lane;
      const int left = a.in_features - kInputsPerWarp * warp;
      if (__all_sync(0xffffffffU, scale.good && is_part_of_factor(args.block_scale))) {
        quantize_rotated<kRotation, true>(v, to, left, args.block_scale, scale);
      } else {
        quantize_rotated<kRotation, false>(v, to, left, args.block_scale, scale);
      }
    } else {
#pragma unroll
      for (int i = 0; i < kHeldInputs; i += 16) {
        std::uint32_t words[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const float* const z = v + i + 4 * j;
          words[j] = rounded_word(__fmul_rn(z[0], scale.factor), __fmul_rn(z[1], scale.factor),
                                  __fmul_rn(z[2], scale.factor), __fmul_rn(z[3], scale.factor));
        }
        const int k = kHeldInputs * thread + i;
        if (k < a.row_bytes) {
          *reinterpret_cast<uint4*>(q + k) =
              scale.good ? make_uint4(words[0], words[1], words[2], words[3]) : make_uint4(0, 0, 0, 0);
        }
      }
    }
  }
}

}  // namespace trit::cuda
