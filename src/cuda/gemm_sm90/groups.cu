// SPDX-License-Identifier: MIT
//
// The tiles of the persistent Hopper GEMM for float16 group scales, and the general ones for every other case.
#include "cuda/gemm_sm90/group_tiles.cuh"

namespace trit::cuda {

std::span<const GemmSm90Instance> gemm_sm90_groups(int segments, GroupScales scales) {
  constexpr GroupScales kHalf = GroupScales::float16;
  static constexpr std::array<GemmSm90Instance, 10> kTiles = {{
      persistent_instance<GroupTile<kHalf, 192, 1, 3>>(),
      persistent_instance<GroupTile<kHalf, 160, 1, 2>>(),
      persistent_instance<GroupTile<kHalf, 128, 1, 2>>(),
      persistent_instance<GroupTile<kHalf, 112, 1>>(),
      persistent_instance<GroupTile<kHalf, 96, 1>>(),
      persistent_instance<GroupTile<kHalf, 64, 1>>(),
      persistent_instance<GroupTile<kHalf, 32, 1>>(),
      persistent_instance<SharedTile<kHalf, 64, 1>>(),
      persistent_instance<SharedTile<kHalf, 32, 1>>(),
      persistent_instance<SharedTile<kHalf, 16, 1>>(),
  }};
  static constexpr std::array<GemmSm90Instance, 7> kTwoSegments = {{
      persistent_instance<GroupTile<kHalf, 160, 2, 2>>(),
      persistent_instance<GroupTile<kHalf, 128, 2, 2>>(),
      persistent_instance<GroupTile<kHalf, 96, 2>>(),
      persistent_instance<GroupTile<kHalf, 64, 2>>(),
      persistent_instance<GroupTile<kHalf, 32, 2>>(),
      persistent_instance<SharedTile<kHalf, 32, 2>>(),
      persistent_instance<SharedTile<kHalf, 16, 2>>(),
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
  if (scales == GroupScales::any || segments == 4) {
    return segments == 1 ? std::span<const GemmSm90Instance>(kGeneralTiles) : kGeneralParts;
  }
  if (scales == GroupScales::float32) {
    return gemm_sm90_groups_float32(segments);
  }
  return segments == 1 ? std::span<const GemmSm90Instance>(kTiles) : kTwoSegments;
}

}  // namespace trit::cuda
