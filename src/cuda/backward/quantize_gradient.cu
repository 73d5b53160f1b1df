// SPDX-License-Identifier: MIT
//
// dY [M, N] to int8 per token, and the largest |dY[m][n] s[m]| of each output n, in one pass over dY.
//
// 16-bit rows of up to 16,384 outputs, a multiple of 8: a block takes groups of rows in turn, and loads the next
// group while it works on this one. Thread t holds outputs 8 t .. 8 t + 7 of every step of 8 * threads outputs:
// eight rows of one step, three of two, or one of four. Threads meet once per group:
//
//   shared   maxima of the warps [2][rows of a group][16]; two buffers, so that one barrier is enough
//
// The maxima of outputs stay in registers until the block's last row. Anything else: a block for each row, and a
// thread for each output and part of the rows.
#include <algorithm>
#include <string>

#include "cuda/backward/round_gradient.cuh"
#include "cuda/common/checks.h"
#include "cuda/common/launch.cuh"

namespace trit::cuda {
namespace {

constexpr int kEight = 8;  // 16-bit outputs of 16 bytes
constexpr int kMaxThreads = 512;
constexpr int kMaxWarps = kMaxThreads / 32;
constexpr int kMaxSteps = 4;
constexpr std::int64_t kMaxOutputs = kEight * kMaxThreads * kMaxSteps;

// Rows of a group: 64 KB in flight where 128 registers a thread hold them beside 8 maxima a step.
template <int kSteps>
constexpr int kRowsOf = kSteps == 1   ? 8
                        : kSteps == 2 ? 3
                                      : 1;

template <DataType kType, int kSteps, bool kStochastic>
__global__ __launch_bounds__(kMaxThreads) void quantize_gradient_rows_kernel(const GradientRows a) {
  constexpr int kRows = kRowsOf<kSteps>;
  auto* const shared = reinterpret_cast<unsigned*>(dynamic_shared());
  const int outputs = static_cast<int>(a.out_features);
  const int row_bytes = round_up(static_cast<int>(a.out_features), 16);
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int warps = static_cast<int>(blockDim.x) / 32;
  const int step = kEight * static_cast<int>(blockDim.x);
  const std::int64_t stride = std::int64_t{kRows} * gridDim.x;
  RandomStream random{};
  if constexpr (kStochastic) {
    random = RandomStream::of(a.rounding);
  }
  unsigned columns[kSteps][kEight] = {};
  uint4 next[kRows][kSteps] = {};
  const auto fetch = [&](std::int64_t first) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const auto* const from = static_cast<const std::uint16_t*>(a.grad) + (first + r) * outputs;
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        const int n = step * i + kEight * thread;
        if (first + r < a.tokens && n < outputs) {
          next[r][i] = *reinterpret_cast<const uint4*>(from + n);
        }
      }
    }
  };
  // The operand of dX, from the vector of step i.
  const auto values_of = [&](const uint4& vector, int i, float(&v)[kEight]) {
    from_vector<kType>(vector, v);
    if (a.weight_scale != nullptr) {
#pragma unroll
      for (int j = 0; j < kEight; ++j) {
        const int n = step * i + kEight * thread + j;
        v[j] = n < outputs ? __fmul_rn(v[j], a.weight_scale[n]) : 0.0F;
      }
    }
  };
  const std::int64_t begin = std::int64_t{kRows} * blockIdx.x;
  fetch(begin);
  int buffer = 0;
  for (std::int64_t first = begin; first < a.tokens; first += stride, buffer ^= 1) {
    uint4 vectors[kRows][kSteps];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        vectors[r][i] = next[r][i];
      }
    }
    fetch(first + stride);
    if (a.maxima != nullptr) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (first + r < a.tokens) {
          const float scale = a.token_scale[first + r];
#pragma unroll
          for (int i = 0; i < kSteps; ++i) {
            float v[kEight];
            from_vector<kType>(vectors[r][i], v);
#pragma unroll
            for (int j = 0; j < kEight; ++j) {
              columns[i][j] = max(columns[i][j], magnitude_bits(__fmul_rn(v[j], scale)));
            }
          }
        }
      }
    }
    if (a.q == nullptr) {
      continue;
    }
    unsigned* const maxima = shared + buffer * kRows * kMaxWarps;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      unsigned largest = 0;
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        float v[kEight];
        values_of(vectors[r][i], i, v);
