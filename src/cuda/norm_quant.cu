// SPDX-License-Identifier: MIT
//
// norm_quant: RMSNorm and absmax int8, by one of two kernels.
//
// Few rows: a block of 256 threads each (latency counts, so all loads are in flight at once).
//   pass 1   thread j reads inputs j, j + 256, ...: it is accumulator j of lane_sum. fma(x, x, acc), the
//            maximum of |x g|, and x g to shared memory: x and g are read once.
//   meeting  256 accumulators and 8 maxima through shared memory; every warp adds up all of them, so one
//            barrier is enough
//   pass 2   a thread turns 4 neighbours into 4 bytes of q
//
// Many rows: a warp each (norm_quant_rows.cuh), with loads of 16 bytes and no barrier.
//
// Bytes per row: K * size(x) read and K written in memory, 4 K of g from L2. A row that does not fit in
// shared memory (K beyond about 58,000) is read again in pass 2.
#include "cuda/arguments.cuh"
#include "cuda/launch.cuh"
#include "cuda/norm_quant_rows.cuh"

namespace trit::cuda {
namespace {

constexpr int kInFlight = 16;                  // loads per thread before the first use
constexpr int kHeaderBytes = kLanes * 4 + 64;  // accumulators, then the warps' maxima; a multiple of 16

template <DataType kType, bool kNorm>
__global__ __launch_bounds__(kLanes) void norm_quant_kernel(const NormQuantArguments a) {
  auto* accumulators = reinterpret_cast<float*>(dynamic_shared());          // [256]
  auto* maxima = reinterpret_cast<unsigned*>(accumulators + kLanes);        // [8]
  auto* cache = reinterpret_cast<float*>(dynamic_shared() + kHeaderBytes);  // [row_bytes], x g
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t row = blockIdx.x;
  const std::int64_t start = row * a.x_stride;
  const bool weighted = kNorm && a.norm_weight != nullptr;
  ptx::wait_for_predecessor();

  float acc = 0;
  unsigned largest = 0;
  for (int first = thread; first < a.row_bytes; first += kInFlight * kLanes) {
    float x[kInFlight];
    float g[kInFlight];
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      const int k = first + i * kLanes;
      const bool inside = k < a.in_features;
      x[i] = inside ? load<kType>(a.x, start + k) : 0.0F;  // adds and quantises to 0
      g[i] = inside && weighted ? a.norm_weight[k] : 1.0F;
    }
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      if constexpr (kNorm) {
        acc = __fmaf_rn(x[i], x[i], acc);
        x[i] = __fmul_rn(x[i], g[i]);  // by 1 where there is no weight: exact
      }
      largest = max(largest, __float_as_uint(x[i]) & 0x7fffffffU);
      const int k = first + i * kLanes;
      if (a.cached && k < a.row_bytes) {
        cache[k] = x[i];
      }
    }
  }
  largest = __reduce_max_sync(0xffffffffU, largest);
  accumulators[thread] = acc;
  if (thread % 32 == 0) {
    maxima[thread / 32] = largest;
  }
  __syncthreads();
  ptx::let_successor_start();
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) {
    largest = max(largest, maxima[warp]);
  }

  const float sum = kNorm ? tree_sum(accumulators, thread % 32) : 0.0F;
  const RowScale scale = row_scale<kNorm>(a, sum, __uint_as_float(largest));
  if (thread == 0) {
    store_row_scale(a, row, scale);
  }
  // No clamp: |x g| <= m and c is 127 / m within three roundings, so |x g c| < 127.5.
  for (int k = 4 * thread; k < a.row_bytes; k += 4 * kLanes) {
    float v[4];
    if (a.cached) {
      const float4 four = *reinterpret_cast<const float4*>(cache + k);
      v[0] = four.x, v[1] = four.y, v[2] = four.z, v[3] = four.w;
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const bool inside = k + i < a.in_features;
        v[i] = inside ? load<kType>(a.x, start + k + i) : 0.0F;
        v[i] = inside && weighted ? __fmul_rn(v[i], a.norm_weight[k + i]) : v[i];
      }
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

/// From here on a warp per row keeps the multiprocessors full.
constexpr std::int64_t kRowsPerMultiprocessor = 8;

/// How the warps of norm_quant_rows share a block; no shared memory where they cannot be used.
LaunchShape rows_shape(const Device& device, const NormQuant& args, std::int64_t row_bytes) {
  const auto size = static_cast<std::int64_t>(size_of(args.x_type));
  const std::int64_t warp_bytes = kRowsHeaderBytes + row_bytes * size;
  const bool vectors = reinterpret_cast<std::uintptr_t>(args.x) % 16 == 0 && args.x_stride * size % 16 == 0;
  if (!vectors || args.tokens < kRowsPerMultiprocessor * device.multiprocessors ||
      warp_bytes * kRowsWarps > device.shared_bytes) {
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
  const std::int64_t row_bytes = quantized_row_bytes(args.in_features);
  const std::int64_t cached_bytes = kHeaderBytes + row_bytes * static_cast<std::int64_t>(sizeof(float));
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
