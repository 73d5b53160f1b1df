// SPDX-License-Identifier: MIT
//
// The tiles of the persistent Hopper GEMM with group scales (groups.cuh).
#include <array>

#include "cuda/gemm_sm90/persistent.cuh"

namespace trit::cuda {
namespace {

/// Two warpgroups of 64 rows, which take the tokens in kPieces (groups_ahead.cuh). They wait for all wgmma at the end of a
/// stage: four tiles of k, or two where three stages would not fit.
template <int kTokens, int kSegments, int kPieces = 1>
using GroupTile = Tile<1, kTokens, (kTokens > 96 ? 2 : 4), GroupOperand<kSegments, false>, 2, 1, kPieces>;
/// For any scales: kWarpgroups of 64 rows.
template <int kWarpgroups, int kTokens, int kSegments>
using GeneralTile = Tile<1, kTokens, 4, GroupOperand<kSegments, true>, kWarpgroups>;
/// Two warpgroups that share the k of 64 rows (groups_shared.cuh).
template <int kTokens, int kSegments>
using SharedTile = Tile<1, kTokens, 4, GroupOperand<kSegments, false>, 1, 2>;

}  // namespace

std::span<const GemmSm90Instance> gemm_sm90_groups(int segments, bool general) {
  static constexpr std::array<GemmSm90Instance, 10> kTiles = {{
      persistent_instance<GroupTile<192, 1, 3>>(),
      persistent_instance<GroupTile<160, 1, 2>>(),
      persistent_instance<GroupTile<128, 1, 2>>(),
      persistent_instance<GroupTile<112, 1>>(),
      persistent_instance<GroupTile<96, 1>>(),
      persistent_instance<GroupTile<64, 1>>(),
      persistent_instance<GroupTile<32, 1>>(),
      persistent_instance<SharedTile<64, 1>>(),
      persistent_instance<SharedTile<32, 1>>(),
      persistent_instance<SharedTile<16, 1>>(),
  }};
  static constexpr std::array<GemmSm90Instance, 7> kHalfTiles = {{
      persistent_instance<GroupTile<160, 2, 2>>(),
      persistent_instance<GroupTile<128, 2, 2>>(),
      persistent_instance<GroupTile<96, 2>>(),
      persistent_instance<GroupTile<64, 2>>(),
      persistent_instance<GroupTile<32, 2>>(),
      persistent_instance<SharedTile<32, 2>>(),
      persistent_instance<SharedTile<16, 2>>(),
  }};
  static constexpr std::array<GemmSm90Instance, 3> kGeneralTiles = {{
      persistent_instance<GeneralTile<2, 64, 1>>(),
      persistent_instance<GeneralTile<1, 64, 1>>(),
      persistent_instance<GeneralTile<1, 32, 1>>(),
  }};
  static constexpr std::array<GemmSm90Instance, 2> kGeneralParts = {{
      persistent_instance<GeneralTile<2, 64, 4>>(),
      persistent_instance<GeneralTile<1, 32, 4>>(),
  }};
  if (general || segments == 4) {
    return segments == 1 ? std::span<const GemmSm90Instance>(kGeneralTiles) : kGeneralParts;
  }
  return segments == 1 ? std::span<const GemmSm90Instance>(kTiles) : kHalfTiles;
}

}  // namespace trit::cuda
