// SPDX-License-Identifier: MIT
#include "cpu/generic/group_sums.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "base/tasks.h"

namespace trit::generic {
namespace {

// Inputs per task of the offsets, a few microseconds.
constexpr std::int64_t kWorkPerTask = 1 << 18;

}  // namespace

bool has_group_kernel(const Product& args) {
  const GroupKernel* const kernel = args.layout.groups;
  if (kernel == nullptr || args.group > kernel->max_group) {
    return false;
  }
  if (!kernel->shifts_scales) {
    return true;
  }
  if (!args.group_scales_are_scalable) {
    return false;
  }
  // A bad row's NaN gives NaN either way.
  const auto is_usual = [](float s) {
    return std::isnan(s) || (s >= kMinTokenGroupScale && s <= kMaxGroupScale);
  };
  return args.x.group == 0 ||
         std::ranges::all_of(
             std::span(args.x.scale,
                       static_cast<std::size_t>(args.x.tokens * groups_of(args.in_features, args.group))),
             is_usual);
}

GroupOffsets::GroupOffsets(Parallel& parallel, const Product& args)
    : count_(args.layout.groups->offset_count),
      stride_(count_ * groups_of(args.in_features, args.group)),
      offsets_(
          std::make_unique_for_overwrite<std::int32_t[]>(static_cast<std::size_t>(args.x.tokens * stride_))) {
  const std::int64_t padded = padded_in_features(args.in_features);
  const std::int64_t tasks = task_count(parallel, args.x.tokens, args.x.tokens * padded, kWorkPerTask);
  run_tasks(parallel, tasks, [&](std::int64_t task) {
    const Part tokens = part_of(args.x.tokens, tasks, task);
    for (std::int64_t token = tokens.begin; token < tokens.end; ++token) {
      args.layout.groups->offsets(args.x.q + token * padded, padded, args.group,
                                  offsets_.get() + token * stride_);
    }
  });
}

PanelScales scales_of(const Product& args, std::int64_t panel, std::int64_t group) {
  const std::int64_t at = (panel * groups_of(args.in_features, args.group) + group) * args.layout.panel_rows;
  return {
      static_cast<const std::uint8_t*>(args.group_scales.values) + at * scale_bytes(args.group_scales.type),
      args.group_scales.type};
}

float token_scale_of(const Product& args, std::int64_t token, std::int64_t group) {
  return args.x.group == 0 ? 1.0F : args.x.scale[token * groups_of(args.in_features, args.group) + group];
}

}  // namespace trit::generic
