// SPDX-License-Identifier: MIT
//
// decode_one with group scales, for any shape: ring.cu's warps, parts and rings. Every warp leaves the sums of its
// segments (group_sum.cuh) in shared memory. One lane a row adds them all up at the end, since the sum over the groups
// of a row has one order. Until then no warp waits for another one.
//
//   shared memory    zeros, 128 bytes | [p] sums of segments | [p] scales | scales of the token | [p] scales as they
//                    came | x of every warp | rings
//
// Scales are [group][32 places]. In large blocks a warp arranges those of float16 that it copied, [group / 8][32 rows][8],
// while its later tiles are on their way: then the lane that adds up a row loads eight at a time, and is not held up by
// loads, which take 12 clocks a group, the chain of fma 4. Several small blocks a multiprocessor hide that, and the
// second copy would leave room for one less.
#include "cuda/common/launch.cuh"
#include "cuda/decode_one/group_sum.cuh"
#include "cuda/decode_one/ring.cuh"

namespace trit::cuda::one {
namespace {

/// How a launch divides its work, computed by the host: the kernel divides no numbers.
struct Shape {
  const std::uint8_t* weights;
  const std::int8_t* q;
  unsigned row_block_bytes;    // of the weights of 64 rows
  unsigned part_tiles;         // of a warp, along k
  unsigned part_over;          // the first parts take one more
  unsigned groups_of_rows;     // of 32, in the whole matrix
  unsigned row_bytes;          // of q
  unsigned row_warps;          // P
  unsigned scale_begin;        // byte of shared memory where the scales start
  unsigned token_scale_begin;  // likewise those of the token
  unsigned copy_begin;         // likewise the scales as they came
  unsigned x_begin;            // likewise x
  unsigned x_bytes;            // of a warp
  unsigned ring_begin;         // likewise the weights
  unsigned flip;               // 0xaaaaaaaa
  unsigned sum_bytes;          // of a p
  unsigned scale_bytes;        // of a p
  unsigned copy_bytes;         // likewise
  unsigned scale_block_bytes;  // of the scales of 64 rows, in global memory
  unsigned scale_units;        // of 16 bytes, of 32 rows
  unsigned scale_part;         // of a warp
  unsigned scale_shift;        // of the units of a group
  bool arranges;
  Output out;
  Groups groups;
};

/// kSegments: of a tile. 64 registers, so that two blocks of 16 warps fit. With programmatic launch the weights are
/// loaded first, while the preceding kernel still runs, without it x.
template <bool kProgrammatic, int kSegments>
__global__ __launch_bounds__(kMaxRingWarps * 32, 2) void decode_one_ring_groups_kernel(const Shape a) {
  constexpr unsigned kSegmentBytes = kTileInputs / kSegments;
  constexpr int kTurns = 4 / kSegments;  // tiles of four segments
  static_assert(kDepth % kTurns == 0);
  const unsigned lane = threadIdx.x;
  const unsigned p = threadIdx.y;
  const unsigned q = threadIdx.z;
  const unsigned warp = q * a.row_warps + p;
  const unsigned thread = warp * 32 + lane;
  // Warps beyond the matrix do what the last one does and store nothing.
  const unsigned inside = min(blockIdx.x * a.row_warps + p, a.groups_of_rows - 1);
  const unsigned begin = q * a.part_tiles + min(q, a.part_over);
  const unsigned left = a.part_tiles + (q < a.part_over ? 1U : 0U);
  const std::uint8_t* next = a.weights + std::uint64_t{inside / kGroupsPerBlock} * a.row_block_bytes +
                             (inside % kGroupsPerBlock * kShareBytes + begin * kTileBytes + lane * 16);
  ptx::opaque(next);  // otherwise every address is computed again from the arguments
  std::uint8_t* const shared = dynamic_shared();
  const std::uint32_t base = ptx::shared_address(shared);
  std::uint32_t ring = base + a.ring_begin + warp * (kDepth * kShareBytes) + lane * 16;
  ptx::opaque(ring);
  const unsigned first_unit = q * a.scale_part + lane;  // of the scales
  const unsigned end_unit = min((q + 1) * a.scale_part, a.scale_units);
  const auto start_weights = [&] {
#pragma unroll
    for (unsigned i = 0; i < kDepth; ++i) {
      if (i < left) {
        copy_share(ring + i * kShareBytes, next + i * kTileBytes);
      }
      if (i == kDepth - 1) {
        // Any share of its rows' scales: they are needed behind the last barrier.
        const std::uint8_t* const from = static_cast<const std::uint8_t*>(a.groups.scale) +
                                         std::uint64_t{inside / kGroupsPerBlock} * a.scale_block_bytes +
                                         (inside % kGroupsPerBlock * kUnitBytes << a.scale_shift);
        const std::uint32_t to = base + a.copy_begin + p * a.copy_bytes;
#pragma unroll 1
        for (unsigned u = first_unit; u < end_unit; u += 32) {
          ptx::cp_async_16(to + u * kUnitBytes,
                           from + (u + (u >> a.scale_shift << a.scale_shift)) * kUnitBytes);
        }
      }
      ptx::cp_async_commit();
    }
  };
  if constexpr (kProgrammatic) {
    start_weights();
  }
  const unsigned rows = a.row_warps * kWarpRows;
  const unsigned row = blockIdx.x * rows + thread;
  const bool stores = thread < rows && row < static_cast<unsigned>(a.out.out_features);
  if (thread < kZeroBytes / kUnitBytes) {
    *reinterpret_cast<uint4*>(shared + thread * kUnitBytes) = uint4{0, 0, 0, 0};
  }
  RowFactors factors;
  float s = 1.0F;
  if (stores) {
    factors = load_factors<false>(a.out, row);
  }
  // All addresses are computed before x is there.
  unsigned x_at = a.x_begin + warp * a.x_bytes;
  SegmentLanes<kSegments> lanes(lane, base);
  std::uint32_t lane_x = lanes.first(base + x_at, lane);
  unsigned segment_x = x_at + lane % 4 * kSegmentBytes + lane / 4 * (kSegmentBytes / 8);
  x_at += lane * kUnitBytes;
  // What a last tile holds beyond the inputs is no segment.
  unsigned segment = begin * kSegments + lane % 4;
  unsigned to = kZeroBytes + p * a.sum_bytes + sum_word(segment, lane / 4) * 4;
  const unsigned units = left * kUnitsPerTile;
  // Beyond the row zeros, up to whole tiles.
  const unsigned units_of_row = min(units, a.row_bytes / kUnitBytes - begin * kUnitsPerTile);
  unsigned x_from = begin * kTileInputs + lane * kUnitBytes;
  const auto load_x = [&](unsigned i) {
    return lane + i < units_of_row ? *reinterpret_cast<const uint4*>(a.q + x_from + i * kUnitBytes)
                                   : uint4{0, 0, 0, 0};
  };
  ptx::opaque(x_at);
  ptx::opaque(lanes.zeros);
  if constexpr (kSegments < 4) {  // otherwise registers do not suffice
    ptx::opaque(lanes.turn[0]);
  }
  ptx::opaque(lane_x);
  ptx::opaque(segment_x);
  ptx::opaque(to);
  ptx::opaque(x_from);
  if constexpr (kProgrammatic) {
    ptx::wait_for_predecessor();
    ptx::let_successor_start();
  }
  uint4 unit[kUnitsInFlight] = {};
#pragma unroll
  for (unsigned i = 0; i < kUnitsInFlight; ++i) {
    unit[i] = load_x(i * 32);
  }
  if constexpr (!kProgrammatic) {
    __syncwarp();  // the compiler would put the copies in front of the loads of x
    start_weights();
  }
  const unsigned count = static_cast<unsigned>(a.groups.count);
  auto* const token_scales = reinterpret_cast<float*>(shared + a.token_scale_begin);
  if (a.groups.token_groups) {
#pragma unroll 1
    for (unsigned g = thread; g < count; g += blockDim.y * blockDim.z * 32) {
      token_scales[g] = a.out.token_scale[g];
    }
  } else if (stores) {
    s = a.out.token_scale[0];
  }
  next += kDepth * kTileBytes;
  ptx::opaque(next);
  __syncthreads();  // the zeros are there
#pragma unroll
  for (unsigned i = 0; i < kUnitsInFlight * 32; i += 32) {
    if (lane + i < units) {
      *reinterpret_cast<uint4*>(shared + x_at + i * kUnitBytes) = unit[i / 32];
    }
  }
#pragma unroll 1
  for (unsigned i = kUnitsInFlight * 32; lane + i < units; i += 32) {
    *reinterpret_cast<uint4*>(shared + x_at + i * kUnitBytes) = load_x(i);
  }
  __syncwarp();

  std::int32_t sums[1][kStrips][4];
  // Four segments leave the registers, or the `own` of them that the warp has.
  const auto hand_over = [&](unsigned own) {
    // The sum of the segment's q: an eighth in each of the eight lanes that have its sums.
    std::int32_t x_sum;
    if constexpr (kSegments == 1) {
      const uint4 v = *reinterpret_cast<const uint4*>(shared + segment_x);
      x_sum = add_bytes(v.w, add_bytes(v.z, add_bytes(v.y, add_bytes(v.x, 0))));
    } else if constexpr (kSegments == 2) {
      const uint2 v = *reinterpret_cast<const uint2*>(shared + segment_x);
      x_sum = add_bytes(v.y, add_bytes(v.x, 0));
    } else {
      x_sum = add_bytes(*reinterpret_cast<const std::uint32_t*>(shared + segment_x), 0);
    }
#pragma unroll
    for (int step = 4; step < 32; step *= 2) {
      x_sum += __shfl_xor_sync(0xffffffffU, x_sum, step);
    }
    const bool exists =
        lane % 4 < own && (kSegments == 1 || segment < static_cast<unsigned>(a.groups.segments));
#pragma unroll
    for (int i = 0; i < kStrips; ++i) {
      std::int32_t two[2];
      row_sums(sums[0][i], x_sum, two);
      const float first = __int2float_rn(two[0]);
      const float second = __int2float_rn(two[1]);
      if (exists) {
        auto* const of_strip = reinterpret_cast<float*>(shared + to) + i * sum_word(0, kStripRows);
        of_strip[0] = first;
        of_strip[sum_word(0, 8)] = second;
      }
    }
    segment_x += 4 * kSegmentBytes;
    segment += 4;
    to += kSumWords * 4;
  };
  // The float16 scales that this lane has copied.
  const auto arrange_scales = [&] {
#pragma unroll 1
    for (unsigned u = first_unit; u < end_unit; u += 32) {
      const uint4 eight =
          *reinterpret_cast<const uint4*>(shared + a.copy_begin + p * a.copy_bytes + u * kUnitBytes);
      const unsigned g = u / 4;
      const unsigned first_row = static_cast<unsigned>(row_of_scale_place(static_cast<int>(u % 4 * 8)));
      std::uint8_t* const of_rows = shared + a.scale_begin + p * a.scale_bytes +
                                    (g / kGroupBatch * kWarpRows + first_row) * kUnitBytes +
                                    g % kGroupBatch * 2;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        *reinterpret_cast<std::uint16_t*>(of_rows + row_of_scale_place(i) * static_cast<int>(kUnitBytes)) =
            static_cast<std::uint16_t>(word_of(eight, i / 2) >> (i % 2 * 16));
      }
    }
  };
  // The ring's tiles in turn, so that their places are known; and every four segments a hand-over.
#pragma unroll 1
  for (int rest = static_cast<int>(left); rest > 0;) {
#pragma unroll
    for (int four = 0; four < kDepth / kTurns; ++four) {
      if (four > 0 && rest <= 0) {
        break;
      }
#pragma unroll
      for (int i = 0; i < kStrips; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          sums[0][i][j] = 0;
        }
      }
#pragma unroll
      for (int turn = 0; turn < kTurns; ++turn) {
        if (turn == 0 || rest > turn) {
          const int place = four * kTurns + turn;
          ptx::cp_async_wait<kDepth - 1>();
          uint4 weights[kStrips];
          load_share(weights, ring + place * kShareBytes);
          const std::uint32_t columns[2] = {lanes.address(turn, 0, lane_x), lanes.address(turn, 1, lane_x)};
          multiply_tile(sums, weights, columns, a.flip);
          if (rest > kDepth + turn) {
            copy_share(ring + place * kShareBytes, next + turn * kTileBytes);
          }
          ptx::cp_async_commit();
        }
      }
      next += kTurns * kTileBytes;
      lane_x += kTurns * kTileInputs;
      hand_over(static_cast<unsigned>(rest) * kSegments);
      rest -= kTurns;
    }
    // Behind the first tiles, with which they came.
    if (a.arranges && rest + kDepth >= static_cast<int>(left)) {
      if (left <= kDepth) {
        ptx::cp_async_wait<0>();
      }
      arrange_scales();
    }
  }
  // Thread p * 32 + lane is in warp (p, 0) or, where it is not, in one that knows as much.
  unsigned of_row = kZeroBytes + thread / 32 * a.sum_bytes + sum_word(0, lane) * 4;
  unsigned scales = a.scale_begin + thread / 32 * a.scale_bytes +
                    (a.arranges ? lane * kUnitBytes : scale_place(lane) * (a.groups.half ? 2U : 4U));
  ptx::opaque(of_row);
  ptx::opaque(scales);
  const auto* const row_sums_of = reinterpret_cast<const float*>(shared + of_row);
  ptx::cp_async_wait<0>();  // the scales
  __syncthreads();
  if (!stores) {
    return;
  }
  float acc = 0.0F;
  if (a.groups.per_group > 1) {
    std::int32_t isum = 0;
    unsigned in_group = 0;
    unsigned g = 0;
#pragma unroll 1
    for (unsigned i = 0; i < static_cast<unsigned>(a.groups.segments); ++i) {
      isum += static_cast<std::int32_t>(row_sums_of[sum_word(i, 0)]);
      if (++in_group == static_cast<unsigned>(a.groups.per_group) ||
          i + 1 == static_cast<unsigned>(a.groups.segments)) {
        const unsigned at =
            a.arranges ? g / kGroupBatch * (kWarpRows * kGroupBatch) + g % kGroupBatch : g * kWarpRows;
        float w = a.groups.half ? scale_at<true>(shared + scales, at) : scale_at<false>(shared + scales, at);
        w = a.groups.token_groups ? __fmul_rn(w, token_scales[g]) : w;
        acc = __fmaf_rn(__int2float_rn(isum), w, acc);
        isum = 0;
        in_group = 0;
        ++g;
      }
    }
  } else {
    const auto add_up = [&]<Scales kScales, bool kTokens>() {
      using Batch = ScaleBatch<kScales, kTokens>;
      return sum_of_groups<Batch>(count, [&](unsigned first, Batch& batch) {
        load_row(row_sums_of, first, batch.isum);
        batch.load(shared + scales, first, token_scales);
      });
    };
    const auto with_tokens = [&]<Scales kScales>() {
      return a.groups.token_groups ? add_up.template operator()<kScales, true>()
                                   : add_up.template operator()<kScales, false>();
    };
    acc = a.arranges      ? with_tokens.template operator()<Scales::arranged>()
          : a.groups.half ? with_tokens.template operator()<Scales::float16>()
                          : with_tokens.template operator()<Scales::float32>();
  }
  store_output(a.out, a.out.type, 0, static_cast<int>(row), __fadd_rn(__fmul_rn(acc, s), factors.bias));
}

}  // namespace

