// SPDX-License-Identifier: MIT
//
// decode_one: the product for one token, bound by reading the weights and by latencies. Work is cut as in
// decode: a block is P x Q warps, block (32, P, Q); warp (p, q) owns 16 * S output rows (S strips) and the
// q-th part of k, and every lane copies its own weights to a ring of kDepth tiles that no other lane reads.
//
// What one token allows: of the eight columns of mma.m16n8k32 one would do, so the other ones are used to
// unpack with one instruction per register instead of two. Register r of a word is
//
//   (word ^ 0xaaaaaaaa) & (0xc0c0c0c0 >> 2r)   four unsigned bytes (t + 2) << (6 - 2r),
//
// because flipping the upper bit of a two's complement code t gives t + 2. The registers of a fragment then
// have factors 64 (row g, inputs 0..15), 16 (row g + 8, 0..15), 4 (row g, 16..31) and 1 (row g + 8, 16..31).
// Column 0 holds inputs 0..15 of x and zeros, column 1 zeros and inputs 16..31, so a lane with lane % 4 == 0
// has four sums that are of one factor each:
//
//   sum[g] = (d[0] >> 6) + (d[1] >> 2),   sum[g + 8] = (d[2] >> 4) + d[3],   both minus 2 * (sum of q)
//
// The sum of q is taken by the threads that bring q to shared memory. All shifts are exact.
//
//   shared memory    zeros, 128 bytes | sum of q | sums of every warp [Q][P * 16 S] | x | rings
//
// With programmatic launch two blocks fit on a multiprocessor: the next kernel's first tiles arrive while
// this one computes, which is where the plans differ (plan_decode_one).
#include <algorithm>

#include "cuda/fragments.cuh"
#include "cuda/launch.cuh"
#include "cuda/product.cuh"
#include "cuda/ptx.cuh"

