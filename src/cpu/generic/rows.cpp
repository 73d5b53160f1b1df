// SPDX-License-Identifier: MIT
//
// The row-wise operations over whole matrices: norm_quant, absmean, ternarize_pack, dequantize.
#include <algorithm>
#include <bit>
#include <string>
#include <string_view>
#include <vector>

#include "base/tasks.h"
#include "cpu/table.h"
#include "trit/error.h"
#include "trit/linear.h"

namespace trit {
namespace {

// Elements per task: 5 to 10 us of any of these.
constexpr std::int64_t kWorkPerTask = 1 << 16;

// q from here on goes past the caches, which saves reading each of its lines from memory before it is
// written. While the last cache still holds q when the product reads it, that read costs more than this
// saves: 512 tokens of 4096 x 4096 took 2 % longer with it.
constexpr std::int64_t kMinNonTemporalBytes = 32 << 20;

void check_shape(std::string_view what, std::int64_t rows, std::int64_t columns, std::int64_t min_rows) {
  if (rows < min_rows || columns < 1) {
    throw Error(std::string(what) + ": shape [" + std::to_string(rows) + ", " + std::to_string(columns) +
                "], wanted at least [" + std::to_string(min_rows) + ", 1]");
  }
}

// body(row) for every row.
template <typename Body>
void for_rows(Parallel& parallel, std::int64_t rows, std::int64_t columns, const Body& body) {
  if (rows == 0) {
    return;
  }
  const std::int64_t tasks = task_count(parallel, rows, rows * columns, kWorkPerTask);
  run_tasks(parallel, tasks, [&](std::int64_t task) {
    const Part part = part_of(rows, tasks, task);
    for (std::int64_t row = part.begin; row < part.end; ++row) {
      body(row);
    }
  });
}

void check_group(std::string_view what, ScaleGranularity granularity, std::int64_t group) {
  if (granularity == ScaleGranularity::group ? !is_group_size(group) : group != 0) {
    throw Error(std::string(what) + ": groups of " + std::to_string(group) +
                " inputs, wanted a multiple of " + std::to_string(kGroupStep) +
                " with scales per group, and 0 without");
  }
}

// body(index, first input, inputs) for each group of a row.
template <typename Body>
void for_groups(std::int64_t in_features, std::int64_t group, const Body& body) {
  for (std::int64_t g = 0; g * group < in_features; ++g) {
    body(g, g * group, std::min(group, in_features - g * group));
  }
}

float beta_of(float mean) { return mean < 1e-5F ? 1e-5F : mean; }

// One token with a scale for each group. With a norm its kernel goes over the row first, for r alone.
void norm_quant_groups(const CpuKernels& kernels, const NormQuantRow& row, std::int64_t group) {
  float rstd = 1;
  if (row.norm == Norm::rms) {
    NormQuantRow whole = row;
    whole.rstd = &rstd;
    kernels.norm_quant_row(whole);
  }
  std::int32_t q_sum = 0;
  for_groups(row.in_features, group, [&](std::int64_t g, std::int64_t first, std::int64_t inputs) {
    NormQuantRow part = row;
    float unused = 0;
    std::int32_t part_sum = 0;
    part.x = static_cast<const std::uint8_t*>(row.x) + first * static_cast<std::int64_t>(size_of(row.x_type));
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

}  // namespace

void norm_quant(const CpuKernels& kernels, Parallel& parallel, const NormQuant& args) {
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
    if (args.group == 0) {
      kernels.norm_quant_row(row);
    } else {
      norm_quant_groups(kernels, row, args.group);
    }
  });
}

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
  std::vector<double> row_sums(static_cast<std::size_t>(out_features));
  for_rows(parallel, out_features, in_features, [&](std::int64_t row) {
    row_sums[static_cast<std::size_t>(row)] =
        static_cast<double>(kernels.abs_sum_row(w + row * in_features, in_features));
  });
  const double count = static_cast<double>(out_features) * static_cast<double>(in_features);
  // One task: the sum of the sums is in the contract's environment too.
  run_tasks(parallel, 1, [&](std::int64_t) {
    *scale = beta_of(static_cast<float>(lane_sum(std::span<const double>(row_sums)) / count));
  });
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
