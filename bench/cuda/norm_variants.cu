// SPDX-License-Identifier: MIT
#include "cuda/norm_variants.h"

#include <algorithm>

#include "cuda/backward/norm_backward.h"
#include "cuda/backward/norm_backward_lanes.cuh"

namespace trit::bench {
namespace {

constexpr std::int64_t kMultiprocessors = 132;

std::string text(const char* name, std::int64_t value) { return name + std::to_string(value); }

template <int kSteps, int kTeams, int kStages, int kBlocks>
void add_lanes(std::vector<NormVariant>& to, std::int64_t tokens) {
  const std::int64_t parts = std::clamp<std::int64_t>(tokens / (2 * kTeams), 1, kMultiprocessors * kBlocks);
  for (const bool in_turn : {false, true}) {
    to.push_back(
        {"lanes" + text("_teams", kTeams) + text("_stages", kStages) + text("_blocks", kBlocks) +
             (in_turn ? "_in_turn" : ""),
         parts, [in_turn](const cuda::NormBackward& args, cuda::Stream stream) {
           cuda::launch_norm_backward_lanes<DataType::bfloat16, true, kSteps, kTeams, kStages, kBlocks>(
               args, in_turn, stream);
         }});
  }
}

}  // namespace

std::vector<NormVariant> norm_backward_variants(std::int64_t tokens, std::int64_t in_features) {
  std::vector<NormVariant> variants;
  if (in_features <= 2560) {
    add_lanes<10, 3, 2, 2>(variants, tokens);
    add_lanes<10, 4, 2, 2>(variants, tokens);
    add_lanes<10, 3, 3, 2>(variants, tokens);
    add_lanes<10, 6, 3, 1>(variants, tokens);
  } else if (in_features <= 4096) {
    add_lanes<16, 2, 2, 2>(variants, tokens);
    add_lanes<16, 4, 3, 1>(variants, tokens);
    add_lanes<16, 5, 2, 1>(variants, tokens);
  } else if (in_features <= 8192) {
    add_lanes<32, 2, 2, 1>(variants, tokens);
  }
  // Blocks of these many threads and 128 registers that a multiprocessor has at a time, and half as many.
  const std::int64_t threads = (in_features + 1023) / 1024 * 32;
  const std::int64_t blocks = std::max<std::int64_t>(512 / threads, 1);
  for (const std::int64_t of_one : {blocks, (blocks + 1) / 2}) {
    const std::int64_t parts = std::clamp<std::int64_t>(tokens / 4, 1, kMultiprocessors * of_one);
    variants.push_back({text("columns_parts", parts), parts, cuda::norm_backward_in_columns});
    if (of_one == 1) {
      break;
    }
  }
  return variants;
}

}  // namespace trit::bench
