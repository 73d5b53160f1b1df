// SPDX-License-Identifier: MIT
//
// The ways of computing one product (trit/cuda.h): which kernel, and how it divides the work. All give the
// same bits. product.cu chooses one for every shape; the autotuner (autotune/) times the others.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "trit/cuda.h"

namespace trit::cuda {

/// "decode_one": one token. The kernel divides its work itself, in one way for programmatic launch and in
/// another without.
struct DecodeOnePlan {
  bool operator==(const DecodeOnePlan&) const = default;
};
/// "decode S2 P3 Q5": warps of `strips` x 16 rows, P along the rows, Q that share k. With one strip, for group scales
/// alone, Q warps share the tokens.
struct DecodePlan {
  std::int32_t strips, row_warps, k_warps;
  bool operator==(const DecodePlan&) const = default;
};
/// "gemm_sm80 64 / 3": tiles of 64 tokens, k in three parts.
struct GemmSm80Plan {
  std::int32_t tile_tokens, splits;
  bool operator==(const GemmSm80Plan&) const = default;
};
/// "persistent 256x128", "split 128x64 / 2": a tile of gemm_sm90/tiles.h, rows x tokens, and the blocks that
/// share its k.
struct GemmSm90Plan {
  bool persistent;
  std::int32_t rows, tokens, split;  // split is 1 of a persistent one
  bool operator==(const GemmSm90Plan&) const = default;
};
using ProductPlan = std::variant<DecodeOnePlan, DecodePlan, GemmSm80Plan, GemmSm90Plan>;

std::string name_of(const ProductPlan& plan);
/// The inverse; nothing for any other text.
std::optional<ProductPlan> plan_from_name(std::string_view name);

/// The plan that product() takes. Throws Error for a GPU or shape that no kernel takes. `group` here and below:
/// inputs of a weight scale, 0 without group scales, whose types follow.
ProductPlan default_plan(const Device& device, std::int64_t tokens, std::int64_t out_features,
                         std::int64_t in_features, std::int64_t group = 0,
                         DataType group_scale_type = DataType::float16,
                         TokenScaleGranularity token_scales = TokenScaleGranularity::token);
/// Whether this GPU can compute a product of this shape by this plan.
bool can_run(const Device& device, const ProductPlan& plan, std::int64_t tokens, std::int64_t out_features,
             std::int64_t in_features, std::int64_t group = 0);
/// The candidates of the autotuner: every plan that could be the fastest, some tens. Plans that an estimate
/// finds far too slow are left out.
std::vector<ProductPlan> possible_plans(const Device& device, std::int64_t tokens, std::int64_t out_features,
                                        std::int64_t in_features, std::int64_t group = 0);

/// Like the functions of trit/cuda.h, with a plan for which can_run() holds; `args.workspace` has the bytes
/// that the plan needs. Throws Error for a plan that cannot run.
std::size_t product_workspace_bytes(const Device& device, const ProductPlan& plan, std::int64_t tokens,
                                    std::int64_t out_features, std::int64_t in_features,
                                    std::int64_t group = 0);
void product(const Device& device, const ProductPlan& plan, const Product& args, Stream stream);

}  // namespace trit::cuda
