// SPDX-License-Identifier: MIT
//
// Activations back to floats, 16 at a time where rows allow it.
#include "cuda/common/checks.h"
#include "cuda/common/float_bits.cuh"
#include "cuda/common/launch.cuh"
#include "trit/cuda_backward.h"

namespace trit::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kCodes = 16;  // of a thread

template <DataType kType>
__global__ __launch_bounds__(kThreads) void dequantize_rows_kernel(const DequantizeRows a, bool vector) {
  const std::int64_t per_row = ceil_div<std::int64_t>(a.in_features, kCodes);
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const std::int64_t row = i / per_row;
  if (row >= a.tokens) {
    return;
  }
  const std::int64_t k = kCodes * (i - row * per_row);
  const float scale = a.scale[row];
  const std::int8_t* const q = a.q + row * a.row_bytes + k;
  auto* const x = static_cast<FloatBits<kType>*>(a.x) + row * a.in_features + k;
  if (!vector) {
    for (std::int64_t j = 0; j < kCodes && k + j < a.in_features; ++j) {
      x[j] = to_bits<kType>(__fmul_rn(static_cast<float>(q[j]), scale));
    }
    return;
  }
  const uint4 codes = *reinterpret_cast<const uint4*>(q);
  const std::uint32_t words[4] = {codes.x, codes.y, codes.z, codes.w};
  float values[kCodes];
#pragma unroll
  for (int j = 0; j < kCodes; ++j) {
    values[j] = __fmul_rn(static_cast<float>(static_cast<std::int8_t>(words[j / 4] >> (8 * (j % 4)))), scale);
  }
#pragma unroll
  for (int j = 0; j < kCodes; j += 16 / static_cast<int>(sizeof(*x))) {
    *reinterpret_cast<uint4*>(x + j) = to_vector<kType>(values + j);
  }
}

}  // namespace

void dequantize_rows(const DequantizeRows& args, Stream stream) {
  require_tokens(args.tokens, "dequantize_rows");
  if (args.in_features < 1 || args.in_features > kMaxInFeatures || args.row_bytes < args.in_features) {
    throw Error("cuda::dequantize_rows: " + std::to_string(args.in_features) + " inputs in rows of " +
                std::to_string(args.row_bytes) + " bytes, wanted 1 .. " + std::to_string(kMaxInFeatures) +
                " inputs and rows that hold them");
  }
  if (args.tokens == 0) {
    return;
  }
  require_aligned(args.x, size_of(args.type), "dequantize_rows", "x");
  const bool vector = args.in_features % kCodes == 0 && args.row_bytes % 16 == 0 && is_aligned(args.q, 16) &&
                      is_aligned(args.x, 16);
  const std::int64_t threads = args.tokens * ceil_div<std::int64_t>(args.in_features, kCodes);
  for_type(args.type, [&]<DataType kType>() {
    launch<dequantize_rows_kernel<kType>>(
        "dequantize_rows",
        {.grid = {static_cast<unsigned>(ceil_div<std::int64_t>(threads, kThreads))}, .block = {kThreads}},
        stream, args, vector);
  });
}

}  // namespace trit::cuda
