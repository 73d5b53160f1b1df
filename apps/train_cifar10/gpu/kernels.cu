// SPDX-License-Identifier: MIT
#include "train_cifar10/gpu/kernels.h"

#include <type_traits>

#include "cuda/common/launch.cuh"
#include "cuda/common/ptx.cuh"
#include "train_cifar10/random.h"

namespace trit::train::gpu {
namespace {

using trit::cuda::ceil_div;
using trit::cuda::dynamic_shared;
using trit::cuda::launch;
namespace ptx = trit::cuda::ptx;

constexpr int kThreads = 256;
constexpr int kSize = 32, kPad = 4, kPlane = kSize * kSize;

template <DataType kType>
using Element = std::conditional_t<kType == DataType::float32, float, std::uint16_t>;

template <DataType kType>
__device__ __forceinline__ float value_of(Element<kType> bits) {
  if constexpr (kType == DataType::float32) {
    return bits;
  } else if constexpr (kType == DataType::bfloat16) {
    return __uint_as_float(std::uint32_t{bits} << 16);
  } else {
    return ptx::from_float16(bits);
  }
}

template <DataType kType>
__device__ __forceinline__ Element<kType> element_of(float value) {
  if constexpr (kType == DataType::float32) {
    return value;
  } else {
    return kType == DataType::bfloat16 ? ptx::to_bfloat16(value) : ptx::to_float16(value);
  }
}

// A thread computes one pixel; all threads of a block belong to one image.
template <DataType kType>
__global__ __launch_bounds__(kThreads) void batch_kernel(const BatchKernel a) {
  static_assert(kPlane % kThreads == 0);
  constexpr int kBlocksPerImage = kPlane / kThreads;
  const std::int64_t image = blockIdx.x / kBlocksPerImage;
  const int pixel = static_cast<int>(blockIdx.x % kBlocksPerImage) * kThreads + static_cast<int>(threadIdx.x);
  int row = pixel / kSize, column = pixel % kSize;
  std::int64_t source = a.first + image;
  if (a.order != nullptr) {
    // random_crop of batches.cpp: the same draw, and so the same batch.
    constexpr std::uint32_t kPositions = 2 * kPad + 1;
    const std::int64_t position = a.progress->image + a.part_begin + image;
    const CounterRandom random(a.seed, CounterRandom::Stream::augmentation, a.progress->epoch);
    const std::uint32_t draw =
        random.below(static_cast<std::uint64_t>(position), kPositions * kPositions * 2);
    source = a.order[position];
    column = draw % 2 == 1 ? kSize - 1 - column : column;
    row += static_cast<int>(draw / 2 / kPositions) - kPad;
    column += static_cast<int>(draw / 2 % kPositions) - kPad;
  }
  const bool inside = row >= 0 && row < kSize && column >= 0 && column < kSize;
  const std::uint8_t* const from = a.pixels + source * 3 * kPlane + row * kSize + column;
  auto* const to = static_cast<Element<kType>*>(a.x) + (image * kPlane + pixel) * 3;
#pragma unroll
  for (int channel = 0; channel < 3; ++channel) {
    const int byte = inside ? from[channel * kPlane] : 0;
    to[channel] = element_of<kType>(a.table[channel * 256 + byte]);
  }
  if (pixel == 0) {
    a.y[image] = a.labels[source];
    if (image == 0 && a.rates != nullptr) {
      *a.learning_rate = a.rates[a.progress->step];
    }
  }
}

/// In place of an index in a window: no gradient (relu_pool.cpp).
constexpr std::uint8_t kNone = 4;

/// The offset in the input, [2 rows, 2 columns, channels], of the upper left value of output i's window.
template <typename Arguments>
__device__ std::int64_t window_of(const Arguments& a, std::int64_t i) {
  const std::int64_t c = i % a.channels;
  const std::int64_t column = i / a.channels % a.columns;
  const std::int64_t row = i / a.channels / a.columns;
  return (2 * row * (2 * a.columns) + 2 * column) * a.channels + c;
}

// A thread computes one output.
template <DataType kType>
__global__ __launch_bounds__(kThreads) void pool_kernel(const Pool a) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= a.rows * a.columns * a.channels) {
    return;
  }
  const std::int64_t in_row = 2 * a.columns * a.channels;
  const auto* const top = static_cast<const Element<kType>*>(a.x) + window_of(a, i);
  const auto relu = [](float value) { return value < 0.0F ? 0.0F : value; };  // NaN and -0.0 pass
  const float x[4] = {relu(value_of<kType>(top[0])), relu(value_of<kType>(top[a.channels])),
                      relu(value_of<kType>(top[in_row])), relu(value_of<kType>(top[in_row + a.channels]))};
  float best = x[0];
  std::uint8_t index = 0;
#pragma unroll
  for (int j = 1; j < 4; ++j) {
    const bool better = x[j] > best || x[j] != x[j];  // a NaN wins, and then nothing is larger
    best = better ? x[j] : best;
    index = better ? static_cast<std::uint8_t>(j) : index;
  }
  const bool off = best <= 0.0F;
  static_cast<Element<kType>*>(a.y)[i] = element_of<kType>(best);
  a.choice[i] = off ? kNone : index;
}

