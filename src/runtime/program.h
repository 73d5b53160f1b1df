// SPDX-License-Identifier: MIT
//
// A schedule made ready for one batch size: compiled segments, ternary layers, and one memory plan for all
// values between them. Immutable; every run brings its own arena.
#pragma once

#include <cstddef>
#include <memory>
#include <variant>
#include <vector>

#include "runtime/dense.h"
#include "trit/linear.h"

namespace trit::runtime {

/// A ternary layer prepared for this machine.
struct TernaryLayer {
  PackedLinear weight;
  Norm norm;
  float eps;
  std::vector<float> norm_weight;  // [K] or empty
  std::vector<float> bias;         // [N] or empty
};

/// What all programs of a model share. The layers are indexed by node; null for nodes that are not ternary.
struct ProgramContext {
  const Network& network;
  const Schedule& schedule;
  const std::vector<std::unique_ptr<TernaryLayer>>& layers;
  Parallel& parallel;
};

class Program {
 public:
  Program(const ProgramContext& context, DenseLibrary& library, std::int64_t batch);

  /// Bytes of working memory of one run.
  std::size_t arena_bytes() const { return arena_bytes_; }
  /// x [batch, input] -> y [batch, output]; `arena` is aligned to 64 bytes.
  void run(const float* x, float* y, std::byte* arena) const;

 private:
  struct DenseRun {
    std::unique_ptr<CompiledSegment> segment;
    std::vector<std::size_t> inputs, outputs;  // values
    std::size_t scratch;                       // index of its buffer
  };
  struct TernaryRun {
    const TernaryLayer* layer;
    std::size_t input, output;  // values
    bool relu;
    std::int64_t rows;
    std::size_t q, scale, q_sum;  // indexes of its buffers
  };

  void run_ternary(const TernaryRun& step, const float* x, float* y, std::byte* arena) const;

  ProgramContext context_;
  std::int64_t batch_;
  std::vector<std::variant<DenseRun, TernaryRun>> steps_;
  std::vector<std::size_t> buffer_of_value_;  // by node
  std::vector<std::size_t> offsets_;          // by buffer
  std::size_t arena_bytes_ = 0;
};

}  // namespace trit::runtime
