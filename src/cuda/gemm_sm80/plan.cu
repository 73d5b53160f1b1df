// SPDX-License-Identifier: MIT
//
// How gemm_sm80 divides a product: tiles of 32 or 64 tokens, and the ranges of k that blocks share.
#include <algorithm>
#include <string>

#include "cuda/common/checks.h"
#include "cuda/common/plan_text.h"
#include "cuda/family.h"
#include "cuda/gemm_sm80/gemm.h"

namespace trit::cuda {
namespace sm80 {
namespace {

constexpr int kMaxSplits = 32;

int k_tiles_of(const ProductShape& shape) {
  return static_cast<int>(ceil_div<std::int64_t>(shape.in_features, kTileInputs));
}

Launch launch_of(const GemmSm80Plan& plan, const ProductShape& shape) {
  const std::int64_t row_blocks = ceil_div<std::int64_t>(shape.out_features, rows_of_tile(plan.tile_tokens));
  const std::int64_t token_blocks = ceil_div<std::int64_t>(shape.tokens, plan.tile_tokens);
  if (row_blocks * token_blocks > 2'147'483'647) {
    throw Error("cuda::product: " + std::to_string(shape.tokens) + " tokens x " +
                std::to_string(shape.out_features) + " outputs are " +
                std::to_string(row_blocks * token_blocks) + " tiles, wanted at most 2147483647");
  }
  const int k_tiles = k_tiles_of(shape);
  const int tiles_per_split = ceil_div(k_tiles, plan.splits);
  return {.tile_tokens = plan.tile_tokens,
          .row_blocks = static_cast<int>(row_blocks),
          .token_blocks = static_cast<int>(token_blocks),
          .splits = ceil_div(k_tiles, tiles_per_split),
          .tiles_per_split = tiles_per_split};
}

/// Splits k where that shortens the last wave. A block costs about 6 stages beside its own: filling the ring
/// and storing; adding up parts costs about as much again.
GemmSm80Plan plan_of(const Device& device, const ProductShape& shape, int tile_tokens) {
  const Launch whole = launch_of({tile_tokens, 1}, shape);
  const std::int64_t blocks = std::int64_t{whole.row_blocks} * whole.token_blocks;
  const std::int64_t at_once = std::int64_t{device.multiprocessors} * kBlocks;
  const int k_tiles = k_tiles_of(shape);
  const int min_splits = ceil_div(k_tiles, kMaxTilesPerSum);  // one int32 sum holds no more
  int splits = min_splits;
  std::int64_t best = 0;
  for (int s = min_splits; s <= std::max(min_splits, std::min(kMaxSplits, k_tiles / 4)); ++s) {
    const std::int64_t cost = ceil_div(blocks * s, at_once) * (ceil_div(k_tiles, s) + (s > 1 ? 12 : 6));
    if (s == min_splits || cost < best) {
      best = cost;
      splits = s;
    }
  }
  return {tile_tokens, launch_of({tile_tokens, splits}, shape).splits};
}

bool fits(const Device& /*device*/, const ProductPlan& of, const ProductShape& shape) {
  const auto& plan = std::get<GemmSm80Plan>(of);
  const int k_tiles = k_tiles_of(shape);
  if (shape.group > 0) {
    // The sum of one group is one int32 sum.
    return plan == GemmSm80Plan{32, 1} && std::min<std::int64_t>(shape.group, shape.in_features) <=
                                              std::int64_t{kMaxTilesPerSum} * kTileInputs;
  }
  return (plan.tile_tokens == 32 || plan.tile_tokens == 64) && plan.splits >= 1 &&
         plan.splits <= std::max(1, k_tiles / 4) && ceil_div(k_tiles, plan.splits) <= kMaxTilesPerSum;
}

std::optional<ProductPlan> choose(const Device& device, const ProductShape& shape) {
  if (shape.group > 0) {
    const GemmSm80Plan plan{32, 1};
    return fits(device, plan, shape) ? std::optional<ProductPlan>(plan) : std::nullopt;
  }
  // Up to 32 tokens are one tile; blocks along the rows and split k fill the device. Beyond, 64 x 64
  // outputs a warp read the fewest bytes per operation from shared memory.
  return plan_of(device, shape, shape.tokens <= 32 ? 32 : 64);
}

void add_candidates(std::vector<ProductPlan>& plans, const Device& device, const ProductShape& shape) {
  if (shape.tokens <= 8 || device.compute_capability == 90) {
    return;
  }
  for (const int tile_tokens : {32, 64}) {
    const int usual = plan_of(device, shape, tile_tokens).splits;
    for (const int splits : {usual / 2, usual - 1, usual, usual + 1, 2 * usual}) {
      const ProductPlan plan = GemmSm80Plan{tile_tokens, splits};
      if (std::ranges::find(plans, plan) == plans.end() && fits(device, plan, shape)) {
        plans.push_back(plan);
      }
    }
  }
}

std::size_t workspace_bytes(const Device& /*device*/, const ProductPlan& plan, const ProductShape& shape) {
  return workspace_bytes_of(launch_of(std::get<GemmSm80Plan>(plan), shape));
}

bool run(const Device& device, const ProductPlan& plan, const Product& args, Stream stream) {
  const ProductShape shape{args.tokens, args.out_features, args.in_features, args.group};
  if (!fits(device, plan, shape)) {
    return false;
  }
  const Launch how = launch_of(std::get<GemmSm80Plan>(plan), shape);
  if (workspace_bytes_of(how) > 0) {
    require_aligned(args.workspace, 16, "product", "workspace");
  }
  launch_gemm(how, product_arguments(args), groups_of_product(args), args.workspace, args.programmatic,
              stream);
  return true;
}

std::string name(const ProductPlan& of) {
  const auto& plan = std::get<GemmSm80Plan>(of);
  return "gemm_sm80 " + std::to_string(plan.tile_tokens) + " / " + std::to_string(plan.splits);
}

std::optional<ProductPlan> parse(std::string_view text) {
  GemmSm80Plan plan{};
  return matches(text, "gemm_sm80 ", plan.tile_tokens, " / ", plan.splits) ? std::optional<ProductPlan>(plan)
                                                                           : std::nullopt;
}

}  // namespace
}  // namespace sm80

const Family kGemmSm80 = {.fits = sm80::fits,
                          .plan = sm80::choose,
                          .add_candidates = sm80::add_candidates,
                          .workspace_bytes = sm80::workspace_bytes,
                          .launch = sm80::run,
                          .name = sm80::name,
                          .parse = sm80::parse};

}  // namespace trit::cuda
