// SPDX-License-Identifier: MIT
//
// The host side of dW = scale[n] * sum over m of grad[n][m] q[m][k] in int8: the Hopper GEMM with the outputs'
// gradients as tokens and transposed activations as rows.
#include "cuda/backward/gradient_weight.h"

#include <string>

#include "cuda/backward/cheapest_tile.h"
#include "cuda/common/checks.h"
#include "cuda/gemm_sm90/launch.cuh"
#include "trit/cuda_backward.h"

namespace trit::cuda {
namespace {

// Weighted by the bytes of shared memory that a multiply-add takes.
const GemmSm90Instance& instance_for(const GradientWeight& args, std::int32_t multiprocessors) {
  return cheapest_tile(
      gemm_sm90_int8(), args.in_features, args.out_features, multiprocessors, [](const GemmSm90Tile& tile) {
        return tile.tokens == 256 ? 1.0 : tile.rows == 256 ? 1.05 : tile.tokens == 192 ? 1.08 : 1.2;
      });
}

void check_arguments(const Device& device, const GradientWeight& args) {
  if (!gradient_weight_fits(device) || args.tokens < 1 || args.tokens > kMaxGradientTokens ||
      args.out_features < 1 || args.out_features > kMaxGemmSm90Extent || args.in_features < 1 ||
      args.in_features > kMaxGemmSm90Extent) {
    throw Error("cuda::gradient_weight: M = " + std::to_string(args.tokens) +
                ", N = " + std::to_string(args.out_features) + ", K = " + std::to_string(args.in_features) +
                " on compute capability " + std::to_string(device.compute_capability) + ", wanted 1 .. " +
                std::to_string(kMaxGradientTokens) +
                " tokens, a matrix of 1 .. 2^30 rows and columns, on 90");
  }
  require_aligned(args.grad, 16, "gradient_weight", "grad");
  require_aligned(args.scale, sizeof(float), "gradient_weight", "scale");
  require_aligned(args.tiles, 16, "gradient_weight", "tiles");
  require_aligned(args.grad_weight, size_of(args.type), "gradient_weight", "grad_weight");
}

void run(const GradientWeight& args, const GemmSm90Instance& instance, std::int32_t multiprocessors,
         Stream stream) {
  GemmSm90Parameters p;
  p.weights = reinterpret_cast<const std::uint8_t*>(args.tiles);
  p.token_scales = args.scale;
  p.y = args.grad_weight;
  p.y_type = args.type;
  p.tokens = static_cast<std::int32_t>(args.out_features);
  p.out_features = static_cast<std::int32_t>(args.in_features);
  const GemmSm90Tokens grad{.data = args.grad,
                            .element_bytes = 1,
                            .in_features = gradient_row_bytes(args.tokens),
                            .stride_bytes = gradient_row_bytes(args.tokens)};
  launch_gemm_sm90("gradient_weight", instance, /*split=*/1, grad, p, multiprocessors,
                   /*programmatic=*/false, stream);
}

}  // namespace

bool gradient_weight_fits(const Device& device) { return device.compute_capability == 90; }

void gradient_weight(const Device& device, const GradientWeight& args, Stream stream) {
  check_arguments(device, args);
  run(args, instance_for(args, device.multiprocessors), device.multiprocessors, stream);
}

void gradient_weight(const Device& device, const GradientWeight& args, std::int32_t rows,
                     std::int32_t outputs, Stream stream) {
  check_arguments(device, args);
  for (const GemmSm90Instance& instance : gemm_sm90_int8()) {
    if (instance.tile.rows == rows && instance.tile.tokens == outputs) {
      return run(args, instance, device.multiprocessors, stream);
    }
  }
  throw Error("cuda::gradient_weight: no tile of " + std::to_string(rows) + " inputs x " +
              std::to_string(outputs) + " outputs");
}

}  // namespace trit::cuda
