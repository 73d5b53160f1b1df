// SPDX-License-Identifier: MIT
#include "bench/lib/linear_report.h"

#include <fmt/format.h>

#include <algorithm>

namespace trit::bench {

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
                                {"chosen", result.chosen},
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
                                {"share", result.share ? ordered_json(*result.share) : ordered_json()},
                                {"limit", result.limit}});
      if (result.of_ungrouped) {
        all["results"].back()["group"] = result.group;
        all["results"].back()["of_ungrouped"] = *result.of_ungrouped;
      }
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
  const bool choice = std::ranges::any_of(report.results, [](const LinearResult& r) { return !r.chosen; });
  text +=
      fmt::format("\n{:<11} {:<8} {:>11} {:>6} {:>7} {:>10} {:>10} {:>6} {:>8}  {}\n", "backend", "layout",
                  "N x K", "tokens", "weights", "product us", "layer us", "GB/s", "GOP/s", "share of limit");
  for (const LinearResult& result : report.results) {
    const std::string limit = result.limit == "int8 peak" ? std::string(result.limit)
                                                          : fmt::format("{} {:.1f} GB/s", result.limit,
                                                                        result.read_gigabytes_per_second);
    const std::string share = result.share ? fmt::format("{:.1f} % of {}", 100 * *result.share, limit)
                                           : fmt::format("- (faster than {})", limit);
    const std::string group = result.of_ungrouped ? fmt::format("; groups of {}: {:.3f} of the speed without",
                                                                result.group, *result.of_ungrouped)
                                                  : "";
    text += fmt::format(
        "{:<11} {:<8} {:>11} {:>6} {:>7} {:>10.2f} {:>10.2f} {:>6.1f} {:>8.1f}  {}{}\n",
        name_of(result.backend), std::string(name_of(result.format)) + (choice && result.chosen ? "*" : ""),
        name_of(result.shape), result.tokens, name_of(result.from), result.microseconds,
        result.layer_microseconds, result.weight_gigabytes_per_second, result.gops, share, group);
  }
  return text;
}

std::string legend() {
  return "layout      two_bit: 2 bits per weight, base3: 1.6; if there are two, * marks the chosen one\n"
         "            (TRIT_LAYOUT=two_bit or base3 forces one)\n"
         "N x K       outputs x inputs of the layer\n"
         "tokens      rows of the input\n"
         "weights     cache: one layer repeatedly; memory: more layers in turn than fit into the last cache\n"
         "product us  microseconds of the product alone, of inputs that are already quantised\n"
         "layer us    microseconds of RMSNorm, quantisation of fp32 inputs and product; timed separately: "
         "if\n"
         "            both are close, noise can put it below the product\n"
         "GB/s        prepared weights / time of the product\n"
         "GOP/s       operations / time of the product; a multiply-add counts as two\n"
         "share       minimum time that the int8 peak and the read bandwidth allow / time of the product;\n"
         "            limits are the best rounds of this run; '-': the product was faster than the\n"
         "            reading loop\n";
}

}  // namespace trit::bench