#pragma unroll
        for (int j = 0; j < kEight; ++j) {
          largest = max(largest, magnitude_bits(v[j]));
        }
      }
      largest = __reduce_max_sync(0xffffffffU, largest);
      if (lane == 0) {
        maxima[r * kMaxWarps + thread / 32] = largest;
      }
    }
    __syncthreads();
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const std::int64_t row = first + r;
      const unsigned largest =
          __reduce_max_sync(0xffffffffU, lane < warps ? maxima[r * kMaxWarps + lane] : 0U);
      if (row < a.tokens) {
        const GradientScale scale = gradient_scale_of(largest);
        if (thread == 0) {
          a.scale[row] = scale.scale;
        }
        const float factors[4] = {scale.factor, scale.factor, scale.factor, scale.factor};
#pragma unroll
        for (int i = 0; i < kSteps; ++i) {
          const int n = step * i + kEight * thread;
          if (n < row_bytes) {
            float v[kEight];
            values_of(vectors[r][i], i, v);
            const std::uint64_t counter = counter_of(row, n, a.out_features);
            const uint2 bytes = {round_four<kStochastic>(v, factors, random, counter),
                                 round_four<kStochastic>(v + 4, factors, random, counter + 1)};
            *reinterpret_cast<uint2*>(a.q + row * row_bytes + n) = bytes;
          }
        }
      }
    }
  }
  if (a.maxima != nullptr) {
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
#pragma unroll
      for (int j = 0; j < kEight; ++j) {
        const int n = step * i + kEight * thread + j;
        if (n < outputs && columns[i][j] != 0) {
          atomicMax(a.maxima + n, columns[i][j]);
        }
      }
    }
  }
}

// ---- any type and number of outputs ----

constexpr int kThreads = 256;
constexpr int kRowsOfPart = 64;

template <DataType kType>
__device__ __forceinline__ float operand(const GradientRows& a, std::int64_t row, std::int64_t n) {
  const float v = from_bits<kType>(static_cast<const FloatBits<kType>*>(a.grad)[row * a.out_features + n]);
  return a.weight_scale != nullptr ? __fmul_rn(v, a.weight_scale[n]) : v;
}

template <DataType kType, bool kStochastic>
__global__ __launch_bounds__(kThreads) void quantize_gradient_row_kernel(const GradientRows a) {
  auto* const maxima = reinterpret_cast<unsigned*>(dynamic_shared());  // [8]
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t row = blockIdx.x;
  unsigned largest = 0;
  for (std::int64_t n = thread; n < a.out_features; n += kThreads) {
    largest = max(largest, magnitude_bits(operand<kType>(a, row, n)));
  }
  largest = __reduce_max_sync(0xffffffffU, largest);
  if (thread % 32 == 0) {
    maxima[thread / 32] = largest;
  }
  __syncthreads();
  for (int warp = 0; warp < kThreads / 32; ++warp) {
    largest = max(largest, maxima[warp]);
  }
  const GradientScale scale = gradient_scale_of(largest);
  if (thread == 0) {
    a.scale[row] = scale.scale;
  }
  RandomStream random{};
  if constexpr (kStochastic) {
    random = RandomStream::of(a.rounding);
  }
  const float factors[4] = {scale.factor, scale.factor, scale.factor, scale.factor};
  const std::int64_t row_bytes = round_up<std::int64_t>(a.out_features, 16);
  for (std::int64_t n = 4 * thread; n < row_bytes; n += 4 * kThreads) {
    float v[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      v[j] = n + j < a.out_features ? operand<kType>(a, row, n + j) : 0.0F;
    }
    *reinterpret_cast<std::uint32_t*>(a.q + row * row_bytes + n) =
        round_four<kStochastic>(v, factors, random, counter_of(row, n, a.out_features));
  }
}

template <DataType kType>
__global__ __launch_bounds__(kThreads) void gradient_maxima_kernel(const GradientRows a) {
  const std::int64_t n = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (n >= a.out_features) {
    return;
  }
  unsigned largest = 0;
  for (std::int64_t part = blockIdx.y; part * kRowsOfPart < a.tokens; part += gridDim.y) {
    const std::int64_t end = min(a.tokens, (part + 1) * kRowsOfPart);
    for (std::int64_t row = part * kRowsOfPart; row < end; ++row) {
      const float v =
          from_bits<kType>(static_cast<const FloatBits<kType>*>(a.grad)[row * a.out_features + n]);
      largest = max(largest, magnitude_bits(__fmul_rn(v, a.token_scale[row])));
    }
  }
  atomicMax(a.maxima + n, largest);
}

