// SPDX-License-Identifier: MIT
//
// norm_quant: RMSNorm and absmax int8, by one of four kernels. All load a whole row of x at once, keep it in
// shared memory or in registers, and go over it twice:
//
//   pass 1   fma(x, x, acc) into the 256 accumulators of lane_sum, and the maximum of |x g|
//   barrier  the accumulators through shared memory
//   pass 2   q = rint(x g factor)
//
//   16-bit rows of at most 8192 inputs, and many of at most 16,384   the registers of 128 threads
//                                                                    (norm_quant_registers.cuh)
//   many of at most 8192 with a norm weight                          the same, blocks stay and hold the weight
//                                                                    (norm_quant_lanes.cuh)
//   many others   a warp for each, in shared memory, without a barrier of the block (norm_quant_rows.cuh)
//   few others    a block of 256 threads for each, thread j is accumulator j
//
// Bytes per row: K * size(x) read and K written in memory, 4 K of g from L2. A row that does not fit in
// shared memory (K beyond about 115,000 of 16 bits) is read twice.
#include <algorithm>

#include "cuda/common/checks.h"
#include "cuda/common/groups.h"
#include "cuda/common/launch.cuh"
#include "cuda/rows/norm_quant_groups.h"
#include "cuda/rows/norm_quant_lanes.cuh"
#include "cuda/rows/norm_quant_registers.cuh"
#include "cuda/rows/norm_quant_rows.cuh"

namespace trit::cuda {
namespace {

constexpr int kHeaderBytes = kLanes * 4 + 64;  // accumulators, then the warps' maxima; a multiple of 16

template <DataType kType, bool kNorm>
__global__ __launch_bounds__(kLanes) void norm_quant_kernel(const NormQuantArguments a) {
  auto* accumulators = reinterpret_cast<float*>(dynamic_shared());    // [256]
  auto* maxima = reinterpret_cast<unsigned*>(accumulators + kLanes);  // [8]
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t row = blockIdx.x;
  const FloatBits<kType>* x = static_cast<const FloatBits<kType>*>(a.x) + row * a.x_stride;
  const float* g = kNorm ? a.norm_weight : nullptr;
  ptx::wait_for_predecessor();
  ptx::let_successor_start();
  if (a.cached) {
    auto* cache = reinterpret_cast<FloatBits<kType>*>(dynamic_shared() + kHeaderBytes);
    stage_row(cache, x, a.in_features, thread, kLanes);
    __syncthreads();
    x = cache;
  }

  float acc = 0;
  unsigned largest = 0;
#pragma unroll 4
  for (int k = thread; k < a.in_features; k += kLanes) {
    float v = from_bits<kType>(x[k]);
    if constexpr (kNorm) {
      acc = __fmaf_rn(v, v, acc);
      v = g != nullptr ? __fmul_rn(v, g[k]) : v;
    }
    largest = max(largest, __float_as_uint(v) & 0x7fffffffU);
  }
  largest = __reduce_max_sync(0xffffffffU, largest);
  accumulators[thread] = acc;
  if (thread % 32 == 0) {
    maxima[thread / 32] = largest;
  }
  __syncthreads();
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) {
    largest = max(largest, maxima[warp]);
  }

  const float sum = kNorm ? tree_sum(accumulators, thread % 32) : 0.0F;
  const TokenScale scale = token_scale<kNorm>(a, sum, __uint_as_float(largest));
  if (thread == 0) {
    store_token_scale(a, row, scale);
  }
  // No clamp: |x g| <= m and c is 127 / m within three roundings, so |x g c| < 127.5.
#pragma unroll 2
  for (int k = 4 * thread; k < a.row_bytes; k += 4 * kLanes) {
    float v[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      v[i] = k + i < a.in_features ? from_bits<kType>(x[k + i]) : 0.0F;
      v[i] = k + i < a.in_features && g != nullptr ? __fmul_rn(v[i], g[k + i]) : v[i];
    }
    std::uint32_t bytes = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      bytes |= rounded_byte(__fmul_rn(v[i], scale.factor)) << (8 * i);
    }
    *reinterpret_cast<std::uint32_t*>(a.q + row * a.row_bytes + k) = scale.good ? bytes : 0U;
  }
}

template <DataType kType>
void launch_type(const LaunchShape& shape, Norm norm, const NormQuantArguments& arguments, Stream stream) {
  if (norm == Norm::rms) {
    launch<norm_quant_kernel<kType, true>>("norm_quant", shape, stream, arguments);
  } else {
    launch<norm_quant_kernel<kType, false>>("norm_quant", shape, stream, arguments);
  }
}

