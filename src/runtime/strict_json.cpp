// SPDX-License-Identifier: MIT
#include "runtime/strict_json.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "trit/error.h"

namespace trit::runtime {
namespace {

constexpr std::size_t kMaxText = std::size_t{1} << 20;
constexpr int kMaxDepth = 8;

/// A value as a message shows it, short.
std::string found(const Json& value) {
  constexpr std::size_t kQuoted = 60;
  if (value.is_object() || value.is_array()) {
    return value.is_object() ? "an object" : "an array";
  }
  const std::string text = value.dump();
  return text.size() <= kQuoted ? text : text.substr(0, kQuoted) + "...";
}

const Json& member(const Json& object, const char* key, const std::string& what) {
  const auto at = object.find(key);
  if (at == object.end()) {
    throw Error(what + ": no \"" + key + "\"");
  }
  return *at;
}

}  // namespace

Json parse_strict_json(std::string_view text, const std::string& what) {
  if (text.size() > kMaxText) {
    throw Error(what + ": " + std::to_string(text.size()) + " bytes of JSON, wanted at most " +
                std::to_string(kMaxText));
  }
  // The parser takes a NUL for the end of the text.
  if (const auto nul = text.find('\0'); nul != std::string_view::npos) {
    throw Error(what + ": a NUL at byte " + std::to_string(nul) + ", wanted JSON text");
  }
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kMaxDepth) {
      throw Error(what + ": nested deeper than " + std::to_string(kMaxDepth));
    }
    if (event == Json::parse_event_t::object_start) {
      keys.emplace_back();
    } else if (event == Json::parse_event_t::object_end) {
      keys.pop_back();
    } else if (event == Json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second) {
      throw Error(what + ": the key " + found(parsed) + " occurs twice");
    }
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), watch);
  } catch (const Json::exception& error) {
    throw Error(what + ": not valid JSON: " + error.what());
  }
}

void check_keys(const Json& object, std::initializer_list<std::string_view> known, const std::string& what) {
  if (!object.is_object()) {
    throw Error(what + ": found " + found(object) + ", wanted an object");
  }
  for (const auto& [key, value] : object.items()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      std::string names;
      for (const std::string_view name : known) {
        names += (names.empty() ? "" : ", ") + std::string(name);
      }
      throw Error(what + ": unknown key " + found(Json(key)) + ", wanted: " + names);
    }
  }
}

const Json& array_member(const Json& object, const char* key, const std::string& what) {
  const Json& value = member(object, key, what);
  if (!value.is_array()) {
    throw Error(what + ": \"" + key + "\" is " + found(value) + ", wanted an array");
  }
  return value;
}

std::string string_member(const Json& object, const char* key, const std::string& what) {
  const Json& value = member(object, key, what);
  if (!value.is_string()) {
    throw Error(what + ": \"" + key + "\" is " + found(value) + ", wanted a string");
  }
  return value.get<std::string>();
}

std::int64_t integer_member(const Json& object, const char* key, std::int64_t least, std::int64_t most,
                            const std::string& what) {
  return integer_value(member(object, key, what), least, most, what + ": \"" + key + "\"");
}

std::int64_t integer_value(const Json& value, std::int64_t least, std::int64_t most,
                           const std::string& what) {
  // Unsigned values beyond int64 would wrap in get<std::int64_t>().
  const bool fits =
      value.is_number_integer() &&
      !(value.is_number_unsigned() && value.get<std::uint64_t>() > static_cast<std::uint64_t>(most)) &&
      value.get<std::int64_t>() >= least && value.get<std::int64_t>() <= most;
  if (!fits) {
    throw Error(what + " is " + found(value) + ", wanted an integer from " + std::to_string(least) + " to " +
                std::to_string(most));
  }
  return value.get<std::int64_t>();
}

float float_value(const Json& value, const std::string& what) {
  const float number = value.is_number() ? static_cast<float>(value.get<double>()) : NAN;
  if (!std::isfinite(number)) {
    throw Error(what + " is " + found(value) + ", wanted a finite number");
  }
  return number;
}

}  // namespace trit::runtime
