// SPDX-License-Identifier: MIT
//
// The I2_S product of bitnet.cpp's llama.cpp, llamafile_sgemm_i2s of ggml's CPU library, as one call for
// bitnet_worker.py. That compiles this file and passes the function's address; no header of ggml is needed.
#include <cstddef>
#include <cstdint>

namespace {

/// ggml_compute_params, of which the function reads the number of the thread and of all threads.
struct ComputeParams {
  int thread = 0;
  int threads = 1;
  std::byte rest[120] = {};
};

/// C [n, m] = (B [n, k] A^T [k, m] - q_sums) weight_scale / token_scales, with a share of it for each thread.
using SgemmI2s = bool (*)(const ComputeParams*, std::int64_t m, std::int64_t n, std::int64_t k, const void* a,
                          std::int64_t lda, const void* b, std::int64_t ldb, void* c, std::int64_t ldc,
                          const float* token_scales, const std::int32_t* q_sums, float weight_scale);

}  // namespace

/// y [M, N] from codes (0, 1, 2) and q [M, K]; false if the library was built for a machine without AVX2.
extern "C" bool i2s_outputs(SgemmI2s sgemm, std::int64_t tokens, std::int64_t out_features,
                            std::int64_t in_features, const std::uint8_t* weights, const std::int8_t* q,
                            const float* token_scales, const std::int32_t* q_sums, float* y, int threads) {
  bool done = true;
#pragma omp parallel for schedule(static) num_threads(threads) reduction(&& : done)
  for (int thread = 0; thread < threads; ++thread) {
    const ComputeParams params{.thread = thread, .threads = threads};
    done = sgemm(&params, out_features, tokens, in_features, weights, in_features, q, in_features, y,
                 out_features, token_scales, q_sums, 1.0F) &&
           done;
  }
  return done;
}