/// From this many rows on the kernels of many rows keep the multiprocessors busy.
constexpr std::int64_t kRowsPerMultiprocessor = 8;
/// Steps of 256 inputs that a block holds. With a norm weight norm_quant_registers is faster up to kShortSteps,
/// norm_quant_lanes beyond.
constexpr int kShortSteps = 12;
constexpr int kFewSteps = 16;
constexpr int kManySteps = 32;
constexpr int kMaxSteps = 64;

bool is_many(const Device& device, const NormQuant& args) {
  return args.tokens >= kRowsPerMultiprocessor * device.multiprocessors;
}

/// Whether norm_quant_lanes can be used, and pays. Any GPU has the shared memory of its blocks.
bool fits_lanes(const Device& device, const NormQuant& args) {
  return is_many(device, args) && args.x_type != DataType::float32 && args.norm == Norm::rms &&
         args.norm_weight != nullptr && args.in_features > kLanes * kShortSteps &&
         args.in_features <= kLanes * kManySteps && args.in_features % 8 == 0 && args.x_stride % 8 == 0 &&
         is_aligned(args.x, 16) && is_aligned(args.norm_weight, 8);
}

template <DataType kType, int kSteps, int kBlocks>
void launch_lanes_steps(const Device& device, const NormQuant& args, const NormQuantArguments& arguments,
                        Stream stream) {
  const std::int64_t blocks =
      std::min<std::int64_t>(args.tokens, std::int64_t{kBlocks} * device.multiprocessors);
  launch<norm_quant_lanes_kernel<kType, kSteps, kBlocks>>("norm_quant_lanes",
                                                          {.grid = {static_cast<unsigned>(blocks)},
                                                           .block = {kLanesThreads},
                                                           .shared_bytes = lanes_shared_bytes(kSteps),
                                                           .programmatic = args.programmatic},
                                                          stream, arguments);
}

template <DataType kType>
void launch_lanes(const Device& device, const NormQuant& args, const NormQuantArguments& arguments,
                  Stream stream) {
  if (args.in_features <= kLanes * kFewSteps) {
    launch_lanes_steps<kType, kFewSteps, 5>(device, args, arguments, stream);
  } else {
    launch_lanes_steps<kType, kManySteps, 4>(device, args, arguments, stream);
  }
}

/// Whether norm_quant_registers can be used, and pays.
bool fits_registers(const Device& device, const NormQuant& args) {
  const std::int64_t steps = is_many(device, args) ? kMaxSteps : kManySteps;
  return args.x_type != DataType::float32 && args.in_features <= kLanes * steps &&
         args.in_features % 2 == 0 && args.x_stride % 2 == 0 && is_aligned(args.x, 4) &&
         is_aligned(args.norm_weight, 8);
}

template <DataType kType, int kSteps>
void launch_steps(const LaunchShape& shape, Norm norm, const NormQuantArguments& arguments, Stream stream) {
  if (norm == Norm::rms && arguments.norm_weight != nullptr) {
    launch<norm_quant_registers_kernel<kType, true, true, kSteps>>("norm_quant_registers", shape, stream,
                                                                   arguments);
  } else if (norm == Norm::rms) {
    launch<norm_quant_registers_kernel<kType, true, false, kSteps>>("norm_quant_registers", shape, stream,
                                                                    arguments);
  } else {
    launch<norm_quant_registers_kernel<kType, false, false, kSteps>>("norm_quant_registers", shape, stream,
                                                                     arguments);
  }
}

/// The kernel of the first number of steps that is enough. Steps that a row does not fill cost 3 % each at 2560 inputs.
template <DataType kType, int kSteps, int... kMoreSteps>
void launch_registers(const NormQuant& args, const NormQuantArguments& arguments, Stream stream) {
  if constexpr (sizeof...(kMoreSteps) > 0) {
    if (args.in_features > kLanes * kSteps) {
      return launch_registers<kType, kMoreSteps...>(args, arguments, stream);
    }
  }
  const LaunchShape shape{.grid = {static_cast<unsigned>(args.tokens)},
                          .block = {kRegisterThreads},
                          .shared_bytes = kRegisterHeaderBytes,
                          .programmatic = args.programmatic};
  launch_steps<kType, kSteps>(shape, args.norm, arguments, stream);
}

