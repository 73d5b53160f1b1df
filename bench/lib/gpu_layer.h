// SPDX-License-Identifier: MIT
//
// A layer to measure (linear_case.h) in GPU memory: its operands, and enough copies of its weights that they
// are read from memory instead of the L2 cache.
#pragma once

#include <cstddef>
#include <cstdint>

#include "bench/lib/linear_case.h"
#include "runtime/cuda/resources.h"
#include "trit/cuda.h"
#include "trit/parallel.h"

namespace trit::bench {

class GpuLayer {
 public:
  /// Draws the case for up to `max_tokens` and waits until all of it is in GPU memory. With a `group` each copy
  /// of the weights has float16 scales for groups of so many inputs behind it, and `grouped` below asks for them.
  GpuLayer(LinearShape shape, std::int64_t max_tokens, std::uint64_t seed, Parallel& parallel,
           std::size_t cache_bytes, cuda::Stream stream, std::int64_t group = 0);

  LinearShape shape() const { return layer_.shape; }
  /// Of one copy.
  std::size_t weight_bytes(bool grouped = false) const { return grouped ? copy_bytes_ : weight_bytes_; }
  int copies() const { return copies_; }
  bool from_memory() const { return from_memory_; }
  /// Copy i modulo copies().
  const std::uint8_t* weights(int i) const {
    return reinterpret_cast<const std::uint8_t*>(weights_.get()) +
           copy_bytes_ * static_cast<std::size_t>(i % copies_);
  }

  /// The product of given q with copy i, y in float32; without a workspace.
  cuda::Product product(std::int64_t tokens, int i = 0, bool grouped = false) const;
  /// The product of what quantize() writes.
  cuda::Product product_behind_norm(std::int64_t tokens, int i, bool grouped) const;
  cuda::NormQuant quantize(std::int64_t tokens) const;

  /// Fills y with a value that no product can have.
  void poison(std::int64_t tokens) const;
  /// Throws Error unless y is bit-identical to the reference (check_outputs).
  void check(std::int64_t tokens, std::string_view who, bool grouped = false) const;

 private:
  LinearCase layer_;
  std::size_t weight_bytes_;
  std::size_t copy_bytes_;
  int copies_;
  bool from_memory_;
  runtime::gpu::DeviceMemory beta_, weights_, x_, norm_, q_, scale_, layer_q_, layer_scale_, y_;
};

/// Bytes of the GPU's L2 cache.
std::size_t second_level_cache_bytes();

}  // namespace trit::bench
