// SPDX-License-Identifier: MIT
//
// The numerics contract in plain loops (quantize.h). Slow on purpose: it is what the kernels are compared
// with.
#include "trit/quantize.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <string>

#include "format/quantize_inputs.h"
#include "trit/error.h"

namespace trit {
namespace {

template <typename Value>
Value tree_sum(std::array<Value, kLanes>& acc) {
  for (int step = kLanes / 2; step >= 1; step /= 2) {
    for (int j = 0; j < step; ++j) {
      acc[j] += acc[j + step];
    }
  }
  return acc[0];
}

template <typename Value>
Value lane_sum_of(std::span<const Value> terms) {
  std::array<Value, kLanes> acc{};
  for (std::size_t i = 0; i < terms.size(); ++i) {
    acc[i % kLanes] += terms[i];
  }
  return tree_sum(acc);
}

// max|v| by the bits: floating-point maxima treat NaN differently on every machine.
std::uint32_t magnitude_bits(float value) { return std::bit_cast<std::uint32_t>(value) & 0x7fffffffU; }

void check_group(const std::string& who, ScaleGranularity granularity, std::int64_t group) {
  if (granularity == ScaleGranularity::group ? !is_group_size(group) : group != 0) {
    throw Error(who + ": groups of " + std::to_string(group) + " inputs, wanted a multiple of " +
                std::to_string(kGroupStep) + " with scales per group, and 0 without");
  }
}

/// body(group's index, first input, inputs) for each group of a row.
template <typename Body>
void for_groups(std::size_t inputs, std::int64_t group, const Body& body) {
  const auto size = static_cast<std::size_t>(group);
  for (std::size_t g = 0; g * size < inputs; ++g) {
    body(g, g * size, std::min(size, inputs - g * size));
  }
}

RowNorm row_norm(std::span<const float> x, Norm norm, float eps) {
  if (norm == Norm::none) {
    return {0, 1};
  }
  std::array<float, kLanes> acc{};
  for (std::size_t k = 0; k < x.size(); ++k) {
    acc[k % kLanes] = std::fma(x[k], x[k], acc[k % kLanes]);
  }
  const float mean_square = tree_sum(acc) / static_cast<float>(x.size());
  return {mean_square, 1.0F / std::sqrt(mean_square + eps)};
}

}  // namespace

float lane_sum(std::span<const float> terms) { return lane_sum_of(terms); }
double lane_sum(std::span<const double> terms) { return lane_sum_of(terms); }

float quantize_inputs(std::span<const float> x, Norm norm, std::span<const float> norm_weight, RowNorm row,
                      std::span<std::int8_t> q) {
  const auto weighted = [&](std::size_t k) {
    return norm == Norm::rms && !norm_weight.empty() ? x[k] * norm_weight[k] : x[k];
  };
  std::uint32_t largest = 0;
  for (std::size_t k = 0; k < x.size(); ++k) {
    largest = std::max(largest, magnitude_bits(weighted(k)));
  }
  const float max = std::bit_cast<float>(largest);
  const float product = norm == Norm::rms ? row.rstd * max : max;
  if (!std::isfinite(row.mean_square) || !std::isfinite(max) || !std::isfinite(product)) {
    std::fill(q.begin(), q.end(), std::int8_t{0});
    return std::numeric_limits<float>::quiet_NaN();
  }
  const float absmax = std::max(product, 1e-5F);
  const float factor = norm == Norm::rms ? row.rstd * (127.0F / absmax) : 127.0F / absmax;
  for (std::size_t k = 0; k < x.size(); ++k) {
    q[k] = static_cast<std::int8_t>(std::clamp(std::nearbyintf(weighted(k) * factor), -128.0F, 127.0F));
  }
  return absmax / 127.0F;
}

TokenScales norm_quant_row(std::span<const float> x, Norm norm, std::span<const float> norm_weight, float eps,
                           std::span<std::int8_t> q) {
  const RowNorm row = row_norm(x, norm, eps);
  return {quantize_inputs(x, norm, norm_weight, row, q), row.rstd};
}

float norm_quant_groups_row(std::span<const float> x, Norm norm, std::span<const float> norm_weight,
                            float eps, std::int64_t group, std::span<std::int8_t> q, std::span<float> scale) {
  const RowNorm row = row_norm(x, norm, eps);
  for_groups(x.size(), group, [&](std::size_t g, std::size_t first, std::size_t count) {
    scale[g] = quantize_inputs(x.subspan(first, count), norm,
                               norm_weight.empty() ? norm_weight : norm_weight.subspan(first, count), row,
                               q.subspan(first, count));
  });
  return row.rstd;
}

std::vector<float> absmean(std::span<const float> w, std::int64_t out_features, std::int64_t in_features,
                           ScaleGranularity granularity, std::int64_t group) {
  check_group("absmean", granularity, group);
  if (granularity == ScaleGranularity::group) {
    std::vector<float> scale;
    for (std::size_t row = 0; row < static_cast<std::size_t>(out_features); ++row) {
      const auto inputs = static_cast<std::size_t>(in_features);
      for_groups(inputs, group, [&](std::size_t /*g*/, std::size_t first, std::size_t count) {
        const auto values = w.subspan(row * inputs + first, count);
        std::vector<float> magnitudes(count);
        std::transform(values.begin(), values.end(), magnitudes.begin(),
                       [](float v) { return std::fabs(v); });
        scale.push_back(beta_of(lane_sum(magnitudes) / static_cast<float>(count)));
      });
    }
    return scale;
  }
  std::vector<float> magnitudes(static_cast<std::size_t>(in_features));
  std::vector<float> row_sums(static_cast<std::size_t>(out_features));
  for (std::size_t row = 0; row < row_sums.size(); ++row) {
    const auto values = w.subspan(row * magnitudes.size(), magnitudes.size());
    std::transform(values.begin(), values.end(), magnitudes.begin(), [](float v) { return std::fabs(v); });
    row_sums[row] = lane_sum(magnitudes);
  }
  if (granularity == ScaleGranularity::row) {
    for (float& sum : row_sums) {
      sum = beta_of(sum / static_cast<float>(in_features));
    }
    return row_sums;
  }
  return {absmean_of_sums(row_sums, in_features)};
}

float beta_of(float mean) { return mean < 1e-5F ? 1e-5F : mean; }

float absmean_of_sums(std::span<const float> sums, std::int64_t in_features) {
  const std::vector<double> terms(sums.begin(), sums.end());
  const double count = static_cast<double>(sums.size()) * static_cast<double>(in_features);
  return beta_of(static_cast<float>(lane_sum(terms) / count));
}

void ternarize_row(std::span<const float> w, float beta, std::span<std::int8_t> t) {
  const float inverse = 1.0F / beta;
  for (std::size_t k = 0; k < w.size(); ++k) {
    const float scaled = w[k] * inverse;
    t[k] = std::isnan(scaled) ? std::int8_t{0}
                              : static_cast<std::int8_t>(std::clamp(std::nearbyintf(scaled), -1.0F, 1.0F));
  }
}

TernaryMatrix pack(std::span<const float> w, std::int64_t out_features, std::int64_t in_features,
                   ScaleGranularity granularity, std::int64_t group) {
  if (out_features < 1 || in_features < 1 ||
      w.size() != static_cast<std::size_t>(out_features) * static_cast<std::size_t>(in_features)) {
    throw Error("pack: " + std::to_string(w.size()) + " weights for shape [" + std::to_string(out_features) +
                ", " + std::to_string(in_features) + "]");
  }
  const auto bad = std::find_if(w.begin(), w.end(), [](float v) { return !std::isfinite(v); });
  if (bad != w.end()) {
    const auto at = bad - w.begin();
    throw Error("pack: the weight at row " + std::to_string(at / in_features) + ", column " +
                std::to_string(at % in_features) + " is " + std::to_string(*bad) + ", wanted finite values");
  }
  TernaryMatrix matrix{
      out_features, in_features, {}, absmean(w, out_features, in_features, granularity, group), group};
  const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(in_features));
  matrix.codes.resize(static_cast<std::size_t>(out_features) * row_bytes);
  std::vector<std::int8_t> t(static_cast<std::size_t>(in_features));
  for (std::size_t row = 0; row < static_cast<std::size_t>(out_features); ++row) {
    const auto values = w.subspan(row * t.size(), t.size());
    if (group == 0) {
      ternarize_row(values, matrix.scale[matrix.scale.size() == 1 ? 0 : row], t);
    } else {
      const auto groups = static_cast<std::size_t>(groups_of(in_features, group));
      for_groups(t.size(), group, [&](std::size_t g, std::size_t first, std::size_t count) {
        ternarize_row(values.subspan(first, count), matrix.scale[row * groups + g],
                      std::span(t).subspan(first, count));
      });
    }
    pack_row(t, std::span(matrix.codes).subspan(row * row_bytes, row_bytes));
  }
  return matrix;
}

