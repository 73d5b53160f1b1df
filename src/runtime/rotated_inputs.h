// SPDX-License-Identifier: MIT
//
// The rotation of a model file (metadata "trit.hadamard", docs/format.md), matrix by matrix.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "trit/io.h"
#include "trit/rotation.h"

namespace trit::runtime {

/// That of one matrix; none where block is 0.
struct RotatedInputs {
  std::int64_t block = 0;
  std::vector<std::int8_t> signs;  // one per input; empty: all +1

  explicit operator bool() const { return block != 0; }
  Rotation view() const { return {block, signs.empty() ? nullptr : signs.data()}; }
};

/// Which of a file's two lists of matrices.
enum class Rotated : std::uint8_t { weights, look_ups };

/// Gives each node its part, and finds matrices that no node rotates.
class ModelRotation {
 public:
  /// Throws Error, starting with `file` and naming the key, for metadata that are no rotation, or ask for more
  /// than is computed here.
  ModelRotation(const io::Metadata& metadata, std::string file);

  /// Of the matrix `name`, whose rows have `width` inputs. Throws Error, starting with `what`, unless it fits.
  RotatedInputs take(Rotated list, const std::string& name, std::int64_t width, const std::string& what);
  /// Throws Error naming a matrix of the lists that nobody asked for: without its rotation the results would
  /// be wrong.
  void check_all_taken() const;

 private:
  std::string file_;
  std::optional<io::Rotation> rotation_;
  std::set<std::string, std::less<>> left_[2];
};

}  // namespace trit::runtime
