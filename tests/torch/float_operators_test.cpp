// SPDX-License-Identifier: MIT
//
// Every float operator of the runtime on the CPU, alone and fused, with every dense library of this build,
// beside LibTorch, on inputs with NaN, infinities, -0.0 and denormals. CTest repeats it under each
// ONEDNN_MAX_CPU_ISA that this project's users have.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>

#include "torch/float_operators.h"

namespace trit::test {
namespace {

constexpr std::size_t kCases = 1000;
constexpr std::size_t kInputsPerCase = 10;

/// 0x9fc0: denormals are zero, as input and as result. A caller's setting must change nothing.
class FlushDenormals {
 public:
  explicit FlushDenormals(bool flush) { at::globalContext().setFlushDenormal(flush); }
  ~FlushDenormals() { at::globalContext().setFlushDenormal(false); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;
};

/// Beside another test two threads on two cores mostly wait for each other: 186 s for 5.
class OneThread {
 public:
  OneThread() : threads_(torch::get_num_threads()) { torch::set_num_threads(1); }
  ~OneThread() { torch::set_num_threads(threads_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int threads_;
};

bool has_onednn() {
  ModelFile model({2});
  model.relu(0);
  const TemporaryPath path("probe.safetensors");
  model.save(path.get());
  return Model::load(path.get()).dense_library() != "built-in";
}

TEST(FloatOperators, AreLibTorchsOnSpecialValues) {
  std::vector<std::string> libraries{"builtin"};
  if (has_onednn()) {
    libraries.insert(libraries.end(), {"onednn", "onednn-bf16-pairs"});
  }
  const OneThread one;
  const unsigned first = static_cast<unsigned>(run_seed());
  const char* const isa = std::getenv("ONEDNN_MAX_CPU_ISA");
  std::printf("ONEDNN_MAX_CPU_ISA=%s\n", isa == nullptr ? "(not set)" : isa);
  std::map<std::string, std::size_t> tensors_of;
  std::size_t values = 0, in_pairs = 0;
  for (unsigned seed = first; seed != first + kCases; ++seed) {
    const FloatCase test_case = random_float_case(seed);
    SCOPED_TRACE("case " + std::to_string(seed) + ": " + test_case.what);
    std::mt19937 generator(seed);
    std::vector<std::vector<float>> inputs(kInputsPerCase);
    std::vector<Expected> in_fp32, with_pairs;
    for (std::vector<float>& x : inputs) {
      x = random_special_values(test_case.inputs(), generator);
      in_fp32.push_back(libtorch_result(test_case, as_tensor(test_case, x), {}));
    }
    const TemporaryPath path("case.safetensors");
    test_case.model.save(path.get());
    for (const std::string& library : libraries) {
      SCOPED_TRACE(library);
      ::setenv("TRIT_DENSE", library.c_str(), 1);
      const FlushDenormals scope(seed % 4 == 0);
      const Model model = Model::load(path.get(), {.threads = seed % 8 == 0 ? 2 : 1});
      ::unsetenv("TRIT_DENSE");
      const bool pairs = model.dense_library().ends_with("bf16 pairs");
      in_pairs += pairs ? 1 : 0;
      for (std::size_t i = 0; i < inputs.size(); ++i) {
        const std::vector<float> y = model.run(inputs[i], test_case.batch);
        Expected wanted = in_fp32[i];
        if (pairs) {  // bf16_pairs.h
          const FlushDenormals off(false);
          wanted = libtorch_result(
              test_case, as_tensor(test_case, inputs[i]),
              {.product_error = 3 * std::ldexp(1.0, -16), .underflow = std::ldexp(1.0, -126)});
        }
        ASSERT_TRUE(agrees(wanted, y)) << "input " << i;
        values += y.size();
      }
    }
    tensors_of[test_case.what] += kInputsPerCase;
  }
  for (const auto& [what, tensors] : tensors_of) {
    std::printf("%7zu tensors: %s\n", tensors, what.c_str());
  }
  std::printf("%zu tensors in %zu cases, %zu libraries, %zu cases in bf16 pairs, %zu values compared\n",
              kCases * kInputsPerCase, kCases, libraries.size(), in_pairs, values);
}

}  // namespace
}  // namespace trit::test