namespace trit::cuda {
namespace {

constexpr int kMaxWarps = 16;
constexpr int kZeroBytes = 128;
constexpr int kHeaderBytes = kZeroBytes + 16;
constexpr int kUnitBytes = 16;
constexpr int kUnitsPerTile = kTileInputs / kUnitBytes;
// (t + 2) * 64 is 192 at most.
constexpr int kMaxTilesPerPart = 682;
static_assert(std::int64_t{kMaxTilesPerPart} * kTileInputs * 192 * 128 < (std::int64_t{1} << 31));

/// How a launch cuts its work, computed by the host: there is no division in the kernel.
struct Shape {
  unsigned groups;           // of 16 S rows, in the whole matrix
  unsigned part_tiles;       // of a warp, along k
  unsigned part_over;        // the first parts take one more
  unsigned x_units;          // of 16 bytes, of whole tiles
  unsigned row_block_bytes;  // of the weights of 64 rows
  unsigned x_begin;          // byte of shared memory where x starts
  unsigned ring_begin;       // likewise the weights
  unsigned sum_part;         // ints of a part's sums
  unsigned flip;  // 0xaaaaaaaa: as a constant the compiler splits (word ^ flip) & mask in two instructions
  bool weights_first;
};

__device__ __forceinline__ std::uint32_t word_of(const uint4& v, int i) {
  return i == 0 ? v.x : (i == 1 ? v.y : (i == 2 ? v.z : v.w));  // i is known at compile time
}

__device__ __forceinline__ std::int32_t sum_of_bytes(const uint4& v, std::int32_t sum) {
  constexpr int kOnes = 0x01010101;
  sum = __dp4a(static_cast<int>(v.x), kOnes, sum);
  sum = __dp4a(static_cast<int>(v.y), kOnes, sum);
  sum = __dp4a(static_cast<int>(v.z), kOnes, sum);
  return __dp4a(static_cast<int>(v.w), kOnes, sum);
}

/// 64 registers, so that two blocks of 16 warps fit.
template <int kStrips, int kDepth>
__global__ __launch_bounds__(kMaxWarps * 32, 2) void decode_one_kernel(const ProductArguments a,
                                                                       const Shape shape) {
  constexpr unsigned kWarpRows = kStrips * kStripRows;
  constexpr unsigned kGroupsPerBlock = kTileRows / kWarpRows;
  constexpr unsigned kShareBytes = kStrips * kStripBytes;  // of a tile
  constexpr int kSets = kStrips == 4 ? 1 : 2;  // of accumulators: shorter chains where registers are left
  const unsigned lane = threadIdx.x;
  const unsigned p = threadIdx.y;
  const unsigned q = threadIdx.z;
  const unsigned warp = q * blockDim.y + p;
  const unsigned thread = warp * 32 + lane;
  const unsigned threads = blockDim.y * blockDim.z * 32;
  // Warps beyond the matrix do what the last one does and store nothing.
  const unsigned inside = min(blockIdx.x * blockDim.y + p, shape.groups - 1);
  const unsigned begin = q * shape.part_tiles + min(q, shape.part_over);
  unsigned left = shape.part_tiles + (q < shape.part_over ? 1U : 0U);
  const std::uint8_t* next = a.weights + std::uint64_t{inside / kGroupsPerBlock} * shape.row_block_bytes +
                             (inside % kGroupsPerBlock * kShareBytes + begin * kTileBytes + lane * 16);
  ptx::opaque(next);  // else every address is computed anew from the arguments
  std::uint8_t* const shared = dynamic_shared();
  const std::uint32_t base = ptx::shared_address(shared);
  std::uint32_t ring = base + shape.ring_begin + warp * (kDepth * kShareBytes) + lane * 16;
  ptx::opaque(ring);
  const auto start_weights = [&] {
#pragma unroll
    for (unsigned i = 0; i < kDepth; ++i) {
      if (i < left) {
#pragma unroll
        for (int s = 0; s < kStrips; ++s) {
          ptx::cp_async_16(ring + i * kShareBytes + s * kStripBytes, next + i * kTileBytes + s * kStripBytes);
        }
      }
      ptx::cp_async_commit();
    }
  };
  // With programmatic launch the weights come first, while the kernel in front still runs. Without it x does,
  // since it would queue up behind the weights.
  if (shape.weights_first) {
    start_weights();
  }
  const unsigned row = blockIdx.x * (blockDim.y * kWarpRows) + thread;
  const bool stores = thread < blockDim.y * kWarpRows && row < static_cast<unsigned>(a.out.out_features);
  float beta = 0.0F;
  float bias = -0.0F;
  float s = 0.0F;
  const auto load_beta = [&] {
    if (stores) {
      beta = a.out.scale[a.out.scale_per_row ? row : 0];
      bias = a.out.bias == nullptr ? -0.0F : a.out.bias[row];
    }
  };
  if (shape.weights_first) {
    load_beta();
  }
  ptx::wait_for_predecessor();
  ptx::let_successor_start();
  // x: two units a thread in flight, which is all of it up to 16,384 inputs with 16 warps. Beyond the row
  // zeros, up to whole tiles.
  uint4 unit[2] = {};
#pragma unroll
  for (unsigned i = 0; i < 2; ++i) {
    const unsigned at = (thread + i * threads) * kUnitBytes;
    if (at < static_cast<unsigned>(a.row_bytes)) {
      unit[i] = *reinterpret_cast<const uint4*>(a.q + at);
    }
  }
  if (!shape.weights_first) {
    start_weights();
    load_beta();
  }
  if (stores) {
    s = a.out.row_scale[0];
  }
  next += kDepth * kTileBytes;
  ptx::opaque(next);
  if (thread < kHeaderBytes / kUnitBytes) {
    *reinterpret_cast<uint4*>(shared + thread * kUnitBytes) = uint4{0, 0, 0, 0};
  }
  std::uint8_t* const x = shared + shape.x_begin;
  std::int32_t x_sum = 0;
#pragma unroll
  for (unsigned i = 0; i < 2; ++i) {
    const unsigned at = thread + i * threads;
    if (at < shape.x_units) {
      *reinterpret_cast<uint4*>(x + at * kUnitBytes) = unit[i];
    }
    x_sum = sum_of_bytes(unit[i], x_sum);
  }
#pragma unroll 1
  for (unsigned at = thread + 2 * threads; at < shape.x_units; at += threads) {
    uint4 more = {0, 0, 0, 0};
    if (at * kUnitBytes < static_cast<unsigned>(a.row_bytes)) {
      more = *reinterpret_cast<const uint4*>(a.q + at * kUnitBytes);
    }
    *reinterpret_cast<uint4*>(x + at * kUnitBytes) = more;
    x_sum = sum_of_bytes(more, x_sum);
  }
  __syncthreads();
  x_sum = __reduce_add_sync(0xffffffffU, x_sum);

  // Row l % 8 of matrix l / 8 of an ldmatrix is column l % 8 of inputs 16 (l / 8) .. + 15: columns 0 and 1
  // take them in turn, everything else is zeros, in banks that the inputs are not in.
  const unsigned matrix = lane / 8;
  const bool real = lane % 8 == matrix % 2;
  std::uint32_t lane_x =
      base + (real ? shape.x_begin + begin * kTileInputs + matrix * 16 : (matrix + 1) % 4 * 16);
  const unsigned x_step = real ? kTileInputs : 0U;
  std::int32_t sums[kSets][kStrips][4] = {};
  std::uint32_t slot = ring;
  const std::uint32_t last_slot = ring + (kDepth - 1) * kShareBytes;
#pragma unroll 1
  for (; left > 0; --left) {
    ptx::cp_async_wait<kDepth - 1>();
    uint4 weights[kStrips];
#pragma unroll
    for (int i = 0; i < kStrips; ++i) {
      weights[i] = ptx::shared_load(slot + i * kStripBytes);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {  // 64 inputs: two words
      std::uint32_t columns[4];
      ptx::ldmatrix_x4(columns, lane_x + half * 64);
#pragma unroll
      for (int word = 0; word < 2; ++word) {
#pragma unroll
        for (int i = 0; i < kStrips; ++i) {
          const std::uint32_t codes = word_of(weights[i], 2 * half + word);
          const std::uint32_t u[4] = {ptx::and_of_xor(codes, shape.flip, 0xc0c0c0c0U),
                                      ptx::and_of_xor(codes, shape.flip, 0x30303030U),
                                      ptx::and_of_xor(codes, shape.flip, 0x0c0c0c0cU),
                                      ptx::and_of_xor(codes, shape.flip, 0x03030303U)};
          ptx::mma_m16n8k32_u8(sums[word % kSets][i], u, columns[2 * word], columns[2 * word + 1]);
        }
      }
    }
    if (left > kDepth) {
#pragma unroll
      for (int i = 0; i < kStrips; ++i) {
        ptx::cp_async_16(slot + i * kStripBytes, next + i * kStripBytes);
      }
    }
    ptx::cp_async_commit();
    next += kTileBytes;
    ptx::opaque(next);
    slot = slot == last_slot ? ring : slot + kShareBytes;
    ptx::opaque(slot);
    lane_x += x_step;
  }
  auto* const part_sums = reinterpret_cast<std::int32_t*>(shared + kHeaderBytes);
  if (lane == 0) {
    atomicAdd(reinterpret_cast<int*>(shared + kZeroBytes), x_sum);
  }
  if (lane % 4 == 0) {
    std::int32_t* to = part_sums + q * shape.sum_part + p * kWarpRows + lane / 4;
#pragma unroll
    for (int i = 0; i < kStrips; ++i) {
      std::int32_t d[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        d[j] = sums[0][i][j] + (kSets == 2 ? sums[kSets - 1][i][j] : 0);
      }
      to[i * kStripRows] = (d[0] >> 6) + (d[1] >> 2);
      to[i * kStripRows + 8] = (d[2] >> 4) + d[3];
    }
  }
  __syncthreads();
  if (!stores) {
    return;
  }
  std::int32_t sum = -2 * *reinterpret_cast<const int*>(shared + kZeroBytes);
#pragma unroll
  for (unsigned w = 0; w < kMaxWarps; ++w) {  // all of them in flight
    sum += w < blockDim.z ? part_sums[w * shape.sum_part + thread] : 0;
  }
  store_output(a.out, a.out.type, 0, static_cast<int>(row), output_value(sum, s, beta, bias));
}

int x_begin(const DecodeOnePlan& plan) {
  return round_up(kHeaderBytes + plan.k_warps * plan.row_warps * plan.strips * kStripRows * 4, kTileInputs);
}

}  // namespace

bool fit_decode_one(DecodeOnePlan& plan, const Device& device, std::int64_t out_features,
                    std::int64_t in_features) {
  const int k_tiles = static_cast<int>(ceil_div<std::int64_t>(in_features, kTileInputs));
  const int strips =
      static_cast<int>(ceil_div<std::int64_t>(out_features, kTileRows)) * (kTileRows / kStripRows);
  // A thread stores one row at most.
  if (plan.row_warps * plan.k_warps > kMaxWarps || plan.k_warps > k_tiles ||
      plan.strips * kStripRows > plan.k_warps * 32 || ceil_div(k_tiles, plan.k_warps) > kMaxTilesPerPart) {
    return false;
  }
  plan.blocks = ceil_div(strips / plan.strips, plan.row_warps);
  plan.shared_bytes =
      static_cast<unsigned>(x_begin(plan) + k_tiles * kTileInputs +
                            plan.row_warps * plan.k_warps * plan.depth * plan.strips * kStripBytes);
  return plan.shared_bytes <= static_cast<unsigned>(device.shared_bytes);
}

// Measured on an H200: eight shapes, S = 1, 2, 4, depth 2, 4, 6, every P and Q.
bool plan_decode_one(DecodeOnePlan& plan, const Device& device, std::int64_t out_features,
                     std::int64_t in_features, bool programmatic) {
  const int k_tiles = static_cast<int>(ceil_div<std::int64_t>(in_features, kTileInputs));
  const int strips =
      static_cast<int>(ceil_div<std::int64_t>(out_features, kTileRows)) * (kTileRows / kStripRows);
  int warps = 8;
  int most_row_warps = 4;
  plan.strips = 2;
  plan.depth = 4;
  if (!programmatic) {
    // Up to two blocks a multiprocessor, of which one multiplies while the other one waits.
    const int groups = strips / plan.strips;
    plan.row_warps = ceil_div(groups, 2 * device.multiprocessors);
    if (groups <= device.multiprocessors) {
      warps = k_tiles >= 64 ? 16 : 8;
    } else {
      warps = k_tiles < 24 ? 4 : 8;
    }
  } else if (strips > 4 * device.multiprocessors) {
    // Nearly half of the shared memory in flight: 2 KB x 4 tiles x 12 warps.
    plan.strips = 4;
    plan.row_warps = ceil_div(strips / plan.strips, device.multiprocessors);
    warps = 12;
    most_row_warps = 2;
  } else {
    plan.row_warps = ceil_div(strips / plan.strips, device.multiprocessors);
    warps = std::clamp(ceil_div(k_tiles, 8) * plan.row_warps, 8, kMaxWarps);
  }
  plan.row_warps = std::min(plan.row_warps, most_row_warps);
  // The fewest warps that leave the longest part of k as short; fewer where they do not fit.
  for (int most = std::min(std::max(warps / plan.row_warps, plan.strips / 2), k_tiles); most > 0; --most) {
    const int longest = ceil_div(k_tiles, most);
    plan.k_warps = ceil_div(k_tiles, longest);
    plan.depth = plan.strips == 2 && programmatic && longest > 5 ? 6 : 4;
    if (fit_decode_one(plan, device, out_features, in_features)) {
      return true;
    }
  }
  return false;
}

void launch_decode_one(const DecodeOnePlan& plan, const ProductArguments& arguments, bool programmatic,
                       Stream stream) {
  const LaunchShape launch_shape{
      .grid = {static_cast<unsigned>(plan.blocks)},
      .block = {32, static_cast<unsigned>(plan.row_warps), static_cast<unsigned>(plan.k_warps)},
      .shared_bytes = plan.shared_bytes,
      .programmatic = programmatic};
  const int strips = ceil_div(arguments.out.out_features, kTileRows) * (kTileRows / kStripRows);
  const int k_tiles = arguments.tiles_along_k;
  const Shape shape{.groups = static_cast<unsigned>(strips / plan.strips),
                    .part_tiles = static_cast<unsigned>(k_tiles / plan.k_warps),
                    .part_over = static_cast<unsigned>(k_tiles % plan.k_warps),
                    .x_units = static_cast<unsigned>(k_tiles * kUnitsPerTile),
                    .row_block_bytes = static_cast<unsigned>(k_tiles) * kTileBytes,
                    .x_begin = static_cast<unsigned>(x_begin(plan)),
                    .ring_begin = static_cast<unsigned>(x_begin(plan) + k_tiles * kTileInputs),
                    .sum_part = static_cast<unsigned>(plan.row_warps * plan.strips * kStripRows),
                    .flip = 0xaaaaaaaaU,
                    .weights_first = programmatic};
  const auto start = [&]<int kStrips, int kDepth>() {
    launch<decode_one_kernel<kStrips, kDepth>>("decode_one", launch_shape, stream, arguments, shape);
  };
  if (plan.strips == 4) {
    start.operator()<4, 4>();
  } else if (plan.depth == 6) {
    start.operator()<2, 6>();
  } else {
    start.operator()<2, 4>();
  }
}

}  // namespace trit::cuda