// A thread computes the gradients of the four inputs of one output.
template <DataType kType>
__global__ __launch_bounds__(kThreads) void pool_backward_kernel(const PoolBackward a) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= a.rows * a.columns * a.channels) {
    return;
  }
  const std::int64_t in_row = 2 * a.columns * a.channels;
  auto* const top = static_cast<Element<kType>*>(a.dx) + window_of(a, i);
  const Element<kType> gradient = static_cast<const Element<kType>*>(a.dy)[i];
  const std::uint8_t choice = a.choice[i];
  const Element<kType> zero{};
  top[0] = choice == 0 ? gradient : zero;
  top[a.channels] = choice == 1 ? gradient : zero;
  top[in_row] = choice == 2 ? gradient : zero;
  top[in_row + a.channels] = choice == 3 ? gradient : zero;
}

__device__ __forceinline__ bool is_finite(float v) {
  return (__float_as_uint(v) & 0x7fffffffU) < 0x7f800000U;
}

__global__ void not_finite_kernel(const float* a, const float* b, float* found) {
  *found = is_finite(*a) && (b == nullptr || is_finite(*b)) ? 0.0F : 1.0F;
}

// One block: a batch has hundreds of images.
__global__ __launch_bounds__(kThreads) void finish_kernel(const FinishStep a) {
  auto* const correct = reinterpret_cast<int*>(dynamic_shared());
  if (threadIdx.x == 0) {
    *correct = 0;
  }
  __syncthreads();
  for (std::int64_t i = threadIdx.x; i < a.images; i += kThreads) {
    const float* const logits = a.logits + i * a.classes;
    std::int64_t best = 0;
    for (std::int64_t c = 1; c < a.classes; ++c) {
      best = logits[c] > logits[best] ? c : best;
    }
    if (best == a.labels[i]) {
      atomicAdd(correct, 1);
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    Progress& p = *a.progress;
    StepSums& sums = p.sums;
    const float loss = *a.loss;
    if (is_finite(loss)) {
      sums.loss_sum += static_cast<double>(loss) * static_cast<double>(a.images);
      sums.loss_images += a.images;
      sums.correct += *correct;
    }
    sums.last_loss = loss;
    sums.skipped = *a.found_inf > 0.0F ? sums.skipped + 1 : 0;
    sums.max_skipped = sums.skipped > sums.max_skipped ? sums.skipped : sums.max_skipped;
    p.image += a.images + a.elsewhere;
    p.step += 1;
  }
}

// Calls launcher.operator()<type>() for a type that is known only at run time.
template <typename Launcher>
void for_type(DataType type, const Launcher& launcher) {
  switch (type) {
    case DataType::float32:
      return launcher.template operator()<DataType::float32>();
    case DataType::bfloat16:
      return launcher.template operator()<DataType::bfloat16>();
    case DataType::float16:
      return launcher.template operator()<DataType::float16>();
  }
}

unsigned blocks_of(std::int64_t threads) {
  return static_cast<unsigned>(ceil_div<std::int64_t>(threads, kThreads));
}

}  // namespace

void make_batch(const BatchKernel& args, Stream stream) {
  for_type(args.x_type, [&]<DataType kType>() {
    launch<batch_kernel<kType>>(
        "make_batch", {.grid = {blocks_of(args.images * kPlane)}, .block = {kThreads}}, stream, args);
  });
}

void relu_max_pool(const Pool& args, Stream stream) {
  const std::int64_t outputs = args.rows * args.columns * args.channels;
  if (outputs == 0) {
    return;
  }
  for_type(args.type, [&]<DataType kType>() {
    launch<pool_kernel<kType>>("relu_max_pool", {.grid = {blocks_of(outputs)}, .block = {kThreads}}, stream,
                               args);
  });
}

void relu_max_pool_backward(const PoolBackward& args, Stream stream) {
  const std::int64_t outputs = args.rows * args.columns * args.channels;
  if (outputs == 0) {
    return;
  }
  for_type(args.type, [&]<DataType kType>() {
    launch<pool_backward_kernel<kType>>("relu_max_pool_backward",
                                        {.grid = {blocks_of(outputs)}, .block = {kThreads}}, stream, args);
  });
}

void find_not_finite(const float* a, const float* b, float* found, Stream stream) {
  launch<not_finite_kernel>("find_not_finite", {.grid = {1}, .block = {1}}, stream, a, b, found);
}

void finish_step(const FinishStep& args, Stream stream) {
  launch<finish_kernel>("finish_step", {.grid = {1}, .block = {kThreads}, .shared_bytes = sizeof(int)},
                        stream, args);
}

}  // namespace trit::train::gpu
