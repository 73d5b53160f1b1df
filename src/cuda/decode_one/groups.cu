// SPDX-License-Identifier: MIT
//
// decode_one with group scales: the ring of ring.cu, but the Q warps that share k take tiles in turn and hand over
// the integer sums of their segments (common/groups.h) in rounds of Q tiles, since the sum over the groups of a
// row has one order:
//
//   round                  0            1                 warp (p, q): tile Q * round + q
//   tiles along k          0 .. Q - 1   Q .. 2 Q - 1      a barrier of a p's warps, then warp (p, 0), a row a lane:
//                                                         acc = fma(isum, w, acc)
//
//   shared memory    zeros, 128 bytes | sums of segments, of two rounds | x of every warp and its segments' sums |
//                    rings | scales of each p's 32 rows
//
// There are two buffers of segments, so that the other warps go on while warp (p, 0) adds up.
#include "cuda/common/group_scales.cuh"
#include "cuda/common/launch.cuh"
#include "cuda/decode_one/ring.cuh"

namespace trit::cuda::one {
namespace {

struct Shape {
  const std::uint8_t* weights;
  const std::int8_t* q;
  unsigned row_block_bytes;  // of the weights of 64 rows
  unsigned k_tiles;
  unsigned warp_groups;               // of 32 rows, in the whole matrix
  unsigned row_bytes;                 // of q
  unsigned x_begin;                   // byte of shared memory where x starts
  unsigned x_bytes;                   // of a warp, with the sums of its segments
  unsigned part_bytes;                // of a warp's x alone
  unsigned ring_begin;                // likewise the weights
  unsigned scale_begin, scale_bytes;  // and the scales, of each p
  unsigned segments_of_tile;
  unsigned segment_mask;  // bit w: word w of a tile ends a segment
  unsigned flip;          // 0xaaaaaaaa
  Groups groups;
  Output out;
};

template <bool kProgrammatic>
__global__ __launch_bounds__(kMaxRingWarps * 32, 2) void decode_one_groups_kernel(const Shape a) {
  const Groups& groups = a.groups;
  const unsigned lane = threadIdx.x;
  const unsigned p = threadIdx.y;
  const unsigned q = threadIdx.z;
  const unsigned row_warps = blockDim.y;
  const unsigned k_warps = blockDim.z;
  const unsigned warp = q * row_warps + p;
  const unsigned thread = warp * 32 + lane;
  const unsigned group = blockIdx.x * row_warps + p;
  // Warps beyond the matrix do what the last one does and store nothing.
  const unsigned inside = min(group, a.warp_groups - 1);
  const unsigned tiles = (a.k_tiles - q - 1) / k_warps + 1;  // of this warp; Q is at most k_tiles
  const std::uint8_t* next = a.weights + std::uint64_t{inside / kGroupsPerBlock} * a.row_block_bytes +
                             (inside % kGroupsPerBlock * kShareBytes + q * kTileBytes + lane * 16);
  ptx::opaque(next);  // otherwise every address is computed again from the arguments
  const unsigned tile_step = k_warps * kTileBytes;
  std::uint8_t* const shared = dynamic_shared();
  const std::uint32_t base = ptx::shared_address(shared);
  std::uint32_t ring = base + a.ring_begin + warp * (kDepth * kShareBytes) + lane * 16;
  ptx::opaque(ring);
  std::uint8_t* const scales = shared + a.scale_begin + p * a.scale_bytes;
  const auto start_weights = [&] {
#pragma unroll
    for (unsigned i = 0; i < kDepth; ++i) {
      if (i < tiles) {
        copy_share(ring + i * kShareBytes, next + i * tile_step);
      }
      if (i == 0) {
        start_scales(groups, 0, static_cast<unsigned>(groups.count), group * kStrips, kStrips,
                     a.warp_groups * kStrips, scales, q * 32 + lane, k_warps * 32);
      }
      ptx::cp_async_commit();
    }
  };
  if constexpr (kProgrammatic) {
    start_weights();
  }
  if (thread < kZeroBytes / kUnitBytes) {
    *reinterpret_cast<uint4*>(shared + thread * kUnitBytes) = uint4{0, 0, 0, 0};
  }
  const unsigned row = group * kWarpRows + lane;
  const bool stores = q == 0 && row < static_cast<unsigned>(a.out.out_features);
  const float bias = stores && a.out.bias != nullptr ? a.out.bias[row] : -0.0F;
  if constexpr (kProgrammatic) {
    ptx::wait_for_predecessor();
    ptx::let_successor_start();
  }
  // Unit i of the warp's tiles. Beyond the row zeros, up to whole tiles.
  const unsigned units = tiles * kUnitsPerTile;
  const auto load_x = [&](unsigned i) {
    const unsigned at = (i / kUnitsPerTile * k_warps + q) * kTileInputs + i % kUnitsPerTile * kUnitBytes;
    return at < a.row_bytes ? *reinterpret_cast<const uint4*>(a.q + at) : uint4{0, 0, 0, 0};
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
  const float s = stores && !groups.token_groups ? a.out.token_scale[0] : 1.0F;
  next += kDepth * tile_step;
  ptx::opaque(next);
  __syncthreads();  // the zeros are there
  std::uint8_t* const x = shared + a.x_begin + warp * a.x_bytes;
  auto* const x_sums = reinterpret_cast<std::int32_t*>(x + a.part_bytes);
  const unsigned units_of_segment = kUnitsPerTile / a.segments_of_tile;
  // All lanes: those without a unit have zeros.
  const auto keep_x = [&](unsigned i, const uint4& v) {
    std::int32_t sum = add_bytes(v.w, add_bytes(v.z, add_bytes(v.y, add_bytes(v.x, 0))));
    for (unsigned step = 1; step < units_of_segment; step *= 2) {
      sum += __shfl_xor_sync(0xffffffffU, sum, static_cast<int>(step));
    }
    if (i < units) {
      *reinterpret_cast<uint4*>(x + i * kUnitBytes) = v;
      if (i % units_of_segment == 0) {
        x_sums[i / units_of_segment] = sum;
      }
    }
  };
#pragma unroll
  for (unsigned i = 0; i < kUnitsInFlight; ++i) {
    keep_x(lane + i * 32, unit[i]);
  }
#pragma unroll 1
  for (unsigned first = kUnitsInFlight * 32; first < units; first += 32) {
    keep_x(first + lane, first + lane < units ? load_x(first + lane) : uint4{0, 0, 0, 0});
  }
  __syncwarp();

  LaneInputs inputs = lane_inputs(lane, base, base + a.x_begin + warp * a.x_bytes);
  std::uint32_t slot = ring;
  const std::uint32_t last_slot = ring + (kDepth - 1) * kShareBytes;
  const unsigned rows = row_warps * kWarpRows;
  const unsigned buffer_words = k_warps * a.segments_of_tile * rows;
  auto* buffer = reinterpret_cast<std::int32_t*>(shared + kZeroBytes) + p * kWarpRows;
  bool second = false;
  const std::int32_t* x_sum = x_sums;
  const auto per_group = static_cast<unsigned>(groups.per_group);
  const unsigned scale_at_lane = static_cast<unsigned>(scale_place(static_cast<int>(lane)));
  GroupSum<1> sum;
  unsigned place = 0;  // of the round's first segment in its group
  unsigned first = 0;  // that segment's group
  unsigned segments_left = static_cast<unsigned>(groups.segments);
#pragma unroll 1
  for (unsigned tile = q; tile - q < a.k_tiles; tile += k_warps) {  // once a round
    if (tile < a.k_tiles) {
      ptx::cp_async_wait<kDepth - 1>();
      uint4 weights[kStrips];
      load_share(weights, slot);
      std::int32_t sums[1][kStrips][4] = {};
      std::int32_t* to = buffer + q * a.segments_of_tile * rows + lane / 4;
      multiply_tile(sums, weights, inputs.address, a.flip, [&](int word) {
        if (word < 3 && (a.segment_mask >> word & 1U) == 0) {
          return;
        }
        if (lane % 4 == 0) {
          const std::int32_t of_x = *x_sum;
#pragma unroll
          for (int i = 0; i < kStrips; ++i) {
            std::int32_t two[2];
            row_sums(sums[0][i], of_x, two);
            to[i * kStripRows] = two[0];
            to[i * kStripRows + 8] = two[1];
          }
        }
        ++x_sum;
        to += rows;
#pragma unroll
        for (int i = 0; i < kStrips; ++i) {
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            sums[0][i][j] = 0;
          }
        }
      });
      if (tile + kDepth * k_warps < a.k_tiles) {
        copy_share(slot, next);
      }
      ptx::cp_async_commit();
      next += tile_step;
      ptx::opaque(next);
      slot = slot == last_slot ? ring : slot + kShareBytes;
      ptx::opaque(slot);
      inputs.address += inputs.step;
    }
    ptx::named_barrier(1 + p, 32 * k_warps);
    if (q == 0) {
      const unsigned count = min(k_warps * a.segments_of_tile, segments_left);
      const std::int32_t* from = buffer + lane;
      const auto segment = [&](unsigned i, std::int32_t(&sums)[1]) { sums[0] = from[i * rows]; };
      const unsigned at = first * kWarpRows + scale_at_lane;
      const auto of_token = [&](unsigned g, int /*v*/) { return a.out.token_scale[first + g]; };
      sum.add<8, 8>(groups, count, place, segments_left - 1, segment, scales, at, kWarpRows, of_token);
      segments_left -= count;
      if (per_group == 1) {
        first += count;
      } else {
        place += count;
        first += place / per_group;
        place %= per_group;
      }
    }
    buffer = second ? buffer - buffer_words : buffer + buffer_words;
    second = !second;
  }
  if (stores) {
    store_output(a.out, a.out.type, 0, static_cast<int>(row), __fadd_rn(__fmul_rn(sum.acc[0], s), bias));
  }
}

}  // namespace

void launch_ring_groups(const Launch& how, const ProductArguments& arguments, const Groups& groups,
                        bool programmatic, Stream stream) {
  const LaunchShape launch_shape =
      shape_of_warps(how.blocks, how.row_warps, how.k_warps, how.shared_bytes, programmatic);
  const int k_tiles = arguments.tiles_along_k;
  const GroupBytes bytes = group_bytes(how, k_tiles, groups);
  const int segments_of_tile = kTileInputs / groups.segment;
  const int x_begin = kZeroBytes + bytes.sums;
  const int ring_begin = x_begin + how.row_warps * how.k_warps * bytes.x;
  const Shape shape{.weights = arguments.weights,
                    .q = arguments.q,
                    .row_block_bytes = static_cast<unsigned>(k_tiles) * kTileBytes,
                    .k_tiles = static_cast<unsigned>(k_tiles),
                    .warp_groups = static_cast<unsigned>(strips_of(arguments.out.out_features) / kStrips),
                    .row_bytes = static_cast<unsigned>(arguments.row_bytes),
                    .x_begin = static_cast<unsigned>(x_begin),
                    .x_bytes = static_cast<unsigned>(bytes.x),
                    .part_bytes = static_cast<unsigned>(ceil_div(k_tiles, how.k_warps)) * kTileInputs,
                    .ring_begin = static_cast<unsigned>(ring_begin),
                    .scale_begin = static_cast<unsigned>(ring_begin + bytes.rings),
                    .scale_bytes = static_cast<unsigned>(bytes.scales),
                    .segments_of_tile = static_cast<unsigned>(segments_of_tile),
                    .segment_mask = segment_mask(segments_of_tile),
                    .flip = 0xaaaaaaaaU,
                    .groups = groups,
                    .out = arguments.out};
  if (programmatic) {
    launch<decode_one_groups_kernel<true>>("decode_one_groups", launch_shape, stream, shape);
  } else {
    launch<decode_one_groups_kernel<false>>("decode_one_groups", launch_shape, stream, shape);
  }
}

}  // namespace trit::cuda::one
