// SPDX-License-Identifier: MIT
//
// The table of kernel families, the choice between them by the number of tokens, and a product by any plan.
#include <array>
#include <climits>
#include <string>

#include "cuda/common/checks.h"
#include "cuda/common/groups.h"
#include "cuda/family.h"
#include "cuda/gemm_sm90/tiles.h"
#include "cuda/plan.h"

namespace trit::cuda {
namespace {

/// In the order of ProductPlan's alternatives.
constexpr std::array<const Family*, 4> kFamilies = {&kDecodeOne, &kDecode, &kGemmSm80, &kGemmSm90};
static_assert(kFamilies.size() == std::variant_size_v<ProductPlan>, "each family has one kind of plan");

const Family& family_of(const ProductPlan& plan) { return *kFamilies[plan.index()]; }

struct Choice {
  std::int64_t max_tokens;
  std::int64_t max_in_features;
  int max_inputs_per_output;
  int min_compute_capability;
  int max_compute_capability;
  const Family* family;
};

/// The first row that fits and whose family has a plan is taken (measured: docs/notes/cuda-decode.md).
constexpr std::array<Choice, 7> kChoices = {{
    // One token leaves columns of mma free, which unpack: 4 instructions a word instead of 7, 1.05 to 1.4
    // times as fast as decode.
    {1, INT64_MAX, INT_MAX, 80, INT_MAX, &kDecodeOne},
    // Bound by reading weights: each once, by one warp. One token costs what eight do.
    {8, INT64_MAX, INT_MAX, 80, INT_MAX, &kDecode},
    // Likewise, with two columns of mma per weight: on an H200 1.03 to 1.14 times as fast as the split GEMM.
    // Where rows are few, clusters share k between more multiprocessors: 1.3 times as fast at K = 8 N.
    {16, INT64_MAX, 2, 80, INT_MAX, &kDecode},
    // wgmma, which only compute capability 9.0 has.
    {INT64_MAX, kMaxGemmSm90Inputs, INT_MAX, 90, 90, &kGemmSm90},
    {16, INT64_MAX, INT_MAX, 80, INT_MAX, &kDecode},
    // Bound by mma.sync.
    {INT64_MAX, INT64_MAX, INT_MAX, 80, INT_MAX, &kGemmSm80},
    // Groups that are too long for one int32 sum of a GEMM.
    {INT64_MAX, INT64_MAX, INT_MAX, 80, INT_MAX, &kDecode},
}};

bool applies(const Choice& choice, const Device& device, const ProductShape& shape) {
  return shape.tokens <= choice.max_tokens && shape.in_features <= choice.max_in_features &&
         shape.in_features <= choice.max_inputs_per_output * shape.out_features &&
         device.compute_capability >= choice.min_compute_capability &&
         device.compute_capability <= choice.max_compute_capability;
}

/// Group scales and 9 to 16 tokens where there is wgmma: the GEMM's tiles of 64 rows, whose k two warpgroups share
/// (194 clocks for 128 inputs), unless a multiprocessor has more than one: decode's warps with all of k then fill the
/// device. Where tokens have group scales the GEMM has one warpgroup, which takes twice the time.
const Family* family_for_groups(const Device& device, const ProductShape& shape) {
  if (shape.group == 0 || shape.tokens <= 8 || shape.tokens > 16 || device.compute_capability != 90) {
    return nullptr;
  }
  const std::int64_t row_blocks = ceil_div<std::int64_t>(shape.out_features, 64);
  const bool gemm = !shape.token_groups && shape.in_features <= kMaxGemmSm90Inputs &&
                    2 * row_blocks < 3 * device.multiprocessors;
  return gemm ? &kGemmSm90 : &kDecode;
}

[[noreturn]] void fail_device(const Device& device, std::int64_t tokens) {
  throw Error("cuda::product: no kernel for " + std::to_string(tokens) + " tokens on compute capability " +
              std::to_string(device.compute_capability / 10) + "." +
              std::to_string(device.compute_capability % 10) + ", wanted 8.0 or newer");
}

void require_shape(const ProductShape& shape) {
  require_matrix(shape.out_features, shape.in_features, "product");
  require_tokens(shape.tokens, "product");
}

ProductPlan plan_of_shape(const Device& device, const ProductShape& shape) {
  require_shape(shape);
  if (const Family* family = family_for_groups(device, shape)) {
    if (auto plan = family->plan(device, shape)) {
      return *plan;
    }
  }
  for (const Choice& choice : kChoices) {
    if (applies(choice, device, shape)) {
      if (auto plan = choice.family->plan(device, shape)) {
        return *plan;
      }
    }
  }
  fail_device(device, shape.tokens);
}

}  // namespace

std::string name_of(const ProductPlan& plan) { return family_of(plan).name(plan); }

std::optional<ProductPlan> plan_from_name(std::string_view name) {
  for (const Family* family : kFamilies) {
    if (auto plan = family->parse(name)) {
      return plan;
    }
  }
  return std::nullopt;
}

ProductPlan default_plan(const Device& device, std::int64_t tokens, std::int64_t out_features,
                         std::int64_t in_features, std::int64_t group, DataType group_scale_type,
                         TokenScaleGranularity token_scales) {
  return plan_of_shape(device, {.tokens = tokens,
                                .out_features = out_features,
                                .in_features = in_features,
                                .group = group,
                                .token_groups = group > 0 && token_scales == TokenScaleGranularity::group,
                                .float32_scales = group > 0 && group_scale_type == DataType::float32});
}

bool can_run(const Device& device, const ProductPlan& plan, std::int64_t tokens, std::int64_t out_features,
             std::int64_t in_features, std::int64_t group) {
  return tokens >= 1 && out_features >= 1 && in_features >= 1 && in_features <= kMaxInFeatures &&
         (group == 0 || is_group_size(group)) &&
         family_of(plan).fits(device, plan, {tokens, out_features, in_features, group});
}

std::vector<ProductPlan> possible_plans(const Device& device, std::int64_t tokens, std::int64_t out_features,
                                        std::int64_t in_features, std::int64_t group) {
  std::vector<ProductPlan> plans;
  for (const Family* family : kFamilies) {
    family->add_candidates(plans, device, {tokens, out_features, in_features, group});
  }
  return plans;
}

std::size_t product_workspace_bytes(const Device& device, const ProductPlan& plan, std::int64_t tokens,
                                    std::int64_t out_features, std::int64_t in_features, std::int64_t group) {
  const auto workspace_bytes = family_of(plan).workspace_bytes;
  return workspace_bytes == nullptr
             ? 0
             : workspace_bytes(device, plan, {tokens, out_features, in_features, group});
}

std::size_t product_workspace_bytes(const Device& device, std::int64_t tokens, std::int64_t out_features,
                                    std::int64_t in_features, std::int64_t group) {
  const ProductShape shape{tokens, out_features, in_features, group};
  require_shape(shape);
  if (tokens == 0) {
    return 0;
  }
  for (const Choice& choice : kChoices) {
    // Asked at every call of a layer: no plan is made where the family needs no workspace.
    if (applies(choice, device, shape)) {
      if (choice.family->workspace_bytes == nullptr && group == 0) {
        return 0;
      }
      const ProductPlan plan = default_plan(device, tokens, out_features, in_features, group);
      return product_workspace_bytes(device, plan, tokens, out_features, in_features, group);
    }
  }
  fail_device(device, tokens);
}

void product(const Device& device, const ProductPlan& plan, const Product& args, Stream stream) {
  require_shape({args.tokens, args.out_features, args.in_features});
  require_group(args.granularity, args.group, "product");
  if (args.tokens == 0) {
    return;
  }
  if (args.group > 0) {
    require_aligned(args.group_scale, 16, "product", "group_scale");
    require_group_scale_type(args.group_scale_type, "product");
  } else {
    require_aligned(args.weight_scale, sizeof(float), "product", "weight_scale");
    if (args.token_scales == TokenScaleGranularity::group) {
      throw Error("cuda::product: a scale per token and group, and weights without group scales");
    }
  }
  require_aligned(args.weights, 16, "product", "weights");
  require_aligned(args.q, 16, "product", "q");
  require_aligned(args.token_scale, sizeof(float), "product", "token_scale");
  require_aligned(args.y, size_of(args.y_type), "product", "y");
  if (!family_of(plan).launch(device, plan, args, stream)) {
    throw Error("cuda::product: plan '" + name_of(plan) + "' cannot compute " + std::to_string(args.tokens) +
                " tokens x " + std::to_string(args.out_features) + " outputs from " +
                std::to_string(args.in_features) + " inputs" +
                (args.group > 0 ? " in groups of " + std::to_string(args.group) : "") + " on this GPU");
  }
}

void product(const Device& device, const Product& args, Stream stream) {
  require_shape({args.tokens, args.out_features, args.in_features});
  if (args.tokens > 0) {
    product(device,
            default_plan(device, args.tokens, args.out_features, args.in_features, args.group,
                         args.group_scale_type, args.token_scales),
            args, stream);
  }
}

}  // namespace trit::cuda
