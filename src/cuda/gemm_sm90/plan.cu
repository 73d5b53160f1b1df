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

bool fits(const Device& device, const ProductPlan& of, const ProductShape& shape) {
  const auto& plan = std::get<GemmSm90Plan>(of);
  return device.compute_capability == 90 && shape.in_features <= kMaxGemmSm90Inputs &&
         shape.tokens <= kMaxGemmSm90Extent && shape.out_features <= kMaxGemmSm90Extent &&
         instance_of(plan) != nullptr && plan.split >= 1 && plan.split <= largest_split(tile_of(plan)) &&
         // A block without a step would have no accumulators to send.
         plan.split <= std::max<std::int64_t>(1, ceil_div<std::int64_t>(shape.in_features, 256));
}

std::optional<ProductPlan> choose(const Device& device, const ProductShape& shape) {
  const GemmSm90Choice best =
      choose_gemm_sm90(shape.tokens, shape.out_features, shape.in_features, device.multiprocessors);
  return GemmSm90Plan{best.tile.kernel == GemmSm90Kernel::persistent, best.tile.rows, best.tile.tokens,
                      best.split};
}

void add_candidates(std::vector<ProductPlan>& plans, const Device& device, const ProductShape& shape) {
  if (shape.tokens <= 8 || device.compute_capability != 90) {
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
  if (!fits(device, of, {args.tokens, args.out_features, args.in_features})) {
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
  const GemmSm90Tokens q{.data = args.q,
                         .element_bytes = 1,
                         .in_features = args.in_features,
                         .stride_bytes = quantized_row_bytes(args.in_features)};
  launch_gemm_sm90("product", *instance_of(plan), plan.split, q, p, device.multiprocessors, args.programmatic,
                   stream);
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
