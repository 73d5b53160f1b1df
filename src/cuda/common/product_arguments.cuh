// SPDX-License-Identifier: MIT
//
// A product as the kernels of decode, decode_one and gemm_sm80 see it.
#pragma once

#include "cuda/common/epilogue.cuh"
#include "cuda/common/fragments.cuh"
#include "trit/cuda.h"

namespace trit::cuda {

struct ProductArguments {
  const std::uint8_t* weights;  // frag64x128
  const std::int8_t* q;         // [tokens, row_bytes]
  int row_bytes;                // K rounded up to 16
  int tiles_along_k;            // K in tiles of 128
  Output out;
};

inline ProductArguments product_arguments(const Product& args) {
  return {.weights = args.weights,
          .q = args.q,
          .row_bytes = static_cast<int>(quantized_row_bytes(args.in_features)),
          .tiles_along_k = static_cast<int>(ceil_div<std::int64_t>(args.in_features, kTileInputs)),
          .out = {.token_scale = args.token_scale,
                  .weight_scale = args.weight_scale,
                  .bias = args.bias,
                  .y = args.y,
                  .tokens = static_cast<int>(args.tokens),
                  .out_features = static_cast<int>(args.out_features),
                  .type = args.y_type,
                  .scale_per_row = args.granularity == ScaleGranularity::row}};
}

}  // namespace trit::cuda
