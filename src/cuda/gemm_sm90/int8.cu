// SPDX-License-Identifier: MIT
//
// The persistent Hopper GEMM of int8 and int8, for the 8-bit gradient of a layer's weight.
#include <array>

#include "cuda/gemm_sm90/persistent.cuh"

namespace trit::cuda {

std::span<const GemmSm90Instance> gemm_sm90_int8() {
  using Operand = PlainInt8Operand;
  static constexpr std::array<GemmSm90Instance, 4> kInstances = {{
      persistent_instance<Tile<1, 256, 1, Operand>>(),
      persistent_instance<Tile<2, 128, 1, Operand>>(),
      persistent_instance<Tile<1, 192, 1, Operand>>(),
      persistent_instance<Tile<1, 128, 1, Operand>>(),
  }};
  return kInstances;
}

}  // namespace trit::cuda
