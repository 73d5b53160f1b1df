// SPDX-License-Identifier: MIT
//
// Group scales on the host: what a caller gave, checked, and the groups as the kernels see them.
#pragma once

#include <algorithm>
#include <numeric>
#include <string>

#include "cuda/common/fragments.cuh"
#include "trit/cuda.h"
#include "trit/error.h"

namespace trit::cuda {

/// Throws Error unless `group` belongs to the granularity.
inline void require_group(ScaleGranularity granularity, std::int64_t group, const char* function) {
  if (granularity == ScaleGranularity::group && !is_group_size(group)) {
    throw Error(std::string("cuda::") + function + ": groups of " + std::to_string(group) +
                " inputs, wanted a multiple of 32");
  }
  if (granularity != ScaleGranularity::group && group != 0) {
    throw Error(std::string("cuda::") + function + ": groups of " + std::to_string(group) +
                " inputs for one scale per tensor or per row, wanted 0");
  }
}

inline void require_group_scale_type(DataType type, const char* function) {
  if (type == DataType::bfloat16) {
    throw Error(std::string("cuda::") + function +
                ": group scales of type bfloat16, wanted float32 or float16");
  }
}

/// A group is `per_group` segments, and 128 inputs, a tile, are one, two or four: sums are handed over segment
/// by segment. The last segment and the last group of a row may be short; what a tile holds beyond K adds
/// nothing.
struct Groups {
  int count = 0;      // of a row
  int segment = 0;    // inputs: 32, 64 or 128
  int segments = 0;   // of a row, ceil(K / segment)
  int per_group = 1;  // segments of a group
  const void* scale = nullptr;
  bool half = false;          // scales are float16
  bool token_groups = false;  // a token has `count` scales
};

/// The same without pointers; no groups where `group` is 0. A group that is longer than a row is one of all
/// inputs.
inline Groups groups_of_shape(std::int64_t in_features, std::int64_t group) {
  if (group == 0) {
    return {};
  }
  const auto inputs = static_cast<int>(in_features);
  const auto of = static_cast<int>(std::min<std::int64_t>(group, round_up(inputs, kTileInputs)));
  const int segment = std::gcd(of, kTileInputs);
  return {.count = ceil_div(inputs, of),
          .segment = segment,
          .segments = ceil_div(inputs, segment),
          .per_group = of / segment};
}

/// The same groups in segments of `segment` inputs, which divides that of `groups`.
inline Groups in_segments(Groups groups, int segment) {
  const int parts = groups.segment / segment;
  groups.segment = segment;
  groups.per_group *= parts;
  groups.segments *= parts;
  return groups;
}

// segment_mask's words; a smaller step needs masks of its own.
static_assert(kGroupStep == 32);

/// Bit w: word w of a tile, 32 inputs, ends a segment.
constexpr unsigned segment_mask(int segments_of_tile) {
  return segments_of_tile == 4 ? 15U : (segments_of_tile == 2 ? 10U : 8U);
}

/// Calls call.operator()<scales are float16, tokens have scales>().
template <typename Call>
void for_scales(const Groups& groups, const Call& call) {
  if (groups.half) {
    groups.token_groups ? call.template operator()<true, true>() : call.template operator()<true, false>();
  } else {
    groups.token_groups ? call.template operator()<false, true>() : call.template operator()<false, false>();
  }
}

inline Groups groups_of_product(const Product& args) {
  Groups groups = groups_of_shape(args.in_features, args.group);
  groups.scale = args.group_scale;
  groups.half = args.group_scale_type == DataType::float16;
  groups.token_groups = args.token_scales == TokenScaleGranularity::group;
  return groups;
}

}  // namespace trit::cuda