template <DataType kType, int kSteps>
void run_rows(const Device& device, const GradientRows& args, Stream stream) {
  constexpr int kRows = kRowsOf<kSteps>;
  const std::int64_t eights = quantized_row_bytes(args.out_features) / kEight;
  const std::int64_t threads = round_up<std::int64_t>(ceil_div<std::int64_t>(eights, kSteps), 32);
  const std::int64_t blocks = std::min<std::int64_t>(kMaxThreads / threads, 4) * device.multiprocessors;
  const LaunchShape shape{
      .grid = {static_cast<unsigned>(std::min(ceil_div<std::int64_t>(args.tokens, kRows), blocks))},
      .block = {static_cast<unsigned>(threads)},
      .shared_bytes = 2 * kRows * kMaxWarps * sizeof(unsigned)};
  if constexpr (kSteps < kMaxSteps) {
    if (args.rounding.stochastic) {
      return launch<quantize_gradient_rows_kernel<kType, kSteps, true>>("quantize_gradient_rows", shape,
                                                                        stream, args);
    }
  }
  launch<quantize_gradient_rows_kernel<kType, kSteps, false>>("quantize_gradient_rows", shape, stream, args);
}

template <DataType kType>
void run_any(const GradientRows& args, Stream stream) {
  if (args.q != nullptr) {
    const LaunchShape shape{.grid = {static_cast<unsigned>(args.tokens)},
                            .block = {kThreads},
                            .shared_bytes = kThreads / 32 * sizeof(unsigned)};
    if (args.rounding.stochastic) {
      launch<quantize_gradient_row_kernel<kType, true>>("quantize_gradient_row", shape, stream, args);
    } else {
      launch<quantize_gradient_row_kernel<kType, false>>("quantize_gradient_row", shape, stream, args);
    }
  }
  if (args.maxima != nullptr) {
    const std::int64_t parts = std::min<std::int64_t>(ceil_div<std::int64_t>(args.tokens, kRowsOfPart), 1024);
    launch<gradient_maxima_kernel<kType>>(
        "gradient_maxima",
        {.grid = {static_cast<unsigned>(ceil_div<std::int64_t>(args.out_features, kThreads)),
                  static_cast<unsigned>(parts)},
         .block = {kThreads}},
        stream, args);
  }
}

template <DataType kType>
void run_type(const Device& device, const GradientRows& args, Stream stream) {
  if constexpr (kType != DataType::float32) {
    // Four steps leave no registers for random numbers.
    const std::int64_t max_outputs = args.rounding.stochastic ? kMaxOutputs / 2 : kMaxOutputs;
    if (args.out_features % kEight == 0 && args.out_features <= max_outputs && is_aligned(args.grad, 16)) {
      const std::int64_t eights = quantized_row_bytes(args.out_features) / kEight;
      return eights <= kMaxThreads       ? run_rows<kType, 1>(device, args, stream)
             : eights <= 2 * kMaxThreads ? run_rows<kType, 2>(device, args, stream)
                                         : run_rows<kType, 4>(device, args, stream);
    }
  }
  run_any<kType>(args, stream);
}

}  // namespace

void quantize_gradient_rows(const Device& device, const GradientRows& args, Stream stream) {
  require_tokens(args.tokens, "quantize_gradient_rows");
  require_matrix(1, args.out_features, "quantize_gradient_rows");
  if (args.tokens == 0 || (args.q == nullptr && args.maxima == nullptr)) {
    return;
  }
  require_aligned(args.grad, size_of(args.type), "quantize_gradient_rows", "grad");
  if (args.q != nullptr) {
    require_aligned(args.q, 16, "quantize_gradient_rows", "q");
    require_aligned(args.scale, sizeof(float), "quantize_gradient_rows", "scale");
  }
  if (args.maxima != nullptr) {
    require_aligned(args.maxima, sizeof(std::uint32_t), "quantize_gradient_rows", "maxima");
    require_aligned(args.token_scale, sizeof(float), "quantize_gradient_rows", "token_scale");
  }
  for_type(args.type, [&]<DataType kType>() { run_type<kType>(device, args, stream); });
}

}  // namespace trit::cuda
