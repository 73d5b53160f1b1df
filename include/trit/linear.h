// SPDX-License-Identifier: MIT
//
// A packed ternary layer on the CPU: weights prepared once for one backend, any M, N, K >= 1.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "trit/export.h"
#include "trit/format.h"
#include "trit/kernels.h"
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
  float* scale = nullptr;         // out [M]
  float* rstd = nullptr;          // out [M], or null
  std::int32_t* q_sum = nullptr;  // out [M]
};
void norm_quant(const CpuKernels& kernels, Parallel& parallel, const NormQuant& args);

/// absmean of w [N, K] into scale [1] or [N]; the same bits as trit::absmean.
void absmean(const CpuKernels& kernels, Parallel& parallel, const float* w, std::int64_t out_features,
             std::int64_t in_features, ScaleGranularity granularity, float* scale);
/// w [N, K] to the stored form, codes [N, packed_row_bytes(K)], with the scales that absmean gave.
void ternarize_pack(const CpuKernels& kernels, Parallel& parallel, const float* w, std::int64_t out_features,
                    std::int64_t in_features, ScaleGranularity granularity, const float* scale,
                    std::uint8_t* codes);
/// w = t * scale, float [N, K].
void dequantize(const CpuKernels& kernels, Parallel& parallel, const TernaryView& weight, float* w);

/// Quantised activations, as norm_quant writes them.
struct QuantizedRows {
  const std::int8_t* q;       // [tokens, padded_in_features(K)]
  const float* scale;         // [tokens]
  const std::int32_t* q_sum;  // [tokens]
  std::int64_t tokens;        // M >= 0
};

/// A matrix of a file, for PackedLinear::checked.
struct StoredMatrix {
  TernaryView weight;
  std::string name;             // for errors
  std::uint32_t codes_crc = 0;  // out: CRC-32C of the codes
};

/// The weights of one layer in one layout of one backend.
class PackedLinear {
 public:
  /// Prepares `weight` (copied; the view need not outlive the call). `format` is a preference: a backend
  /// without it uses its default layout; `automatic` is choose_layout (layout.h) as if this were the only
  /// layer, so a model of many should name the one that it has chosen. Throws Error for N or K < 1, or
  /// K > 16,777,215 (int32).
  PackedLinear(const CpuKernels& kernels, Parallel& parallel, const TernaryView& weight,
               PanelFormat format = PanelFormat::automatic);
  /// The same for matrices of a file, one of each, on all threads at once. `automatic` chooses one layout for
  /// the bytes of all, and all lie in one allocation, which lives as long as any of them: on huge pages,
  /// which a small layer by itself does not have. Each is checked as by trit::check (its Error names it) and
  /// gets its checksum while a panel is in cache: the codes come from memory once. `after`, if any, is called
  /// on one of the threads when all codes of a matrix have been read; only an Error reads them again.
  static std::vector<PackedLinear> checked(const CpuKernels& kernels, Parallel& parallel,
                                           std::span<StoredMatrix> matrices, PanelFormat format,
                                           const std::function<void(const StoredMatrix&)>& after = {});
  ~PackedLinear();
  PackedLinear(PackedLinear&&) noexcept;
  PackedLinear& operator=(PackedLinear&&) noexcept;

  std::int64_t out_features() const;
  std::int64_t in_features() const;
  const CpuKernels& kernels() const;
  const PanelLayout& layout() const;
  /// Bytes of the prepared weights.
  std::size_t bytes() const;

  /// y [tokens, N] = epilogue(q · tᵀ), row-major, of y_type; bias [N] or null. Thread-safe.
  void product(Parallel& parallel, const QuantizedRows& x, const float* bias, DataType y_type, void* y) const;

 private:
  struct State;
  explicit PackedLinear(std::unique_ptr<State> state);
  static void allocate(const std::vector<State*>& states);
  std::unique_ptr<State> state_;
};

}  // namespace trit

TRIT_EXPORT_END
