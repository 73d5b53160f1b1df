// SPDX-License-Identifier: MIT
//
// Where a launch goes: the device of its tensors, the current stream, memory from LibTorch's allocator.
#pragma once

#include <torch/torch.h>

#include <cstddef>

#include "trit/cuda.h"

namespace trit::torch_layer::cuda {

/// What the launches need to know of a tensor's GPU, asked once per GPU.
const trit::cuda::Device& device_of(const torch::Tensor& tensor);

/// The current stream of a tensor's GPU.
trit::cuda::Stream stream_of(const torch::Tensor& tensor);

/// at::empty on the GPU of `like`, without its way through the dispatcher.
torch::Tensor empty(at::IntArrayRef sizes, torch::ScalarType type, const torch::Tensor& like);

/// A tensor of its own in the memory of `base`, `bytes` from its start (a multiple of the element): an
/// allocation costs the host about 1 us, this a tenth of it.
torch::Tensor part_of(const torch::Tensor& base, std::size_t bytes, at::IntArrayRef sizes,
                      torch::ScalarType type);

/// At least `bytes` bytes of zeros for products on the current stream, undefined where none are needed. Each
/// stream of a device has one workspace, zeroed when it is made and left zero by every product; inside a
/// capture each call gets its own, whose zeroing is part of the graph.
torch::Tensor workspace(const torch::Tensor& like, std::size_t bytes);

/// Throws c10::Error that names both devices unless `tensor` is where `x` is.
void check_device(const torch::Tensor& tensor, const char* what, const torch::Tensor& x);

}  // namespace trit::torch_layer::cuda
