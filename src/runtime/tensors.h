// SPDX-License-Identifier: MIT
//
// Tensors of a model file, checked against what their node wants.
#pragma once

#include <set>
#include <span>
#include <string>
#include <vector>

#include "runtime/graph.h"
#include "trit/io.h"
#include "trit/safetensors.h"

namespace trit::runtime {

/// The tensors of one file; remembers which were asked for.
class Tensors {
 public:
  explicit Tensors(const io::SafetensorsFile& file) : file_(file) {}

  /// F32, F16 or BF16 to float. Throws Error, starting with `what`, if it is missing, of another dtype or
  /// shape, or holds NaN or an infinity. A shape in `wanted` may leave dimensions open with -1.
  std::vector<float> floats(const std::string& name, const Shape& wanted, const std::string& what);
  /// The same; empty if the file has no such tensor.
  std::vector<float> optional_floats(const std::string& name, const Shape& wanted, const std::string& what);
  /// Packed codes of rows of `in` weights: the bytes of a U8 tensor [rows, packed_row_bytes(in)].
  std::span<const std::uint8_t> codes(const std::string& name, std::int64_t in, const std::string& what);
  /// Float32 [1] or [rows], as stored: the scales belong to the bit contract, so no other type will do.
  std::vector<float> scales(const std::string& name, std::int64_t rows, const std::string& what);

  /// The tensor, checked for presence alone.
  const io::TensorView& at(const std::string& name, const std::string& what);
  /// Bytes in the file; 0 if absent.
  std::size_t stored_bytes(const std::string& name) const;
  /// Throws Error naming a tensor that nobody asked for: a damaged or foreign name.
  void check_all_used() const;

 private:
  const io::SafetensorsFile& file_;
  std::set<std::string, std::less<>> used_;
};

/// The same questions to a checkpoint, answered by types and shapes: what is read stays empty.
class TensorHeaders {
 public:
  explicit TensorHeaders(const io::Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  std::vector<float> floats(const std::string& name, const Shape& wanted, const std::string& what);
  std::vector<float> optional_floats(const std::string& name, const Shape& wanted, const std::string& what);
  std::span<const std::uint8_t> codes(const std::string& name, std::int64_t in, const std::string& what);
  /// A ternary matrix of a checkpoint has its scale.
  std::vector<float> scales(const std::string&, std::int64_t, const std::string&) { return {}; }

  const io::TensorInfo& at(const std::string& name, const std::string& what);
  std::size_t stored_bytes(const std::string&) const { return 0; }
  void check_all_used() const;

 private:
  const io::Checkpoint& checkpoint_;
  std::set<std::string, std::less<>> used_;
};

}  // namespace trit::runtime
