// SPDX-License-Identifier: MIT
#include "cuda/summary.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

namespace trit::bench {

using nlohmann::ordered_json;

void print_summary(const ordered_json& products) {
  std::vector<std::int64_t> done;
  fmt::print(
      "\ntokens   plain / bf16     programmatic / bf16   programmatic / best   plain / best    sm_80 / int8  "
      "(mean, least)\n");
  for (const ordered_json& first : products) {
    const auto tokens = first["tokens"].get<std::int64_t>();
    if (std::ranges::find(done, tokens) != done.end()) {
      continue;
    }
    done.push_back(tokens);
    std::array<std::vector<double>, 5> ratios;
    for (const ordered_json& product : products) {
      if (product["tokens"] != tokens) {
        continue;
      }
      const ordered_json& us = product["microseconds"];
      const double plain = us["trit"];
      const double programmatic = us["trit_programmatic"];
      double best = 1e30;
      for (const char* peer : {"bfloat16", "int8", "float8"}) {
        best = std::min(best, us.value(peer, 1e30));
      }
      const double bfloat16 = us.value("bfloat16", 1e30);
      ratios[0].push_back(bfloat16 / plain);
      ratios[1].push_back(bfloat16 / programmatic);
      ratios[2].push_back(best / programmatic);
      ratios[3].push_back(best / plain);
      ratios[4].push_back(us.contains("trit_sm80") ? us.value("int8", 0.0) / us["trit_sm80"].get<double>()
                                                   : 0.0);
    }
    fmt::print("{:6}", tokens);
    for (const std::vector<double>& column : ratios) {
      double sum = 0;
      for (const double ratio : column) {
        sum += std::log(ratio);
      }
      fmt::print("   {:6.2f} {:6.2f}   ", std::exp(sum / static_cast<double>(column.size())),
                 std::ranges::min(column));
    }
    fmt::print("\n");
  }
}

}  // namespace trit::bench
