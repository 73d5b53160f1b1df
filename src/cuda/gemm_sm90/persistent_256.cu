// SPDX-License-Identifier: MIT
//
// The persistent Hopper GEMM with 256 output rows: two row blocks per consumer warpgroup. Registers a thread:
// 168 at launch; setmaxnreg makes that 232 for consumers and 40 for producers.
#include <array>

#include "cuda/gemm_sm90/persistent.cuh"

namespace trit::cuda {

std::span<const GemmSm90Instance> gemm_sm90_persistent_256() {
  static constexpr std::array<GemmSm90Instance, 5> kInstances = {{
      persistent_instance<Tile<2, 128, 1>>(),
      persistent_instance<Tile<2, 112, 1>>(),
      persistent_instance<Tile<2, 96, 1>>(),
      persistent_instance<Tile<2, 80, 1>>(),
      persistent_instance<Tile<2, 64, 1>>(),
  }};
  return kInstances;
}

}  // namespace trit::cuda
