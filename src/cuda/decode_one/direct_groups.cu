// SPDX-License-Identifier: MIT
//
// decode_one with group scales for short parts of k: direct.cu's warps, for groups of 128 or 64 inputs, one or two in a
// tile. Every warp leaves the sums and the scales of its own groups, and the first warp adds up, a row a lane.
//
//   shared memory    zeros, 128 bytes | [group / 4][32 rows][4] sums | scales, the same or [group][32 places] | x
//
// Scales stay what they are in memory until x is there: a conversion in front of the wait for x would wait for them.
#include <type_traits>

#include "cuda/common/launch.cuh"
#include "cuda/decode_one/group_sum.cuh"

namespace trit::cuda::one {
namespace {

struct Shape {
  const std::uint8_t* weights;
  const std::int8_t* q;
  unsigned row_block_bytes;  // of the weights of 64 rows
  unsigned tiles;            // along k
  unsigned row_bytes;        // of q
  unsigned sum_bytes;        // of the sums of all groups
  unsigned block_scales;     // scales of 64 rows
  unsigned flip;             // 0xaaaaaaaa
  Output out;
  Groups groups;
};

/// kGroups: of a tile.
template <int kTiles, int kGroups, bool kHalf, bool kTokens>
__global__ __launch_bounds__(kMaxDirectThreads, 1) void decode_one_direct_groups_kernel(const Shape a) {
  constexpr int kStrips = 2;
  constexpr int kRows = kStrips * kStripRows;
  constexpr unsigned kGroupsPerBlock = kTileRows / kRows;
  constexpr unsigned kShareBytes = kStrips * kStripBytes;  // of a tile
  constexpr int kOwn = kTiles * kGroups;                   // groups of a warp: pairs of columns
  static_assert(kRows == 32 && kOwn <= 4, "a row a lane, four pairs of columns");
  const unsigned lane = threadIdx.x;
  const unsigned warp = threadIdx.y;
  const unsigned group = blockIdx.x;
  const unsigned begin = warp * kTiles;
  const std::uint8_t* const from = a.weights + std::uint64_t{group / kGroupsPerBlock} * a.row_block_bytes +
                                   (group % kGroupsPerBlock * kShareBytes + begin * kTileBytes + lane * 16);
  uint4 weights[kTiles][kStrips];
  load_tiles(weights, from, begin, a.tiles);
  const unsigned first_group = warp * kOwn;
  const unsigned count = static_cast<unsigned>(a.groups.count);
  // With one tile a lane's scale is that of its place, not of its row: no warp but the first one needs the row's. With
  // two there are more groups and fewer warps, and the end is faster if it loads four scales of a row at a time.
  constexpr bool kByRow = kTiles == 2;
  using Scale = std::conditional_t<kHalf, std::uint16_t, float>;
  const auto* const scales =
      static_cast<const Scale*>(a.groups.scale) + std::uint64_t{group / kGroupsPerBlock} * a.block_scales +
      (group % kGroupsPerBlock * kRows + first_group * kTileRows + (kByRow ? scale_place(lane) : lane));
  Scale beta[kOwn];
#pragma unroll
  for (unsigned i = 0; i < kOwn; ++i) {
    beta[i] = kOwn == 1 || first_group + i < count ? scales[i * kTileRows] : Scale{};
  }
  std::uint8_t* const shared = dynamic_shared();
  const unsigned row = group * kRows + lane;
  const bool stores = warp == 0 && row < static_cast<unsigned>(a.out.out_features);
  RowFactors factors;
  float s = 1.0F;
  if (warp == 0) {
    *reinterpret_cast<uint2*>(shared + lane * 8) = uint2{0, 0};
    if (stores) {
      factors = load_factors<false>(a.out, row);
    }
  }
  // All addresses are computed before x is there, so that its load follows the wait at once.
  const unsigned x_at = begin * kTileInputs + lane * 4;
  const std::uint8_t* x_from = reinterpret_cast<const std::uint8_t*>(a.q) + x_at;
  const std::uint32_t base = ptx::shared_address(shared);
  std::uint32_t x_to = base + kZeroBytes + 2 * a.sum_bytes + x_at;
  // A lane's row of ldmatrix: inputs in the pair of columns of its group (group_sum.cuh), otherwise zeros.
  const SegmentLanes<1> lanes(lane, base);
  std::uint32_t columns = x_to - lane * 4 + lane / 8 * 16;
  ptx::opaque(x_from);
  ptx::opaque(x_to);
  ptx::opaque(columns);
  ptx::wait_for_predecessor();
  ptx::let_successor_start();
  std::uint32_t x[kTiles] = {};
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    if (x_at + t * kTileInputs < a.row_bytes) {
      x[t] = ptx::global_load(x_from + t * kTileInputs);
    }
  }
  float token_scale[kOwn];
  if constexpr (kTokens) {
#pragma unroll
    for (unsigned i = 0; i < kOwn; ++i) {
      token_scale[i] = a.out.token_scale[kOwn == 1 ? first_group : min(first_group + i, count - 1)];
    }
  } else if (stores) {
    s = a.out.token_scale[0];
  }
  __syncthreads();  // the zeros are there
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    ptx::shared_store(x_to + t * kTileInputs, x[t]);
  }
  auto* const sums_of_groups = reinterpret_cast<float*>(shared + kZeroBytes);
  auto* const scales_of_groups = reinterpret_cast<float*>(shared + kZeroBytes + a.sum_bytes);
#pragma unroll
  for (unsigned i = 0; i < kOwn; ++i) {
    float w;
    if constexpr (kHalf) {
      w = ptx::from_float16(beta[i]);
    } else {
      w = beta[i];
    }
    if constexpr (kTokens) {
      w = __fmul_rn(w, token_scale[i]);
    }
    scales_of_groups[kByRow ? sum_word(first_group + i, lane) : (first_group + i) * kRows + lane] = w;
  }
  __syncwarp();
  // Of the group whose columns are this lane's.
  std::int32_t x_sum = 0;
  std::int32_t sums[1][kStrips][4] = {};
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    const std::int32_t of_lane = add_bytes(x[t], 0);
    const std::int32_t whole = __reduce_add_sync(0xffffffffU, of_lane);
    const std::int32_t first = kGroups == 2 ? __reduce_add_sync(0xffffffffU, lane < 16 ? of_lane : 0) : whole;
    if (kOwn == 1 || lane % 4 == static_cast<unsigned>(t * kGroups)) {
      x_sum = first;
    }
    if (kGroups == 2 && lane % 4 == static_cast<unsigned>(t * kGroups + 1)) {
      x_sum = whole - first;
    }
    const std::uint32_t both[2] = {
        lanes.address(static_cast<unsigned>(t * kGroups), 0, columns + t * kTileInputs),
        lanes.address(static_cast<unsigned>(t * kGroups + kGroups - 1), 0, columns + t * kTileInputs)};
    multiply_tile(sums, weights[t], both, a.flip);
  }
  if (lane % 4 < static_cast<unsigned>(kOwn)) {
#pragma unroll
    for (int i = 0; i < kStrips; ++i) {
      std::int32_t two[2];
      row_sums(sums[0][i], x_sum, two);
      float* const rows = sums_of_groups + sum_word(first_group, 0) + lane +
                          i * sum_word(0, kStripRows);  // row lane / 4, group lane % 4
      rows[0] = __int2float_rn(two[0]);
      rows[sum_word(0, 8)] = __int2float_rn(two[1]);
    }
  }
  __syncthreads();
  if (stores) {
    struct Batch {
      float isum[kGroupBatch], scale[kGroupBatch];
      __device__ __forceinline__ float w(unsigned i) const { return scale[i]; }
    };
    const float* const of_row = scales_of_groups + (kByRow ? sum_word(0, lane) : scale_place(lane));
    const float acc = sum_of_groups<Batch>(count, [&](unsigned at, Batch& batch) {
      load_row(sums_of_groups + sum_word(0, lane), at, batch.isum);
      if constexpr (kByRow) {
        load_row(of_row, at, batch.scale);
      } else {
#pragma unroll
        for (unsigned i = 0; i < kGroupBatch; ++i) {
          batch.scale[i] = of_row[(at + i) * kRows];
        }
      }
    });
    store_output(a.out, a.out.type, 0, static_cast<int>(row), __fadd_rn(__fmul_rn(acc, s), factors.bias));
  }
}

}  // namespace

