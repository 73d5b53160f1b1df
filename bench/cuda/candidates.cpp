// SPDX-License-Identifier: MIT
#include "cuda/candidates.h"

#include <algorithm>

#include "cuda/gemm_sm90.h"
#include "cuda/product.cuh"

namespace trit::bench {
namespace {

std::string text(std::int64_t number) { return std::to_string(number); }

void add_decode(std::vector<Candidate>& candidates, const cuda::Device& device,
                const cuda::Product& product) {
  const cuda::DecodePlan base =
      cuda::plan_decode(device, product.tokens, product.out_features, product.in_features);
  const cuda::ProductArguments arguments{
      .weights = nullptr,
      .q = product.q,
      .row_bytes = static_cast<int>(cuda::quantized_row_bytes(product.in_features)),
      .tiles_along_k = static_cast<int>(cuda::ceil_div<std::int64_t>(product.in_features, 128)),
      .out = {.row_scale = product.row_scale,
              .scale = product.scale,
              .bias = product.bias,
              .y = product.y,
              .tokens = static_cast<int>(product.tokens),
              .out_features = static_cast<int>(product.out_features),
              .type = product.y_type,
              .scale_per_row = false}};
  for (int strips = 2; strips <= (product.tokens <= 8 ? 4 : 2); strips += 2) {
    const int groups = static_cast<int>(cuda::ceil_div<std::int64_t>(product.out_features, 64)) * 4 / strips;
    for (int row_warps = 1; row_warps <= 8; ++row_warps) {
      for (int k_warps = 1; k_warps <= 16; ++k_warps) {
        cuda::DecodePlan plan = base;
        plan.strips = strips;
        plan.row_warps = row_warps;
        plan.k_warps = k_warps;
        plan.blocks = cuda::ceil_div(groups, row_warps);
        // Less than half of the warps that a wave could have, or more waves than one of three blocks each,
        // were never fast.
        const int warps = plan.blocks * row_warps * k_warps;
        if (k_warps > arguments.tiles_along_k || warps < 6 * device.multiprocessors ||
            plan.blocks > 4 * device.multiprocessors ||
            !cuda::fit_decode(plan, device, product.tokens, product.in_features)) {
          continue;
        }
        candidates.push_back(
            {"decode S" + text(strips) + " P" + text(row_warps) + " Q" + text(k_warps),
             [plan, arguments](const std::uint8_t* weights, bool programmatic, cudaStream_t stream) {
               cuda::ProductArguments a = arguments;
               a.weights = weights;
               cuda::launch_decode(plan, a, programmatic, stream);
             }});
      }
    }
  }
}

void add_gemm_sm90(std::vector<Candidate>& candidates, const cuda::Device& device,
                   const cuda::Product& product) {
  cuda::GemmSm90 gemm;
  gemm.q = product.q;
  gemm.q_stride = cuda::quantized_row_bytes(product.in_features);
  gemm.token_scales = product.row_scale;
  gemm.row_scales = product.scale;
  gemm.y_type = product.y_type;
  gemm.y = product.y;
  gemm.y_stride = product.out_features;
  gemm.tokens = product.tokens;
  gemm.out_features = product.out_features;
  gemm.in_features = product.in_features;
  const double best = cuda::choose_gemm_sm90(product.tokens, product.out_features, product.in_features,
                                             device.multiprocessors)
                          .clocks;
  for (const cuda::GemmSm90Tile& tile : cuda::kGemmSm90Tiles) {
    const bool splits = tile.kernel == cuda::GemmSm90Kernel::split;
    if (splits && product.tokens > 1024) {
      continue;
    }
    for (const std::int32_t split : cuda::kGemmSm90Splits) {
      if (split > cuda::largest_split(tile) || (split > 1 && (product.in_features + 255) / 256 < split) ||
          cuda::estimated_clocks(tile, split, product.tokens, product.out_features, product.in_features,
                                 device.multiprocessors) > best * (product.tokens > 512 ? 1.3 : 1.8)) {
        continue;
      }
      candidates.push_back({(splits ? "split " : "persistent ") + text(tile.rows) + "x" + text(tile.tokens) +
                                (splits ? " / " + text(split) : ""),
                            [gemm, tile, split, multiprocessors = device.multiprocessors](
                                const std::uint8_t* weights, bool programmatic, cudaStream_t stream) {
                              cuda::GemmSm90 args = gemm;
                              args.weights = weights;
                              args.programmatic = programmatic;
                              cuda::gemm_sm90(args, tile, split, multiprocessors, stream);
                            }});
    }
  }
}

}  // namespace

Candidate dispatched(const cuda::Device& device, const cuda::Product& product) {
  return {"dispatch", [device, product](const std::uint8_t* weights, bool programmatic, cudaStream_t stream) {
            cuda::Product args = product;
            args.weights = weights;
            args.programmatic = programmatic;
            cuda::product(device, args, stream);
          }};
}

std::vector<Candidate> all_candidates(const cuda::Device& device, const cuda::Product& product) {
  std::vector<Candidate> candidates;
  if (product.tokens <= cuda::kMaxDecodeTokens) {
    add_decode(candidates, device, product);
  }
  if (product.tokens > 8 && device.compute_capability == 90) {
    add_gemm_sm90(candidates, device, product);
  }
  return candidates;
}

}  // namespace trit::bench
