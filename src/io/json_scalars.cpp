// SPDX-License-Identifier: MIT
#include "io/json_scalars.h"

#include <cmath>
#include <vector>

#include "io/tensor_names.h"
#include "trit/error.h"

namespace trit::io {
namespace {

using Found = std::function<void(std::span<const std::string> path, JsonScalar value)>;

JsonScalar scalar_of(const Json& value, bool python) {
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    const auto constant = python ? python_constant(text) : std::nullopt;
    return constant ? JsonScalar(*constant) : JsonScalar(text);
  }
  return value.is_null()      ? JsonScalar(nullptr)
         : value.is_boolean() ? JsonScalar(value.get<bool>())
                              : JsonScalar(value.get<double>());
}

class PathHandler final : public JsonHandler {
 public:
  PathHandler(const Found& found, bool python) : found_(found), python_(python) {}

  void scalar(Json value) override {
    JsonScalar found = scalar_of(value, python_);
    if (levels_.empty()) {
      throw Error("found " + scalar_text(found) + ", wanted an object");
    }
    enter();
    found_(path_, std::move(found));
  }
  void key(std::string name) override { path_.back() = std::move(name); }
  void begin(bool array) override {
    if (levels_.empty() && array) {
      throw Error("found an array, wanted an object");
    }
    enter();
    levels_.push_back({array, 0});
    path_.emplace_back();
  }
  void end(bool array) override {
    if (python_ && array && levels_.back().index == 0) {
      found_(path_, nullptr);
    }
    levels_.pop_back();
    path_.pop_back();
  }

 private:
  struct Level {
    bool array = false;
    std::size_t index = 0;
  };

  /// Before a value: an element of an array has its index for a key.
  void enter() {
    if (!levels_.empty() && levels_.back().array) {
      path_.back() = std::to_string(levels_.back().index++);
    }
  }

  const Found& found_;
  bool python_;
  std::vector<Level> levels_;
  std::vector<std::string> path_;
};

}  // namespace

void for_each_scalar(std::string_view text, const std::string& what, const Found& found, JsonRules rules) {
  PathHandler handler(found, rules.python());
  read_json(text, what, rules, handler);
}

std::string scalar_text(const JsonScalar& value) {
  if (const auto* text = std::get_if<std::string>(&value)) {
    return quoted_name(*text);
  }
  if (const auto* flag = std::get_if<bool>(&value)) {
    return *flag ? "true" : "false";
  }
  if (const auto* number = std::get_if<double>(&value)) {
    return std::isnan(*number)   ? "NaN"
           : std::isinf(*number) ? (*number > 0 ? "Infinity" : "-Infinity")
                                 : Json(*number).dump();
  }
  return "null";
}

}  // namespace trit::io
