// SPDX-License-Identifier: MIT
//
// Which plans a shape has beside the table's.
#include <algorithm>

#include "cuda/common/fragments.cuh"
#include "cuda/gemm_sm90/gemm.h"
#include "cuda/plan.h"
#include "cuda/product.cuh"

namespace trit::cuda {
namespace {

struct Shape {
  std::int64_t tokens, out_features, in_features;
};

void add_decode(std::vector<ProductPlan>& plans, const Device& device, const Shape& shape) {
  const int groups_of_64 = static_cast<int>(ceil_div<std::int64_t>(shape.out_features, 64));
  for (std::int32_t strips = 2; strips <= (shape.tokens <= 8 ? 4 : 2); strips += 2) {
    for (std::int32_t row_warps = 1; row_warps <= 8; ++row_warps) {
      for (std::int32_t k_warps = 1; k_warps <= 16; ++k_warps) {
        const DecodeCut cut{strips, row_warps, k_warps};
        // Less than half of the warps that a wave could have, or more waves than one of three blocks each,
        // were never fast.
        const int blocks = ceil_div(groups_of_64 * 4 / strips, row_warps);
        if (blocks * row_warps * k_warps >= 6 * device.multiprocessors &&
            blocks <= 4 * device.multiprocessors &&
            can_run(device, cut, shape.tokens, shape.out_features, shape.in_features)) {
          plans.emplace_back(cut);
        }
      }
    }
  }
}

void add_gemm_sm80(std::vector<ProductPlan>& plans, const Device& device, const Shape& shape) {
  for (const int tile_tokens : {32, 64}) {
    const int usual =
        plan_gemm_sm80(device, shape.tokens, shape.out_features, shape.in_features, tile_tokens).splits;
    for (const int splits : {usual / 2, usual - 1, usual, usual + 1, 2 * usual}) {
      const GemmSm80Cut cut{tile_tokens, splits};
      if (std::ranges::find(plans, ProductPlan(cut)) == plans.end() &&
          can_run(device, cut, shape.tokens, shape.out_features, shape.in_features)) {
        plans.emplace_back(cut);
      }
    }
  }
}

void add_gemm_sm90(std::vector<ProductPlan>& plans, const Device& device, const Shape& shape) {
  const double best =
      choose_gemm_sm90(shape.tokens, shape.out_features, shape.in_features, device.multiprocessors).clocks;
  for (const GemmSm90Tile& tile : kGemmSm90Tiles) {
    const bool splits = tile.kernel == GemmSm90Kernel::split;
    if (splits && shape.tokens > 1024) {
      continue;
    }
    for (const std::int32_t split : kGemmSm90Splits) {
      const GemmSm90Cut cut{!splits, tile.rows, tile.tokens, split};
      if (can_run(device, cut, shape.tokens, shape.out_features, shape.in_features) &&
          estimated_clocks(tile, split, shape.tokens, shape.out_features, shape.in_features,
                           device.multiprocessors) <= best * (shape.tokens > 512 ? 1.3 : 1.8)) {
        plans.emplace_back(cut);
      }
    }
  }
}

}  // namespace

bool cut_decode(DecodePlan& plan, const Device& device, const DecodeCut& cut, std::int64_t tokens,
                std::int64_t out_features, std::int64_t in_features) {
  plan.strips = cut.strips;
  plan.row_warps = cut.row_warps;
  plan.k_warps = cut.k_warps;
  plan.blocks = ceil_div(strips_of(out_features) / cut.strips, cut.row_warps);
  return fit_decode(plan, device, tokens, in_features);
}

bool can_run(const Device& device, const ProductPlan& plan, std::int64_t tokens, std::int64_t out_features,
             std::int64_t in_features) {
  const std::int64_t k_tiles = ceil_div<std::int64_t>(in_features, 128);
  if (tokens < 1 || out_features < 1 || in_features < 1 || in_features > kMaxInFeatures) {
    return false;
  }
  if (const auto* cut = std::get_if<DecodeCut>(&plan)) {
    DecodePlan decode{};
    return tokens <= kMaxDecodeTokens && (cut->strips == 2 || (cut->strips == 4 && tokens <= 8)) &&
           cut->row_warps >= 1 && cut->row_warps <= 8 && cut->k_warps >= 1 && cut->k_warps <= k_tiles &&
           cut_decode(decode, device, *cut, tokens, out_features, in_features);
  }
  if (std::holds_alternative<DecodeOneCut>(plan)) {
    DecodeOnePlan one{};
    return tokens == 1 && in_features <= kMaxDecodeOneInputs &&
           plan_decode_one(one, device, out_features, in_features, false) &&
           plan_decode_one(one, device, out_features, in_features, true);
  }
  if (const auto* cut = std::get_if<GemmSm80Cut>(&plan)) {
    return (cut->tile_tokens == 32 || cut->tile_tokens == 64) && cut->splits >= 1 &&
           cut->splits <= std::max<std::int64_t>(1, k_tiles / 4) &&
           ceil_div<std::int64_t>(k_tiles, cut->splits) <= kMaxTilesPerSum;
  }
  const auto& cut = std::get<GemmSm90Cut>(plan);
  return device.compute_capability == 90 && in_features <= kMaxGemmSm90Inputs &&
         std::ranges::any_of(kGemmSm90Tiles, [&](const GemmSm90Tile& tile) {
           return (tile.kernel == GemmSm90Kernel::persistent) == cut.persistent && tile.rows == cut.rows &&
                  tile.tokens == cut.tokens && cut.split >= 1 && cut.split <= largest_split(tile) &&
                  // A block without a step would have nothing to send.
                  cut.split <= std::max<std::int64_t>(1, ceil_div<std::int64_t>(in_features, 256));
         });
}

std::vector<ProductPlan> possible_plans(const Device& device, std::int64_t tokens, std::int64_t out_features,
                                        std::int64_t in_features) {
  const Shape shape{tokens, out_features, in_features};
  std::vector<ProductPlan> plans;
  if (can_run(device, DecodeOneCut{}, tokens, out_features, in_features)) {
    plans.emplace_back(DecodeOneCut{});
  }
  if (tokens <= kMaxDecodeTokens) {
    add_decode(plans, device, shape);
  }
  if (tokens > 8 && device.compute_capability == 90) {
    add_gemm_sm90(plans, device, shape);
  } else if (tokens > 8) {
    add_gemm_sm80(plans, device, shape);
  }
  return plans;
}

}  // namespace trit::cuda
