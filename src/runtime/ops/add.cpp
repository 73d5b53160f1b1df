// SPDX-License-Identifier: MIT
//
// add: the sum of two values of one shape.
#include "io/dtype.h"
#include "runtime/ops/operator.h"
#include "runtime/program.h"
#include "runtime/relu_pool.h"
#ifdef TRIT_HAVE_CUDA
#include "runtime/cuda/program.h"
#endif

namespace trit::runtime {
namespace {

class Add final : public Operator {
 public:
  explicit Add(const io::JsonObject& /*node*/) {}

  Shape load(NodeFile& file) override {
    if (file.input(0) != file.input(1)) {
      file.refuse("inputs of shapes " + io::shape_text(file.input(0)) + " and " +
                  io::shape_text(file.input(1)) + ", wanted two of one shape");
    }
    return file.input();
  }

  Value lower_on_cpu(ProgramBuilder& builder, Step& step) const override {
    const Value a = builder.input(step);
    const Value b = builder.in_order(builder.input(step, 1), a.inner);
    const Value y = builder.new_value(a.shape, a.inner);
    builder.add({a.buffer, b.buffer, y.buffer},
                [&parallel = builder.parallel(), count = y.size(), a = a.buffer, b = b.buffer,
                 y = y.buffer](const Addresses& memory) {
                  add(parallel, count, memory.at<float>(a), memory.at<float>(b), memory.at<float>(y));
                });
    return y;
  }

#ifdef TRIT_HAVE_CUDA
  gpu::Result lower_on_gpu(gpu::ProgramBuilder& builder, Step& step) const override {
    const std::size_t a = builder.input(step);
    const std::size_t b = builder.input(step, 1);
    const std::size_t y = builder.new_values(step.node);
    builder.add({a, b, y},
                [=, count = builder.values(step.node), stream = builder.stream()](const Addresses& memory) {
                  gpu::add(memory.at<float>(a), memory.at<float>(b), memory.at<float>(y), count, stream);
                });
    return {.buffer = y};
  }
#endif
};

}  // namespace

extern const OperatorType kAdd;  // table.cpp
const OperatorType kAdd{.name = "add", .inputs = 2, .make = make_operator<Add>};

}  // namespace trit::runtime
