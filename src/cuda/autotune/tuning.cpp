// SPDX-License-Identifier: MIT
#include "cuda/autotune/tuning.h"

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <span>

#include "base/user_cache.h"
#include "trit/crc32c.h"
#include "trit/error.h"

namespace trit::cuda {
namespace {

/// 2 to 8 tokens cost the same; one has a kernel of its own.
constexpr std::int64_t kMaxTokensOfOneCost = 8;
constexpr std::string_view kChecksum = "crc32c ";

std::string checksum_line(std::string_view lines) {
  char digits[16];
  static_cast<void>(std::snprintf(digits, sizeof(digits), "%08x\n",
                                  crc32c(std::as_bytes(std::span(lines.data(), lines.size())))));
  return std::string(kChecksum) + digits;
}

/// The next line of `rest`, without its end, which must be there.
std::optional<std::string_view> take_line(std::string_view& rest) {
  const std::size_t end = rest.find('\n');
  if (end == std::string_view::npos) {
    return std::nullopt;
  }
  const std::string_view line = rest.substr(0, end);
  rest.remove_prefix(end + 1);
  return line;
}

/// A number from 1 on, and the space after it.
bool take_number(std::string_view& rest, std::int64_t& number) {
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), number);
  const auto length = static_cast<std::size_t>(end - rest.data());
  if (error != std::errc() || number < 1 || length == rest.size() || rest[length] != ' ') {
    return false;
  }
  rest.remove_prefix(length + 1);
  return true;
}

}  // namespace

std::string tuning_key(std::string_view gpu, const Device& device) {
  return "trit-tuning 3 | " + std::string(gpu) + " | compute capability " +
         std::to_string(device.compute_capability) + " | " + std::to_string(device.multiprocessors) +
         " multiprocessors";
}

void Tuning::set(std::int64_t tokens, std::int64_t out_features, std::int64_t in_features,
                 const ProductPlan& plan) {
  plans_.insert_or_assign({out_features, in_features, tokens}, plan);
}

void Tuning::erase(std::int64_t tokens, std::int64_t out_features, std::int64_t in_features) {
  plans_.erase({out_features, in_features, tokens});
}

const ProductPlan* Tuning::find(std::int64_t tokens, std::int64_t out_features,
                                std::int64_t in_features) const {
  const auto found = plans_.lower_bound({out_features, in_features, tokens});
  if (found == plans_.end()) {
    return nullptr;
  }
  const auto [n, k, m] = found->first;
  const bool same_cost = m == tokens || (tokens > 1 && m <= kMaxTokensOfOneCost);
  return n == out_features && k == in_features && same_cost ? &found->second : nullptr;
}

std::string Tuning::text(std::string_view key) const {
  std::string text = std::string(key) + "\n";
  for (const auto& [shape, plan] : plans_) {
    const auto& [n, k, m] = shape;
    text +=
        std::to_string(n) + " " + std::to_string(k) + " " + std::to_string(m) + " " + name_of(plan) + "\n";
  }
  return text + checksum_line(text);
}

Tuning Tuning::from_text(std::string_view text, std::string_view key) {
  std::string_view rest = text;
  const auto first = take_line(rest);
  if (first != key) {
    throw Error("it is of '" + std::string(first.value_or(text.substr(0, 80))) + "', wanted '" +
                std::string(key) + "'");
  }
  Tuning tuning;
  for (int number = 2;; ++number) {
    const auto before = static_cast<std::size_t>(rest.data() - text.data());
    const auto line = take_line(rest);
    if (!line) {
      throw Error("line " + std::to_string(number) + " is cut");
    }
    if (line->starts_with(kChecksum)) {
      if (text.substr(before) != checksum_line(text.substr(0, before))) {
        throw Error("its checksum does not fit");
      }
      return tuning;
    }
    std::int64_t n = 0;
    std::int64_t k = 0;
    std::int64_t m = 0;
    std::string_view name = *line;
    const bool numbers = take_number(name, n) && take_number(name, k) && take_number(name, m);
    const auto plan = numbers ? plan_from_name(name) : std::nullopt;
    if (!plan) {
      throw Error("line " + std::to_string(number) + " is '" + std::string(*line) +
                  "', wanted outputs, inputs, tokens and a plan");
    }
    tuning.set(m, n, k, *plan);
  }
}

TuningFile tuning_file(std::string_view key) {
  const char* asked = std::getenv("TRIT_CUDA_TUNING");
  if (asked == nullptr || *asked == '\0') {
    return {cached_file(user_cache_folder(), "cuda-tuning", key), false};
  }
  return std::string_view(asked) == "off" ? TuningFile{} : TuningFile{asked, true};
}

Tuning load_tuning(const TuningFile& file, std::string_view key) {
  if (file.path.empty()) {
    return {};
  }
  std::ifstream stream(file.path, std::ios::binary);
  if (!stream) {
    if (file.asked) {
      throw Error("TRIT_CUDA_TUNING: " + file.path.string() +
                  " cannot be opened; wanted a file that `trit bench --backend cuda --tune` has written, or "
                  "'off'");
    }
    return {};
  }
  const std::string text{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  try {
    return Tuning::from_text(text, key);
  } catch (const Error& error) {
    static_cast<void>(
        std::fprintf(stderr, "trit: warning: %s is ignored: %s\n", file.path.c_str(), error.what()));
    return {};
  }
}

bool save_tuning(const TuningFile& file, std::string_view key, const Tuning& tuning) {
  return write_cached_file(file.path, tuning.text(key));
}

TunedPlans::TunedPlans(std::string_view gpu, const Device& device)
    : device_(device),
      file_(tuning_file(tuning_key(gpu, device))),
      tuning_(load_tuning(file_, tuning_key(gpu, device))) {}

ProductPlan TunedPlans::plan(std::int64_t tokens, std::int64_t out_features, std::int64_t in_features) const {
  const ProductPlan* const measured = tuning_.find(tokens, out_features, in_features);
  // The file may be older than the kernels: a plan that cannot run is no error.
  return measured != nullptr && can_run(device_, *measured, tokens, out_features, in_features)
             ? *measured
             : default_plan(device_, tokens, out_features, in_features);
}

}  // namespace trit::cuda
