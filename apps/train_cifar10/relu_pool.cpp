// SPDX-License-Identifier: MIT
#include "train_cifar10/relu_pool.h"

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>

#include <cstdint>

#if TRIT_TORCH_CUDA
#include <c10/cuda/CUDAGuard.h>

#include "train_cifar10/gpu/kernels.h"
#endif

// The compiler vectorises the inner loops over channels, which are contiguous in memory: one copy for AVX-512,
// one for AVX2 and one for any x86-64, chosen when the program is loaded.
#define TRIT_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))

namespace trit::train {
namespace {

constexpr bool kOnGpu = TRIT_TORCH_CUDA;

/// In place of an index in a window (0 to 3: top left, top right, bottom left, bottom right): no gradient.
constexpr std::uint8_t kNone = 4;
// Output rows per task: 32 channels x 16 columns x 4 rows are 32 KB of input, in L1 or L2 on any machine.
constexpr std::int64_t kGrain = 4;

/// One output row: `top` and `bottom` are its two input rows, [2 * columns, channels].
template <typename T>
inline __attribute__((always_inline)) void pool_row_of(const T* top, const T* bottom, std::int64_t columns,
                                                       std::int64_t channels, T* y, std::uint8_t* choice) {
  for (std::int64_t column = 0; column < columns; ++column) {
    const T* const a = top + 2 * column * channels;
    const T* const b = bottom + 2 * column * channels;
    T* const out = y + column * channels;
    std::uint8_t* const chosen = choice + column * channels;
    for (std::int64_t c = 0; c < channels; ++c) {
      using Value = at::opmath_type<T>;
      const Value first = a[c];
      Value best = first;
      std::uint8_t index = 0;
      const auto consider = [&](Value x, std::uint8_t i) {
        // A NaN wins, and then nothing is larger. NOLINTNEXTLINE(misc-redundant-expression)
        const bool better = x > best || x != x;
        best = better ? x : best;
        index = better ? i : index;
      };
      consider(a[channels + c], 1);
      consider(b[c], 2);
      consider(b[channels + c], 3);
      const bool off = best <= Value{0};
      // Nothing is above 0: the first input's ReLU, which may be -0.0, is the first of equal ones.
      const Value zero = first < Value{0} ? Value{0} : first;
      out[c] = static_cast<T>(off ? zero : best);
      chosen[c] = off ? kNone : index;
    }
  }
}

/// The gradients of one output row to those of its two input rows: every element is written.
template <typename T>
inline __attribute__((always_inline)) void scatter_row_of(const T* dy, const std::uint8_t* choice,
                                                          std::int64_t columns, std::int64_t channels, T* top,
                                                          T* bottom) {
  for (std::int64_t column = 0; column < columns; ++column) {
    T* const a = top + 2 * column * channels;
    T* const b = bottom + 2 * column * channels;
    const T* const g = dy + column * channels;
    const std::uint8_t* const chosen = choice + column * channels;
    for (std::int64_t c = 0; c < channels; ++c) {
      const T zero = static_cast<T>(0.0F);
      a[c] = chosen[c] == 0 ? g[c] : zero;
      a[channels + c] = chosen[c] == 1 ? g[c] : zero;
      b[c] = chosen[c] == 2 ? g[c] : zero;
      b[channels + c] = chosen[c] == 3 ? g[c] : zero;
    }
  }
}

// Training uses float by default; other types use the plain copy.
TRIT_CLONES void pool_row(const float* top, const float* bottom, std::int64_t columns, std::int64_t channels,
                          float* y, std::uint8_t* choice) {
  pool_row_of(top, bottom, columns, channels, y, choice);
}
template <typename T>
void pool_row(const T* top, const T* bottom, std::int64_t columns, std::int64_t channels, T* y,
              std::uint8_t* choice) {
  pool_row_of(top, bottom, columns, channels, y, choice);
}
TRIT_CLONES void scatter_row(const float* dy, const std::uint8_t* choice, std::int64_t columns,
                             std::int64_t channels, float* top, float* bottom) {
  scatter_row_of(dy, choice, columns, channels, top, bottom);
}
template <typename T>
void scatter_row(const T* dy, const std::uint8_t* choice, std::int64_t columns, std::int64_t channels, T* top,
                 T* bottom) {
  scatter_row_of(dy, choice, columns, channels, top, bottom);
}

torch::Tensor empty_channels_last(at::IntArrayRef shape, const at::TensorOptions& options) {
  return torch::empty(shape, options.memory_format(at::MemoryFormat::ChannelsLast));
}

#if TRIT_TORCH_CUDA
DataType data_type(torch::ScalarType type) {
  TORCH_CHECK(type == torch::kFloat || type == torch::kBFloat16 || type == torch::kHalf,
              "relu_max_pool: x must be float32, bfloat16 or float16 on a GPU, found ", type);
  return type == torch::kFloat      ? DataType::float32
         : type == torch::kBFloat16 ? DataType::bfloat16
                                    : DataType::float16;
}

void forward_cuda(const torch::Tensor& x, torch::Tensor& y, torch::Tensor& choice) {
  const c10::cuda::CUDAGuard guard(x.device());
  gpu::relu_max_pool({.type = data_type(x.scalar_type()),
                      .rows = y.size(0) * y.size(2),
                      .columns = y.size(3),
                      .channels = y.size(1),
                      .x = x.const_data_ptr(),
                      .y = y.mutable_data_ptr(),
                      .choice = choice.mutable_data_ptr<std::uint8_t>()},
                     c10::cuda::getCurrentCUDAStream().stream());
}

void backward_cuda(const torch::Tensor& dy, const torch::Tensor& choice, torch::Tensor& dx) {
  const c10::cuda::CUDAGuard guard(dy.device());
  gpu::relu_max_pool_backward({.type = data_type(dy.scalar_type()),
                               .rows = dy.size(0) * dy.size(2),
                               .columns = dy.size(3),
                               .channels = dy.size(1),
                               .dy = dy.const_data_ptr(),
                               .choice = choice.const_data_ptr<std::uint8_t>(),
                               .dx = dx.mutable_data_ptr()},
                              c10::cuda::getCurrentCUDAStream().stream());
}
#else
void forward_cuda(const torch::Tensor&, torch::Tensor&, torch::Tensor&) {}
void backward_cuda(const torch::Tensor&, const torch::Tensor&, torch::Tensor&) {}
#endif

/// x contiguous in channels-last order.
void forward_cpu(const torch::Tensor& x, torch::Tensor& y, torch::Tensor& choice) {
  const std::int64_t channels = x.size(1), columns = y.size(3), rows = y.size(0) * y.size(2);
  const std::int64_t in_row = x.size(3) * channels, out_row = columns * channels;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "relu_max_pool", [&] {
    const scalar_t* const in = x.const_data_ptr<scalar_t>();
    scalar_t* const out = y.mutable_data_ptr<scalar_t>();
    std::uint8_t* const chosen = choice.mutable_data_ptr<std::uint8_t>();
    at::parallel_for(0, rows, kGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        const scalar_t* const top = in + 2 * row * in_row;
        pool_row(top, top + in_row, columns, channels, out + row * out_row, chosen + row * out_row);
      }
    });
  });
}

