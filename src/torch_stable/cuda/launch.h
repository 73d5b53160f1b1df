// SPDX-License-Identifier: MIT
//
// Where a launch goes: the device of its tensors, LibTorch's current stream, memory from its allocator.
#pragma once

#include <torch/csrc/stable/accelerator.h>

#include "torch_stable/tensors.h"
#include "trit/cuda.h"

namespace trit::torch_stable::cuda {

using torch::stable::accelerator::DeviceGuard;

/// What the launches need to know of a tensor's GPU, asked once per GPU.
const trit::cuda::Device& device_of(const Tensor& tensor);

/// The current stream of a tensor's GPU.
trit::cuda::Stream stream_of(const Tensor& tensor);

/// Zeros for a launch on the current stream.
struct Workspace {
  void* data = nullptr;
  optional<Tensor> owner;  // inside a capture
};
/// At least `bytes` bytes, null where none are needed. Each stream of a device has one workspace, zeroed when
/// it is made and left zero by every launch. It comes from CUDA itself: what a caching allocator gives while
/// torch.compile warms up for CUDA graphs must not outlive the graph's outputs. Inside a capture each call
/// gets its own from LibTorch, whose zeroing is part of the graph.
Workspace workspace(const Tensor& like, std::size_t bytes);

/// to = a · b by LibTorch, in to's type: that of a and b, or float32 of 16-bit ones.
void multiply(const Tensor& a, const Tensor& b, const Tensor& to);

/// Throws Error that names both devices unless `tensor` is where `x` is.
void check_device(const Tensor& tensor, const char* what, const Tensor& x);

}  // namespace trit::torch_stable::cuda
