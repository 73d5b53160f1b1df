// SPDX-License-Identifier: MIT
//
// The Hopper GEMM with K split over a cluster.
#include "cuda/gemm_sm90/split.cuh"

#include <array>

namespace trit::cuda {

std::span<const GemmSm90Instance> gemm_sm90_split() {
  static constexpr std::array<GemmSm90Instance, 7> kInstances = {{
      split_instance<Tile<1, 32, kSplitStepTiles>>(),
      split_instance<Tile<1, 64, kSplitStepTiles>>(),
      split_instance<Tile<1, 96, kSplitStepTiles>>(),
      split_instance<Tile<1, 128, kSplitStepTiles>>(),
      split_instance<Tile<2, 32, kSplitStepTiles>>(),
      split_instance<Tile<2, 64, kSplitStepTiles>>(),
      split_instance<Tile<2, 96, kSplitStepTiles>>(),
  }};
  return kInstances;
}

}  // namespace trit::cuda
