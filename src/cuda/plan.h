// SPDX-License-Identifier: MIT
//
// The ways of computing one product (trit/cuda.h): which kernel, and how it cuts the work. All give the same
// bits. dispatch.cu's table has one for every shape; the autotuner (trit bench --tune) and bench_cuda --tune
// time the others.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "trit/cuda.h"

namespace trit::cuda {

/// "decode S2 P3 Q5": warps of `strips` x 16 rows, P beside each other along the rows, Q that share k.
struct DecodeCut {
  std::int32_t strips, row_warps, k_warps;
  bool operator==(const DecodeCut&) const = default;
};
/// "decode_one": one token; the kernel cuts its work itself, in one way for programmatic launch and in
/// another one without (plan_decode_one).
struct DecodeOneCut {
  bool operator==(const DecodeOneCut&) const = default;
};
/// "gemm_sm80 64 / 3": tiles of so many tokens, k in so many parts.
struct GemmSm80Cut {
  std::int32_t tile_tokens, splits;
  bool operator==(const GemmSm80Cut&) const = default;
};
/// "persistent 256x128", "split 128x64 / 2": a tile of gemm_sm90_tiles.h, rows x tokens, and the blocks that
/// share its k.
struct GemmSm90Cut {
  bool persistent;
  std::int32_t rows, tokens, split;  // split is 1 of a persistent one
  bool operator==(const GemmSm90Cut&) const = default;
};
using ProductPlan = std::variant<DecodeCut, DecodeOneCut, GemmSm80Cut, GemmSm90Cut>;

struct DecodePlan;  // product.cuh
/// What decode's launcher takes for a cut; false where it does not fit into shared memory.
bool cut_decode(DecodePlan& plan, const Device& device, const DecodeCut& cut, std::int64_t tokens,
                std::int64_t out_features, std::int64_t in_features);

std::string name_of(const ProductPlan& plan);
/// The inverse; nothing for any other text.
std::optional<ProductPlan> plan_from_name(std::string_view name);

/// What product() takes: the table's plan. Throws Error for a GPU or shape that no kernel takes.
ProductPlan default_plan(const Device& device, std::int64_t tokens, std::int64_t out_features,
                         std::int64_t in_features);
/// Whether a product of this shape can be computed like this on this GPU.
bool can_run(const Device& device, const ProductPlan& plan, std::int64_t tokens, std::int64_t out_features,
             std::int64_t in_features);
/// Every plan that could be the fastest, those whose estimate is hopeless left out: tens.
std::vector<ProductPlan> possible_plans(const Device& device, std::int64_t tokens, std::int64_t out_features,
                                        std::int64_t in_features);

/// As the functions of trit/cuda.h, with a plan for which can_run() holds; `args.workspace` has the bytes
/// that the plan needs. Throws Error for a plan that cannot run.
std::size_t product_workspace_bytes(const Device& device, const ProductPlan& plan, std::int64_t tokens,
                                    std::int64_t out_features, std::int64_t in_features);
void product(const Device& device, const ProductPlan& plan, const Product& args, Stream stream);

}  // namespace trit::cuda
