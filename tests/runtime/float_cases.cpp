// SPDX-License-Identifier: MIT
#include "runtime/float_cases.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

namespace trit::test {
namespace {

std::int64_t pick(std::mt19937& generator, std::int64_t low, std::int64_t high) {
  return std::uniform_int_distribution<std::int64_t>(low, high)(generator);
}

float special_value(std::mt19937& generator) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float denormal = std::numeric_limits<float>::denorm_min();
  switch (pick(generator, 0, 9)) {
    case 0:
      return std::numeric_limits<float>::quiet_NaN();
    case 1:
      return -std::numeric_limits<float>::quiet_NaN();
    case 2:
      return infinity;
    case 3:
      return -infinity;
    case 4:
      return 0.0F;
    case 5:
    case 6:
      return -0.0F;
    case 7:
      return static_cast<float>(pick(generator, -8'000'000, 8'000'000)) * denormal;
    case 8:
      return std::ldexp(static_cast<float>(pick(generator, -1000, 1000)), 80);  // 1e27
    default:
      return static_cast<float>(pick(generator, -2, 2));  // equal values in one window
  }
}

/// Builds one chain; the current value is an image or a row.
class CaseBuilder {
 public:
  explicit CaseBuilder(unsigned seed) : seed_(seed), generator_(seed) {}

  FloatCase build() {
    switch (pick(generator_, 0, 14)) {
      case 0:
        begin_any();
        relu();
        break;
      case 1:
      case 2:
        begin_image(1, 20);
        pool();
        maybe(&CaseBuilder::relu);
        break;
      case 3:
        begin_image(1, 20);
        relu();
        pool();
        break;
      case 4:
        begin_any();
        sum();
        maybe(&CaseBuilder::relu);
        break;
      case 5:
        begin_any();
        linear();
        maybe(&CaseBuilder::relu);
        break;
      case 6:
        begin_row();
        ternary();
        maybe(&CaseBuilder::relu);
        break;
      case 7:
        begin_image(1, 6);
        convolution();
        maybe(&CaseBuilder::sum);
        maybe(&CaseBuilder::relu);
        break;
      case 8:
      case 9:
        begin_image(1, 6);
        convolution();
        maybe(&CaseBuilder::relu);
        pool();
        maybe(&CaseBuilder::flatten);
        break;
      case 10:  // the second convolution reads what the first one's layout is
        begin_image(1, 4);
        convolution();
        relu();
        pool();
        convolution();
        maybe(&CaseBuilder::relu);
        flatten();
        linear();
        break;
      case 11:
        begin_any();
        gelu();
        maybe(&CaseBuilder::relu);
        break;
      case 12:
        begin_any();
        batch_norm();
        maybe(&CaseBuilder::relu);
        break;
      case 13:  // a part of the weights in front of it, or not
        pick(generator_, 0, 1) == 0 ? begin_image(1, 20) : begin_row();
        shape_.size() == 1 ? linear() : convolution();
        maybe(&CaseBuilder::sum);
        batch_norm();
        maybe(&CaseBuilder::relu);
        maybe(&CaseBuilder::gelu);
        break;
      default:  // enough channels for bf16 pairs
        begin_image(16, 40);
        convolution();
        maybe(&CaseBuilder::relu);
        maybe(&CaseBuilder::pool);
        break;
    }
    return {seed_, what_, std::move(*model_), pick(generator_, 1, 3)};
  }

 private:
  void begin(Shape shape) {
    shape_ = std::move(shape);
    model_ = std::make_unique<ModelFile>(shape_, seed_);
  }
  void begin_image(std::int64_t fewest, std::int64_t most) {
    begin({pick(generator_, fewest, most), pick(generator_, 4, 13), pick(generator_, 4, 13)});
  }
  void begin_row() { begin({pick(generator_, 1, 70)}); }
  void begin_any() { pick(generator_, 0, 1) == 0 ? begin_row() : begin_image(1, 20); }

  void maybe(void (CaseBuilder::*step)()) {
    if (pick(generator_, 0, 1) == 0) {
      (this->*step)();
    }
  }
  void note(const std::string& text) { what_ += (what_.empty() ? "" : " ") + text; }
  std::string name() { return "layer" + std::to_string(at_); }

