// SPDX-License-Identifier: MIT
//
// --scale tensor, row or group:G: what the scales of packed weights are for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/number_options.h"
#include "trit/format.h"

namespace trit::apps {

struct Scales {
  ScaleGranularity granularity = ScaleGranularity::tensor;
  std::int64_t group = 0;  // inputs of a group
};

/// Nothing if the text is none of them.
inline std::optional<Scales> scales_of(const std::string& text) {
  constexpr std::int64_t kLargestGroup = std::int64_t{1} << 30;
  if (text == "tensor" || text == "row") {
    return Scales{text == "row" ? ScaleGranularity::row : ScaleGranularity::tensor};
  }
  if (!text.starts_with("group:")) {
    return std::nullopt;
  }
  const auto group = number_text::parse_whole(text.substr(6));
  return group && is_group_size(*group) && *group <= kLargestGroup
             ? std::optional(Scales{ScaleGranularity::group, *group})
             : std::nullopt;
}

/// For CLI11: such a text.
inline CLI::Validator scales_text() {
  return CLI::Validator(
      [](const std::string& text) {
        return scales_of(text) ? std::string()
                               : "'" + text + "': wanted tensor, row or group:G, G a multiple of " +
                                     std::to_string(kGroupStep);
      },
      "tensor, row or group:G");
}

}  // namespace trit::apps
