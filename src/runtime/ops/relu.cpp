// SPDX-License-Identifier: MIT
//
// relu: max(x, 0); NaN and -0.0 pass. It is part of the step in front of it, or of a step of its own
// (fusion.h).
#include "runtime/ops/operator.h"

namespace trit::runtime {
namespace {

class Relu final : public Operator {
 public:
  explicit Relu(const io::JsonObject& /*node*/) {}

  Shape load(NodeFile& file) override { return file.input(); }
  bool is_relu() const override { return true; }
};

}  // namespace

extern const OperatorType kRelu;  // table.cpp
const OperatorType kRelu{.name = "relu", .make = make_operator<Relu>};

}  // namespace trit::runtime
