// SPDX-License-Identifier: MIT
//
// The persistent Hopper GEMM with 128 output rows: one row block per consumer warpgroup. Registers a thread:
// 168 at launch; setmaxnreg makes that 232 for consumers and 40 for producers.
#include <array>

#include "cuda/gemm_sm90/persistent.cuh"

namespace trit::cuda {

std::span<const GemmSm90Instance> gemm_sm90_persistent_128() {
  static constexpr std::array<GemmSm90Instance, 6> kInstances = {{
      persistent_instance<Tile<1, 256, 1>>(),
      persistent_instance<Tile<1, 192, 1>>(),
      persistent_instance<Tile<1, 160, 1>>(),
      persistent_instance<Tile<1, 128, 1>>(),
      persistent_instance<Tile<1, 96, 1>>(),
      persistent_instance<Tile<1, 64, 1>>(),
  }};
  return kInstances;
}

}  // namespace trit::cuda
