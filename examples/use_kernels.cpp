// SPDX-License-Identifier: MIT
//
// The kernels by themselves: pack a float matrix, quantise a batch of activations, multiply, and compare every
// bit with the scalar definition of the layer.
//
//   use_kernels [TOKENS]
#include <trit/linear.h>
#include <trit/parallel.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

int main(int argc, char** argv) {
  constexpr std::int64_t kOutFeatures = 512, kInFeatures = 1000;
  const std::int64_t tokens = argc > 1 ? std::strtoll(argv[1], nullptr, 10) : 4;
  if (tokens < 1 || tokens > 4096) {
    std::fprintf(stderr, "usage: use_kernels [TOKENS], 1 to 4096\n");
    return 2;
  }
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> weights(kOutFeatures * kInFeatures);
  std::vector<float> x(static_cast<std::size_t>(tokens * kInFeatures));
  for (float& value : weights) value = normal(random);
  for (float& value : x) value = normal(random);

  // To 2 bits a weight, with one scale for the matrix: the form that files hold.
  const trit::TernaryMatrix packed =
      trit::pack(weights, kOutFeatures, kInFeatures, trit::ScaleGranularity::tensor);

  // The fastest kernels of this machine, and the weights prepared for them. This is done once for a layer.
  const trit::CpuKernels& kernels = trit::cpu_kernels_for(trit::Backend::automatic);
  const auto parallel = trit::make_parallel();
  const trit::PackedLinear layer(kernels, *parallel, packed.view());

  // Activations to int8, one scale a token. Rows of q are padded to a multiple of 4.
  const std::int64_t q_stride = trit::padded_in_features(kInFeatures);
  std::vector<std::int8_t> q(static_cast<std::size_t>(tokens * q_stride));
  std::vector<float> scale(static_cast<std::size_t>(tokens));
  std::vector<std::int32_t> q_sum(static_cast<std::size_t>(tokens));
  trit::norm_quant(kernels, *parallel,
                   {.x = x.data(),
                    .tokens = tokens,
                    .in_features = kInFeatures,
                    .x_stride = kInFeatures,
                    .norm = trit::Norm::rms,
                    .q = q.data(),
                    .scale = scale.data(),
                    .q_sum = q_sum.data()});

  // y [tokens, out_features]
  std::vector<float> y(static_cast<std::size_t>(tokens * kOutFeatures));
  layer.product(*parallel, {.q = q.data(), .scale = scale.data(), .q_sum = q_sum.data(), .tokens = tokens},
                nullptr, trit::DataType::float32, y.data());

  std::vector<float> expected(kOutFeatures);
  for (std::int64_t token = 0; token < tokens; ++token) {
    const std::span row(x.data() + token * kInFeatures, kInFeatures);
    trit::bit_linear_row(row, packed.view(), trit::Norm::rms, {}, 1e-6F, {}, expected);
    const auto same_bits = [](float a, float b) {
      return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
    };
    if (!std::equal(expected.begin(), expected.end(), y.begin() + token * kOutFeatures, same_bits)) {
      std::fprintf(stderr, "token %lld differs from the definition\n", static_cast<long long>(token));
      return 1;
    }
  }
  std::printf("%lld tokens, %lld x %lld weights in %zu bytes, backend %s: bit-identical to the definition\n",
              static_cast<long long>(tokens), static_cast<long long>(kOutFeatures),
              static_cast<long long>(kInFeatures), packed.codes.size(),
              std::string(trit::name_of(trit::backend_of(kernels))).c_str());
  return 0;
}
