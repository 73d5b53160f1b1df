// SPDX-License-Identifier: MIT
//
// The persistent Hopper GEMM with group scales: one row block per consumer warpgroup, since the sums of a group and
// those over the groups are both in registers. Tiles of 128 rows have two consumer warpgroups, those of 64 rows
// one, with two sets of sums.
#include <array>

#include "cuda/gemm_sm90/persistent.cuh"

namespace trit::cuda {
namespace {

/// kWarpgroups of 64 rows. One takes four tiles of k a stage, at whose end all its wgmma are waited for.
template <int kWarpgroups, int kTokens, int kSegments, bool kGeneral>
using GroupTile = Tile<1, kTokens, kWarpgroups == 1 ? 4 : 1, GroupOperand<kSegments, kGeneral>, kWarpgroups>;

}  // namespace

std::span<const GemmSm90Instance> gemm_sm90_groups(int segments, bool general) {
  static constexpr std::array<GemmSm90Instance, 7> kTiles = {{
      persistent_instance<GroupTile<2, 160, 1, false>>(),
      persistent_instance<GroupTile<2, 128, 1, false>>(),
      persistent_instance<GroupTile<2, 64, 1, false>>(),
      persistent_instance<GroupTile<2, 32, 1, false>>(),
      persistent_instance<GroupTile<1, 64, 1, false>>(),
      persistent_instance<GroupTile<1, 32, 1, false>>(),
      persistent_instance<GroupTile<1, 16, 1, false>>(),
  }};
  static constexpr std::array<GemmSm90Instance, 4> kHalfTiles = {{
      persistent_instance<GroupTile<2, 128, 2, false>>(),
      persistent_instance<GroupTile<2, 32, 2, false>>(),
      persistent_instance<GroupTile<1, 64, 2, false>>(),
      persistent_instance<GroupTile<1, 32, 2, false>>(),
  }};
  static constexpr std::array<GemmSm90Instance, 4> kGeneralTiles = {{
      persistent_instance<GroupTile<2, 128, 1, true>>(),
      persistent_instance<GroupTile<2, 64, 1, true>>(),
      persistent_instance<GroupTile<1, 64, 1, true>>(),
      persistent_instance<GroupTile<1, 32, 1, true>>(),
  }};
  static constexpr std::array<GemmSm90Instance, 2> kGeneralParts = {{
      persistent_instance<GroupTile<2, 64, 4, true>>(),
      persistent_instance<GroupTile<1, 32, 4, true>>(),
  }};
  if (general || segments == 4) {
    return segments == 1 ? std::span<const GemmSm90Instance>(kGeneralTiles) : kGeneralParts;
  }
  return segments == 1 ? std::span<const GemmSm90Instance>(kTiles) : kHalfTiles;
}

}  // namespace trit::cuda
