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

}  // namespace

float lane_sum(std::span<const float> terms) { return lane_sum_of(terms); }
double lane_sum(std::span<const double> terms) { return lane_sum_of(terms); }

TokenScales norm_quant_row(std::span<const float> x, Norm norm, std::span<const float> norm_weight, float eps,
                           std::span<std::int8_t> q) {
  const std::size_t inputs = x.size();
  float mean_square = 0;
  float rstd = 1;
  if (norm == Norm::rms) {
    std::array<float, kLanes> acc{};
    for (std::size_t k = 0; k < inputs; ++k) {
      acc[k % kLanes] = std::fma(x[k], x[k], acc[k % kLanes]);
    }
    mean_square = tree_sum(acc) / static_cast<float>(inputs);
    rstd = 1.0F / std::sqrt(mean_square + eps);
  }
  const auto weighted = [&](std::size_t k) {
    return norm == Norm::rms && !norm_weight.empty() ? x[k] * norm_weight[k] : x[k];
  };
  std::uint32_t largest = 0;
  for (std::size_t k = 0; k < inputs; ++k) {
    largest = std::max(largest, magnitude_bits(weighted(k)));
  }
  const float product =
      norm == Norm::rms ? rstd * std::bit_cast<float>(largest) : std::bit_cast<float>(largest);
  if (!std::isfinite(mean_square) || !std::isfinite(std::bit_cast<float>(largest)) ||
      !std::isfinite(product)) {
    std::fill(q.begin(), q.end(), std::int8_t{0});
    return {std::numeric_limits<float>::quiet_NaN(), rstd};
  }
  const float absmax = std::max(product, 1e-5F);
  const float factor = norm == Norm::rms ? rstd * (127.0F / absmax) : 127.0F / absmax;
  for (std::size_t k = 0; k < inputs; ++k) {
    q[k] = static_cast<std::int8_t>(std::clamp(std::nearbyintf(weighted(k) * factor), -128.0F, 127.0F));
  }
  return {absmax / 127.0F, rstd};
}

std::vector<float> absmean(std::span<const float> w, std::int64_t out_features, std::int64_t in_features,
                           ScaleGranularity granularity) {
  std::vector<float> magnitudes(static_cast<std::size_t>(in_features));
  std::vector<float> row_sums(static_cast<std::size_t>(out_features));
  for (std::size_t row = 0; row < row_sums.size(); ++row) {
    const auto values = w.subspan(row * magnitudes.size(), magnitudes.size());
    std::transform(values.begin(), values.end(), magnitudes.begin(), [](float v) { return std::fabs(v); });
    row_sums[row] = lane_sum(magnitudes);
  }
  const auto beta = [](float mean) { return mean < 1e-5F ? 1e-5F : mean; };
  if (granularity == ScaleGranularity::row) {
    for (float& sum : row_sums) {
      sum = beta(sum / static_cast<float>(in_features));
    }
    return row_sums;
  }
  const std::vector<double> wide(row_sums.begin(), row_sums.end());
  const double count = static_cast<double>(out_features) * static_cast<double>(in_features);
  return {beta(static_cast<float>(lane_sum(wide) / count))};
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
                   ScaleGranularity granularity) {
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
  TernaryMatrix matrix{out_features, in_features, {}, absmean(w, out_features, in_features, granularity)};
  const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(in_features));
  matrix.codes.resize(static_cast<std::size_t>(out_features) * row_bytes);
  std::vector<std::int8_t> t(static_cast<std::size_t>(in_features));
  for (std::size_t row = 0; row < static_cast<std::size_t>(out_features); ++row) {
    ternarize_row(w.subspan(row * t.size(), t.size()), matrix.scale[matrix.scale.size() == 1 ? 0 : row], t);
    pack_row(t, std::span(matrix.codes).subspan(row * row_bytes, row_bytes));
  }
  return matrix;
}

float epilogue(std::int32_t acc, float token_scale, float beta, const float* bias) {
  const float y = (static_cast<float>(acc) * token_scale) * beta;
  return bias == nullptr ? y : y + *bias;
}

void bit_linear_row(std::span<const float> x, const TernaryView& weight, Norm norm,
                    std::span<const float> norm_weight, float eps, std::span<const float> bias,
                    std::span<float> y) {
  std::vector<std::int8_t> q(x.size());
  std::vector<std::int8_t> t(x.size());
  const TokenScales scales = norm_quant_row(x, norm, norm_weight, eps, q);
  const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(weight.in_features));
  for (std::size_t n = 0; n < y.size(); ++n) {
    unpack_row(weight.codes.subspan(n * row_bytes, row_bytes), t);
    std::int32_t acc = 0;
    for (std::size_t k = 0; k < x.size(); ++k) {
      acc += static_cast<std::int32_t>(q[k]) * t[k];
    }
    y[n] = epilogue(acc, scales.scale, weight.scale[weight.scale.size() == 1 ? 0 : n],
                    bias.empty() ? nullptr : &bias[n]);
  }
}

}  // namespace trit