void launch_ring_groups(const Launch& how, const ProductArguments& arguments, const Groups& groups,
                        bool programmatic, Stream stream) {
  const int k_tiles = arguments.tiles_along_k;
  const RingBytes bytes = ring_bytes(how, k_tiles, groups);
  const LaunchShape launch_shape =
      shape_of_warps(how.blocks, how.row_warps, how.k_warps, bytes.all(how), programmatic);
  const int scale_begin = kZeroBytes + bytes.sums;
  const int token_scale_begin = scale_begin + bytes.scales;
  const bool arranges = arranges_scales(how, groups);
  const int copy_begin = arranges ? token_scale_begin + bytes.token_scales : scale_begin;
  const int x_begin = token_scale_begin + bytes.token_scales + bytes.scale_copy;
  const int scale_size = groups.half ? 2 : 4;
  const int scale_units =
      groups.count * static_cast<int>(kWarpRows) * scale_size / static_cast<int>(kUnitBytes);
  const Shape shape{
      .weights = arguments.weights,
      .q = arguments.q,
      .row_block_bytes = static_cast<unsigned>(k_tiles) * kTileBytes,
      .part_tiles = static_cast<unsigned>(k_tiles / how.k_warps),
      .part_over = static_cast<unsigned>(k_tiles % how.k_warps),
      .groups_of_rows = static_cast<unsigned>(strips_of(arguments.out.out_features) / kStrips),
      .row_bytes = static_cast<unsigned>(arguments.row_bytes),
      .row_warps = static_cast<unsigned>(how.row_warps),
      .scale_begin = static_cast<unsigned>(scale_begin),
      .token_scale_begin = static_cast<unsigned>(token_scale_begin),
      .copy_begin = static_cast<unsigned>(copy_begin),
      .x_begin = static_cast<unsigned>(x_begin),
      .x_bytes = static_cast<unsigned>(bytes.x),
      .ring_begin = static_cast<unsigned>(x_begin + how.row_warps * how.k_warps * bytes.x),
      .flip = 0xaaaaaaaaU,
      .sum_bytes = static_cast<unsigned>(bytes.sums / how.row_warps),
      .scale_bytes = static_cast<unsigned>(bytes.scales / how.row_warps),
      .copy_bytes = static_cast<unsigned>((arranges ? bytes.scale_copy : bytes.scales) / how.row_warps),
      .scale_block_bytes = static_cast<unsigned>(groups.count * kTileRows * scale_size),
      .scale_units = static_cast<unsigned>(scale_units),
      .scale_part = static_cast<unsigned>(ceil_div(scale_units, how.k_warps)),
      .scale_shift = groups.half ? 2U : 3U,
      .arranges = arranges,
      .out = arguments.out,
      .groups = groups};
  const auto start = [&]<int kSegments>() {
    if (programmatic) {
      launch<decode_one_ring_groups_kernel<true, kSegments>>("decode_one", launch_shape, stream, shape);
    } else {
      launch<decode_one_ring_groups_kernel<false, kSegments>>("decode_one", launch_shape, stream, shape);
    }
  };
  switch (kTileInputs / groups.segment) {
    case 1:
      return start.operator()<1>();
    case 2:
      return start.operator()<2>();
    default:
      return start.operator()<4>();
  }
}

}  // namespace trit::cuda::one
