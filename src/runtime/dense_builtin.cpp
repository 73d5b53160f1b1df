// SPDX-License-Identifier: MIT
//
// Float layers by the plain loops of builtin_kernels.h: every value row-major.
#include <utility>

#include "runtime/dense.h"

namespace trit::runtime {
namespace {

/// Bias and the ReLU that a loop adds to its sums.
struct Epilogue {
  const float* bias;
  bool relu;
};

class BuiltinLayer : public DenseLayer {
 protected:
  BuiltinLayer(std::vector<float> weight, std::vector<float> bias)
      : weight_(std::move(weight)), bias_(std::move(bias)) {}

  /// A ReLU with a pool behind it costs nothing there.
  Epilogue epilogue(Step& step) const {
    const bool relu = step.relu && !step.pool;
    step.relu = step.relu && !relu;
    return {bias_.empty() ? nullptr : bias_.data(), relu};
  }

  std::vector<float> weight_, bias_;
};

class BuiltinConvolution final : public BuiltinLayer {
 public:
  BuiltinConvolution(const builtin::Image& size, std::vector<float> weight, std::vector<float> bias)
      : BuiltinLayer(std::move(weight), std::move(bias)), size_(size) {}

  Value lower(ProgramBuilder& builder, Step& step, const Value& x) override {
    builtin::Image size = size_;
    size.batch = builder.batch();
    const Value y = builder.new_value({size.batch, size.out_channels, size.out_height, size.out_width});
    builder.add({x.buffer, y.buffer}, [this, &parallel = builder.parallel(), size, epilogue = epilogue(step),
                                       from = x.buffer, to = y.buffer](const Addresses& memory) {
      builtin::conv2d(parallel, size, memory.at<float>(from), weight_.data(), epilogue.bias, epilogue.relu,
                      memory.at<float>(to));
    });
    return y;
  }

 private:
  builtin::Image size_;
};

class BuiltinLinear final : public BuiltinLayer {
 public:
  BuiltinLinear(std::int64_t in, std::int64_t out, std::vector<float> weight, std::vector<float> bias)
      : BuiltinLayer(std::move(weight), std::move(bias)), in_(in), out_(out) {}

  Value lower(ProgramBuilder& builder, Step& step, const Value& x) override {
    const Value y = builder.new_value(builder.shape(step.node));
    builder.add({x.buffer, y.buffer},
                [this, &parallel = builder.parallel(), rows = x.size() / in_, epilogue = epilogue(step),
                 from = x.buffer, to = y.buffer](const Addresses& memory) {
                  builtin::linear(parallel, rows, in_, out_, memory.at<float>(from), weight_.data(),
                                  epilogue.bias, epilogue.relu, memory.at<float>(to));
                });
    return y;
  }

 private:
  std::int64_t in_, out_;
};

class BuiltinLibrary final : public DenseLibrary {
 public:
  std::string name() const override { return "built-in"; }
  std::unique_ptr<DenseLayer> convolution(const builtin::Image& size, std::vector<float> weight,
                                          std::vector<float> bias) override {
    return std::make_unique<BuiltinConvolution>(size, std::move(weight), std::move(bias));
  }
  std::unique_ptr<DenseLayer> linear(std::int64_t in, std::int64_t out, std::vector<float> weight,
                                     std::vector<float> bias) override {
    return std::make_unique<BuiltinLinear>(in, out, std::move(weight), std::move(bias));
  }
};

}  // namespace

std::unique_ptr<DenseLibrary> make_builtin_library() { return std::make_unique<BuiltinLibrary>(); }

}  // namespace trit::runtime
