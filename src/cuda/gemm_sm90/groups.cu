// SPDX-License-Identifier: MIT
//
// The persistent Hopper GEMM with group scales: one row block per consumer warpgroup, since the sums of a group and
// those over the groups are both in registers.
#include <array>

#include "cuda/gemm_sm90/persistent.cuh"

namespace trit::cuda {
namespace {

template <int kTokens, int kSegments, bool kGeneral>
using GroupTile = Tile<1, kTokens, 1, GroupOperand<kSegments, kGeneral>>;

}  // namespace

std::span<const GemmSm90Instance> gemm_sm90_groups(int segments, bool general) {
  static constexpr std::array<GemmSm90Instance, 4> kTiles = {{
      persistent_instance<GroupTile<160, 1, false>>(),
      persistent_instance<GroupTile<128, 1, false>>(),
      persistent_instance<GroupTile<64, 1, false>>(),
      persistent_instance<GroupTile<32, 1, false>>(),
  }};
  static constexpr std::array<GemmSm90Instance, 2> kHalfTiles = {{
      persistent_instance<GroupTile<128, 2, false>>(),
      persistent_instance<GroupTile<32, 2, false>>(),
  }};
  static constexpr std::array<GemmSm90Instance, 2> kGeneralTiles = {{
      persistent_instance<GroupTile<128, 1, true>>(),
      persistent_instance<GroupTile<64, 1, true>>(),
  }};
  static constexpr std::array<GemmSm90Instance, 1> kGeneralParts = {{
      persistent_instance<GroupTile<64, 4, true>>(),
  }};
  if (general || segments == 4) {
    return segments == 1 ? std::span<const GemmSm90Instance>(kGeneralTiles) : kGeneralParts;
  }
  return segments == 1 ? std::span<const GemmSm90Instance>(kTiles) : kHalfTiles;
}

}  // namespace trit::cuda
