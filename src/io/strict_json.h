// SPDX-License-Identifier: MIT
//
// The JSON reader of every file that this library reads: headers, config.json, name maps, graphs. It is
// nlohmann's parser with what a hostile file calls for: a bounded depth, no key twice in one object, no NUL,
// UTF-8 and numbers that fit. Every error names what was read and the byte where it was found.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace trit::io {

/// A value; the members of an object keep their order.
using Json = nlohmann::ordered_json;

/// How a text is read.
struct JsonRules {
  std::size_t max_bytes = SIZE_MAX;
  std::size_t max_depth = 64;
  std::size_t first_byte = 0;  // offset of the text in its file, for errors
  /// A handler that finds equal keys itself needs no second list of them.
  bool check_keys = true;
  /// If not empty: text as Python's json module writes it. NaN, Infinity and -Infinity are numbers, and equal
  /// keys are an error for the top-level member of this name and inside it only.
  std::string_view python_member = {};
  bool python() const { return !python_member.empty(); }
};

/// Takes a text piece by piece. What it throws as trit::Error is given the place in the text.
class JsonHandler {
 public:
  virtual ~JsonHandler() = default;
  virtual void scalar(Json value) = 0;
  virtual void key(std::string name) = 0;
  virtual void begin(bool array) = 0;
  virtual void end(bool array) = 0;
};

/// Reads `text`. Throws trit::Error, starting with `what` and ending with the byte: not JSON, not UTF-8, a
/// NUL, equal keys in one object, too long, too deep, a number out of range.
void read_json(std::string_view text, const std::string& what, const JsonRules& rules, JsonHandler& handler);

/// The same as a tree. A tree takes about 30 times its text: `rules` should bound that.
Json parse_json(std::string_view text, const std::string& what, const JsonRules& rules);
/// With JsonRules::python_member, NaN and the infinities are strings in what a handler or a tree gets. The
/// number that such a string stands for, and the text of such a tree, indented by two:
std::optional<double> python_constant(const std::string& text);
std::string python_text(const Json& value);

/// The rules for "trit.model" (docs/format.md).
inline constexpr JsonRules kGraphRules{.max_bytes = std::size_t{1} << 20, .max_depth = 8};

/// A value as a message shows it, shortened; "an object", "an array".
std::string found_text(const Json& value);

/// An object of a tree, member by member. Errors start with `what`.
class JsonObject {
 public:
  /// Throws Error if `value` is not an object. It must outlive this.
  JsonObject(const Json& value, std::string what);

  const std::string& what() const { return what_; }
  void set_what(std::string what) { what_ = std::move(what); }
  bool contains(const char* key) const;
  /// The member; Error if it is missing or of another type (or out of [min, max]).
  const Json& at(const char* key) const;
  const Json& array(const char* key) const;
  std::string string(const char* key) const;
  std::int64_t integer(const char* key, std::int64_t min, std::int64_t max) const;
  /// A positive number, `otherwise` if there is none.
  float positive(const char* key, float otherwise) const;
  /// Throws Error for a member that none of the functions above was called for.
  void check_all_read() const;

 private:
  const Json& value_;
  std::string what_;
  mutable std::vector<std::string> known_;  // keys of those calls
};

/// An integer from `min` to `max`.
std::int64_t integer_value(const Json& value, std::int64_t min, std::int64_t max, const std::string& what);
/// A number that is finite as float.
float float_value(const Json& value, const std::string& what);

}  // namespace trit::io
