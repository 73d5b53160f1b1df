// SPDX-License-Identifier: MIT
//
// Convolutions by cuDNN and float linear layers by cuBLAS, both loaded when a model needs them.
//
// Plain fp32 sums (CUDNN_FMA_MATH, CUBLAS_COMPUTE_32F_PEDANTIC): TF32 would move predictions away from the
// CPU's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "trit/cuda.h"

namespace trit::runtime::gpu {

struct Convolution {
  int batch, channels, height, width;
  int out_channels, out_height, out_width;
  int kernel_height, kernel_width;
  int stride, padding;
};

/// One convolution with its algorithm.
class ConvolutionPlan {
 public:
  virtual ~ConvolutionPlan() = default;
  virtual std::size_t workspace_bytes() const = 0;
  /// y = x * weight, NCHW.
  virtual void run(const float* x, const float* weight, void* workspace, float* y) const = 0;
};

/// A handle of cuDNN on one stream; must outlive its plans.
class Cudnn {
 public:
  virtual ~Cudnn() = default;
  virtual std::string name() const = 0;
  virtual std::unique_ptr<ConvolutionPlan> plan(const Convolution& convolution) = 0;
};
/// Throws Error where the library is missing.
std::unique_ptr<Cudnn> make_cudnn(cuda::Stream stream);

/// A handle of cuBLAS on one stream.
class Cublas {
 public:
  virtual ~Cublas() = default;
  virtual std::string name() const = 0;
  /// y [rows, out] = x [rows, in] * weight [out, in]^T
  virtual void linear(std::int64_t rows, std::int64_t in, std::int64_t out, const float* x,
                      const float* weight, float* y) = 0;
};
std::unique_ptr<Cublas> make_cublas(cuda::Stream stream);

}  // namespace trit::runtime::gpu