float epilogue(std::int32_t acc, float token_scale, float beta, const float* bias) {
  const float y = (static_cast<float>(acc) * token_scale) * beta;
  return bias == nullptr ? y : y + *bias;
}

float group_product(std::span<const std::int8_t> q, std::span<const std::int8_t> t, std::int64_t group,
                    std::span<const float> beta, float token_scale, const float* group_scale,
                    const float* bias) {
  float acc = 0;
  for_groups(q.size(), group, [&](std::size_t g, std::size_t first, std::size_t count) {
    std::int32_t sum = 0;
    for (std::size_t k = first; k < first + count; ++k) {
      sum += static_cast<std::int32_t>(q[k]) * t[k];
    }
    acc = std::fma(static_cast<float>(sum), group_scale == nullptr ? beta[g] : beta[g] * group_scale[g], acc);
  });
  const float y = group_scale == nullptr ? acc * token_scale : acc;
  return bias == nullptr ? y : y + *bias;
}

void bit_linear_row(std::span<const float> x, const TernaryView& weight, Norm norm,
                    std::span<const float> norm_weight, float eps, std::span<const float> bias,
                    std::span<float> y, TokenScaleGranularity granularity) {
  std::vector<std::int8_t> q(x.size());
  std::vector<std::int8_t> t(x.size());
  const bool grouped = weight.group != 0;
  const auto groups = static_cast<std::size_t>(groups_of(weight.in_features, weight.group));
  std::vector<float> scales(granularity == TokenScaleGranularity::group ? groups : 1);
  if (granularity == TokenScaleGranularity::group) {
    if (!grouped) {
      throw Error("bit_linear_row: activations with group scales, but weights without");
    }
    norm_quant_groups_row(x, norm, norm_weight, eps, weight.group, q, scales);
  } else {
    scales[0] = norm_quant_row(x, norm, norm_weight, eps, q).scale;
  }
  const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(weight.in_features));
  for (std::size_t n = 0; n < y.size(); ++n) {
    unpack_row(weight.codes.subspan(n * row_bytes, row_bytes), t);
    const float* const bias_of = bias.empty() ? nullptr : &bias[n];
    if (grouped) {
      y[n] = group_product(q, t, weight.group, weight.scale.subspan(n * groups, groups), scales[0],
                           granularity == TokenScaleGranularity::group ? scales.data() : nullptr, bias_of);
      continue;
    }
    std::int32_t acc = 0;
    for (std::size_t k = 0; k < x.size(); ++k) {
      acc += static_cast<std::int32_t>(q[k]) * t[k];
    }
    y[n] = epilogue(acc, scales[0], weight.scale[weight.scale.size() == 1 ? 0 : n], bias_of);
  }
}

}  // namespace trit
