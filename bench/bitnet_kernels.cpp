// SPDX-License-Identifier: MIT
//
// The I2_S product of bitnet.cpp's src/ggml-bitnet-mad.cpp, as one call for bitnet_worker.py: that file, from
// a checkout of microsoft/BitNet, is included under the name TRIT_BITNET_MAD. bitnet_worker.py compiles this.
#include <cstdint>

#include "ggml.h"

// ggml's own list has left the type out.
#if !defined(TRIT_GGML_HAS_I2_S)
#define GGML_TYPE_I2_S (static_cast<ggml_type>(36))
#endif
#include TRIT_BITNET_MAD

// For the quantiser of that file, which is not called.
extern "C" size_t ggml_row_size(ggml_type /*type*/, int64_t /*n*/) { return 0; }

/// sums [M, N] of codes (0, 1, 2) times q [M, K]: activations in blocks of COL_BLOCK_SIZE, in each of them
/// row after row of the weights. A single activation takes all rows in one call of a thread.
extern "C" void i2s_sums(int64_t tokens, int64_t out_features, int64_t in_features, const uint8_t* weights,
                         const int8_t* q, float* sums, int threads) {
  const int n = static_cast<int>(in_features);
  const size_t row_bytes = static_cast<size_t>(in_features) / 4;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; ++part) {
    const int64_t first = out_features * part / threads;
    const int64_t last = out_features * (part + 1) / threads;
    if (tokens == 1) {
      ggml_vec_dot_i2_i8_s_1x1(n, sums + first, 1, weights + static_cast<size_t>(first) * row_bytes,
                               static_cast<size_t>(n), q, 0, static_cast<int>(last - first));
      continue;
    }
    for (int64_t column = 0; column < tokens; column += COL_BLOCK_SIZE) {
      const int columns =
          static_cast<int>(tokens - column < COL_BLOCK_SIZE ? tokens - column : COL_BLOCK_SIZE);
      for (int64_t row = first; row < last; ++row) {
        ggml_vec_dot_i2_i8_s_Nx1(n, sums + column * out_features + row, static_cast<size_t>(out_features),
                                 weights + static_cast<size_t>(row) * row_bytes, 0, q + column * in_features,
                                 static_cast<size_t>(in_features), columns);
      }
    }
  }
}
