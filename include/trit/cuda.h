// SPDX-License-Identifier: MIT
//
// Ternary layers on NVIDIA GPUs (compute capability 8.0 and newer): launches on raw device pointers and a
// stream.
//
// No function here allocates, synchronises or reads device memory on the host; each may be captured into a
// CUDA graph. The caller provides workspaces; a function beside each user gives the size. Results follow
// docs/numerics.md: they equal those of trit::bit_linear_row bit for bit. Every function throws trit::Error,
// which says what was found and what is wanted, for arguments that it cannot take and for any error that CUDA
// reports.
//
// With `programmatic` a kernel may start before the preceding kernel of the stream has ended. It waits for
// that kernel before it reads x, q or s or writes anything; weights, beta and bias must be older than that
// kernel.
#pragma once

#include <cstddef>
#include <cstdint>

#include "trit/export.h"
#include "trit/format.h"
#include "trit/quantize.h"

struct CUstream_st;

TRIT_EXPORT_BEGIN

namespace trit::cuda {

/// A cudaStream_t, so that this header needs none of CUDA's.
using Stream = CUstream_st*;

/// The properties of a GPU that launches depend on. Ask once, outside of any launch.
struct Device {
  int compute_capability = 0;  // 10 * major + minor
  int multiprocessors = 0;
  int shared_bytes = 0;  // per block, at most
};
/// Throws Error where there is no such device, or it is older than compute capability 8.0.
Device device_info(int index);

/// The largest in_features: |acc| <= 128 K must fit in int32.
inline constexpr std::int64_t kMaxInFeatures = 16'777'215;

/// Bytes between rows of q: in_features rounded up to 16, the extra bytes zero.
constexpr std::int64_t quantized_row_bytes(std::int64_t in_features) { return (in_features + 15) / 16 * 16; }

/// RMSNorm and absmax int8 of M rows: trit::norm_quant_row of each, the row read once from memory.
struct NormQuant {
  const void* x;  // [tokens, x_stride elements apart] of x_type, aligned to its element
  DataType x_type = DataType::float32;
  std::int64_t tokens = 0;       // M >= 0
  std::int64_t in_features = 0;  // K >= 1
  std::int64_t x_stride = 0;     // elements between rows of x
  Norm norm = Norm::none;
  const float* norm_weight = nullptr;  // [K], or null for all ones
  float eps = 1e-6F;
  std::int8_t* q = nullptr;   // out [M, quantized_row_bytes(K)], aligned to 16
  float* scale = nullptr;     // out [M], or [M, groups_of(K, group)]
  float* rstd = nullptr;      // out [M], or null
  bool programmatic = false;  // may start before the preceding kernel ends (sm_90)
  std::int64_t group = 0;     // a multiple of 32: a scale for each group (norm_quant_groups_row); 0: per row
  /// Inputs of a block that is rotated before it is quantised (trit/rotation.h): 512, 1024, 2048 or 4096, a
  /// divisor of K; 0: no rotation.
  std::int64_t rotation_block = 0;
  const std::int8_t* rotation_signs = nullptr;  // [K], +1 or -1; null for all +1
};
void norm_quant(const Device& device, const NormQuant& args, Stream stream);

/// beta of w [N, K]: trit::absmean, into scale [1], [N] or [N, groups_of(K, group)]. `workspace` holds
/// absmean_workspace_bytes(N) bytes. `group` is the number of inputs of a group, here and below, or 0 where the
/// granularity is another one.
std::size_t absmean_workspace_bytes(std::int64_t out_features);
void absmean(const float* w, std::int64_t out_features, std::int64_t in_features,
             ScaleGranularity granularity, float* scale, void* workspace, Stream stream,
             std::int64_t group = 0);
/// absmean per tensor in two steps, to the same bits, for a matrix whose rows are spread over GPUs: lane_sum of
/// |w| of each row of w [N, K] into sums [N], then beta into scale [1] from the sums [N] of all rows.
void abs_sums(const float* w, std::int64_t out_features, std::int64_t in_features, float* sums,
              Stream stream);
void absmean_of_sums(const float* sums, std::int64_t out_features, std::int64_t in_features, float* scale,
                     Stream stream);
/// w [N, K] to the stored form, codes [N, packed_row_bytes(K)], with the scales that absmean gave.
void ternarize_pack(const float* w, std::int64_t out_features, std::int64_t in_features,
                    ScaleGranularity granularity, const float* scale, std::uint8_t* codes, Stream stream,
                    std::int64_t group = 0);

/// Bytes of a prepared matrix: 2 bits a weight, N rounded up to 64 and K to 128.
std::size_t weight_bytes(std::int64_t out_features, std::int64_t in_features);
/// The stored form, codes [N, packed_row_bytes(K)], to the layout that the products read; `weights` is
/// aligned to 16.
void prepare_weights(const std::uint8_t* codes, std::int64_t out_features, std::int64_t in_features,
                     std::uint8_t* weights, Stream stream);

/// Group scales in the order that the products read, N rounded up to 64: float32, or float16, half of the
/// bytes, which is exact for a scale that was a float16.
std::size_t group_scale_bytes(std::int64_t out_features, std::int64_t in_features, std::int64_t group,
                              DataType type);
/// scale [N, groups_of(K, group)] to that order, rounded to nearest even where `type` is float16: whether that
/// changes a scale is for the caller to know. `prepared` is aligned to 16.
void prepare_group_scales(const float* scale, std::int64_t out_features, std::int64_t in_features,
                          std::int64_t group, DataType type, void* prepared, Stream stream);

/// absmean, ternarize_pack and prepare_weights of w [N, K] in one launch, to the same bits: for a weight that
/// may have changed since its last use.
struct PackWeights {
  const float* w;                 // [N, K]
  std::int64_t out_features = 0;  // N >= 1
  std::int64_t in_features = 0;   // K >= 1
  ScaleGranularity granularity = ScaleGranularity::tensor;
  std::int64_t group = 0;           // inputs of a group, with granularity `group`
  float* scale = nullptr;           // out [1], [N] or [N, groups_of(K, group)]
  std::uint8_t* codes = nullptr;    // out [N, packed_row_bytes(K)]
  std::uint8_t* weights = nullptr;  // out, weight_bytes(N, K), aligned to 16
  /// With groups: out, group_scale_bytes(N, K, group, float32), aligned to 16, what prepare_group_scales makes
  /// of `scale`.
  float* group_scale = nullptr;
  float* row_sums = nullptr;  // per tensor: [N], written and read
  /// Zero before the first use; every launch leaves it zero. One of a product's workspace will do, and like
  /// that it is of one stream.
  std::int32_t* counter = nullptr;
};
void pack_weights(const Device& device, const PackWeights& args, Stream stream);

/// y [M, N] = epilogue(q · tᵀ), or with group scales as trit::group_product adds up its groups.
struct Product {
  const std::uint8_t* weights;    // weight_bytes(N, K), aligned to 16
  std::int64_t out_features = 0;  // N >= 1
  std::int64_t in_features = 0;   // K, 1 .. kMaxInFeatures
  const std::int8_t* q;           // [M, quantized_row_bytes(K)], aligned to 16
  const float* token_scale;       // s [M], or [M, groups_of(K, group)]
  std::int64_t tokens = 0;        // M >= 0
  const float* weight_scale;      // beta [1] or [N]; not read with groups
  ScaleGranularity granularity = ScaleGranularity::tensor;
  const float* bias = nullptr;  // [N] or null
  DataType y_type = DataType::float32;
  void* y = nullptr;  // [M, N] of y_type, aligned to its element
  /// product_workspace_bytes(...) bytes, aligned to 16. It must be zero before its first use; every launch
  /// leaves it zero, so one workspace serves all products of a stream.
  void* workspace = nullptr;
  bool programmatic = false;  // may start before the preceding kernel ends (sm_90)
  // With granularity `group`, y is that of trit::group_product:
  std::int64_t group = 0;                         // inputs of a group, a multiple of 32
  const void* group_scale = nullptr;              // beta, as prepare_group_scales leaves it, aligned to 16
  DataType group_scale_type = DataType::float32;  // or float16
  TokenScaleGranularity token_scales = TokenScaleGranularity::token;
};
/// `group` as in Product.
std::size_t product_workspace_bytes(const Device& device, std::int64_t tokens, std::int64_t out_features,
                                    std::int64_t in_features, std::int64_t group = 0);
void product(const Device& device, const Product& args, Stream stream);

}  // namespace trit::cuda

TRIT_EXPORT_END