void backward_cpu(const torch::Tensor& dy, const torch::Tensor& choice, torch::Tensor& dx) {
  const std::int64_t channels = dx.size(1), columns = dy.size(3), rows = dy.size(0) * dy.size(2);
  const std::int64_t in_row = dx.size(3) * channels, out_row = columns * channels;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, dy.scalar_type(), "relu_max_pool_backward", [&] {
    const scalar_t* const gradient = dy.const_data_ptr<scalar_t>();
    const std::uint8_t* const chosen = choice.const_data_ptr<std::uint8_t>();
    scalar_t* const out = dx.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, rows, kGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        scalar_t* const top = out + 2 * row * in_row;
        scatter_row(gradient + row * out_row, chosen + row * out_row, columns, channels, top, top + in_row);
      }
    });
  });
}

class ReluMaxPool : public torch::autograd::Function<ReluMaxPool> {
 public:
  static torch::Tensor forward(torch::autograd::AutogradContext* context, const torch::Tensor& x) {
    const torch::Tensor in = x.contiguous(at::MemoryFormat::ChannelsLast);
    const std::vector<std::int64_t> shape{x.size(0), x.size(1), x.size(2) / 2, x.size(3) / 2};
    torch::Tensor y = empty_channels_last(shape, in.options());
    torch::Tensor choice = empty_channels_last(shape, in.options().dtype(torch::kUInt8));
    in.is_cuda() ? forward_cuda(in, y, choice) : forward_cpu(in, y, choice);
    context->save_for_backward({choice});
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const torch::Tensor choice = context->get_saved_variables()[0];
    const torch::Tensor dy = gradients[0].contiguous(at::MemoryFormat::ChannelsLast);
    torch::Tensor dx =
        empty_channels_last({dy.size(0), dy.size(1), 2 * dy.size(2), 2 * dy.size(3)}, dy.options());
    dy.is_cuda() ? backward_cuda(dy, choice, dx) : backward_cpu(dy, choice, dx);
    return {dx};
  }
};

}  // namespace

torch::Tensor relu_max_pool(const torch::Tensor& x) {
  TORCH_CHECK(x.dim() == 4 && x.size(2) % 2 == 0 && x.size(3) % 2 == 0,
              "relu_max_pool: x must be [N, C, H, W] with H and W even, not ", x.sizes());
  const bool own = x.is_cpu() || (x.is_cuda() && kOnGpu);
  if (!own) return at::max_pool2d(at::relu(x), 2);
  return ReluMaxPool::apply(x);
}

}  // namespace trit::train
