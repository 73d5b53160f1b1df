// SPDX-License-Identifier: MIT
//
// Validators for the numbers of a command line. The whole text must be one plain decimal number in range:
// nan, inf, 1e999, "", "3x", "0x10" and 99999999999999999999 are wrong usage, and so is the whole number
// "010", which could be meant as octal. (CLI::Range accepts nan, and what it takes as a number depends on the
// version of CLI11.)
//
//   app.add_option("--epochs", epochs, "passes")->type_name("N")->check(apps::whole_number(1));
//   app.add_option("--lr", rate, "learning rate")->type_name("X")->check(apps::number(0));
#pragma once

#include <CLI/CLI.hpp>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <system_error>

namespace trit::apps {

/// The largest whole number where nothing else limits it: sums and products of counts do not overflow.
inline constexpr std::int64_t kMaxCount = std::int64_t{1} << 40;
/// The largest number where nothing else limits it.
inline constexpr double kMaxNumber = 1e30;
/// The largest number of threads; 0 means all CPUs that this process may use.
inline constexpr int kMaxThreads = 1024;

namespace number_text {

template <typename Value>
std::string text_of(Value value) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof(text), value).ptr;
  return {text, end};
}

/// The number that is all of `text`; nothing if `text` is not a number or does not fit into Value.
template <typename Value>
std::optional<Value> parse(const std::string& text) {
  Value value{};
  const char* const end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && stopped == end ? std::optional(value) : std::nullopt;
}

/// `open`: --help says "1 or more" instead of naming `max`.
template <typename Value>
CLI::Validator in_range(Value min, Value max, bool open, const std::string& kind,
                        std::optional<Value> (*parse_number)(const std::string&)) {
  const std::string range = text_of(min) + " to " + text_of(max);
  const auto refuse = [=](std::string& text) {
    const std::optional<Value> value = parse_number(text);
    return value && *value >= min && *value <= max ? std::string()
                                                   : "'" + text + "': wanted a " + kind + " from " + range;
  };
  return CLI::Validator(refuse, open ? text_of(min) + " or more" : range);
}

inline std::optional<std::int64_t> parse_whole(const std::string& text) {
  const std::size_t digits = text.starts_with('-') ? 1 : 0;
  const bool padded = text.size() > digits + 1 && text[digits] == '0';
  return padded ? std::nullopt : parse<std::int64_t>(text);
}

inline std::optional<double> parse_finite(const std::string& text) {
  const std::optional<double> value = parse<double>(text);
  return value && std::isfinite(*value) ? value : std::nullopt;
}

}  // namespace number_text

/// A whole number from `min` to `max`.
inline CLI::Validator whole_number(std::int64_t min, std::int64_t max = kMaxCount) {
  return number_text::in_range(min, max, max >= kMaxCount, "whole number", number_text::parse_whole);
}

/// A finite number from `min` to `max`.
inline CLI::Validator number(double min, double max = kMaxNumber) {
  return number_text::in_range(min, max, max >= kMaxNumber, "number", number_text::parse_finite);
}

/// A transform: "5GB" (10^9), "500MiB" (2^20) or "1000" to a number of bytes, at least 1.
inline CLI::Validator byte_size() {
  const auto to_bytes = [](std::string& text) -> std::string {
    const auto number = number_text::parse_whole(text.substr(0, text.find_first_not_of("0123456789")));
    try {
      std::string bytes = text;
      if (number && *number > 0 && CLI::AsSizeValue(true)(bytes).empty()) {
        text = bytes;
        return {};
      }
    } catch (const CLI::ValidationError&) {  // an unknown unit, or more than 64 bits hold
    }
    return "'" + text + "': wanted a size such as 1000, 500MiB or 5GB";
  };
  return CLI::Validator(to_bytes, "such as 1000, 500MiB or 5GB");
}

}  // namespace trit::apps
