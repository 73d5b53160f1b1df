// SPDX-License-Identifier: MIT
//
// The persistent Hopper GEMM of 16-bit float tokens, for the backward of a layer.
#include <array>

#include "cuda/gemm_sm90/persistent.cuh"

namespace trit::cuda {
namespace {

template <DataType kType>
std::span<const GemmSm90Instance> instances() {
  using Operand = FloatOperand<kType>;
  static constexpr std::array<GemmSm90Instance, 3> kInstances = {{
      persistent_instance<Tile<2, 128, 1, Operand>>(),
      persistent_instance<Tile<1, 192, 1, Operand>>(),
      persistent_instance<Tile<1, 128, 1, Operand>>(),
  }};
  return kInstances;
}

}  // namespace

std::span<const GemmSm90Instance> gemm_sm90_float(DataType type) {
  return type == DataType::bfloat16 ? instances<DataType::bfloat16>() : instances<DataType::float16>();
}

}  // namespace trit::cuda
