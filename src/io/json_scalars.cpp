// SPDX-License-Identifier: MIT
#include "io/json_scalars.h"

#include <array>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "io/tensor_names.h"
#include "trit/error.h"

namespace trit::io {
namespace {

using Json = nlohmann::json;
using Found = std::function<void(std::span<const std::string> path, JsonScalar value)>;

constexpr std::array<std::string_view, 3> kConstants{"NaN", "Infinity", "-Infinity"};
constexpr char kConstantMark = '\1';

/// The constant at the start of `text`, or an empty view.
std::string_view constant_at(std::string_view text) {
  for (const std::string_view constant : kConstants) {
    if (text.starts_with(constant)) {
      return constant;
    }
  }
  return {};
}

double constant_value(std::string_view constant) {
  return constant == "NaN"         ? std::numeric_limits<double>::quiet_NaN()
         : constant == "-Infinity" ? -std::numeric_limits<double>::infinity()
                                   : std::numeric_limits<double>::infinity();
}

class ScalarEvents : public nlohmann::json_sax<Json> {
 public:
  ScalarEvents(const std::string& what, const Found& found, JsonRules rules)
      : what_(what), found_(found), python_member_(rules.python_member) {}

  bool null() override { return scalar(nullptr); }
  bool boolean(bool value) override { return scalar(value); }
  bool number_integer(number_integer_t value) override { return scalar(static_cast<double>(value)); }
  bool number_unsigned(number_unsigned_t value) override { return scalar(static_cast<double>(value)); }
  bool number_float(number_float_t value, const string_t&) override { return scalar(value); }
  bool string(string_t& value) override {
    const bool marked = !python_member_.empty() && value.size() > 1 && value.front() == kConstantMark;
    if (marked && constant_at(value.substr(1)).size() + 1 == value.size()) {
      return scalar(constant_value(value.substr(1)));
    }
    return scalar(std::move(value));
  }
  bool binary(binary_t&) override { return false; }

  bool start_object(std::size_t) override { return open(false); }
  bool start_array(std::size_t) override { return open(true); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& value) override {
    const bool checked = python_member_.empty() ||
                         (levels_.size() == 1 ? value == python_member_ : path_.front() == python_member_);
    if (checked && !levels_.back().keys.insert(value).second) {
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
    if (!python_member_.empty() && levels_.back().array && levels_.back().index == 0) {
      found_(path_, nullptr);
    }
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
  std::string_view python_member_;
  std::vector<Level> levels_;
  std::vector<std::string> path_;
};

}  // namespace

void for_each_scalar(std::string_view text, const std::string& what, const Found& found, JsonRules rules) {
  // The parser takes a NUL for the end of the text.
  if (const auto nul = text.find('\0'); nul != std::string_view::npos) {
    throw Error(what + ": a NUL at byte " + std::to_string(nul) + ", wanted JSON text");
  }
  ScalarEvents events(what, found, rules);
  const std::string quoted = rules.python_member.empty() ? std::string() : quote_constants(text);
  const std::string_view parsed = rules.python_member.empty() ? text : quoted;
  Json::sax_parse(parsed.begin(), parsed.end(), &events);
}

std::string quote_constants(std::string_view text) {
  std::string quoted;
  quoted.reserve(text.size());
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::string_view constant = in_string ? std::string_view() : constant_at(text.substr(i));
    if (!constant.empty()) {
      quoted += "\"\\u0001";
      quoted += constant;
      quoted += '"';
      i += constant.size() - 1;
      continue;
    }
    quoted += text[i];
    if (text[i] == '"') {
      in_string = !in_string;
    } else if (in_string && text[i] == '\\' && i + 1 < text.size()) {
      quoted += text[++i];  // an escaped quotation mark does not end the string
    }
  }
  return quoted;
}

std::string unquote_constants(std::string_view text) {
  constexpr std::string_view kBegin = "\"\\u0001";
  std::string plain;
  plain.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool marked = text.substr(i).starts_with(kBegin);
    const std::string_view constant =
        marked ? constant_at(text.substr(i + kBegin.size())) : std::string_view();
    const std::size_t end = i + kBegin.size() + constant.size();
    if (!constant.empty() && end < text.size() && text[end] == '"') {
      plain += constant;
      i = end;
    } else {
      plain += text[i];
    }
  }
  return plain;
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
