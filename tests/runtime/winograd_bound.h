// SPDX-License-Identifier: MIT
//
// For the tests of whole networks: which convolutions run by Winograd's algorithm, and how far their results
// may be off. winograd_test.cpp has the narrow bound, from each tile's values.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "runtime/winograd/winograd.h"

namespace trit::test {

/// Whether a conv2d of x [channels, height, width] with weight [out, channels, kh, kw] does, on this machine.
inline bool runs_winograd(std::int64_t height, std::int64_t width,
                          const std::vector<std::int64_t>& weight_shape, std::int64_t stride,
                          std::int64_t padding, std::span<const float> weight) {
  return stride == 1 && weight_shape[2] == 3 && weight_shape[3] == 3 &&
         runtime::WinogradConvolution::pays(
             runtime::winograd_kernel(backend_of(cpu_kernels_for(Backend::automatic))),
             {.channels = weight_shape[1],
              .height = height,
              .width = width,
              .out_channels = weight_shape[0],
              .padding = padding},
             weight);
}

/// An output's tile reads inputs so far from each input of the output's window at most.
inline constexpr std::int64_t kWinogradReach = 5;

/// Of an output, relative to the sum over channels of (the largest |x| within reach) * (the sum of |w|). The
/// factor is the largest value of sum over p of |A_ip| |G_pk| (sum over j of |B_pj|), squared for two
/// dimensions: at i = 3, k = 2 it is 2 * 10 / 6 + 2 * 8 * 6 / 6 + 10.
inline double winograd_error(std::int64_t channels) {
  const double u = std::ldexp(1.0, -24) * static_cast<double>(channels + 12);
  return u / (1 - u) * 29.34 * 29.34;
}

/// And absolute, from denormal results on the way.
inline double winograd_underflow(std::int64_t channels) {
  return 8000 * static_cast<double>(channels) * std::ldexp(1.0, -149);
}

}  // namespace trit::test
