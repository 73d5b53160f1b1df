// SPDX-License-Identifier: MIT
#include "cuda/data.h"

#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include "cuda/gpu.h"

namespace trit::bench {
namespace {

constexpr int kThreads = 256;

__device__ std::uint64_t hash(std::uint64_t value) {  // splitmix64
  value += 0x9e3779b97f4a7c15ULL;
  value = (value ^ (value >> 30U)) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ (value >> 27U)) * 0x94d049bb133111ebULL;
  return value ^ (value >> 31U);
}

template <typename Value, typename Make>
__global__ void fill(Value* values, std::int64_t count, std::uint64_t seed, Make make) {
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride) {
    values[i] = make(hash(seed + static_cast<std::uint64_t>(i)));
  }
}

unsigned blocks_for(std::int64_t count) {
  return static_cast<unsigned>(std::min<std::int64_t>((count + kThreads - 1) / kThreads, 8192));
}

struct MakeTernary {
  __device__ std::int8_t operator()(std::uint64_t h) const {
    return static_cast<std::int8_t>(static_cast<int>(h % 3) - 1);
  }
};
struct MakeInt8 {
  __device__ std::int8_t operator()(std::uint64_t h) const {
    return static_cast<std::int8_t>(static_cast<int>(h % 255) - 127);
  }
};
struct MakeFloat {
  float low, high;
  __device__ float operator()(std::uint64_t h) const {
    return low + (high - low) * (static_cast<float>(h >> 40U) + 0.5F) / 16777216.0F;
  }
};

__global__ void pack_kernel(const std::int8_t* t, std::int64_t rows, std::int64_t inputs,
                            std::uint8_t* codes) {
  const std::int64_t row_bytes = (inputs + 3) / 4;
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < rows * row_bytes;
       i += stride) {
    const std::int64_t row = i / row_bytes;
    unsigned byte = 0;
    for (int j = 0; j < 4; ++j) {
      const std::int64_t k = i % row_bytes * 4 + j;
      byte |= k < inputs ? (static_cast<unsigned>(t[row * inputs + k]) & 3U) << (2 * j) : 0U;
    }
    codes[i] = static_cast<std::uint8_t>(byte);
  }
}

__device__ float element(std::int8_t value, Element type) {
  return type == Element::float8 ? static_cast<float>(__nv_fp8_e4m3(static_cast<float>(value) / 16.0F))
                                 : static_cast<float>(value);
}

__global__ void convert_kernel(const std::int8_t* from, std::int64_t count, Element type, void* to) {
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride) {
    if (type == Element::bfloat16) {
      static_cast<__nv_bfloat16*>(to)[i] = __float2bfloat16_rn(static_cast<float>(from[i]));
    } else if (type == Element::float8) {
      static_cast<__nv_fp8_e4m3*>(to)[i] = __nv_fp8_e4m3(static_cast<float>(from[i]) / 16.0F);
    } else {
      static_cast<std::int8_t*>(to)[i] = from[i];
    }
  }
}

__global__ void count_unwritten(const std::uint32_t* y, std::int64_t words, std::uint32_t poison,
                                unsigned long long* wrong) {
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < words; i += stride) {
    if (y[i] == poison) {
      atomicAdd(wrong, 1ULL);
    }
  }
}

