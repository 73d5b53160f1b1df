// SPDX-License-Identifier: MIT
//
// What products with group scales need besides panels and q.
#pragma once

#include <cstdint>
#include <memory>

#include "cpu/generic/product.h"

namespace trit::generic {

/// Whether the layout has a GroupKernel for this size of groups that gives the contract's bits for these
/// scales: one that multiplies them by powers of two does, unless a scale is very small or large.
bool has_group_kernel(const Product& args);

/// GroupKernel::offsets of all tokens.
class GroupOffsets {
 public:
  GroupOffsets(Parallel& parallel, const Product& args);

  /// Between tokens.
  std::int64_t stride() const { return stride_; }
  const std::int32_t* of(std::int64_t token, std::int64_t group) const {
    return offsets_.get() + token * stride_ + group * count_;
  }

 private:
  std::int64_t count_;
  std::int64_t stride_;
  std::unique_ptr<std::int32_t[]> offsets_;
};

/// The weight scales of a panel from a group on.
PanelScales scales_of(const Product& args, std::int64_t panel, std::int64_t group);
/// The token's scale of a group, 1 where the token has one scale.
float token_scale_of(const Product& args, std::int64_t token, std::int64_t group);

/// Bytes of a prepared scale.
inline std::int64_t scale_bytes(DataType type) { return static_cast<std::int64_t>(size_of(type)); }

}  // namespace trit::generic
