// SPDX-License-Identifier: MIT
#include "cuda/norm_variants.h"

#include <algorithm>

#include "cuda/backward/norm_backward_lanes.cuh"

namespace trit::bench {
namespace {

constexpr std::int64_t kMultiprocessors = 132;

std::string text(const char* name, std::int64_t value) { return name + std::to_string(value); }

template <int kSteps, int kSegments, int kTeams, int kBlocks>
void add(std::vector<NormVariant>& to, std::int64_t tokens) {
  const std::int64_t parts = std::clamp<std::int64_t>(tokens / (2 * kTeams), 1, kMultiprocessors * kBlocks);
  to.push_back({text("steps", kSteps) + text("_segments", kSegments) + text("_teams", kTeams) +
                    text("_blocks", kBlocks),
                parts,
                cuda::NormBackwardLanes<DataType::bfloat16, true, kSteps, kSegments, kTeams, kBlocks>::run});
}

}  // namespace

std::vector<NormVariant> norm_backward_variants(std::int64_t tokens, std::int64_t in_features) {
  std::vector<NormVariant> variants;
  if (in_features <= 1024) {
    add<4, 1, 8, 1>(variants, tokens);
    add<10, 1, 3, 2>(variants, tokens);
  } else if (in_features <= 2560) {
    add<5, 2, 2, 2>(variants, tokens);
    add<10, 1, 3, 2>(variants, tokens);
    add<10, 1, 7, 1>(variants, tokens);
  } else if (in_features <= 4096) {
    add<16, 1, 2, 2>(variants, tokens);
    add<8, 2, 2, 2>(variants, tokens);
    add<8, 2, 1, 3>(variants, tokens);
  } else if (in_features <= 8192) {
    add<16, 2, 1, 2>(variants, tokens);
    add<32, 1, 2, 1>(variants, tokens);
    add<8, 4, 2, 1>(variants, tokens);
  } else {
    add<16, 4, 1, 1>(variants, tokens);
    add<8, 8, 1, 1>(variants, tokens);
  }
  return variants;
}

}  // namespace trit::bench
