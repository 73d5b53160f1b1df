// SPDX-License-Identifier: MIT
//
// decode_one for any shape: a block is P x Q warps, block (32, P, Q). Warp (p, q) owns two strips of 16
// output rows and the q-th part of k, and every lane copies its own weights to a ring of kDepth tiles that
// no other lane reads. Each warp has its own copy of its part of x, so that no warp waits for another one's
// inputs.
//
//   shared memory    zeros, 128 bytes | sums of the block's rows | x of every warp | rings
//
// With programmatic launch two blocks fit on a multiprocessor: the next kernel's first tiles arrive while
// this one computes. That is why plan.cu divides the work in another way for it.
#include "cuda/common/launch.cuh"
#include "cuda/decode_one/ring.cuh"

namespace trit::cuda::one {
namespace {

constexpr int kSets = 2;  // of accumulators: shorter chains

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
};

/// 64 registers, so that two blocks of 16 warps fit. With programmatic launch the weights are loaded first,
/// while the preceding kernel still runs. Without it x is loaded first, since it would queue up behind the
/// weights.
template <bool kProgrammatic>
__global__ __launch_bounds__(kMaxRingWarps * 32, 2) void decode_one_ring_kernel(const Shape a) {
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
      ptx::cp_async_commit();
    }
  };
  if constexpr (kProgrammatic) {
    start_weights();
  }
  const unsigned rows = a.row_warps * kWarpRows;
  const unsigned row = blockIdx.x * rows + thread;
  const bool stores = thread < rows && row < static_cast<unsigned>(a.out.out_features);
  if (thread < (kZeroBytes + rows * 4) / kUnitBytes) {
    *reinterpret_cast<uint4*>(shared + thread * kUnitBytes) = uint4{0, 0, 0, 0};
  }
  RowFactors factors;
  float s = 0.0F;
  if (stores) {
    factors = load_factors(a.out, row);
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
    s = a.out.token_scale[0];
  }
  next += kDepth * kTileBytes;
  ptx::opaque(next);
  __syncthreads();  // the zeros are there
  std::uint8_t* const x = shared + a.x_begin + warp * a.x_bytes;
  std::int32_t x_sum = 0;
  const auto keep_x = [&](unsigned i, const uint4& v) {
    *reinterpret_cast<uint4*>(x + i * kUnitBytes) = v;
    x_sum = add_bytes(v.w, add_bytes(v.z, add_bytes(v.y, add_bytes(v.x, x_sum))));
  };
#pragma unroll
  for (unsigned i = 0; i < kUnitsInFlight; ++i) {
    if (lane + i * 32 < units) {
      keep_x(lane + i * 32, unit[i]);
    }
  }
#pragma unroll 1
  for (unsigned i = lane + kUnitsInFlight * 32; i < units; i += 32) {
    keep_x(i, load_x(i));
  }
  x_sum = __reduce_add_sync(0xffffffffU, x_sum);
  __syncwarp();

  LaneInputs inputs = lane_inputs(lane, base, base + a.x_begin + warp * a.x_bytes);
  std::int32_t sums[kSets][kStrips][4] = {};
  std::uint32_t slot = ring;
  const std::uint32_t last_slot = ring + (kDepth - 1) * kShareBytes;
#pragma unroll 1
  for (; left > 0; --left) {
    ptx::cp_async_wait<kDepth - 1>();
    uint4 weights[kStrips];
    load_share(weights, slot);
    multiply_tile(sums, weights, inputs.address, a.flip);
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
  add_sums(sums_of_rows + p * kWarpRows, lane, sums, x_sum);
  __syncthreads();
  if (stores) {
    store_output(a.out, a.out.type, 0, static_cast<int>(row),
                 output_value(sums_of_rows[thread], s, factors.beta, factors.bias));
  }
}

}  // namespace

void launch_ring(const Launch& how, const ProductArguments& arguments, bool programmatic, Stream stream) {
  const LaunchShape launch_shape =
      shape_of_warps(how.blocks, how.row_warps, how.k_warps, how.shared_bytes, programmatic);
  const int k_tiles = arguments.tiles_along_k;
  const RingBytes bytes = ring_bytes(how, k_tiles, {});
  const int x_begin = kZeroBytes + bytes.sums;
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
                    .ring_begin = static_cast<unsigned>(x_begin + how.row_warps * how.k_warps * bytes.x),
                    .flip = 0xaaaaaaaaU,
                    .out = arguments.out};
  if (programmatic) {
    launch<decode_one_ring_kernel<true>>("decode_one", launch_shape, stream, shape);
  } else {
    launch<decode_one_ring_kernel<false>>("decode_one", launch_shape, stream, shape);
  }
}

}  // namespace trit::cuda::one
