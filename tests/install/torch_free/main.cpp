// SPDX-License-Identifier: MIT
//
// A program outside the project: packs a matrix, multiplies with it, compares with the definition, and
// catches an exception that comes out of the shared library.
#include <cstdio>
#include <cstring>
#include <vector>

#include "trit/error.h"
#include "trit/linear.h"
#include "trit/model.h"

int main() {
  constexpr std::int64_t out_features = 5, in_features = 37;
  std::vector<float> w(out_features * in_features), x(in_features);
  for (std::size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>((i * 7919) % 101) / 50.0F - 1.0F;
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>((i * 31) % 17) / 4.0F - 2.0F;
  const trit::TernaryMatrix packed = trit::pack(w, out_features, in_features, trit::ScaleGranularity::row);

  std::vector<float> expected(out_features);
  trit::bit_linear_row(x, packed.view(), trit::Norm::rms, {}, 1e-6F, {}, expected);

  const auto parallel = trit::make_parallel(2);
  const trit::CpuKernels& kernels = trit::cpu_kernels_for(trit::Backend::automatic);
  const trit::PackedLinear layer(kernels, *parallel, packed.view());
  std::vector<std::int8_t> q(trit::padded_in_features(in_features));
  float scale = 0;
  std::int32_t q_sum = 0;
  trit::norm_quant(kernels, *parallel,
                   {.x = x.data(),
                    .tokens = 1,
                    .in_features = in_features,
                    .x_stride = in_features,
                    .norm = trit::Norm::rms,
                    .q = q.data(),
                    .scale = &scale,
                    .q_sum = &q_sum});
  std::vector<float> y(out_features);
  layer.product(*parallel, {.q = q.data(), .scale = &scale, .q_sum = &q_sum, .tokens = 1}, nullptr,
                trit::DataType::float32, y.data());
  if (std::memcmp(y.data(), expected.data(), y.size() * sizeof(float)) != 0) {
    std::fprintf(stderr, "the installed library's product differs from the definition\n");
    return 1;
  }
  try {
    trit::Model::load("/nonexistent/model.safetensors");
    std::fprintf(stderr, "loading a missing file did not throw\n");
    return 1;
  } catch (const trit::Error& error) {
    std::printf("%s: 5 outputs as defined; a missing file says: %s\n",
                std::string(name_of(trit::backend_of(kernels))).c_str(), error.what());
  }
  return 0;
}
