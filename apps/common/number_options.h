// SPDX-License-Identifier: MIT
//
// Validators for the numbers of a command line. They look at the whole text: what is not one plain decimal
// number in range is wrong usage (nan, inf, 1e999, "", "3x", "0x10", 99999999999999999999), for whole numbers
// "010" too, which could be meant as octal. CLI::Range lets nan pass, and what it takes as a number depends
// on CLI11's version.
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

/// Where a whole number has no other limit: far above all counts, and sums of them do not overflow.
inline constexpr std::int64_t kLargestCount = std::int64_t{1} << 40;
/// Where a number has no other limit.
inline constexpr double kLargestNumber = 1e30;
/// --threads T: from 0, which is all that this process may use, to this many.
inline constexpr int kMostThreads = 1024;

namespace number_text {

template <typename Value>
std::string text_of(Value value) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof(text), value).ptr;
  return {text, end};
}

/// The number that all of `text` is; nothing if it is none, or none that Value holds.
template <typename Value>
std::optional<Value> parse(const std::string& text) {
  Value value{};
  const char* const end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && stopped == end ? std::optional(value) : std::nullopt;
}

template <typename Value>
CLI::Validator in_range(Value least, Value most, bool open, const std::string& kind,
                        std::optional<Value> (*parse_number)(const std::string&)) {
  const std::string range = text_of(least) + " to " + text_of(most);
  const auto refuse = [=](std::string& text) {
    const std::optional<Value> value = parse_number(text);
    return value && *value >= least && *value <= most ? std::string()
                                                      : "'" + text + "': wanted a " + kind + " from " + range;
  };
  return CLI::Validator(refuse, open ? text_of(least) + " or more" : range);
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

/// A whole number from `least` to `most`.
inline CLI::Validator whole_number(std::int64_t least, std::int64_t most = kLargestCount) {
  return number_text::in_range(least, most, most == kLargestCount, "whole number", number_text::parse_whole);
}

/// A finite number from `least` to `most`.
inline CLI::Validator number(double least, double most = kLargestNumber) {
  return number_text::in_range(least, most, most == kLargestNumber, "number", number_text::parse_finite);
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
  return CLI::Validator(to_bytes, "1000, 500MiB, 5GB, ...");
}

}  // namespace trit::apps
