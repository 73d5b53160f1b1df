// SPDX-License-Identifier: MIT
#include "io/strict_json.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <limits>
#include <set>

#include "io/tensor_names.h"
#include "trit/error.h"

namespace trit::io {
namespace {

constexpr std::array<std::string_view, 3> kConstants{"NaN", "Infinity", "-Infinity"};
constexpr char kMark = '\1';                           // in front of a quoted constant,
constexpr std::string_view kQuotedMark = "\"\\u0001";  // and as it is written

/// The constant at the start of `text`, or an empty view.
std::string_view constant_at(std::string_view text) {
  for (const std::string_view constant : kConstants) {
    if (text.starts_with(constant)) {
      return constant;
    }
  }
  return {};
}

/// NaN, Infinity and -Infinity outside of strings, which JSON lacks, as strings that begin with kMark.
std::string quote_constants(std::string_view text) {
  std::string quoted;
  quoted.reserve(text.size());
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::string_view constant = in_string ? std::string_view() : constant_at(text.substr(i));
    if (!constant.empty()) {
      quoted.append(kQuotedMark).append(constant) += '"';
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

/// And back, in what the library writes.
std::string unquote_constants(std::string_view text) {
  std::string plain;
  plain.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool marked = text.substr(i).starts_with(kQuotedMark);
    const std::string_view constant =
        marked ? constant_at(text.substr(i + kQuotedMark.size())) : std::string_view();
    const std::size_t end = i + kQuotedMark.size() + constant.size();
    if (!constant.empty() && end < text.size() && text[end] == '"') {
      plain += constant;
      i = end;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

/// The bytes of a text, counted as the parser takes them.
class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator(const char* at, const char** last) : at_(at), last_(last) {}
  const char& operator*() const { return *at_; }
  CountingIterator& operator++() {
    *last_ = at_++;
    return *this;
  }
  CountingIterator operator++(int) {
    const CountingIterator before = *this;
    ++*this;
    return before;
  }
  bool operator==(const CountingIterator& other) const { return at_ == other.at_; }

 private:
  const char* at_;
  const char** last_;
};

class StrictReader final : public nlohmann::json_sax<Json> {
 public:
  StrictReader(const JsonRules& rules, JsonHandler& handler) : rules_(rules), handler_(handler) {}

  bool null() override { return scalar(nullptr); }
  bool boolean(bool value) override { return scalar(value); }
  bool number_integer(number_integer_t value) override { return scalar(value); }
  bool number_unsigned(number_unsigned_t value) override { return scalar(value); }
  bool number_float(number_float_t value, const string_t&) override { return scalar(value); }
  bool string(string_t& value) override { return scalar(std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return begin(false); }
  bool start_array(std::size_t) override { return begin(true); }
  bool end_object() override { return end(false); }
  bool end_array() override { return end(true); }
  bool key(string_t& value) override {
    if (open_.size() == 1) {
      inside_ = value == rules_.python_member;
    }
    const bool checked = rules_.check_keys && (!rules_.python() || inside_);
    if (checked && !open_.back().insert(value).second) {
      throw Error("the key " + quoted_name(value) + " occurs twice in one object");
    }
    handler_.key(std::move(value));
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& error) override {
    throw Error(std::string("not valid JSON: ") + error.what());
  }

 private:
  bool scalar(Json value) {
    handler_.scalar(std::move(value));
    return true;
  }
  bool begin(bool array) {
    if (open_.size() == rules_.max_depth) {
      throw Error("nested deeper than " + std::to_string(rules_.max_depth));
    }
    open_.emplace_back();
    handler_.begin(array);
    return true;
  }
  bool end(bool array) {
    open_.pop_back();
    handler_.end(array);
    return true;
  }

  const JsonRules& rules_;
  JsonHandler& handler_;
  std::vector<std::set<std::string>> open_;  // the keys of each object that is open
  bool inside_ = false;                      // the member that python_member names
};

class TreeHandler final : public JsonHandler {
 public:
  void scalar(Json value) override { add(std::move(value)); }
  void key(std::string name) override { key_ = std::move(name); }
  void begin(bool array) override {
    Json* const added = add(array ? Json::array() : Json::object());
    open_.push_back(added);
  }
  void end(bool) override { open_.pop_back(); }
  Json take() { return std::move(root_); }

 private:
  Json* add(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (open_.back()->is_array()) {
      open_.back()->push_back(std::move(value));
      return &open_.back()->back();
    }
    return &((*open_.back())[key_] = std::move(value));
  }

  Json root_;
  std::string key_;
  std::vector<Json*> open_;
};

}  // namespace

void read_json(std::string_view text, const std::string& what, const JsonRules& rules, JsonHandler& handler) {
  if (text.size() > rules.max_bytes) {
    throw Error(what + ": " + std::to_string(text.size()) + " bytes of JSON, wanted at most " +
                std::to_string(rules.max_bytes));
  }
  // The parser takes a NUL for the end of the text.
  if (const auto nul = text.find('\0'); nul != std::string_view::npos) {
    throw Error(what + ": a NUL at byte " + std::to_string(rules.first_byte + nul) + ", wanted JSON text");
  }
  const std::string quoted = rules.python() ? quote_constants(text) : std::string();
  const std::string_view parsed = rules.python() ? quoted : text;
  const char* last = parsed.data();
  StrictReader reader(rules, handler);
  try {
    // NOLINTNEXTLINE(bugprone-suspicious-stringview-data-usage): the end is given
    Json::sax_parse(CountingIterator(parsed.data(), &last),
                    CountingIterator(parsed.data() + parsed.size(), &last), &reader);
  } catch (const Error& error) {
    const auto taken = static_cast<std::size_t>(last - parsed.data());
    const std::size_t at = rules.python() ? unquote_constants(parsed.substr(0, taken)).size() : taken;
    throw Error(what + ": " + error.what() + " (byte " + std::to_string(rules.first_byte + at) + ")");
  }
}

Json parse_json(std::string_view text, const std::string& what, const JsonRules& rules) {
  TreeHandler tree;
  read_json(text, what, rules, tree);
  return tree.take();
}

std::string python_text(const Json& value) { return unquote_constants(value.dump(2)); }

std::optional<double> python_constant(const std::string& text) {
  if (text.size() < 2 || text.front() != kMark) {
    return std::nullopt;
  }
  const std::string_view constant = std::string_view(text).substr(1);
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  return constant == "NaN"         ? std::optional(std::numeric_limits<double>::quiet_NaN())
         : constant == "Infinity"  ? std::optional(kInfinity)
         : constant == "-Infinity" ? std::optional(-kInfinity)
                                   : std::nullopt;
}

std::string found_text(const Json& value) {
  constexpr std::size_t kQuoted = 60;
  if (value.is_structured()) {
    return value.is_object() ? "an object" : "an array";
  }
  const std::string text = value.dump();
  return text.size() <= kQuoted ? text : text.substr(0, kQuoted) + "...";
}

JsonObject::JsonObject(const Json& value, std::string what) : value_(value), what_(std::move(what)) {
  if (!value.is_object()) {
    throw Error(what_ + ": found " + found_text(value) + ", wanted an object");
  }
}

bool JsonObject::contains(const char* key) const {
  known_.emplace_back(key);
  return value_.contains(key);
}

const Json& JsonObject::at(const char* key) const {
  known_.emplace_back(key);
  const auto member = value_.find(key);
  if (member == value_.end()) {
    throw Error(what_ + ": no \"" + key + "\"");
  }
  return *member;
}

const Json& JsonObject::array(const char* key) const {
  const Json& value = at(key);
  if (!value.is_array()) {
    throw Error(what_ + ": \"" + key + "\" is " + found_text(value) + ", wanted an array");
  }
  return value;
}

std::string JsonObject::string(const char* key) const {
  const Json& value = at(key);
  if (!value.is_string()) {
    throw Error(what_ + ": \"" + key + "\" is " + found_text(value) + ", wanted a string");
  }
  return value.get<std::string>();
}

std::int64_t JsonObject::integer(const char* key, std::int64_t min, std::int64_t max) const {
  return integer_value(at(key), min, max, what_ + ": \"" + key + "\"");
}

float JsonObject::positive(const char* key, float otherwise) const {
  if (!contains(key)) {
    return otherwise;
  }
  const float value = float_value(at(key), what_ + ": \"" + key + "\"");
  if (value <= 0) {
    throw Error(what_ + ": \"" + key + "\" is " + at(key).dump() + ", wanted a positive number");
  }
  return value;
}

void JsonObject::check_all_read() const {
  for (const auto& [key, value] : value_.items()) {
    if (std::find(known_.begin(), known_.end(), key) == known_.end()) {
      std::string names;
      for (auto name = known_.begin(); name != known_.end(); ++name) {
        if (std::find(known_.begin(), name, *name) == name) {
          names += (names.empty() ? "" : ", ") + *name;
        }
      }
      throw Error(what_ + ": unknown key " + found_text(Json(key)) + ", wanted: " + names);
    }
  }
}

std::int64_t integer_value(const Json& value, std::int64_t min, std::int64_t max, const std::string& what) {
  // Unsigned values beyond int64 would wrap in get<std::int64_t>().
  const bool fits =
      value.is_number_integer() &&
      !(value.is_number_unsigned() && value.get<std::uint64_t>() > static_cast<std::uint64_t>(max)) &&
      value.get<std::int64_t>() >= min && value.get<std::int64_t>() <= max;
  if (!fits) {
    throw Error(what + " is " + found_text(value) + ", wanted an integer from " + std::to_string(min) +
                " to " + std::to_string(max));
  }
  return value.get<std::int64_t>();
}

float float_value(const Json& value, const std::string& what) {
  const float number = value.is_number() ? static_cast<float>(value.get<double>()) : NAN;
  if (!std::isfinite(number)) {
    throw Error(what + " is " + found_text(value) + ", wanted a finite number");
  }
  return number;
}

}  // namespace trit::io