  void relu() {
    at_ = model_->relu(at_);
    note("relu");
  }
  void flatten() {
    at_ = model_->flatten(at_);
    std::int64_t count = 1;
    for (const std::int64_t size : shape_) {
      count *= size;
    }
    shape_ = {count};
    note("flatten");
  }
  /// With itself or with its ReLU.
  void sum() {
    const bool twice = pick(generator_, 0, 1) == 0;
    const std::size_t other = twice ? at_ : model_->relu(at_);
    at_ = pick(generator_, 0, 1) == 0 ? model_->add(at_, other) : model_->add(other, at_);
    note(twice ? "add(x, x)" : "add(x, relu)");
  }
  /// Some weights are +0.0 and -0.0: an infinity times either is NaN.
  void zero_some(const std::string& tensor) {
    std::vector<float> values = model_->floats(tensor);
    for (float& value : values) {
      if (const std::int64_t chance = pick(generator_, 0, 19); chance < 2) {
        value = chance == 0 ? 0.0F : -0.0F;
      }
    }
    model_->set_floats(tensor, Shape(model_->tensor(tensor).shape), values);
  }
  void gelu() {
    const std::string approximate = pick(generator_, 0, 1) == 0 ? "none" : "tanh";
    at_ = model_->gelu(at_, approximate);
    note("gelu(" + approximate + ")");
  }
  void batch_norm() {
    const std::string layer = "norm" + std::to_string(at_);
    at_ = model_->batch_norm(layer, at_, shape_[0]);
    zero_some(layer + ".weight");
    if (pick(generator_, 0, 3) == 0) {  // without scale and shift
      model_->erase(layer + ".weight");
      model_->erase(layer + ".bias");
    }
    note("batch_norm");
  }
  void linear() {
    const std::int64_t out = pick(generator_, 1, 40);
    const std::string layer = name();
    at_ = model_->linear(layer, at_, shape_.back(), out, pick(generator_, 0, 1) == 0);
    zero_some(layer + ".weight");
    shape_.back() = out;
    note("linear");
  }
  void ternary() {
    const std::int64_t out = pick(generator_, 1, 40);
    at_ =
        model_->bit_linear("ternary", at_, shape_.back(), out,
                           pick(generator_, 0, 1) == 0 ? Norm::rms : Norm::none, pick(generator_, 0, 1) == 0);
    shape_.back() = out;
    note("bit_linear");
  }
  void convolution() {
    const std::int64_t kernel = pick(generator_, 1, 3);
    const std::int64_t padding = pick(generator_, 0, kernel - 1);
    const std::int64_t stride = pick(generator_, 1, 2);
    const std::int64_t out = pick(generator_, 1, 34);
    for (std::size_t i = 1; i < 3; ++i) {  // a window that fits
      if (shape_[i] + 2 * padding < kernel) {
        return;
      }
    }
    const std::string layer = name();
    at_ = model_->conv2d(layer, at_, shape_[0], out, kernel, stride, padding, pick(generator_, 0, 1) == 0);
    zero_some(layer + ".weight");
    shape_[0] = out;
    for (std::size_t i = 1; i < 3; ++i) {
      shape_[i] = (shape_[i] + 2 * padding - kernel) / stride + 1;
    }
    note("conv2d");
  }
  void pool() {
    const std::int64_t most = std::min<std::int64_t>({3, shape_[1], shape_[2]});
    const std::int64_t kernel =
        std::min<std::int64_t>(most, pick(generator_, 0, 2) == 0 ? pick(generator_, 1, 3) : 2);
    const std::int64_t stride = pick(generator_, 1, 3);
    const std::string op = pick(generator_, 0, 2) == 0 ? "avg_pool2d" : "max_pool2d";
    at_ = model_->pool(op, at_, kernel, stride);
    for (std::size_t i = 1; i < 3; ++i) {
      shape_[i] = (shape_[i] - kernel) / stride + 1;
    }
    note(op);
  }

  unsigned seed_;
  std::mt19937 generator_;
  std::unique_ptr<ModelFile> model_;
  Shape shape_;  // of the current value
  std::size_t at_ = 0;
  std::string what_;
};

}  // namespace

std::size_t FloatCase::inputs() const {
  auto count = static_cast<std::size_t>(batch);
  for (const std::int64_t size : model.graph["input"]["shape"].get<Shape>()) {
    count *= static_cast<std::size_t>(size);
  }
  return count;
}

FloatCase random_float_case(unsigned seed) { return CaseBuilder(seed).build(); }

std::vector<float> random_special_values(std::size_t count, std::mt19937& generator) {
  std::vector<float> values(count);
  std::uniform_real_distribution<float> ordinary(-2, 2);
  const float scale = pick(generator, 0, 5) == 0 ? 1e-39F : 1.0F;  // denormals throughout
  std::generate(values.begin(), values.end(), [&] { return ordinary(generator) * scale; });
  // Specials of 1000 values. 1: about one in a tensor, so that most outputs stay finite.
  constexpr std::int64_t kRates[] = {0, 1, 10, 100, 500, 1000};
  const std::int64_t rate = kRates[pick(generator, 0, 5)];
  // One kind of special value in half of the tensors: what NaN does is not hidden by an infinity.
  const bool one_kind = pick(generator, 0, 1) == 0;
  const float kind = special_value(generator);
  for (float& value : values) {
    if (pick(generator, 0, 999) < rate) {
      value = one_kind ? kind : special_value(generator);
    }
  }
  return values;
}

}  // namespace trit::test
