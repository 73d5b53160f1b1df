// SPDX-License-Identifier: MIT
//
// A network made ready for a CPU and one batch size. Immutable; every run brings its own arena.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "runtime/fusion.h"
#include "runtime/planned_steps.h"
#include "trit/parallel.h"

namespace trit::runtime {

class DenseLibrary;

/// An activation: floats [batch, channels / inner, height, width, inner], the last block of channels filled
/// with zeros. Row-major values have inner = 1, channels-last ones inner = channels, and blocked ones
/// (oneDNN's nChw16c) inner = 16. What is no image is row-major.
struct Value {
  Shape shape;  // [batch, channels, height, width]; the batch first, whatever the rank
  std::int64_t inner = 1;
  std::size_t buffer = 0;

  /// Blocks of channels.
  std::int64_t blocks() const { return (shape[1] + inner - 1) / inner; }
  /// Floats, the zeros of the last block included.
  std::int64_t size() const;
};

/// What all programs of a model share.
struct ProgramParts {
  const Network& network;
  std::span<const Step> steps;
  DenseLibrary& dense;
  Parallel& parallel;
};

class Program {
 public:
  Program(const ProgramParts& parts, std::int64_t batch);

  /// Bytes of working memory of one run.
  std::size_t arena_bytes() const { return steps_.arena_bytes(); }
  /// x [batch, input] -> y [batch, output]; `arena` is aligned to 64 bytes.
  void run(const float* x, float* y, std::byte* arena) const;

 private:
  friend class ProgramBuilder;
  PlannedSteps steps_;
  std::size_t input_ = 0, output_ = 0;  // buffers
  bool uses_openmp_ = false;
};

/// What an operator's lower() adds to a program with.
class ProgramBuilder {
 public:
  ProgramBuilder(Program& program, const ProgramParts& parts, std::int64_t batch);
  void build();

  std::int64_t batch() const { return batch_; }
  Parallel& parallel() const { return parts_.parallel; }
  /// An input of the step's operator.
  const Value& input(const Step& step, std::size_t index = 0) const;
  /// The shape of a node's value, with the batch in front.
  Shape shape(std::size_t node) const;
  /// The step's pool; null if it has none.
  const Pool* pool_of(const Step& step) const;
  /// Whether the readers of a node's value all want it row-major, the model's output included.
  bool read_as_rows(std::size_t node) const;

  Value new_value(Shape shape, std::int64_t inner = 1);
  std::size_t new_buffer(std::size_t bytes) { return program_.steps_.add_buffer(bytes); }
  /// Adds a step that reads and writes these buffers.
  void add(std::span<const std::size_t> buffers, PlannedSteps::Function step) {
    program_.steps_.add(buffers, std::move(step));
  }
  void add(std::initializer_list<std::size_t> buffers, PlannedSteps::Function step) {
    add(std::span(buffers.begin(), buffers.size()), std::move(step));
  }
  /// A step runs on threads of OpenMP that this library has not started.
  void note_openmp() { program_.uses_openmp_ = true; }

  /// The value with another `inner`: itself, or reordered.
  Value in_order(const Value& value, std::int64_t inner);
  Value as_rows(const Value& value) { return in_order(value, 1); }

 private:
  Value activate(const Step& step, const Value& value, bool in_place);
  Value add_relu(const Value& value, bool in_place);
  Value add_pool(const Step& step, const Value& value);
  void bring_out(const Value& value);

  Program& program_;
  const ProgramParts& parts_;
  const std::vector<Node>& nodes_;
  std::int64_t batch_;
  std::vector<Value> values_;  // by node
};

}  // namespace trit::runtime
