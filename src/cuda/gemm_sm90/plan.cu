// SPDX-License-Identifier: MIT
//
// The layer's product by the Hopper GEMM: which tile (tiles.h has the table and the estimate), and the
// launch.
#include <algorithm>
#include <string>

#include "cuda/common/plan_text.h"
#include "cuda/family.h"
#include "cuda/gemm_sm90/launch.cuh"

namespace trit::cuda {
namespace sm90 {
namespace {

GemmSm90Tile tile_of(const GemmSm90Plan& plan) {
  return {plan.persistent ? GemmSm90Kernel::persistent : GemmSm90Kernel::split, plan.rows, plan.tokens};
}

/// The compiled tile of a plan, or null.
const GemmSm90Instance* instance_of(const GemmSm90Plan& plan) {
  for (const auto& instances : {gemm_sm90_persistent_256(), gemm_sm90_persistent_128(), gemm_sm90_split()}) {
    for (const GemmSm90Instance& instance : instances) {
      if (instance.tile == tile_of(plan)) {
        return &instance;
      }
    }
  }
  return nullptr;
}

/// The compiled tile for a plan with group scales: of the plan's rows and tokens or, of a kind that has fewer tiles,
/// the one of the most rows that are no more and, of these, the most tokens that are no more, else the fewest.
const GemmSm90Instance* group_instance_of(const GemmSm90Plan& plan, const Groups& groups,
                                          GroupScales scales) {
  const GemmSm90Instance* found = nullptr;
  for (const GemmSm90Instance& instance : gemm_sm90_groups(kTileInputs / groups.segment, scales)) {
    // In the order of rows, and of tokens from the most on.
    const bool same_rows = found != nullptr && instance.tile.rows == found->tile.rows;
    if (instance.tile.rows <= plan.rows &&
        (found == nullptr || (same_rows && found->tile.tokens > plan.tokens))) {
      found = &instance;
    }
  }
  return found;
}

bool fits(const Device& device, const ProductPlan& of, const ProductShape& shape) {
  const auto& plan = std::get<GemmSm90Plan>(of);
  if (shape.group > 0) {
    const GemmSm90Instance* const instance =
        group_instance_of(plan, groups_of_shape(shape.in_features, shape.group), GroupScales::float16);
    return device.compute_capability == 90 && shape.in_features <= kMaxGemmSm90Inputs &&
           shape.tokens <= kMaxGemmSm90Extent && shape.out_features <= kMaxGemmSm90Extent &&
           plan.split == 1 && instance != nullptr && instance->tile == tile_of(plan);
  }
  return device.compute_capability == 90 && shape.in_features <= kMaxGemmSm90Inputs &&
         shape.tokens <= kMaxGemmSm90Extent && shape.out_features <= kMaxGemmSm90Extent &&
         instance_of(plan) != nullptr && plan.split >= 1 && plan.split <= largest_split(tile_of(plan)) &&
         // A block without a step would have no accumulators to send.
         plan.split <= std::max<std::int64_t>(1, ceil_div<std::int64_t>(shape.in_features, 256));
}

/// With group scales: the compiled tile with the least estimate.
std::optional<ProductPlan> choose_groups(const Device& device, const ProductShape& shape) {
  const Groups groups = groups_of_shape(shape.in_features, shape.group);
  const GroupScales scales = shape.float32_scales ? GroupScales::float32 : GroupScales::float16;
  const GemmSm90Instance* best = nullptr;
  double best_clocks = 0;
  for (const GemmSm90Instance& instance : gemm_sm90_groups(kTileInputs / groups.segment, scales)) {
    const double clocks = estimated_group_clocks(instance.tile, shape.tokens, shape.out_features,
                                                 shape.in_features, device.multiprocessors);
    if (best == nullptr || clocks < best_clocks) {
      best = &instance;
      best_clocks = clocks;
    }
  }
  return GemmSm90Plan{true, best->tile.rows, best->tile.tokens, 1};
}

std::optional<ProductPlan> choose(const Device& device, const ProductShape& shape) {
  if (shape.group > 0) {
    return choose_groups(device, shape);
  }
  const GemmSm90Choice best =
      choose_gemm_sm90(shape.tokens, shape.out_features, shape.in_features, device.multiprocessors);
  return GemmSm90Plan{best.tile.kernel == GemmSm90Kernel::persistent, best.tile.rows, best.tile.tokens,
                      best.split};
}

void add_candidates(std::vector<ProductPlan>& plans, const Device& device, const ProductShape& shape) {
  if (shape.tokens <= (shape.group > 0 ? 1 : 8) || device.compute_capability != 90) {
    return;
  }
  if (shape.group > 0) {
    const Groups groups = groups_of_shape(shape.in_features, shape.group);
    for (const GemmSm90Instance& instance :
         gemm_sm90_groups(kTileInputs / groups.segment, GroupScales::float16)) {
      const GemmSm90Plan plan{true, instance.tile.rows, instance.tile.tokens, 1};
      if (fits(device, plan, shape)) {
        plans.emplace_back(plan);
      }
    }
    return;
  }
  const auto clocks = [&](const GemmSm90Tile& tile, std::int32_t split) {
    return estimated_clocks(tile, split, shape.tokens, shape.out_features, shape.in_features,
                            device.multiprocessors);
  };
  const double best =
      choose_gemm_sm90(shape.tokens, shape.out_features, shape.in_features, device.multiprocessors).clocks;
  const double max_clocks = best * (shape.tokens > 512 ? 1.3 : 1.8);
  for (const GemmSm90Tile& tile : kGemmSm90Tiles) {
    const bool persistent = tile.kernel == GemmSm90Kernel::persistent;
    if (!persistent && shape.tokens > 1024) {
      continue;
    }
    for (const std::int32_t split : kGemmSm90Splits) {
      const GemmSm90Plan plan{persistent, tile.rows, tile.tokens, split};
      if (fits(device, plan, shape) && clocks(tile, split) <= max_clocks) {
        plans.emplace_back(plan);
      }
    }
  }
}

bool run(const Device& device, const ProductPlan& of, const Product& args, Stream stream) {
  if (!fits(device, of, {args.tokens, args.out_features, args.in_features, args.group})) {
    return false;
  }
  const auto& plan = std::get<GemmSm90Plan>(of);
  GemmSm90Parameters p;
  p.weights = args.weights;
  p.token_scales = args.token_scale;
  p.weight_scales = args.weight_scale;
  p.weight_scale_stride = args.granularity == ScaleGranularity::row ? 1 : 0;
  p.bias = args.bias;
  p.y = args.y;
  p.y_type = args.y_type;
  p.tokens = static_cast<std::int32_t>(args.tokens);
  p.out_features = static_cast<std::int32_t>(args.out_features);
  const GemmSm90Instance* instance = instance_of(plan);
  if (args.group > 0) {
    p.groups = groups_of_product(args);
    p.weight_scales = nullptr;
    if (p.groups.token_groups) {
      p.group_token_scales = args.token_scale;
      p.token_scales = nullptr;
    }
    p.q = args.q;
    p.q_stride = quantized_row_bytes(args.in_features);
    p.in_features = static_cast<std::int32_t>(args.in_features);
    const GroupScales scales = p.groups.token_groups || p.groups.per_group > 1 ? GroupScales::any
                               : p.groups.half                                 ? GroupScales::float16
                                                                               : GroupScales::float32;
    instance = group_instance_of(plan, p.groups, scales);
    if (scales == GroupScales::any && p.groups.segment < kTileInputs) {
      p.groups = in_segments(p.groups, static_cast<int>(kGroupStep));  // what that kernel is compiled for
    }
  }
  const GemmSm90Tokens q{.data = args.q,
                         .element_bytes = 1,
                         .in_features = args.in_features,
                         .stride_bytes = quantized_row_bytes(args.in_features)};
  launch_gemm_sm90("product", *instance, plan.split, q, p, device.multiprocessors, args.programmatic, stream);
  return true;
}

std::string name(const ProductPlan& of) {
  const auto& plan = std::get<GemmSm90Plan>(of);
  const std::string tile = std::to_string(plan.rows) + "x" + std::to_string(plan.tokens);
  return plan.persistent ? "persistent " + tile : "split " + tile + " / " + std::to_string(plan.split);
}

std::optional<ProductPlan> parse(std::string_view text) {
  GemmSm90Plan plan{true, 0, 0, 1};
  if (matches(text, "persistent ", plan.rows, "x", plan.tokens)) {
    return plan;
  }
  plan.persistent = false;
  return matches(text, "split ", plan.rows, "x", plan.tokens, " / ", plan.split)
             ? std::optional<ProductPlan>(plan)
             : std::nullopt;
}

}  // namespace
}  // namespace sm90

const Family kGemmSm90 = {.fits = sm90::fits,
                          .plan = sm90::choose,
                          .add_candidates = sm90::add_candidates,
                          .workspace_bytes = nullptr,
                          .launch = sm90::run,
                          .name = sm90::name,
                          .parse = sm90::parse};

}  // namespace trit::cuda
