// SPDX-License-Identifier: MIT
//
// A packed ternary layer on the CPU: weights prepared once for one backend, any M, N, K >= 1.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "trit/backend.h"
#include "trit/export.h"
#include "trit/format.h"
#include "trit/parallel.h"
#include "trit/quantize.h"

TRIT_EXPORT_BEGIN

namespace trit {

/// norm_quant of M rows.
struct NormQuant {
  const void* x;  // [tokens, x_stride elements apart] of x_type
  DataType x_type = DataType::float32;
  std::int64_t tokens = 0;       // M >= 0
  std::int64_t in_features = 0;  // K >= 1
  std::int64_t x_stride = 0;     // elements between rows of x
  Norm norm = Norm::none;
  const float* norm_weight = nullptr;  // [K], or null for all ones
  float eps = 1e-6F;
  std::int8_t* q = nullptr;       // out [M, padded_in_features(K)]
  float* scale = nullptr;         // out [M], or [M, groups_of(K, group)]
  float* rstd = nullptr;          // out [M], or null
  std::int32_t* q_sum = nullptr;  // out [M]
  std::int64_t group = 0;         // inputs of a scale, a multiple of 32; 0: one scale for a token
};
void norm_quant(const CpuKernels& kernels, Parallel& parallel, const NormQuant& args);

/// absmean of w [N, K] into scale [1], [N] or [N, groups_of(K, group)]; the same bits as trit::absmean.
void absmean(const CpuKernels& kernels, Parallel& parallel, const float* w, std::int64_t out_features,
             std::int64_t in_features, ScaleGranularity granularity, float* scale, std::int64_t group = 0);
/// lane_sum of |w| of each row of w [N, K] into sums [N]: absmean_of_sums (quantize.h) makes absmean per tensor
/// of them, where the rows are spread over processes.
void abs_sums(const CpuKernels& kernels, Parallel& parallel, const float* w, std::int64_t out_features,
              std::int64_t in_features, float* sums);
/// w [N, K] to the stored form, codes [N, packed_row_bytes(K)], with the scales that absmean gave.
void ternarize_pack(const CpuKernels& kernels, Parallel& parallel, const float* w, std::int64_t out_features,
                    std::int64_t in_features, ScaleGranularity granularity, const float* scale,
                    std::uint8_t* codes, std::int64_t group = 0);
/// w = t * scale, float [N, K].
void dequantize(const CpuKernels& kernels, Parallel& parallel, const TernaryView& weight, float* w);

// One row of each, on the calling thread, whose floating-point environment must be the default.
/// lane_sum of |w|.
float abs_sum_row(const CpuKernels& kernels, std::span<const float> w);
/// clamp(rint(w * inverse), -1, 1) to codes [packed_row_bytes(w.size())].
void ternarize_pack_row(const CpuKernels& kernels, std::span<const float> w, float inverse,
                        std::span<std::uint8_t> codes);
/// w = t * scale, from codes [packed_row_bytes(w.size())].
void dequantize_row(const CpuKernels& kernels, std::span<const std::uint8_t> codes, float scale,
                    std::span<float> w);

/// Whether this CPU multiplies floats with weights or activations faster than a float GEMM does (AVX2, AVX-512, AMX
/// with bfloat16): the exact backward of a layer. Sums are rounded in fp32, so results agree with a float GEMM's to
/// rounding. With AMX magnitudes below 2^-126 count as zero.
bool has_float_products(const CpuKernels& kernels);
/// dX [M, K] = dY · (beta t). Throws Error without has_float_products.
struct FloatGradientInput {
  const float* grad;    // dY [M, N]
  std::int64_t tokens;  // M >= 0
  TernaryView weight;   // [N, K], a scale per tensor or per row
  float* grad_x;        // out [M, K]
};
void gradient_input(const CpuKernels& kernels, Parallel& parallel, const FloatGradientInput& args);
/// dW [N, K] = dYᵀ · (s q). Likewise.
struct FloatGradientWeight {
  const float* grad;                       // dY [M, N]
  const std::int8_t* q;                    // [M, padded_in_features(K)]
  const float* scale;                      // s [M]
  std::int64_t tokens;                     // M >= 0
  std::int64_t out_features, in_features;  // N, K >= 1
  float* grad_weight;                      // out [N, K]
};
void gradient_weight(const CpuKernels& kernels, Parallel& parallel, const FloatGradientWeight& args);

/// Quantised activations, as norm_quant writes them.
struct QuantizedRows {
  const std::int8_t* q;       // [tokens, padded_in_features(K)]
  const float* scale;         // [tokens], or [tokens, groups_of(K, group)]
  const std::int32_t* q_sum;  // [tokens]; not read by a layer with group scales
  std::int64_t tokens;        // M >= 0
  std::int64_t group = 0;     // inputs of a scale, the same as the layer's; 0: one scale for a token
};

/// What PackedLinear::prepare calls while it reads stored codes. Either may be empty. Both are called on the
/// threads of the preparation, several at once, and must not throw.
struct PreparationHooks {
  /// Before the next rows of matrix `matrix`, from `first_row` on, are read. Whatever looks at the codes here
  /// leaves them in the cache for the preparation.
  std::function<void(std::size_t matrix, std::int64_t first_row, std::span<const std::uint8_t> codes)>
      before_rows;
  /// After the last rows of a matrix have been read.
  std::function<void(std::size_t matrix)> after_matrix;
};

/// The weights of one layer, prepared for one backend.
class PackedLinear {
 public:
  /// Prepares `weight` (copied; the view need not outlive the call). `format` is a preference: a backend
  /// without it uses its default, and so does `automatic`. choose_layout (layout.h) finds the fastest for a
  /// model. Throws Error for N or K < 1, or K > 16,777,215 (int32).
  PackedLinear(const CpuKernels& kernels, Parallel& parallel, const TernaryView& weight,
               PanelFormat format = PanelFormat::automatic);
  /// The same for the matrices of a model, on all threads at once. All lie in one allocation, which lives as
  /// long as any of them: on huge pages, which a small layer by itself does not have.
  static std::vector<PackedLinear> prepare(const CpuKernels& kernels, Parallel& parallel,
                                           std::span<const TernaryView> weights, PanelFormat format,
                                           const PreparationHooks& hooks = {});
  ~PackedLinear();
  PackedLinear(PackedLinear&&) noexcept;
  PackedLinear& operator=(PackedLinear&&) noexcept;

  std::int64_t out_features() const;
  std::int64_t in_features() const;
  const CpuKernels& kernels() const;
  /// Never `automatic`.
  PanelFormat format() const;
  /// Bytes of the prepared weights, group scales included.
  std::size_t bytes() const;
  /// Inputs of a weight scale; 0 without group scales.
  std::int64_t group() const;

  /// y [tokens, N] = epilogue(q · tᵀ), row-major, of y_type; bias [N] or null. With group scales each output
  /// is group_product's (quantize.h). Thread-safe. Throws Error where x has scales for other groups.
  void product(Parallel& parallel, const QuantizedRows& x, const float* bias, DataType y_type, void* y) const;

 private:
  struct State;
  explicit PackedLinear(std::unique_ptr<State> state);
  static void allocate(const std::vector<State*>& states);
  std::unique_ptr<State> state_;
};

}  // namespace trit

TRIT_EXPORT_END
