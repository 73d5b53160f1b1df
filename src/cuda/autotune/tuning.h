// SPDX-License-Identifier: MIT
//
// The plans that `trit bench --backend cuda --tune` found to be the fastest on one GPU model, kept in a file
// in the user's cache:
//
//   trit-tuning 3 | NVIDIA H200 | compute capability 90 | 132 multiprocessors       the key
//   4096 4096 1 decode S2 P1 Q16                                                    N K M plan
//   14336 4096 1024 persistent 256x96
//   crc32c 5c0e9d2b                                                                 of all lines before it
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>

#include "cuda/plan.h"

namespace trit::cuda {

/// The GPU model that a file of plans is for. The number counts changes of the kernels that make older files
/// useless.
std::string tuning_key(std::string_view gpu, const Device& device);

class Tuning {
 public:
  void set(std::int64_t tokens, std::int64_t out_features, std::int64_t in_features, const ProductPlan& plan);
  /// default_plan() decides again.
  void erase(std::int64_t tokens, std::int64_t out_features, std::int64_t in_features);
  /// The plan of this shape and number of tokens. A product of 2 to 8 tokens costs about the same for each
  /// of these numbers, so it takes the plan of the next larger number that has one; one token has a kernel
  /// of its own. Null where there is none.
  const ProductPlan* find(std::int64_t tokens, std::int64_t out_features, std::int64_t in_features) const;
  std::size_t size() const { return plans_.size(); }

  std::string text(std::string_view key) const;
  /// The inverse. Throws Error that says what is wrong: another key, a line that is no plan, a text that was
  /// cut or changed.
  static Tuning from_text(std::string_view text, std::string_view key);

 private:
  std::map<std::tuple<std::int64_t, std::int64_t, std::int64_t>, ProductPlan> plans_;  // by N, K, M
};

/// Where plans come from. TRIT_CUDA_TUNING is "off" for default plans alone, or the path of a file; where
/// it is unset or empty, a file in the user's cache.
struct TuningFile {
  std::filesystem::path path;  // empty: none
  bool asked = false;          // named by TRIT_CUDA_TUNING: it must be there
};
TuningFile tuning_file(std::string_view key);

/// The file's plans; none where there is no file. A file that is damaged or of another GPU is ignored, with a
/// warning on standard error. Throws Error where the file that TRIT_CUDA_TUNING names cannot be opened.
Tuning load_tuning(const TuningFile& file, std::string_view key);

/// Whether it worked (write_cached_file).
bool save_tuning(const TuningFile& file, std::string_view key, const Tuning& tuning);

/// The plans of one GPU's products: measured ones, else default_plan().
class TunedPlans {
 public:
  /// Reads the plans of this GPU (load_tuning).
  TunedPlans(std::string_view gpu, const Device& device);

  ProductPlan plan(std::int64_t tokens, std::int64_t out_features, std::int64_t in_features) const;
  /// The file that measured plans come from; empty where there are none.
  std::string source() const { return tuning_.size() > 0 ? file_.path.string() : ""; }

 private:
  Device device_;
  TuningFile file_;
  Tuning tuning_;
};

}  // namespace trit::cuda