void launch_direct_groups(const Launch& how, const ProductArguments& arguments, const Groups& groups,
                          bool programmatic, Stream stream) {
  const LaunchShape launch_shape{.grid = {static_cast<unsigned>(how.blocks)},
                                 .block = {32, static_cast<unsigned>(how.k_warps)},
                                 .shared_bytes = how.shared_bytes,
                                 .programmatic = programmatic};
  const int groups_of_tile = kTileInputs / groups.segment;
  const Shape shape{
      .weights = arguments.weights,
      .q = arguments.q,
      .row_block_bytes = static_cast<unsigned>(arguments.tiles_along_k) * kTileBytes,
      .tiles = static_cast<unsigned>(arguments.tiles_along_k),
      .row_bytes = static_cast<unsigned>(arguments.row_bytes),
      .sum_bytes = static_cast<unsigned>(segment_sum_bytes(how.k_warps * how.tiles * groups_of_tile)),
      .block_scales = static_cast<unsigned>(groups.count * kTileRows),
      .flip = 0xaaaaaaaaU,
      .out = arguments.out,
      .groups = groups};
  const auto start = [&]<int kTiles, int kGroups, bool kHalf, bool kTokens>() {
    launch<decode_one_direct_groups_kernel<kTiles, kGroups, kHalf, kTokens>>("decode_one", launch_shape,
                                                                             stream, shape);
  };
  const auto start_scales = [&]<int kTiles, int kGroups>() {
    for_scales(groups, [&]<bool kHalf, bool kTokens>() {
      start.template operator()<kTiles, kGroups, kHalf, kTokens>();
    });
  };
  if (how.tiles == 1) {
    groups_of_tile == 1 ? start_scales.operator()<1, 1>() : start_scales.operator()<1, 2>();
  } else {
    groups_of_tile == 1 ? start_scales.operator()<2, 1>() : start_scales.operator()<2, 2>();
  }
}

}  // namespace trit::cuda::one
