// SPDX-License-Identifier: MIT
#include <array>

#include "runtime/ops/operator.h"
#include "runtime/program.h"
#ifdef TRIT_HAVE_CUDA
#include "runtime/cuda/program.h"
#else
namespace trit::runtime::gpu {
struct Result {};
}  // namespace trit::runtime::gpu
#endif

namespace trit::runtime {

extern const OperatorType kAdd, kAvgPool2d, kBatchNorm, kBitLinear, kConv2d, kEmbedding, kFlatten, kGelu,
    kLinear, kMaxPool2d, kRelu;

std::span<const OperatorType* const> operator_types() {
  static constexpr std::array<const OperatorType*, 11> kTypes{&kConv2d,    &kLinear, &kBitLinear, &kEmbedding,
                                                              &kBatchNorm, &kRelu,   &kGelu,      &kMaxPool2d,
                                                              &kAvgPool2d, &kAdd,    &kFlatten};
  return kTypes;
}

Value Operator::lower_on_cpu(ProgramBuilder& builder, Step& step) const { return builder.input(step); }

#ifdef TRIT_HAVE_CUDA
gpu::Result Operator::lower_on_gpu(gpu::ProgramBuilder& builder, Step& step) const {
  return {.buffer = builder.input(step)};
}
#else
gpu::Result Operator::lower_on_gpu(gpu::ProgramBuilder& /*builder*/, Step& /*step*/) const { return {}; }
#endif

}  // namespace trit::runtime
