// SPDX-License-Identifier: MIT
//
// max_pool2d and avg_pool2d: the largest value and the mean of square windows inside an image. A pool is part
// of the step in front of it, or of a step of its own (fusion.h).
#include "runtime/ops/operator.h"

namespace trit::runtime {
namespace {

template <bool Maximum>
class Pool2d final : public Operator {
 public:
  explicit Pool2d(const io::JsonObject& node)
      : pool_{.kernel = node.integer("kernel", 1, kMaxWindow),
              .stride = node.integer("stride", 1, kMaxWindow),
              .maximum = Maximum} {}

  Shape load(NodeFile& file) override {
    const Shape& x = file.image();
    return {x[0], file.positions(x[1], pool_.kernel, pool_.stride, 0),
            file.positions(x[2], pool_.kernel, pool_.stride, 0)};
  }
  const Pool* pool() const override { return &pool_; }

 private:
  Pool pool_;
};

}  // namespace

extern const OperatorType kMaxPool2d;  // table.cpp
const OperatorType kMaxPool2d{.name = "max_pool2d", .make = make_operator<Pool2d<true>>};
extern const OperatorType kAvgPool2d;  // table.cpp
const OperatorType kAvgPool2d{.name = "avg_pool2d", .make = make_operator<Pool2d<false>>};

}  // namespace trit::runtime
