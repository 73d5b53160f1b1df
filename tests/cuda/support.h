// SPDX-License-Identifier: MIT
//
// What the tests of src/cuda share. They are written against trit/cuda.h and device memory, and built twice:
// with the emulator (everywhere), and for a GPU (TRIT_TEST_ON_GPU), where device memory is real and policies
// mean nothing.
#pragma once

#include <algorithm>
#include <climits>
#include <cstdlib>

#include "cpu/support.h"
#include "trit/cuda.h"
#include "trit/error.h"

#if defined(TRIT_TEST_ON_GPU)
#include "cuda/gpu_array.h"
#else
#include "cuda/emulator/emulator.h"
#include "cuda/emulator/guarded_memory.h"
#endif

namespace trit::test {

#if defined(TRIT_TEST_ON_GPU)
inline void use_policy(std::int64_t /*i*/) {}
/// The limits of the GPU at hand.
inline cuda::Device largest_device() { return cuda::device_info(0); }
#else
template <typename Value>
using DeviceArray = emulator::DeviceArray<Value>;
/// The i-th case runs under one policy of the emulator.
inline void use_policy(std::int64_t i) {
  const auto policies = emulator::all_policies();
  emulator::Policy policy = policies[static_cast<std::size_t>(i) % policies.size()];
  policy.seed += static_cast<std::uint64_t>(i);
  emulator::set_policy(policy);
}
inline cuda::Device largest_device() {
  return {.compute_capability = 90, .multiprocessors = 132, .shared_bytes = 232448};
}
#endif

/// What a device array holds, on the host.
template <typename Value>
std::vector<Value> values_of(const DeviceArray<Value>& array) {
  EXPECT_TRUE(array.intact()) << "a kernel wrote outside of an array";
#if defined(TRIT_TEST_ON_GPU)
  return array.host();
#else
  return {array.data(), array.data() + array.size()};
#endif
}

class CudaTest : public testing::Test {
 protected:
  CudaTest() {
    const testing::TestInfo& info = *testing::UnitTest::GetInstance()->current_test_info();
    std::seed_seq sequence{run_seed(), static_cast<std::uint64_t>(std::hash<std::string>{}(
                                           std::string(info.name()) + info.test_suite_name()))};
    random_.seed(sequence);
  }
  /// How many cases the test had; one without rounds is itself one case.
  void TearDown() override {
    EXPECT_TRUE(cases_ > 0 || !has_rounds_ || IsSkipped()) << "the test has rounds, and none had a case";
    const long long cases = cases_ > 0 ? cases_ : 1;
    std::printf("%lld case%s\n", cases, cases == 1 ? "" : "s");
  }

  /// Uniform in [low, high].
  std::int64_t uniform(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random_);
  }
  float normal() { return std::normal_distribution<float>()(random_); }
  /// A size at which something ends: near a multiple of `tile`, or any up to `largest`.
  std::int64_t size_near(std::int64_t tile, std::int64_t largest) {
    const std::int64_t near = uniform(0, largest / tile) * tile + uniform(-1, 1);
    return uniform(0, 1) == 0 ? std::min(std::max<std::int64_t>(near, 1), largest) : uniform(1, largest);
  }

  /// How many cases a test runs. TRIT_TEST_ROUNDS makes it fewer, for compute-sanitizer; TRIT_TEST_FACTOR
  /// more.
  int rounds(int wanted) {
    has_rounds_ = true;
    const auto number = [](const char* name, int otherwise) {
      const char* text = std::getenv(name);
      return text != nullptr ? std::max(static_cast<int>(std::strtol(text, nullptr, 10)), 1) : otherwise;
    };
    return std::min(wanted * number("TRIT_TEST_FACTOR", 1), number("TRIT_TEST_ROUNDS", INT_MAX));
  }

  std::vector<float> normals(std::int64_t count) {
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& v : values) {
      v = normal();
    }
    return values;
  }

  std::mt19937_64 random_;
  std::int64_t cases_ = 0;

 private:
  bool has_rounds_ = false;
};

}  // namespace trit::test
