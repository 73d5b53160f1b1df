// SPDX-License-Identifier: MIT
#include "io/json_scalars.h"

#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "io/tensor_names.h"
#include "trit/error.h"

namespace trit::io {
namespace {

using Json = nlohmann::json;
using Found = std::function<void(std::span<const std::string> path, JsonScalar value)>;

class ScalarEvents : public nlohmann::json_sax<Json> {
 public:
  ScalarEvents(const std::string& what, const Found& found) : what_(what), found_(found) {}

  bool null() override { return scalar(nullptr); }
  bool boolean(bool value) override { return scalar(value); }
  bool number_integer(number_integer_t value) override { return scalar(static_cast<double>(value)); }
  bool number_unsigned(number_unsigned_t value) override { return scalar(static_cast<double>(value)); }
  bool number_float(number_float_t value, const string_t&) override { return scalar(value); }
  bool string(string_t& value) override { return scalar(std::move(value)); }
  bool binary(binary_t&) override { return false; }

  bool start_object(std::size_t) override { return open(false); }
  bool start_array(std::size_t) override { return open(true); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& value) override {
    if (!levels_.back().keys.insert(value).second) {
      throw Error(what_ + ": the key " + quoted_name(value) + " occurs twice in one object");
    }
    path_.back() = std::move(value);
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& error) override {
    throw Error(what_ + ": not valid JSON: " + error.what());
  }

 private:
  struct Level {
    bool array = false;
    std::size_t index = 0;
    std::set<std::string> keys;
  };

  /// Before a value: the path of an array's element is its index. Returns false for a text that is no object.
  void enter() {
    if (levels_.empty()) {
      return;
    }
    if (levels_.back().array) {
      path_.back() = std::to_string(levels_.back().index++);
    }
  }
  bool open(bool array) {
    constexpr std::size_t kMaxDepth = 64;
    if (levels_.empty() && array) {
      throw Error(what_ + ": found an array, wanted an object");
    }
    if (levels_.size() == kMaxDepth) {
      throw Error(what_ + ": nested deeper than " + std::to_string(kMaxDepth));
    }
    enter();
    levels_.push_back({array, 0, {}});
    path_.emplace_back();
    return true;
  }
  bool close() {
    levels_.pop_back();
    path_.pop_back();
    return true;
  }
  bool scalar(JsonScalar value) {
    if (levels_.empty()) {
      throw Error(what_ + ": found " + scalar_text(value) + ", wanted an object");
    }
    enter();
    found_(path_, std::move(value));
    return true;
  }

  const std::string& what_;
  const Found& found_;
  std::vector<Level> levels_;
  std::vector<std::string> path_;
};

}  // namespace

void for_each_scalar(std::string_view text, const std::string& what, const Found& found) {
  // The parser takes a NUL for the end of the text.
  if (const auto nul = text.find('\0'); nul != std::string_view::npos) {
    throw Error(what + ": a NUL at byte " + std::to_string(nul) + ", wanted JSON text");
  }
  ScalarEvents events(what, found);
  Json::sax_parse(text.begin(), text.end(), &events);
}

std::string scalar_text(const JsonScalar& value) {
  if (const auto* text = std::get_if<std::string>(&value)) {
    return quoted_name(*text);
  }
  if (const auto* flag = std::get_if<bool>(&value)) {
    return *flag ? "true" : "false";
  }
  if (const auto* number = std::get_if<double>(&value)) {
    return Json(*number).dump();
  }
  return "null";
}

}  // namespace trit::io
