// SPDX-License-Identifier: MIT
//
// decode_one for short parts of k: everything that a warp needs is one or two tiles of each of its strips,
// which it loads into registers as its first instructions. A block is S strips of 16 rows and has a warp for
// every T tiles along k, block (32, warps); one wave of blocks.
//
//   shared memory    zeros, 128 bytes | sums of 16 S rows, 128 bytes | x
//
// What counts here is how few instructions there are, not bytes: a multiprocessor runs 20 to 64 warps of a
// few tiles each, so an instruction more in front of a load delays the last warp's load by 5 to 16 clocks.
#include "cuda/decode_one/multiply.cuh"

#include <algorithm>

#include "cuda/common/launch.cuh"

namespace trit::cuda::one {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int kMaxBlocks = 32;  // of a multiprocessor
constexpr int kHeaderBytes = 2 * kZeroBytes;

struct Shape {
  const std::uint8_t* weights;
  const std::int8_t* q;
  unsigned row_block_bytes;  // of the weights of 64 rows
  unsigned tiles;            // along k
  unsigned row_bytes;        // of q
  unsigned flip;             // 0xaaaaaaaa
  Output out;
};

template <int kStrips, int kTiles>
__global__ __launch_bounds__(kMaxThreads, 1) void decode_one_direct_kernel(const Shape a) {
  constexpr int kRows = kStrips * kStripRows;
  constexpr unsigned kGroupsPerBlock = kTileRows / kRows;
  constexpr unsigned kShareBytes = kStrips * kStripBytes;  // of a tile
  constexpr int kSets = kStrips == 1 ? 2 : 1;  // of accumulators: shorter chains where registers are left
  static_assert(kRows * 4 <= kHeaderBytes - kZeroBytes);
  const unsigned lane = threadIdx.x;
  const unsigned warp = threadIdx.y;
  const unsigned group = blockIdx.x;
  const unsigned begin = warp * kTiles;
  const std::uint8_t* const from = a.weights + std::uint64_t{group / kGroupsPerBlock} * a.row_block_bytes +
                                   (group % kGroupsPerBlock * kShareBytes + begin * kTileBytes + lane * 16);
  uint4 weights[kTiles][kStrips] = {};
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    if (t == 0 || begin + t < a.tiles) {
#pragma unroll
      for (int i = 0; i < kStrips; ++i) {
        weights[t][i] = ptx::load_once_16(from + t * kTileBytes + i * kStripBytes);
      }
    }
  }
  std::uint8_t* const shared = dynamic_shared();
  auto* const sums_of_rows = reinterpret_cast<std::int32_t*>(shared + kZeroBytes);
  const unsigned row = group * kRows + lane;
  const bool stores = warp == 0 && lane < kRows && row < static_cast<unsigned>(a.out.out_features);
  RowFactors factors;
  float s = 0.0F;
  if (warp == 0) {
    *reinterpret_cast<uint2*>(shared + lane * 8) = uint2{0, 0};
    if (stores) {
      factors = load_factors(a.out, row);
    }
  }
  // Everything that can be known before x, so that nothing is between the wait and its load.
  const unsigned x_at = begin * kTileInputs + lane * 4;
  const std::uint8_t* x_from = reinterpret_cast<const std::uint8_t*>(a.q) + x_at;
  std::uint32_t x_to = ptx::shared_address(shared) + kHeaderBytes + x_at;
  LaneInputs inputs = lane_inputs(lane, ptx::shared_address(shared), x_to - lane * 4);
  ptx::opaque(x_from);
  ptx::opaque(x_to);
  ptx::opaque(inputs.address);
  ptx::wait_for_predecessor();
  ptx::let_successor_start();
  std::uint32_t x[kTiles] = {};
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    if (x_at + t * kTileInputs < a.row_bytes) {
      x[t] = ptx::global_load(x_from + t * kTileInputs);
    }
  }
  if (stores) {
    s = a.out.row_scale[0];
  }
  __syncthreads();  // the zeros are there
  std::int32_t x_sum = 0;
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    ptx::shared_store(x_to + t * kTileInputs, x[t]);
    x_sum = add_bytes(x[t], x_sum);
  }
  x_sum = __reduce_add_sync(0xffffffffU, x_sum);
  __syncwarp();
  std::int32_t sums[kSets][kStrips][4] = {};
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    multiply_tile(sums, weights[t], inputs.address, a.flip);
    inputs.address += inputs.step;
  }
  add_sums(sums_of_rows, lane, sums, x_sum);
  __syncthreads();
  if (stores) {
    store_output(a.out, a.out.type, 0, static_cast<int>(row),
                 output_value(sums_of_rows[lane], s, factors.beta, factors.bias));
  }
}

}  // namespace

bool plan_direct(DecodeOnePlan& plan, const Device& device, int k_tiles, int strips, bool programmatic) {
  // Of a multiprocessor's registers: 64 warps of 32, 42 of 48, 36 of 56.
  struct Form {
    int strips, tiles, warps;
  };
  for (const Form form : {Form{1, 1, 64}, Form{2, 1, 42}, Form{2, 2, 36}}) {
    const int k_warps = ceil_div(k_tiles, form.tiles);
    const int blocks = strips / form.strips;
    if (k_warps * 32 > kMaxThreads || (programmatic && form.strips == 1) ||
        blocks > device.multiprocessors * std::min(form.warps / k_warps, kMaxBlocks)) {
      continue;
    }
    plan = {.strips = form.strips,
            .tiles = form.tiles,
            .row_warps = 1,
            .k_warps = k_warps,
            .blocks = blocks,
            .shared_bytes = static_cast<unsigned>(kHeaderBytes + k_warps * form.tiles * kTileInputs)};
    return true;
  }
  return false;
}

void launch_direct(const DecodeOnePlan& plan, const ProductArguments& arguments, bool programmatic,
                   Stream stream) {
  const LaunchShape launch_shape{.grid = {static_cast<unsigned>(plan.blocks)},
                                 .block = {32, static_cast<unsigned>(plan.k_warps)},
                                 .shared_bytes = plan.shared_bytes,
                                 .programmatic = programmatic};
  const Shape shape{.weights = arguments.weights,
                    .q = arguments.q,
                    .row_block_bytes = static_cast<unsigned>(arguments.tiles_along_k) * kTileBytes,
                    .tiles = static_cast<unsigned>(arguments.tiles_along_k),
                    .row_bytes = static_cast<unsigned>(arguments.row_bytes),
                    .flip = 0xaaaaaaaaU,
                    .out = arguments.out};
  const auto start = [&]<int kStrips, int kTiles>() {
    launch<decode_one_direct_kernel<kStrips, kTiles>>("decode_one", launch_shape, stream, shape);
  };
  if (plan.strips == 1) {
    start.operator()<1, 1>();
  } else if (plan.tiles == 1) {
    start.operator()<2, 1>();
  } else {
    start.operator()<2, 2>();
  }
}

}  // namespace trit::cuda::one
