// SPDX-License-Identifier: MIT
//
// norm_quant, with scales for tokens or for their groups, and with a rotation.
#include <algorithm>
#include <bit>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "cpu/generic/rows.h"
#include "cpu/table.h"
#include "format/rotation.h"
#include "trit/error.h"
#include "trit/linear.h"
#include "trit/rotation.h"

namespace trit {
namespace {

using generic::check_shape;
using generic::for_groups;
using generic::for_rows;

// q from here on goes past the caches, which saves reading each of its lines from memory before it is
// written. While the last cache still holds q when the product reads it, that read costs more than this
// saves: 512 tokens of 4096 x 4096 took 2 % longer with it.
constexpr std::int64_t kMinNonTemporalBytes = 32 << 20;

// Each row of args as a kernel takes it, to body(row). Throws Error for what norm_quant refuses.
template <typename Body>
void for_quantised_rows(Parallel& parallel, const NormQuant& args, const Body& body) {
  check_shape("norm_quant", args.tokens, args.in_features, 0);
  if (args.tokens == 0) {
    return;
  }
  if (args.x_stride < args.in_features && args.tokens > 1) {
    throw Error("norm_quant: rows of " + std::to_string(args.in_features) + " inputs, " +
                std::to_string(args.x_stride) + " elements apart");
  }
  // By its bits: to a caller that treats denormals as zero eps > 0 would be another question.
  const auto eps_bits = std::bit_cast<std::uint32_t>(args.eps);
  if (args.norm == Norm::rms && (eps_bits == 0 || eps_bits >= 0x7f800000U)) {
    throw Error("norm_quant: eps is " + std::to_string(args.eps) + ", wanted a positive finite number");
  }
  if (args.x == nullptr || args.q == nullptr || args.scale == nullptr || args.q_sum == nullptr) {
    throw Error("norm_quant: null x, q, scale or q_sum for " + std::to_string(args.tokens) + " tokens");
  }
  if (args.group != 0 && !is_group_size(args.group)) {
    throw Error("norm_quant: groups of " + std::to_string(args.group) + " inputs, wanted a multiple of " +
                std::to_string(kGroupStep));
  }
  const auto x_size = static_cast<std::int64_t>(size_of(args.x_type));
  const std::int64_t padded = padded_in_features(args.in_features);
  for_rows(parallel, args.tokens, args.in_features, [&](std::int64_t token) {
    float rstd = 0;
    const NormQuantRow row{
        .x = static_cast<const std::uint8_t*>(args.x) + token * args.x_stride * x_size,
        .x_type = args.x_type,
        .in_features = args.in_features,
        .norm = args.norm,
        .norm_weight = args.norm_weight,
        .eps = args.eps,
        .q = args.q + token * padded,
        .scale = args.scale + token * groups_of(args.in_features, args.group),
        .rstd = args.rstd == nullptr ? &rstd : args.rstd + token,
        .q_sum = args.q_sum + token,
        .non_temporal = args.tokens * padded >= kMinNonTemporalBytes,
    };
    body(row);
  });
}

// r of a row; spoils q, scale and q_sum.
float rstd_of(const CpuKernels& kernels, const NormQuantRow& row) {
  float rstd = 1;
  if (row.norm == Norm::rms) {
    NormQuantRow whole = row;
    whole.rstd = &rstd;
    kernels.norm_quant_row(whole);
  }
  return rstd;
}

// Codes and scales of a row whose r is known, a scale for each group; 0: for the row.
void quantize_groups(const CpuKernels& kernels, const NormQuantRow& row, std::int64_t group, float rstd) {
  std::int32_t q_sum = 0;
  for_groups(row.in_features, group == 0 ? row.in_features : group,
             [&](std::int64_t g, std::int64_t first, std::int64_t inputs) {
               NormQuantRow part = row;
               float unused = 0;
               std::int32_t part_sum = 0;
               part.x = static_cast<const std::uint8_t*>(row.x) +
                        first * static_cast<std::int64_t>(size_of(row.x_type));
               part.in_features = inputs;
               part.norm_weight = row.norm_weight == nullptr ? nullptr : row.norm_weight + first;
               part.q = row.q + first;
               part.scale = row.scale + g;
               part.rstd = &unused;
               part.q_sum = &part_sum;
               part.non_temporal = false;
               part.row_rstd = row.norm == Norm::rms ? &rstd : nullptr;
               kernels.norm_quant_row(part);
               q_sum += part_sum;
             });
  *row.rstd = rstd;
  *row.q_sum = q_sum;
}

// The inputs of a row times the norm's weight, in float.
std::vector<float> weighted(const NormQuantRow& row) {
  std::vector<float> values(static_cast<std::size_t>(row.in_features));
  if (row.x_type == DataType::float32) {
    std::copy_n(static_cast<const float*>(row.x), values.size(), values.begin());
  } else {
    std::transform(static_cast<const std::uint16_t*>(row.x),
                   static_cast<const std::uint16_t*>(row.x) + row.in_features, values.begin(),
                   row.x_type == DataType::bfloat16 ? bfloat16_to_float : float16_to_float);
  }
  if (row.norm == Norm::rms && row.norm_weight != nullptr) {
    std::transform(values.begin(), values.end(), row.norm_weight, values.begin(), std::multiplies<>());
  }
  return values;
}

}  // namespace

void norm_quant(const CpuKernels& kernels, Parallel& parallel, const NormQuant& args) {
  for_quantised_rows(parallel, args, [&](const NormQuantRow& row) {
    if (args.group == 0) {
      kernels.norm_quant_row(row);
    } else {
      quantize_groups(kernels, row, args.group, rstd_of(kernels, row));
    }
  });
}

void norm_rotate_quant(const CpuKernels& kernels, Parallel& parallel, const NormQuant& args,
                       const Rotation& rotation) {
  check(rotation, args.in_features);
  for_quantised_rows(parallel, args, [&](const NormQuantRow& row) {
    const float rstd = rstd_of(kernels, row);
    std::vector<float> z = weighted(row);
    apply_signs(z, rotation.signs);
    kernels.walsh_hadamard_row(z.data(), args.in_features, rotation.block);
    NormQuantRow rotated = row;
    rotated.x = z.data();
    rotated.x_type = DataType::float32;
    rotated.norm_weight = nullptr;
    quantize_groups(kernels, rotated, args.group, rstd);
  });
}

}  // namespace trit
