// SPDX-License-Identifier: MIT
//
// Which kernel computes a product: one table, by the number of tokens and the GPU; and a product by any plan.
#include <climits>
#include <string>

#include "cuda/arguments.cuh"
#include "cuda/gemm_sm90.h"
#include "cuda/launch.cuh"
#include "cuda/plan.h"
#include "cuda/product.cuh"

namespace trit::cuda {
namespace {

enum class Kernel : std::uint8_t { decode_one, decode, gemm_sm80, gemm_sm90 };

struct Choice {
  std::int64_t max_tokens;
  std::int64_t max_in_features;
  int max_inputs_per_output;
  int min_compute_capability;
  int max_compute_capability;
  Kernel kernel;
  int tile_tokens;  // of a GEMM
  const char* reason;
};

// The first row that fits is taken. The reasons are estimates until they have been measured
// (docs/kernels-cuda.md).
constexpr Choice kChoices[] = {
    {1, kMaxDecodeOneInputs, INT_MAX, 80, INT_MAX, Kernel::decode_one, 0,
     "one token leaves columns of mma free, which unpack: 4 instructions a word instead of 7; 1.05 to 1.4 "
     "times as fast as decode"},
    {8, kMaxInFeatures, INT_MAX, 80, INT_MAX, Kernel::decode, 0,
     "bound by reading weights: each once, by one warp; 1 token costs what 8 do"},
    {16, kMaxInFeatures, 2, 80, INT_MAX, Kernel::decode, 0,
     "likewise, with two columns of mma per weight; on an H200 1.03 to 1.14 times as fast as the split GEMM. "
     "Where rows are few, clusters share k between more multiprocessors: K = 8 N 1.3 times the other way"},
    {INT64_MAX, kMaxGemmSm90Inputs, INT_MAX, 90, 90, Kernel::gemm_sm90, 0,
     "wgmma, which no newer GPU has either; it chooses its tile itself (gemm_sm90_tiles.h)"},
    {16, kMaxInFeatures, INT_MAX, 80, INT_MAX, Kernel::decode, 0, "likewise, without wgmma"},
    {32, kMaxInFeatures, INT_MAX, 80, INT_MAX, Kernel::gemm_sm80, 32,
     "one tile of tokens; blocks along the rows and split k fill the device"},
    {INT64_MAX, kMaxInFeatures, INT_MAX, 80, INT_MAX, Kernel::gemm_sm80, 64,
     "bound by mma: 64 x 64 a warp reads the fewest bytes per operation from shared memory"},
};

const Choice& choose(const Device& device, std::int64_t tokens, std::int64_t out_features,
                     std::int64_t in_features) {
  for (const Choice& choice : kChoices) {
    if (tokens <= choice.max_tokens && in_features <= choice.max_in_features &&
        in_features <= choice.max_inputs_per_output * out_features &&
        device.compute_capability >= choice.min_compute_capability &&
        device.compute_capability <= choice.max_compute_capability) {
      return choice;
    }
  }
  throw Error("cuda::product: no kernel for " + std::to_string(tokens) + " tokens on compute capability " +
              std::to_string(device.compute_capability / 10) + "." +
              std::to_string(device.compute_capability % 10) + ", wanted 8.0 or newer");
}

GemmPlan gemm_plan(const Device& device, const GemmSm80Cut& cut, std::int64_t tokens,
                   std::int64_t out_features, std::int64_t in_features) {
  GemmPlan plan = plan_gemm_sm80(device, tokens, out_features, in_features, cut.tile_tokens);
  const int k_tiles = static_cast<int>(ceil_div<std::int64_t>(in_features, 128));
  plan.tiles_per_split = ceil_div(k_tiles, cut.splits);
  plan.splits = ceil_div(k_tiles, plan.tiles_per_split);  // none is empty
  return plan;
}

void launch_gemm_sm90(const Device& device, const GemmSm90Cut& cut, const Product& args, Stream stream) {
  GemmSm90 gemm;
  gemm.q = args.q;
  gemm.q_stride = quantized_row_bytes(args.in_features);
  gemm.token_scales = args.row_scale;
  gemm.weights = args.weights;
  gemm.row_scales = args.scale;
  gemm.scale_per_row = args.granularity == ScaleGranularity::row;
  gemm.bias = args.bias;
  gemm.y_type = args.y_type;
  gemm.y = args.y;
  gemm.y_stride = args.out_features;
  gemm.tokens = args.tokens;
  gemm.out_features = args.out_features;
  gemm.in_features = args.in_features;
  gemm.programmatic = args.programmatic;
  const GemmSm90Tile tile{
      cut.persistent ? GemmSm90Kernel::persistent : GemmSm90Kernel::split, cut.rows, cut.tokens, {}};
  gemm_sm90(gemm, tile, cut.split, device.multiprocessors, stream);
}

[[noreturn]] void fail_plan(const ProductPlan& plan, const Product& args) {
  throw Error("cuda::product: plan '" + name_of(plan) + "' cannot compute " + std::to_string(args.tokens) +
              " tokens x " + std::to_string(args.out_features) + " outputs from " +
              std::to_string(args.in_features) + " inputs on this GPU");
}

}  // namespace

ProductPlan default_plan(const Device& device, std::int64_t tokens, std::int64_t out_features,
                         std::int64_t in_features) {
  require_matrix(out_features, in_features, "product");
  require_tokens(tokens, "product");
  const Choice& choice = choose(device, tokens, out_features, in_features);
  switch (choice.kernel) {
    case Kernel::decode_one:
      if (can_run(device, DecodeOneCut{}, tokens, out_features, in_features)) {
        return DecodeOneCut{};
      }
      [[fallthrough]];  // x does not fit
    case Kernel::decode: {
      const DecodePlan plan = plan_decode(device, tokens, out_features, in_features);
      return DecodeCut{plan.strips, plan.row_warps, plan.k_warps};
    }
    case Kernel::gemm_sm90: {
      const GemmSm90Choice best = choose_gemm_sm90(tokens, out_features, in_features, device.multiprocessors);
      return GemmSm90Cut{best.tile.kernel == GemmSm90Kernel::persistent, best.tile.rows, best.tile.tokens,
                         best.split};
    }
    case Kernel::gemm_sm80:
      break;
  }
  return GemmSm80Cut{choice.tile_tokens,
                     plan_gemm_sm80(device, tokens, out_features, in_features, choice.tile_tokens).splits};
}

std::size_t product_workspace_bytes(const Device& device, const ProductPlan& plan, std::int64_t tokens,
                                    std::int64_t out_features, std::int64_t in_features) {
  const auto* cut = std::get_if<GemmSm80Cut>(&plan);
  return cut == nullptr
             ? 0
             : gemm_sm80_workspace_bytes(gemm_plan(device, *cut, tokens, out_features, in_features));
}

std::size_t product_workspace_bytes(const Device& device, std::int64_t tokens, std::int64_t out_features,
                                    std::int64_t in_features) {
  require_matrix(out_features, in_features, "product");
  require_tokens(tokens, "product");
  if (tokens == 0 || choose(device, tokens, out_features, in_features).kernel != Kernel::gemm_sm80) {
    return 0;
  }
  return product_workspace_bytes(device, default_plan(device, tokens, out_features, in_features), tokens,
                                 out_features, in_features);
}

void product(const Device& device, const ProductPlan& plan, const Product& args, Stream stream) {
  require_matrix(args.out_features, args.in_features, "product");
  require_tokens(args.tokens, "product");
  if (args.tokens == 0) {
    return;
  }
  require_aligned(args.weights, 16, "product", "weights");
  require_aligned(args.q, 16, "product", "q");
  require_aligned(args.row_scale, sizeof(float), "product", "row_scale");
  require_aligned(args.scale, sizeof(float), "product", "scale");
  require_aligned(args.y, size_of(args.y_type), "product", "y");
  if (const auto* cut = std::get_if<GemmSm90Cut>(&plan)) {
    return launch_gemm_sm90(device, *cut, args, stream);
  }
  const ProductArguments arguments{
      .weights = args.weights,
      .q = args.q,
      .row_bytes = static_cast<int>(quantized_row_bytes(args.in_features)),
      .tiles_along_k = static_cast<int>(ceil_div<std::int64_t>(args.in_features, 128)),
      .out = {.row_scale = args.row_scale,
              .scale = args.scale,
              .bias = args.bias,
              .y = args.y,
              .tokens = static_cast<int>(args.tokens),
              .out_features = static_cast<int>(args.out_features),
              .type = args.y_type,
              .scale_per_row = args.granularity == ScaleGranularity::row}};
  if (std::holds_alternative<DecodeOneCut>(plan)) {
    DecodeOnePlan one{};
    if (args.tokens != 1 || args.in_features > kMaxDecodeOneInputs ||
        !plan_decode_one(one, device, args.out_features, args.in_features, args.programmatic)) {
      fail_plan(plan, args);
    }
    return launch_decode_one(one, arguments, args.programmatic, stream);
  }
  if (const auto* cut = std::get_if<DecodeCut>(&plan)) {
    DecodePlan decode{};
    if (args.tokens > kMaxDecodeTokens ||
        !cut_decode(decode, device, *cut, args.tokens, args.out_features, args.in_features)) {
      fail_plan(plan, args);
    }
    return launch_decode(decode, arguments, args.programmatic, stream);
  }
  const GemmPlan gemm =
      gemm_plan(device, std::get<GemmSm80Cut>(plan), args.tokens, args.out_features, args.in_features);
  if (gemm_sm80_workspace_bytes(gemm) > 0) {
    require_aligned(args.workspace, 16, "product", "workspace");
  }
  launch_gemm_sm80(gemm, arguments, args.workspace, args.programmatic, stream);
}

void product(const Device& device, const Product& args, Stream stream) {
  require_matrix(args.out_features, args.in_features, "product");
  require_tokens(args.tokens, "product");
  if (args.tokens > 0) {
    product(device, default_plan(device, args.tokens, args.out_features, args.in_features), args, stream);
  }
}

}  // namespace trit::cuda
