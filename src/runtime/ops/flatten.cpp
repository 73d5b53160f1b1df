// SPDX-License-Identifier: MIT
//
// flatten: the same values, row-major, in one dimension. It copies nothing where they are row-major already.
#include "runtime/ops/operator.h"
#include "runtime/program.h"
#ifdef TRIT_HAVE_CUDA
#include "runtime/cuda/program.h"
#endif

namespace trit::runtime {
namespace {

class Flatten final : public Operator {
 public:
  explicit Flatten(const io::JsonObject& /*node*/) {}

  Shape load(NodeFile& file) override { return {numel(file.input())}; }
  bool reads_rows() const override { return true; }
  Value lower_on_cpu(ProgramBuilder& builder, Step& step) const override {
    return {builder.shape(step.node), 1, builder.as_rows(builder.input(step)).buffer};
  }
#ifdef TRIT_HAVE_CUDA
  gpu::Result lower_on_gpu(gpu::ProgramBuilder& builder, Step& step) const override {
    return {.buffer = builder.input(step)};
  }
#endif
};

}  // namespace

extern const OperatorType kFlatten;  // table.cpp
const OperatorType kFlatten{.name = "flatten", .make = make_operator<Flatten>};

}  // namespace trit::runtime
