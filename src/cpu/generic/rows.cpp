// SPDX-License-Identifier: MIT
//
// The row-wise operations over whole matrices: norm_quant, absmean, ternarize_pack, dequantize.
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

float beta_of(float mean) { return mean < 1e-5F ? 1e-5F : mean; }

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
  const auto x_size = static_cast<std::int64_t>(size_of(args.x_type));
  const std::int64_t padded = padded_in_features(args.in_features);
  for_rows(parallel, args.tokens, args.in_features, [&](std::int64_t token) {
    float rstd = 0;
    kernels.norm_quant_row({
        .x = static_cast<const std::uint8_t*>(args.x) + token * args.x_stride * x_size,
        .x_type = args.x_type,
        .in_features = args.in_features,
        .norm = args.norm,
        .norm_weight = args.norm_weight,
        .eps = args.eps,
        .q = args.q + token * padded,
        .scale = args.scale + token,
        .rstd = args.rstd == nullptr ? &rstd : args.rstd + token,
        .q_sum = args.q_sum + token,
        .non_temporal = args.tokens * padded >= kMinNonTemporalBytes,
    });
  });
}

void absmean(const CpuKernels& kernels, Parallel& parallel, const float* w, std::int64_t out_features,
             std::int64_t in_features, ScaleGranularity granularity, float* scale) {
  check_shape("absmean", out_features, in_features, 1);
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
                    std::uint8_t* codes) {
  check_shape("ternarize_pack", out_features, in_features, 1);
  const std::int64_t row_bytes = packed_row_bytes(in_features);
  for_rows(parallel, out_features, in_features, [&](std::int64_t row) {
    const float inverse = 1.0F / scale[granularity == ScaleGranularity::row ? row : 0];
    kernels.ternarize_pack_row(w + row * in_features, inverse, in_features, codes + row * row_bytes);
  });
}

void dequantize(const CpuKernels& kernels, Parallel& parallel, const TernaryView& weight, float* w) {
  check_shape("dequantize", weight.out_features, weight.in_features, 1);
  const std::int64_t row_bytes = packed_row_bytes(weight.in_features);
  const bool per_row = weight.scale.size() != 1;
  if (static_cast<std::int64_t>(weight.codes.size()) != weight.out_features * row_bytes ||
      (per_row && static_cast<std::int64_t>(weight.scale.size()) != weight.out_features)) {
    throw Error("dequantize: " + std::to_string(weight.codes.size()) + " bytes of codes and " +
                std::to_string(weight.scale.size()) + " scales for shape [" +
                std::to_string(weight.out_features) + ", " + std::to_string(weight.in_features) + "]");
  }
  for_rows(parallel, weight.out_features, weight.in_features, [&](std::int64_t row) {
    kernels.dequantize_row(weight.codes.data() + row * row_bytes, weight.in_features,
                           weight.scale[static_cast<std::size_t>(per_row ? row : 0)],
                           w + row * weight.in_features);
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
