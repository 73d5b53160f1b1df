// SPDX-License-Identifier: MIT
//
// The row-wise operations over whole matrices: absmean, ternarize_pack, dequantize.
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "base/tasks.h"
#include "cpu/generic/rows.h"
#include "cpu/table.h"
#include "trit/error.h"
#include "trit/linear.h"
#include "trit/quantize.h"

namespace trit {

using generic::check_shape;
using generic::for_groups;
using generic::for_rows;

namespace {

void check_group(std::string_view what, ScaleGranularity granularity, std::int64_t group) {
  if (granularity == ScaleGranularity::group ? !is_group_size(group) : group != 0) {
    throw Error(std::string(what) + ": groups of " + std::to_string(group) +
                " inputs, wanted a multiple of " + std::to_string(kGroupStep) +
                " with scales per group, and 0 without");
  }
}

}  // namespace

void absmean(const CpuKernels& kernels, Parallel& parallel, const float* w, std::int64_t out_features,
             std::int64_t in_features, ScaleGranularity granularity, float* scale, std::int64_t group) {
  check_shape("absmean", out_features, in_features, 1);
  check_group("absmean", granularity, group);
  if (granularity == ScaleGranularity::group) {
    for_rows(parallel, out_features, in_features, [&](std::int64_t row) {
      for_groups(in_features, group, [&](std::int64_t g, std::int64_t first, std::int64_t inputs) {
        scale[row * groups_of(in_features, group) + g] =
            beta_of(kernels.abs_sum_row(w + row * in_features + first, inputs) / static_cast<float>(inputs));
      });
    });
    return;
  }
  if (granularity == ScaleGranularity::row) {
    for_rows(parallel, out_features, in_features, [&](std::int64_t row) {
      scale[row] =
          beta_of(kernels.abs_sum_row(w + row * in_features, in_features) / static_cast<float>(in_features));
    });
    return;
  }
  std::vector<float> sums(static_cast<std::size_t>(out_features));
  abs_sums(kernels, parallel, w, out_features, in_features, sums.data());
  const DefaultFloatingPoint environment;
  *scale = absmean_of_sums(sums, in_features);
}

void abs_sums(const CpuKernels& kernels, Parallel& parallel, const float* w, std::int64_t out_features,
              std::int64_t in_features, float* sums) {
  check_shape("abs_sums", out_features, in_features, 1);
  for_rows(parallel, out_features, in_features,
           [&](std::int64_t row) { sums[row] = kernels.abs_sum_row(w + row * in_features, in_features); });
}

void ternarize_pack(const CpuKernels& kernels, Parallel& parallel, const float* w, std::int64_t out_features,
                    std::int64_t in_features, ScaleGranularity granularity, const float* scale,
                    std::uint8_t* codes, std::int64_t group) {
  check_shape("ternarize_pack", out_features, in_features, 1);
  check_group("ternarize_pack", granularity, group);
  const std::int64_t row_bytes = packed_row_bytes(in_features);
  for_rows(parallel, out_features, in_features, [&](std::int64_t row) {
    if (granularity == ScaleGranularity::group) {
      const float* const betas = scale + row * groups_of(in_features, group);
      for_groups(in_features, group, [&](std::int64_t g, std::int64_t first, std::int64_t inputs) {
        kernels.ternarize_pack_row(w + row * in_features + first, 1.0F / betas[g], inputs,
                                   codes + row * row_bytes + first / 4);
      });
      return;
    }
    const float inverse = 1.0F / scale[granularity == ScaleGranularity::row ? row : 0];
    kernels.ternarize_pack_row(w + row * in_features, inverse, in_features, codes + row * row_bytes);
  });
}

void dequantize(const CpuKernels& kernels, Parallel& parallel, const TernaryView& weight, float* w) {
  check_shape("dequantize", weight.out_features, weight.in_features, 1);
  const std::int64_t row_bytes = packed_row_bytes(weight.in_features);
  const std::int64_t groups = groups_of(weight.in_features, weight.group);
  const bool per_row = weight.group != 0 || weight.scale.size() != 1;
  if (static_cast<std::int64_t>(weight.codes.size()) != weight.out_features * row_bytes ||
      (weight.group != 0 && !is_group_size(weight.group)) ||
      (per_row && std::ssize(weight.scale) != weight.out_features * groups)) {
    throw Error("dequantize: " + std::to_string(weight.codes.size()) + " bytes of codes and " +
                std::to_string(weight.scale.size()) + " scales for shape [" +
                std::to_string(weight.out_features) + ", " + std::to_string(weight.in_features) + "]");
  }
  const std::int64_t group = weight.group == 0 ? weight.in_features : weight.group;
  for_rows(parallel, weight.out_features, weight.in_features, [&](std::int64_t row) {
    for_groups(weight.in_features, group, [&](std::int64_t g, std::int64_t first, std::int64_t inputs) {
      kernels.dequantize_row(weight.codes.data() + row * row_bytes + first / 4, inputs,
                             weight.scale[static_cast<std::size_t>(per_row ? row * groups + g : 0)],
                             w + row * weight.in_features + first);
    });
  });
}

float abs_sum_row(const CpuKernels& kernels, std::span<const float> w) {
  return kernels.abs_sum_row(w.data(), std::ssize(w));
}

void ternarize_pack_row(const CpuKernels& kernels, std::span<const float> w, float inverse,
                        std::span<std::uint8_t> codes) {
  kernels.ternarize_pack_row(w.data(), inverse, std::ssize(w), codes.data());
}

void dequantize_row(const CpuKernels& kernels, std::span<const std::uint8_t> codes, float scale,
                    std::span<float> w) {
  kernels.dequantize_row(codes.data(), std::ssize(w), scale, w.data());
}

}  // namespace trit
