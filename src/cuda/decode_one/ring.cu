// SPDX-License-Identifier: MIT
//
// decode_one for any shape: a block is P x Q warps, block (32, P, Q). Warp (p, q) owns two strips of 16
// output rows and the q-th part of k, and every lane copies its own weights to a ring of kDepth tiles that
// no other lane reads. Each warp has its own copy of its part of x, so that no warp waits for another one's
// inputs.
//
//   shared memory    zeros, 128 bytes | sums of the block's rows | x of every warp | rings
//
// With group scales every warp leaves the sum of each of its segments (common/groups.h) and copies the scales of
// its groups; one lane a row adds them all up at the end, since the sum over the groups of a row has one order.
// Each warp's x is followed by its segments' sums.
//
//   shared memory    zeros, 128 bytes | [p][segment][32 rows] sums | [p][group][32 rows] scales | x | rings
//
// With programmatic launch two blocks fit on a multiprocessor: the next kernel's first tiles arrive while
// this one computes. That is why plan.cu divides the work in another way for it.
#include "cuda/common/launch.cuh"
#include "cuda/decode_one/group_sum.cuh"
#include "cuda/decode_one/multiply.cuh"

namespace trit::cuda::one {
namespace {

constexpr int kStrips = kRingStrips;
constexpr int kDepth = kRingDepth;
constexpr unsigned kWarpRows = kRingWarpRows;
constexpr unsigned kGroupsPerBlock = kTileRows / kWarpRows;
constexpr unsigned kShareBytes = kRingShareBytes;
constexpr unsigned kUnitBytes = 16;
constexpr unsigned kUnitsPerTile = kTileInputs / kUnitBytes;
constexpr unsigned kUnitsInFlight = 2;  // of x, a lane: 8 tiles

/// How a launch divides its work, computed by the host: the kernel divides no numbers.
struct Shape {
  const std::uint8_t* weights;
  const std::int8_t* q;
  unsigned row_block_bytes;  // of the weights of 64 rows
  unsigned part_tiles;       // of a warp, along k
  unsigned part_over;        // the first parts take one more
  unsigned groups_of_rows;   // of 32, in the whole matrix
  unsigned row_bytes;        // of q
  unsigned row_warps;        // P
  unsigned x_begin;          // byte of shared memory where x starts
  unsigned x_bytes;          // of a warp
  unsigned ring_begin;       // likewise the weights
  unsigned flip;             // 0xaaaaaaaa
  Output out;
  // With group scales.
  Groups groups;
  unsigned scale_begin;       // byte of shared memory where the scales start
  unsigned part_bytes;        // of a warp's x without the sums of its segments
  unsigned segments_of_tile;  // 1, 2 or 4
  unsigned segment_mask;      // bit w: word w of a tile ends a segment
};

/// A lane's bytes of a tile to its place in the ring.
__device__ __forceinline__ void copy_share(std::uint32_t slot, const std::uint8_t* from) {
#pragma unroll
  for (int s = 0; s < kStrips; ++s) {
    ptx::cp_async_16(slot + s * kStripBytes, from + s * kStripBytes);
  }
}

/// And from there, once it has arrived.
__device__ __forceinline__ void load_share(uint4 (&weights)[kStrips], std::uint32_t slot) {
#pragma unroll
  for (int i = 0; i < kStrips; ++i) {
    weights[i] = ptx::shared_load(slot + i * kStripBytes);
  }
}

enum class GroupKind : std::uint8_t { none, one_segment, segments };

/// 64 registers, so that two blocks of 16 warps fit. With programmatic launch the weights are loaded first,
/// while the preceding kernel still runs. Without it x is loaded first, since it would queue up behind the
/// weights.
/// kGroups: none, tiles that are one segment, or of any number of segments.
template <bool kProgrammatic, GroupKind kGroups>
__global__ __launch_bounds__(kMaxRingWarps * 32, 2) void decode_one_ring_kernel(const Shape a) {
  constexpr bool kGrouped = kGroups != GroupKind::none;
  const unsigned segments_of_tile = kGroups == GroupKind::one_segment ? 1U : a.segments_of_tile;
  constexpr int kSets = kGrouped ? 1 : 2;  // of accumulators: shorter chains
  const unsigned lane = threadIdx.x;
  const unsigned p = threadIdx.y;
  const unsigned q = threadIdx.z;
  const unsigned warp = q * a.row_warps + p;
  const unsigned thread = warp * 32 + lane;
  // Warps beyond the matrix do what the last one does and store nothing.
  const unsigned inside = min(blockIdx.x * a.row_warps + p, a.groups_of_rows - 1);
  const unsigned begin = q * a.part_tiles + min(q, a.part_over);
  unsigned left = a.part_tiles + (q < a.part_over ? 1U : 0U);
  const std::uint8_t* next = a.weights + std::uint64_t{inside / kGroupsPerBlock} * a.row_block_bytes +
                             (inside % kGroupsPerBlock * kShareBytes + begin * kTileBytes + lane * 16);
  ptx::opaque(next);  // otherwise every address is computed again from the arguments
  std::uint8_t* const shared = dynamic_shared();
  const std::uint32_t base = ptx::shared_address(shared);
  std::uint32_t ring = base + a.ring_begin + warp * (kDepth * kShareBytes) + lane * 16;
  ptx::opaque(ring);
  const auto start_weights = [&] {
#pragma unroll
    for (unsigned i = 0; i < kDepth; ++i) {
      if (i < left) {
        copy_share(ring + i * kShareBytes, next + i * kTileBytes);
      }
      if (kGrouped && i == kDepth - 1) {
        copy_scales<kStrips>(
            a.groups, inside, begin * segments_of_tile, left * segments_of_tile, false, 0,
            shared + a.scale_begin + p * a.groups.count * kWarpRows * (a.groups.half ? 2 : 4), lane);
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
  if (thread < (kZeroBytes + (kGrouped ? 0 : rows * 4)) / kUnitBytes) {
    *reinterpret_cast<uint4*>(shared + thread * kUnitBytes) = uint4{0, 0, 0, 0};
  }
  RowFactors factors;
  float s = 0.0F;
  if (stores) {
    factors = load_factors<!kGrouped>(a.out, row);
  }
  if constexpr (kProgrammatic) {
    ptx::wait_for_predecessor();
    ptx::let_successor_start();
  }
  // Beyond the row zeros, up to whole tiles.
  const std::int8_t* const x_from = a.q + begin * kTileInputs;
  const unsigned x_left = a.row_bytes - begin * kTileInputs;
  const unsigned units = left * kUnitsPerTile;
  const auto load_x = [&](unsigned i) {
    return i * kUnitBytes < x_left ? *reinterpret_cast<const uint4*>(x_from + i * kUnitBytes)
                                   : uint4{0, 0, 0, 0};
  };
  uint4 unit[kUnitsInFlight] = {};
#pragma unroll
  for (unsigned i = 0; i < kUnitsInFlight; ++i) {
    if (lane + i * 32 < units) {
      unit[i] = load_x(lane + i * 32);
    }
  }
  if constexpr (!kProgrammatic) {
    start_weights();
  }
  if (stores) {
    s = kGrouped && a.groups.token_groups ? 1.0F : a.out.token_scale[0];
  }
  next += kDepth * kTileBytes;
  ptx::opaque(next);
  __syncthreads();  // the zeros are there
  std::uint8_t* const x = shared + a.x_begin + warp * a.x_bytes;
  const auto* segment_x_sum = reinterpret_cast<const std::int32_t*>(x + a.part_bytes);
  std::int32_t x_sum = 0;
  // Unit i, and n - 1 more, each 32 further. With group scales all lanes are here: those beyond the part have zeros,
  // and a segment is 8, 4 or 2 units of neighbouring lanes.
  const auto keep_x = [&]<unsigned n>(unsigned i, const uint4(&v)[n]) {
    std::int32_t sum[n];
#pragma unroll
    for (unsigned u = 0; u < n; ++u) {
      if (i + u * 32 < units) {
        *reinterpret_cast<uint4*>(x + (i + u * 32) * kUnitBytes) = v[u];
      }
      sum[u] = add_bytes(v[u].w, add_bytes(v[u].z, add_bytes(v[u].y, add_bytes(v[u].x, 0))));
      x_sum += sum[u];
    }
    if constexpr (kGrouped) {
#pragma unroll
      for (unsigned step = 1; step < kUnitsPerTile; step *= 2) {
#pragma unroll
        for (unsigned u = 0; u < n; ++u) {
          const std::int32_t other = __shfl_xor_sync(0xffffffffU, sum[u], static_cast<int>(step));
          sum[u] += step * segments_of_tile < kUnitsPerTile ? other : 0;
        }
      }
#pragma unroll
      for (unsigned u = 0; u < n; ++u) {
        const unsigned at = (i + u * 32) * segments_of_tile;
        if (i + u * 32 < units && at % kUnitsPerTile == 0) {
          reinterpret_cast<std::int32_t*>(x + a.part_bytes)[at / kUnitsPerTile] = sum[u];
        }
      }
    }
  };
  keep_x(lane, unit);
#pragma unroll 1
  for (unsigned first = kUnitsInFlight * 32; first < units; first += 32) {
    const uint4 more[1] = {first + lane < units ? load_x(first + lane) : uint4{0, 0, 0, 0}};
    keep_x(first + lane, more);
  }
  if (!kGrouped) {
    x_sum = __reduce_add_sync(0xffffffffU, x_sum);
  }
  __syncwarp();

  LaneInputs inputs = lane_inputs(lane, base, base + a.x_begin + warp * a.x_bytes);
  std::int32_t sums[kSets][kStrips][4] = {};
  auto* const segment_sums = reinterpret_cast<std::int32_t*>(shared + kZeroBytes) +
                             p * static_cast<unsigned>(a.groups.segments) * kWarpRows;
  std::int32_t* to = segment_sums + begin * segments_of_tile * kWarpRows + lane / 4;
  std::uint32_t slot = ring;
  const std::uint32_t last_slot = ring + (kDepth - 1) * kShareBytes;
#pragma unroll 1
  for (; left > 0; --left) {
    ptx::cp_async_wait<kDepth - 1>();
    uint4 weights[kStrips];
    load_share(weights, slot);
    if constexpr (kGrouped) {
      multiply_tile(sums, weights, inputs.address, a.flip, [&](int word) {
        if (word < 3 && (kGroups == GroupKind::one_segment || (a.segment_mask >> word & 1U) == 0)) {
          return;
        }
        // What a last tile holds beyond the inputs is no segment.
        if (lane % 4 == 0 &&
            (kGroups == GroupKind::one_segment || to < segment_sums + a.groups.segments * kWarpRows)) {
          const std::int32_t of_x = *segment_x_sum;
#pragma unroll
          for (int i = 0; i < kStrips; ++i) {
            std::int32_t two[2];
            row_sums(sums[0][i], of_x, two);
            to[i * kStripRows] = a.groups.per_group == 1 ? float_bits(two[0]) : two[0];
            to[i * kStripRows + 8] = a.groups.per_group == 1 ? float_bits(two[1]) : two[1];
          }
        }
        ++segment_x_sum;
        to += kWarpRows;
#pragma unroll
        for (int i = 0; i < kStrips; ++i) {
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            sums[0][i][j] = 0;
          }
        }
      });
    } else {
      multiply_tile(sums, weights, inputs.address, a.flip);
    }
    if (left > kDepth) {
      copy_share(slot, next);
    }
    ptx::cp_async_commit();
    next += kTileBytes;
    ptx::opaque(next);
    slot = slot == last_slot ? ring : slot + kShareBytes;
    ptx::opaque(slot);
    inputs.address += inputs.step;
  }
  auto* const sums_of_rows = reinterpret_cast<std::int32_t*>(shared + kZeroBytes);
  if constexpr (kGrouped) {
    ptx::cp_async_wait<0>();  // the scales
    __syncthreads();
    if (stores) {
      // Thread p * 32 + lane is in warp (p, 0) or, where it is not, in one that knows as much.
      const unsigned of = thread / 32;
      const std::int32_t* from = sums_of_rows + of * a.groups.segments * kWarpRows + lane;
      const std::uint8_t* scales = shared + a.scale_begin +
                                   of * a.groups.count * kWarpRows * (a.groups.half ? 2 : 4) +
                                   scale_place(static_cast<int>(lane)) * (a.groups.half ? 2 : 4);
      const float acc = a.groups.half ? sum_of_groups<8, true>(a.groups, from, scales, a.out.token_scale)
                                      : sum_of_groups<8, false>(a.groups, from, scales, a.out.token_scale);
      store_output(a.out, a.out.type, 0, static_cast<int>(row), __fadd_rn(__fmul_rn(acc, s), factors.bias));
    }
  } else {
    add_sums(sums_of_rows + p * kWarpRows, lane, sums, x_sum);
    __syncthreads();
    if (stores) {
      store_output(a.out, a.out.type, 0, static_cast<int>(row),
                   output_value(sums_of_rows[thread], s, factors.beta, factors.bias));
    }
  }
}

}  // namespace

void launch_ring(const Launch& how, const ProductArguments& arguments, const Groups& groups,
                 bool programmatic, Stream stream) {
  const int k_tiles = arguments.tiles_along_k;
  const RingBytes bytes = ring_bytes(how, k_tiles, groups);
  const LaunchShape launch_shape =
      shape_of_warps(how.blocks, how.row_warps, how.k_warps, bytes.all(how), programmatic);
  const int segments_of_tile = groups.count > 0 ? kTileInputs / groups.segment : 0;
  const int scale_begin = kZeroBytes + bytes.sums;
  const int x_begin = scale_begin + bytes.scales;
  const int warps = how.row_warps * how.k_warps;
  const Shape shape{.weights = arguments.weights,
                    .q = arguments.q,
                    .row_block_bytes = static_cast<unsigned>(k_tiles) * kTileBytes,
                    .part_tiles = static_cast<unsigned>(k_tiles / how.k_warps),
                    .part_over = static_cast<unsigned>(k_tiles % how.k_warps),
                    .groups_of_rows = static_cast<unsigned>(strips_of(arguments.out.out_features) / kStrips),
                    .row_bytes = static_cast<unsigned>(arguments.row_bytes),
                    .row_warps = static_cast<unsigned>(how.row_warps),
                    .x_begin = static_cast<unsigned>(x_begin),
                    .x_bytes = static_cast<unsigned>(bytes.x),
                    .ring_begin = static_cast<unsigned>(x_begin + warps * bytes.x),
                    .flip = 0xaaaaaaaaU,
                    .out = arguments.out,
                    .groups = groups,
                    .scale_begin = static_cast<unsigned>(scale_begin),
                    .part_bytes = static_cast<unsigned>(ceil_div(k_tiles, how.k_warps)) * kTileInputs,
                    .segments_of_tile = static_cast<unsigned>(segments_of_tile),
                    .segment_mask = groups.count > 0 ? segment_mask(segments_of_tile) : 0};
  const auto start = [&]<GroupKind kGroups>() {
    if (programmatic) {
      launch<decode_one_ring_kernel<true, kGroups>>("decode_one", launch_shape, stream, shape);
    } else {
      launch<decode_one_ring_kernel<false, kGroups>>("decode_one", launch_shape, stream, shape);
    }
  };
  if (segments_of_tile == 0) {
    start.operator()<GroupKind::none>();
  } else if (segments_of_tile == 1) {
    start.operator()<GroupKind::one_segment>();
  } else {
    start.operator()<GroupKind::segments>();
  }
}

}  // namespace trit::cuda::one
