// SPDX-License-Identifier: MIT
//
// Random graphs of float operations, and inputs with NaN, infinities, -0.0 and denormals. Free of LibTorch:
// tests/torch/float_operators.h runs them against it.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "runtime/model_file.h"

namespace trit::test {

/// A graph and its input's size.
struct FloatCase {
  unsigned seed;
  std::string what;  // "conv2d relu max_pool2d"
  ModelFile model;
  std::int64_t batch;

  std::size_t inputs() const;  // of the whole batch
};

/// The same case for the same seed. Every operator alone, and the chains that a library fuses: a convolution
/// or linear layer, ReLU, pool; sums; flattened; a ternary layer with its ReLU.
FloatCase random_float_case(unsigned seed);

/// Values around 1, and among them as many special ones as the tensor's kind has: none, one, some or most.
/// Finite values are small enough that no sum of a case overflows.
std::vector<float> random_special_values(std::size_t count, std::mt19937& generator);

}  // namespace trit::test