// One warp per sampled output.
__global__ void check_kernel(const void* y, Result result, Element type, const std::int8_t* q,
                             const std::int8_t* t, const float* row_scale, float beta, std::int64_t tokens,
                             std::int64_t out_features, std::int64_t in_features, int samples,
                             unsigned long long* wrong) {
  const int sample = static_cast<int>((blockIdx.x * blockDim.x + threadIdx.x) / 32);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (sample >= samples) {
    return;
  }
  const std::uint64_t h = hash(static_cast<std::uint64_t>(sample) + 77);
  const auto m = static_cast<std::int64_t>(h % static_cast<std::uint64_t>(tokens));
  const auto n = static_cast<std::int64_t>((h >> 32U) % static_cast<std::uint64_t>(out_features));
  int sum = 0;
  float float_sum = 0.0F;
  float squares = 0.0F;
  for (std::int64_t k = lane; k < in_features; k += 32) {
    const std::int8_t a = q[m * in_features + k];
    const std::int8_t b = t[n * in_features + k];
    sum += a * b;
    const float product = element(a, type) * element(b, type);
    float_sum += product;
    squares += product * product;
  }
  for (int offset = 16; offset > 0; offset /= 2) {
    sum += __shfl_xor_sync(0xffffffffU, sum, offset);
    float_sum += __shfl_xor_sync(0xffffffffU, float_sum, offset);
    squares += __shfl_xor_sync(0xffffffffU, squares, offset);
  }
  const std::int64_t at = m * out_features + n;
  bool same = false;
  if (result == Result::int32) {
    same = static_cast<const int*>(y)[at] == sum;
  } else if (result == Result::scaled_bfloat16) {
    const __nv_bfloat16 wanted =
        __float2bfloat16_rn(__fmul_rn(__fmul_rn(__int2float_rn(sum), row_scale[m]), beta));
    same = static_cast<const std::uint16_t*>(y)[at] == __bfloat16_as_ushort(wanted);
  } else {
    const float found = __bfloat162float(static_cast<const __nv_bfloat16*>(y)[at]);
    same = fabsf(found - float_sum) <= 0.02F * sqrtf(squares) + 0.01F * fabsf(float_sum);
  }
  if (lane == 0 && !same) {
    atomicAdd(wrong, 1ULL);
  }
}

}  // namespace

void random_ternary(std::int8_t* t, std::int64_t count, std::uint64_t seed, cudaStream_t stream) {
  fill<<<blocks_for(count), kThreads, 0, stream>>>(t, count, seed * 1000003, MakeTernary{});
  check(cudaGetLastError(), "random_ternary");
}
void random_int8(std::int8_t* q, std::int64_t count, std::uint64_t seed, cudaStream_t stream) {
  fill<<<blocks_for(count), kThreads, 0, stream>>>(q, count, seed * 1000003, MakeInt8{});
  check(cudaGetLastError(), "random_int8");
}
void random_float(float* x, std::int64_t count, float low, float high, std::uint64_t seed,
                  cudaStream_t stream) {
  fill<<<blocks_for(count), kThreads, 0, stream>>>(x, count, seed * 1000003, MakeFloat{low, high});
  check(cudaGetLastError(), "random_float");
}
void pack_codes(const std::int8_t* t, std::int64_t out_features, std::int64_t in_features,
                std::uint8_t* codes, cudaStream_t stream) {
  pack_kernel<<<blocks_for(out_features * in_features / 4), kThreads, 0, stream>>>(t, out_features,
                                                                                   in_features, codes);
  check(cudaGetLastError(), "pack_codes");
}
void convert(const std::int8_t* from, std::int64_t count, Element type, void* to, cudaStream_t stream) {
  convert_kernel<<<blocks_for(count), kThreads, 0, stream>>>(from, count, type, to);
  check(cudaGetLastError(), "convert");
}

std::int64_t count_wrong(const void* y, Result result, Element type, const std::int8_t* q,
                         const std::int8_t* t, const float* row_scale, float beta, std::int64_t tokens,
                         std::int64_t out_features, std::int64_t in_features, int samples,
                         cudaStream_t stream) {
  const DeviceBuffer<unsigned long long> wrong(1);
  check(cudaMemsetAsync(wrong.data(), 0, sizeof(unsigned long long), stream), "cudaMemset");
  const std::int64_t words = tokens * out_features * (result == Result::int32 ? 4 : 2) / 4;
  count_unwritten<<<blocks_for(words), kThreads, 0, stream>>>(
      static_cast<const std::uint32_t*>(y), words, 0x01010101U * static_cast<unsigned>(poison_byte(result)),
      wrong.data());
  check_kernel<<<static_cast<unsigned>((samples + 7) / 8), kThreads, 0, stream>>>(
      y, result, type, q, t, row_scale, beta, tokens, out_features, in_features, samples, wrong.data());
  check(cudaGetLastError(), "count_wrong");
  unsigned long long count = 0;
  check(cudaMemcpyAsync(&count, wrong.data(), sizeof count, cudaMemcpyDeviceToHost, stream), "cudaMemcpy");
  check(cudaStreamSynchronize(stream), "count_wrong");
  return static_cast<std::int64_t>(count);
}

}  // namespace trit::bench
