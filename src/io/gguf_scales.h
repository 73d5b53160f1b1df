// SPDX-License-Identifier: MIT
//
// The scales of ggml's blocks: float16, one per block. A matrix with a scale per tensor, row or group of inputs
// fits if the weights of each block have one scale; weights that are 0 have any.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "io/codecs/blocks.h"
#include "io/scale_rows.h"
#include "io/write_plan.h"

namespace trit::io {

class BlockScales {
 public:
  /// Looks at all scales of the matrix. Throws Error, naming tensor, row and columns, for a block with two
  /// scales, and for a scale that float16 makes 0 or infinite; warns of those below float16's normal range,
  /// which lose more than the 2^-11 of a rounding.
  BlockScales(const WritePlan& plan, const PlannedTensor& planned, const BlockFormat& format);

  std::int64_t blocks() const { return blocks_; }
  /// d [rows, blocks()] of rows with these packed codes.
  void read(std::int64_t first_row, std::int64_t rows, std::span<const std::uint8_t> packed,
            std::span<std::uint16_t> d) const;

 private:
  struct Loss;
  struct Conflict;
  void check_groups(Loss& loss) const;
  void check_fixed(Loss& loss);
  void warn(const Loss& loss) const;
  std::optional<Conflict> block_floats(std::span<const float> groups, std::span<const std::uint8_t> codes,
                                       std::span<float> floats) const;
  [[noreturn]] void fail(float scale, const std::string& where) const;

  const WritePlan& plan_;
  const PlannedTensor& planned_;
  const BlockFormat& format_;
  ScaleRows scales_;
  std::int64_t blocks_;
  std::vector<std::uint16_t> fixed_;  // without groups: [1] or [N]
};

}  // namespace trit::io
