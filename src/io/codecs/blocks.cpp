// SPDX-License-Identifier: MIT
#include "io/codecs/blocks.h"

#include <array>

namespace trit::io {

std::span<const BlockFormat* const> block_formats() {
  static constexpr std::array<const BlockFormat*, 5> kFormats{&kTq1_0, &kTq2_0, &kQ2_0, &kPq2_0, &kPtq1_0};
  return kFormats;
}

}  // namespace trit::io
