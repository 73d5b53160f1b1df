// SPDX-License-Identifier: MIT
#include "common/linear_report.h"

#include <fmt/format.h>

namespace trit::apps {

using nlohmann::ordered_json;

ordered_json to_json(std::span<const LinearReport> reports) {
  ordered_json all{{"limits", ordered_json::array()}, {"results", ordered_json::array()}};
  for (const LinearReport& report : reports) {
    for (const BackendLimits& limit : report.limits) {
      const bool known = !limit.instruction.empty();
      all["limits"].push_back({{"backend", name_of(limit.backend)},
                               {"threads", report.threads},
                               {"int8_instruction", known ? ordered_json(limit.instruction) : ordered_json()},
                               {"int8_gops", known ? ordered_json(limit.gops) : ordered_json()},
                               {"memory_gigabytes_per_second", report.memory_gigabytes_per_second}});
    }
    for (const LinearResult& result : report.results) {
      all["results"].push_back({{"backend", name_of(result.backend)},
                                {"layout", name_of(result.format)},
                                {"threads", report.threads},
                                {"out_features", result.shape.out_features},
                                {"in_features", result.shape.in_features},
                                {"tokens", result.tokens},
                                {"weights_from", name_of(result.from)},
                                {"weight_bytes", result.weight_bytes},
                                {"microseconds", result.microseconds},
                                {"layer_microseconds", result.layer_microseconds},
                                {"gops", result.gops},
                                {"weight_gigabytes_per_second", result.weight_gigabytes_per_second},
                                {"read_gigabytes_per_second", result.read_gigabytes_per_second},
                                {"share", result.share},
                                {"limit", result.limit}});
    }
  }
  return all;
}

std::string table(const LinearReport& report) {
  std::string text = fmt::format("{} thread{}: memory read {:.1f} GB/s", report.threads,
                                 report.threads == 1 ? "" : "s", report.memory_gigabytes_per_second);
  for (const BackendLimits& limit : report.limits) {
    if (!limit.instruction.empty()) {
      text += fmt::format(", {} {:.0f} GOP/s", limit.instruction, limit.gops);
    }
  }
  text +=
      fmt::format("\n{:<11} {:<7} {:>11} {:>6} {:>7} {:>10} {:>10} {:>6} {:>8}  {}\n", "backend", "layout",
                  "N x K", "tokens", "weights", "us", "layer us", "GB/s", "GOP/s", "share of limit");
  for (const LinearResult& result : report.results) {
    const std::string limit = result.limit == "int8 peak" ? std::string(result.limit)
                                                          : fmt::format("{} {:.1f} GB/s", result.limit,
                                                                        result.read_gigabytes_per_second);
    text +=
        fmt::format("{:<11} {:<7} {:>11} {:>6} {:>7} {:>10.2f} {:>10.2f} {:>6.1f} {:>8.1f}  {:.1f} % of {}\n",
                    name_of(result.backend), name_of(result.format), name_of(result.shape), result.tokens,
                    name_of(result.from), result.microseconds, result.layer_microseconds,
                    result.weight_gigabytes_per_second, result.gops, 100 * result.share, limit);
  }
  return text;
}

}  // namespace trit::apps
