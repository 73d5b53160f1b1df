// SPDX-License-Identifier: MIT
//
// A prepared weight as one block of bytes that the caller owns: for hosts that keep all memory in tensors of
// their own (the Python package does). PackedLinear (linear.h) owns its memory and is simpler where that is
// no need.
//
//   header   64 bytes: what the rest is, so that bytes from another machine are recognised
//   panels   the layout of one backend (PanelFormat), from a cache line on
//   scales   those of groups, as float16 where that holds all of them, else float32; from a cache line on
//
// The bytes are valid for the backend that prepared them, and are never stored: the stored form (format.h) is
// the one that travels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "trit/backend.h"
#include "trit/export.h"
#include "trit/linear.h"
#include "trit/parallel.h"

TRIT_EXPORT_BEGIN

namespace trit {

/// Where the bytes must begin: multiples of a cache line.
inline constexpr std::size_t kPreparedAlignment = 64;

/// Bytes of a prepared matrix [N, K], the header included, with group scales whatever their values: room for
/// float32. `format` as in PackedLinear. Throws Error for N or K < 1, K > 16,777,215, or a bad group size.
std::size_t prepared_bytes(const CpuKernels& kernels, PanelFormat format, std::int64_t out_features,
                           std::int64_t in_features, std::int64_t group = 0);

/// The stored codes of a weight, and group scales if it has any, to `prepared`, prepared_bytes(...) bytes. Other
/// scales are not read: they are an argument of the product. Throws Error where sizes or the alignment do not fit.
void prepare_weight(const CpuKernels& kernels, Parallel& parallel, const TernaryView& weight,
                    PanelFormat format, std::span<std::uint8_t> prepared);

/// y [M, N] = epilogue(q · tᵀ), as PackedLinear::product.
struct PreparedProduct {
  std::span<const std::uint8_t> prepared;  // of prepare_weight
  std::int64_t out_features = 0;           // N
  std::int64_t in_features = 0;            // K
  std::span<const float> weight_scale;     // beta, [1] or [N]; not read with group scales
  QuantizedRows x;
  const float* bias = nullptr;  // [N] or null
  DataType y_type = DataType::float32;
  void* y = nullptr;       // [M, N] of y_type
  std::int64_t group = 0;  // that the weight was prepared with
};
/// Throws Error for bytes that are no prepared weight, are one of another matrix, or were prepared for
/// another backend; it names both.
void product(const CpuKernels& kernels, Parallel& parallel, const PreparedProduct& args);

}  // namespace trit

TRIT_EXPORT_END
