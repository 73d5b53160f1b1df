// SPDX-License-Identifier: MIT
//
// decode_one for short parts of k: everything that a warp needs is one or two tiles of each of its strips,
// which it loads into registers as its first instructions. A block is S strips of 16 rows and has a warp for
// every T tiles along k, block (32, warps); one wave of blocks.
//
//   shared memory    zeros, 128 bytes | sums of 16 S rows, 128 bytes | x
//
// The number of instructions counts here, not bytes: a multiprocessor runs 20 to 64 warps of a few tiles
// each, so one more instruction before a load delays the last warp's load by 5 to 16 clocks.
#include "cuda/common/launch.cuh"
#include "cuda/decode_one/multiply.cuh"

namespace trit::cuda::one {
namespace {

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
__global__ __launch_bounds__(kMaxDirectThreads, 1) void decode_one_direct_kernel(const Shape a) {
  constexpr int kRows = kStrips * kStripRows;
  constexpr unsigned kGroupsPerBlock = kTileRows / kRows;
  constexpr unsigned kShareBytes = kStrips * kStripBytes;  // of a tile
  constexpr int kSets = kStrips == 1 ? 2 : 1;  // of accumulators: shorter chains where registers are left
  static_assert(kRows * 4 <= kDirectHeaderBytes - kZeroBytes);
  const unsigned lane = threadIdx.x;
  const unsigned warp = threadIdx.y;
  const unsigned group = blockIdx.x;
  const unsigned begin = warp * kTiles;
  const std::uint8_t* const from = a.weights + std::uint64_t{group / kGroupsPerBlock} * a.row_block_bytes +
                                   (group % kGroupsPerBlock * kShareBytes + begin * kTileBytes + lane * 16);
  uint4 weights[kTiles][kStrips];
  load_tiles(weights, from, begin, a.tiles);
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
  // All addresses are computed before x is there, so that its load follows the wait at once.
  const unsigned x_at = begin * kTileInputs + lane * 4;
  const std::uint8_t* x_from = reinterpret_cast<const std::uint8_t*>(a.q) + x_at;
  std::uint32_t x_to = ptx::shared_address(shared) + kDirectHeaderBytes + x_at;
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
    s = a.out.token_scale[0];
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

void launch_direct(const Launch& how, const ProductArguments& arguments, bool programmatic, Stream stream) {
  const LaunchShape launch_shape{.grid = {static_cast<unsigned>(how.blocks)},
                                 .block = {32, static_cast<unsigned>(how.k_warps)},
                                 .shared_bytes = how.shared_bytes,
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
  if (how.strips == 1) {
    start.operator()<1, 1>();
  } else if (how.tiles == 1) {
    start.operator()<2, 1>();
  } else {
    start.operator()<2, 2>();
  }
}

}  // namespace trit::cuda::one
