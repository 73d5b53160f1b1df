// SPDX-License-Identifier: MIT
//
// Every float operator of the runtime on a GPU, alone and fused, beside LibTorch on the CPU, on inputs with
// NaN, infinities, -0.0 and denormals. The main function is that of cuda_test.cpp.
#include <cstdio>
#include <random>

#include "torch/float_operators.h"

namespace trit::test {
namespace {

constexpr std::size_t kCases = 1000;
constexpr std::size_t kInputsPerCase = 10;

TEST(CudaFloatOperators, AreLibTorchsOnSpecialValues) {
  const unsigned first = static_cast<unsigned>(run_seed());
  std::size_t values = 0;
  for (unsigned seed = first; seed != first + kCases; ++seed) {
    const FloatCase test_case = random_float_case(seed);
    SCOPED_TRACE("case " + std::to_string(seed) + ": " + test_case.what);
    std::mt19937 generator(seed);
    const TemporaryPath path("cuda_case.safetensors");
    test_case.model.save(path.get());
    const Model model = Model::load(path.get(), {.backend = Backend::cuda});
    for (std::size_t i = 0; i < kInputsPerCase; ++i) {
      std::vector<float> x = random_special_values(test_case.inputs(), generator);
      const Expected wanted = libtorch_result(test_case, as_tensor(test_case, x), {.winograd = false});
      const std::vector<float> y = model.run(x, test_case.batch);
      ASSERT_TRUE(agrees(wanted, y)) << "input " << i;
      values += y.size();
    }
  }
  std::printf("%zu tensors in %zu cases, %zu values compared\n", kCases * kInputsPerCase, kCases, values);
}

}  // namespace
}  // namespace trit::test
