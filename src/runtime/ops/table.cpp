// SPDX-License-Identifier: MIT
#include <array>
#include <stdexcept>
#include <string>

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

namespace {

// Whoever builds the program adds them (operator.h). Any other operator without code would hand its input on as
// if it were the result.
void check_is_added_later(const Operator& found, const char* function) {
  if (!found.is_relu() && found.pool() == nullptr) {
    throw std::logic_error(std::string("an operator of src/runtime/ops lacks ") + function);
  }
}

}  // namespace

Value Operator::lower_on_cpu(ProgramBuilder& builder, Step& step) const {
  check_is_added_later(*this, "lower_on_cpu()");
  return builder.input(step);
}

#ifdef TRIT_HAVE_CUDA
gpu::Result Operator::lower_on_gpu(gpu::ProgramBuilder& builder, Step& step) const {
  check_is_added_later(*this, "lower_on_gpu()");
  return {.buffer = builder.input(step)};
}
#else
gpu::Result Operator::lower_on_gpu(gpu::ProgramBuilder& /*builder*/, Step& /*step*/) const { return {}; }
#endif

}  // namespace trit::runtime
