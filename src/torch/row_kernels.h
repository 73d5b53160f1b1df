// SPDX-License-Identifier: MIT
//
// Loops over one row of floats that the LibTorch half needs beside the kernels of kernels.h: RMSNorm forward
// and backward, and a fingerprint of a weight's bytes. Free of torch, compiled for three instruction sets.
//
// With r = 1 / sqrt(mean(x^2) + eps), y = x * r * g (g all ones without a weight) and u = dL/dy:
//   dL/dg[k] = sum over rows of u[k] * x[k] * r
//   dL/dx[k] = r * g[k] * u[k] - x[k] * (r^3 / K) * sum_j g[j] * u[j] * x[j]
// Sums run in 256 interleaved accumulators that are added as a tree (the order of lane_sum in quantize.h), so
// results depend neither on the instruction set nor on the number of threads.
#pragma once

#include <cstddef>
#include <cstdint>

namespace trit::torch_layer {

/// y [features] = x * r * weight; returns r. `weight` may be null.
float rms_norm_row(const float* x, const float* weight, float eps, std::int64_t features, float* y);

/// One row of the backward: grad_x [features] (or null) is written, grad_weight [features] (or null) is added
/// to; not both null. `weight` may be null.
void rms_norm_backward_row(const float* grad, const float* x, const float* weight, float rstd,
                           std::int64_t features, float* grad_x, float* grad_weight);

/// The weights t * scale of stored codes (format.h), `count` of them, as bfloat16 bits; so is the scale, which
/// is not negative.
void unpack_bfloat16_row(const std::uint8_t* codes, std::int64_t count, std::uint16_t scale,
                         std::uint16_t* w);

// ---- Gradients to int8 (trit/gradient.h). A magnitude is the bits of |v|: a NaN is larger than infinity. ----

/// max(|grad[n] * weight[n]|) of `count` gradients; `weight` may be null for ones.
std::uint32_t largest_gradient(const float* grad, const float* weight, std::int64_t count);
/// largest[n] = max(largest[n], |grad[n] * scale|).
void largest_gradients(const float* grad, float scale, std::int64_t count, std::uint32_t* largest);
/// q[n] = round_gradient(grad[n] * weight[n], factor), 0 where the factor is 0; returns the sum of q.
std::int32_t round_gradients(const float* grad, const float* weight, float factor, std::int64_t count,
                             std::int8_t* q);
/// q[n] = round_gradient(grad[n] * scale, factors[n]), 0 where the factor is 0.
void round_gradients(const float* grad, float scale, const float* factors, std::int64_t count,
                     std::int8_t* q);
/// to[k] = (float)sums[k] * scale.
void scale_row(const std::int32_t* sums, float scale, std::int64_t count, float* to);

/// total [features] += part [features]
void add_row(const float* part, std::int64_t features, float* total);

/// 64-bit fingerprint of `bytes` bytes, 7 to 13 bytes a cycle and core. Not cryptographic: it tells a changed
/// weight from an unchanged one.
std::uint64_t fingerprint(const void* data, std::size_t bytes, std::uint64_t seed);

}  // namespace trit::torch_layer