/// How the warps of norm_quant_rows share a block; no shared memory where they cannot be used.
LaunchShape rows_shape(const Device& device, const NormQuant& args, std::int64_t row_bytes) {
  const auto size = static_cast<std::int64_t>(size_of(args.x_type));
  const std::int64_t warp_bytes = kRowsHeaderBytes + row_bytes * size;
  if (!is_many(device, args) || warp_bytes * kRowsWarps > device.shared_bytes) {
    return {};
  }
  return {.grid = {static_cast<unsigned>(ceil_div<std::int64_t>(args.tokens, kRowsWarps))},
          .block = {32, kRowsWarps},
          .shared_bytes = static_cast<unsigned>(warp_bytes * kRowsWarps),
          .programmatic = args.programmatic};
}

template <DataType kType>
void launch_rows(const LaunchShape& shape, Norm norm, const NormQuantArguments& arguments, Stream stream) {
  if (norm == Norm::rms) {
    launch<norm_quant_rows_kernel<kType, true>>("norm_quant_rows", shape, stream, arguments);
  } else {
    launch<norm_quant_rows_kernel<kType, false>>("norm_quant_rows", shape, stream, arguments);
  }
}

}  // namespace

void norm_quant(const Device& device, const NormQuant& args, Stream stream) {
  require_tokens(args.tokens, "norm_quant");
  require_matrix(1, args.in_features, "norm_quant");
  if (args.tokens == 0) {
    return;
  }
  require_aligned(args.x, size_of(args.x_type), "norm_quant", "x");
  require_aligned(args.q, 16, "norm_quant", "q");
  require_aligned(args.scale, sizeof(float), "norm_quant", "scale");
  if (args.norm == Norm::rms && !(args.eps > 0)) {
    throw Error("cuda::norm_quant: eps is " + std::to_string(args.eps) + ", wanted a positive value");
  }
  if (args.group != 0) {
    require_group(ScaleGranularity::group, args.group, "norm_quant");
  }
  const std::int64_t row_bytes = quantized_row_bytes(args.in_features);
  const std::int64_t cached_bytes =
      kHeaderBytes + row_bytes * static_cast<std::int64_t>(size_of(args.x_type));
  const bool cached = cached_bytes <= device.shared_bytes;
  const LaunchShape shape{.grid = {static_cast<unsigned>(args.tokens)},
                          .block = {kLanes},
                          .shared_bytes = static_cast<unsigned>(cached ? cached_bytes : kHeaderBytes),
                          .programmatic = args.programmatic};
  const NormQuantArguments arguments{.x = args.x,
                                     .x_stride = args.x_stride,
                                     .tokens = static_cast<int>(args.tokens),
                                     .in_features = static_cast<int>(args.in_features),
                                     .row_bytes = static_cast<int>(row_bytes),
                                     .cached = cached,
                                     .norm_weight = args.norm_weight,
                                     .eps = args.eps,
                                     .q = args.q,
                                     .scale = args.scale,
                                     .rstd = args.rstd};
  if (args.group > 0 || args.rotation_block > 0 || args.rotation_signs != nullptr) {
    return norm_quant_groups(device, args, arguments, stream);
  }
  if (fits_lanes(device, args)) {
    return args.x_type == DataType::bfloat16
               ? launch_lanes<DataType::bfloat16>(device, args, arguments, stream)
               : launch_lanes<DataType::float16>(device, args, arguments, stream);
  }
  if (fits_registers(device, args)) {
    const auto launch_type =
        args.x_type == DataType::bfloat16
            ? &launch_registers<DataType::bfloat16, 8, 10, kShortSteps, kFewSteps, kManySteps, kMaxSteps>
            : &launch_registers<DataType::float16, 8, 10, kShortSteps, kFewSteps, kManySteps, kMaxSteps>;
    return launch_type(args, arguments, stream);
  }
  const LaunchShape rows = rows_shape(device, args, row_bytes);
  const bool many = rows.shared_bytes > 0;
  switch (args.x_type) {
    case DataType::float32:
      return many ? launch_rows<DataType::float32>(rows, args.norm, arguments, stream)
                  : launch_type<DataType::float32>(shape, args.norm, arguments, stream);
    case DataType::bfloat16:
      return many ? launch_rows<DataType::bfloat16>(rows, args.norm, arguments, stream)
                  : launch_type<DataType::bfloat16>(shape, args.norm, arguments, stream);
    case DataType::float16:
      return many ? launch_rows<DataType::float16>(rows, args.norm, arguments, stream)
                  : launch_type<DataType::float16>(shape, args.norm, arguments, stream);
  }
}

}  // namespace trit::cuda
