// SPDX-License-Identifier: MIT
//
// The tiles of the persistent Hopper GEMM with float32 group scales, which layers in training have.
#include "cuda/gemm_sm90/group_tiles.cuh"

namespace trit::cuda {

std::span<const GemmSm90Instance> gemm_sm90_groups_float32(int segments) {
  constexpr GroupScales kSingle = GroupScales::float32;
  static constexpr std::array<GemmSm90Instance, 9> kTiles = {{
      persistent_instance<GroupTile<kSingle, 192, 1, 3>>(),
      persistent_instance<GroupTile<kSingle, 160, 1, 2>>(),
      persistent_instance<GroupTile<kSingle, 128, 1, 2>>(),  // 112 without pieces would spill
      persistent_instance<GroupTile<kSingle, 96, 1>>(),
      persistent_instance<GroupTile<kSingle, 64, 1>>(),
      persistent_instance<GroupTile<kSingle, 32, 1>>(),
      persistent_instance<SharedTile<kSingle, 64, 1>>(),
      persistent_instance<SharedTile<kSingle, 32, 1>>(),
      persistent_instance<SharedTile<kSingle, 16, 1>>(),
  }};
  static constexpr std::array<GemmSm90Instance, 6> kTwoSegments = {{
      persistent_instance<GroupTile<kSingle, 160, 2, 2>>(),
      persistent_instance<GroupTile<kSingle, 128, 2, 2>>(),
      persistent_instance<GroupTile<kSingle, 64, 2>>(),
      persistent_instance<GroupTile<kSingle, 32, 2>>(),
      persistent_instance<SharedTile<kSingle, 32, 2>>(),
      persistent_instance<SharedTile<kSingle, 16, 2>>(),
  }};
  return segments == 1 ? std::span<const GemmSm90Instance>(kTiles) : kTwoSegments;
}

}  // namespace trit::cuda
