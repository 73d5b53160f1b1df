// SPDX-License-Identifier: MIT
//
// The rotation of activations in front of a layer whose weights were rotated (docs/numerics.md). Each block of
// inputs of a row becomes z = H (s * x) / sqrt(block), H the Walsh-Hadamard matrix in Sylvester's order. And
// the way back behind a look-up in an embedding whose rows were rotated.
#pragma once

#include <cstdint>
#include <span>

#include "trit/export.h"
#include "trit/linear.h"

TRIT_EXPORT_BEGIN

namespace trit {

inline constexpr std::int64_t kMinRotationBlock = 512;
inline constexpr std::int64_t kMaxRotationBlock = 4096;

struct Rotation {
  std::int64_t block = 0;              // 512, 1024, 2048 or 4096, and divides K
  const std::int8_t* signs = nullptr;  // [K], each +1 or -1; null for all +1
};

/// Throws Error unless the block is one of the four and divides `in_features`, and signs are +1 or -1.
void check(const Rotation& rotation, std::int64_t in_features);

/// The definition, in place: z[k] = x[k] or -x[k] by its sign; in each block for h = 1, 2, 4, ..., block / 2
/// all pairs (z[j], z[j + h]), j without the bit h, become (z[j] + z[j + h], z[j] - z[j + h]); at the end
/// z[k] *= 1 / sqrt(block) in fp32. Each step is rounded. The rotation must be valid.
void rotate_row(std::span<float> x, const Rotation& rotation);
/// The way back, in place: x[k] = +-y[k] by its sign, y = the transform without signs of `z`. The two steps do
/// not commute. Back and forth gives x but for its roundings. The rotation must be valid.
void rotate_row_back(std::span<float> z, const Rotation& rotation);

/// norm_quant whose codes and scales are of the rotated row: xg = x * g is rotated before its largest
/// magnitude is taken, r and the rest are as without. Throws Error as norm_quant and check do.
void norm_rotate_quant(const CpuKernels& kernels, Parallel& parallel, const NormQuant& args,
                       const Rotation& rotation);

/// Look-up in a ternary embedding: y [rows.size(), K] float, y[i] = t * scale of row rows[i] of `table`
/// [N, K], rotated back where `rotation` is not null. Throws Error for sizes that do not fit, a rotation that
/// check() refuses, and a row outside 0..N - 1, naming its place in `rows`.
void look_up(const CpuKernels& kernels, Parallel& parallel, const TernaryView& table,
             std::span<const std::int64_t> rows, const Rotation* rotation, float* y);

}  // namespace trit

TRIT_EXPORT_END
