// SPDX-License-Identifier: MIT
//
// The numerics contract as scalar code: the definition that every kernel of this project matches bit for
// bit. All arithmetic is IEEE fp32 in the order written here, each operation rounded half to even,
// denormals kept (docs/numerics.md).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "trit/export.h"
#include "trit/format.h"

TRIT_EXPORT_BEGIN

namespace trit {

/// Normalisation in front of a ternary layer.
enum class Norm : std::uint8_t { none, rms };

/// Rows of q are this long in memory: in_features rounded up to a multiple of 4, the extra bytes zero.
constexpr std::int64_t padded_in_features(std::int64_t in_features) { return (in_features + 3) / 4 * 4; }

/// Accumulators of lane_sum: part of the contract, a power of two.
inline constexpr int kLanes = 256;

/// The defined order of a sum of n terms: term i goes to accumulator i mod 256 in increasing order of i;
/// then for s = 128, 64, ..., 1: acc[j] += acc[j + s], j < s.
float lane_sum(std::span<const float> terms);
double lane_sum(std::span<const double> terms);

/// The scales of a token: what norm_quant_row returns beside the codes.
struct TokenScales {
  float scale;  // s = a / 127; y = acc * s * beta. NaN for a bad row
  float rstd;   // r = 1 / sqrt(mean(x^2) + eps) with Norm::rms, else 1
};

/// RMSNorm and absmax int8 quantisation of one row (token).
///
///   Norm::rms:  ms = lane_sum(fma(x, x, acc)) / K, r = 1 / sqrt(ms + eps), xg = x * g, m = max|xg|,
///               a = max(r * m, 1e-5), c = r * (127 / a)
///   Norm::none: xg = x, m = max|x|, a = max(m, 1e-5), c = 127 / a
///   q = clamp(rint(xg * c), -128, 127), s = a / 127
///
/// `norm_weight` g is [K], or empty for all ones. A row whose ms, m or r * m is NaN or Inf is bad: q = 0,
/// s = NaN, so that all of its outputs are NaN. (BitNet b1.58, arXiv:2402.17764, section 2.)
TokenScales norm_quant_row(std::span<const float> x, Norm norm, std::span<const float> norm_weight, float eps,
                           std::span<std::int8_t> q);

/// The same with a scale for each group of `group` inputs: r is of the row, and m, a, c, q and s are of the
/// group, s into `scale` [groups_of(K, group)]. A group is bad, q = 0 and s = NaN, where ms, its m or its r * m
/// is NaN or Inf. Returns r.
float norm_quant_groups_row(std::span<const float> x, Norm norm, std::span<const float> norm_weight,
                            float eps, std::int64_t group, std::span<std::int8_t> q, std::span<float> scale);

/// Scales of a float matrix w [out_features, in_features]: beta = max(mean |w|, 1e-5), [1], [out_features] or
/// [out_features, groups_of(in_features, group)].
/// Per tensor: the rows' lane_sum in fp32, lane_sum of those in fp64, divided by N*K in fp64, rounded once.
/// Per row: lane_sum / K in fp32. Per group: lane_sum / inputs of the group in fp32. A NaN passes through.
/// `group` is the number of inputs of a group, or 0 where the granularity is another one.
std::vector<float> absmean(std::span<const float> w, std::int64_t out_features, std::int64_t in_features,
                           ScaleGranularity granularity, std::int64_t group = 0);

/// max(mean, 1e-5); a NaN passes through.
float beta_of(float mean);
/// absmean per tensor of a matrix with `in_features` columns, from the lane_sum of |w| of each of its rows.
float absmean_of_sums(std::span<const float> sums, std::int64_t in_features);

/// t = clamp(rint(w * (1 / beta)), -1, 1), 0 where that is NaN.
void ternarize_row(std::span<const float> w, float beta, std::span<std::int8_t> t);

/// absmean and ternarize of a whole matrix: what export does. Throws Error, naming row and column, on a NaN or
/// an infinity, and for a group size that is not a multiple of 32.
TernaryMatrix pack(std::span<const float> w, std::int64_t out_features, std::int64_t in_features,
                   ScaleGranularity granularity, std::int64_t group = 0);

/// One output: y = ((float)acc * s) * beta, then + bias where there is one. Each step is rounded.
float epilogue(std::int32_t acc, float token_scale, float beta, const float* bias);

/// One output of a matrix with group scales, from q [K] and the output row's t [K] and beta [groups]. For
/// g = 0, 1, ...
///
///   isum = sum over k in g of q[k] * t[k], exact;  acc = fma((float)isum, w, acc), from acc = 0
///
/// where w = beta[g], and at the end y = acc * token_scale; or, with a scale for each group of the token,
/// group_scale [groups], w = beta[g] * group_scale[g], and y = acc. Then + bias where there is one.
float group_product(std::span<const std::int8_t> q, std::span<const std::int8_t> t, std::int64_t group,
                    std::span<const float> beta, float token_scale, const float* group_scale,
                    const float* bias);

/// What the activations of a layer have their scales for; `group` where the weights have group scales alone.
enum class TokenScaleGranularity : std::uint8_t { token, group };

/// The whole layer for one row, y[out_features]: the oracle of the tests.
void bit_linear_row(std::span<const float> x, const TernaryView& weight, Norm norm,
                    std::span<const float> norm_weight, float eps, std::span<const float> bias,
                    std::span<float> y, TokenScaleGranularity scales = TokenScaleGranularity::token);

}  // namespace trit

TRIT_EXPORT_END
