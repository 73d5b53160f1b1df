// SPDX-License-Identifier: MIT
//
// gelu: x times the normal distribution's cumulative probability of x, exactly ("approximate": "none") or by
// tanh.
#include "runtime/ops/gelu.h"

#include <algorithm>

#include "runtime/ops/operator.h"
#include "runtime/program.h"
#include "trit/error.h"
#ifdef TRIT_HAVE_CUDA
#include "runtime/cuda/program.h"
#endif

namespace trit::runtime {
namespace {

class Gelu final : public Operator {
 public:
  explicit Gelu(const io::JsonObject& node) {
    const std::string approximate = node.string("approximate");
    if (approximate != "none" && approximate != "tanh") {
      throw Error(node.what() + ": \"approximate\" is \"" + approximate.substr(0, 60) +
                  "\", wanted \"none\" or \"tanh\"");
    }
    tanh_ = approximate == "tanh";
  }

  Shape load(NodeFile& file) override { return file.input(); }

  /// In any order: the zeros that fill a block stay zeros.
  Value lower_on_cpu(ProgramBuilder& builder, Step& step) const override {
    const Value x = builder.input(step);
    const Value y = builder.new_value(x.shape, x.inner);
    builder.add({x.buffer, y.buffer},
                [&parallel = builder.parallel(), function = tanh_ ? gelu_tanh : gelu_exact, count = y.size(),
                 from = x.buffer, to = y.buffer](const Addresses& memory) {
                  constexpr std::int64_t kBlock = 1024;  // about 10 us
                  const float* const in = memory.at<float>(from);
                  float* const out = memory.at<float>(to);
                  parallel.run((count + kBlock - 1) / kBlock, [=](std::int64_t task) {
                    std::transform(in + task * kBlock, in + std::min((task + 1) * kBlock, count),
                                   out + task * kBlock, function);
                  });
                });
    return y;
  }

#ifdef TRIT_HAVE_CUDA
  gpu::Result lower_on_gpu(gpu::ProgramBuilder& builder, Step& step) const override {
    const std::size_t x = builder.input(step);
    const std::size_t y = builder.new_values(step.node);
    builder.add({x, y}, [=, this, count = builder.values(step.node),
                         stream = builder.stream()](const Addresses& memory) {
      gpu::gelu({.x = memory.at<float>(x), .y = memory.at<float>(y), .count = count, .tanh = tanh_}, stream);
    });
    return {.buffer = y};
  }
#endif

 private:
  bool tanh_ = false;
};

}  // namespace

extern const OperatorType kGelu;  // table.cpp
const OperatorType kGelu{.name = "gelu", .make = make_operator<Gelu>};

}  // namespace trit::runtime
