// SPDX-License-Identifier: MIT
//
// The kernel families that compute products, one folder each: decode/, decode_one/, gemm_sm80/, gemm_sm90/.
// The file plan.cu of a folder chooses the family's tiles and fills its Family; product.cu has the table of
// families and chooses between them by the number of tokens.
//
// To add a family: a folder with plan.cu and the kernel, a plan type in plan.h, a row in product.cu.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cuda/plan.h"

namespace trit::cuda {

struct ProductShape {
  std::int64_t tokens, out_features, in_features;
  std::int64_t group = 0;       // inputs of a weight scale; 0 without group scales
  bool token_groups = false;    // a token has scales of its groups
  bool float32_scales = false;  // of groups; otherwise float16
};

/// One family. Every plan that a function takes is the family's own alternative of ProductPlan, and every
/// shape has at least one token, output and input.
struct Family {
  /// Whether the kernel can compute the shape by this plan.
  bool (*fits)(const Device& device, const ProductPlan& plan, const ProductShape& shape);
  /// The family's own choice for the shape: its tiles. Nothing where the family cannot compute it.
  std::optional<ProductPlan> (*plan)(const Device& device, const ProductShape& shape);
  /// Adds the plans that are worth timing.
  void (*add_candidates)(std::vector<ProductPlan>& plans, const Device& device, const ProductShape& shape);
  /// Null for a family that needs no workspace.
  std::size_t (*workspace_bytes)(const Device& device, const ProductPlan& plan, const ProductShape& shape);
  /// Returns false, with nothing launched, for a plan that does not fit.
  bool (*launch)(const Device& device, const ProductPlan& plan, const Product& args, Stream stream);
  /// A plan as text, and back; parse gives nothing for any other text.
  std::string (*name)(const ProductPlan& plan);
  std::optional<ProductPlan> (*parse)(std::string_view text);
};

extern const Family kDecodeOne;  // decode_one/plan.cu
extern const Family kDecode;     // decode/plan.cu
extern const Family kGemmSm80;   // gemm_sm80/plan.cu
extern const Family kGemmSm90;   // gemm_sm90/plan.cu

}  // namespace trit::cuda
