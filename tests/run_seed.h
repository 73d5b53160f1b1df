// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>

namespace trit::test {

/// TRIT_TEST_SEED, or a new one each run: the first test that asks prints it.
inline std::uint64_t run_seed() {
  static const std::uint64_t seed = [] {
    const char* const text = std::getenv("TRIT_TEST_SEED");
    const std::uint64_t value = text != nullptr ? std::strtoull(text, nullptr, 10) : std::random_device{}();
    std::printf("TRIT_TEST_SEED=%llu\n", static_cast<unsigned long long>(value));
    return value;
  }();
  return seed;
}

}  // namespace trit::test
