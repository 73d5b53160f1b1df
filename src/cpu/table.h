// SPDX-License-Identifier: MIT
//
// The table of CPU kernels: one row per instruction set, read by dispatch, tests and
// benchmarks alike. src/cpu/<isa>/kernels.cpp fills a row; src/cpu/generic/ does tiling,
// tails, long K and threads once for all rows.
#pragma once

#include <cstdint>
#include <span>

#include "trit/backend.h"
#include "trit/format.h"
#include "trit/parallel.h"
#include "trit/quantize.h"

namespace trit {

/// norm_quant of one row; see norm_quant_row in quantize.h for the arithmetic.
struct NormQuantRow {
  const void* x;  // [in_features] of x_type
  DataType x_type;
  std::int64_t in_features;  // K
  Norm norm;
  const float* norm_weight;  // [K], or null for all ones
  float eps;
  std::int8_t* q;             // [padded_in_features(K)], the padding is written as zero
  float* scale;               // s
  float* rstd;                // r (1 without a norm)
  std::int32_t* q_sum;        // sum of q, for kernels whose codes are t + 1
  bool non_temporal = false;  // use non-temporal stores for whole cache lines of q
  // Where these are a group of a row and not the row, with a norm: the row's r. It is 0 or NaN where the
  // row's mean square is not finite.
  const float* row_rstd = nullptr;
};

/// The product of one panel of output rows with a few tokens over a range of k.
struct ProductTile {
  const std::uint8_t* panel;  // the panel's codes of the range's first k
  const std::int8_t* q;       // the first token's code of the range's first k
  std::int64_t q_stride;      // bytes between tokens
  std::int64_t k;             // inputs in the range, a multiple of 4 (the padding counts)
  std::int64_t tokens;        // 1..max_tokens
  const std::int32_t* q_sum;  // [tokens], sum of q over the range
  std::int32_t* acc;          // [tokens, panel_rows], written (not added to): sum over the range of q * t
  // What the kernel prefetches into L2 while it runs: 1 / prefetch_parts of a line for each line of the
  // panel, starting `prefetch_distance` bytes behind `panel`. 8 KiB cover the latency of memory: 15 to 25 %
  // more bandwidth than 2 KiB.
  std::int64_t prefetch_distance = 8192;
  std::int64_t prefetch_parts = 1;
};

/// Scales of a panel's rows, one group after the other: [groups, panel_rows], 0 for missing rows.
struct PanelScales {
  const void* values;
  DataType type;  // float32, or float16 where that holds all of them: half the bytes to read
};

/// A group of a panel and one token: sums = fma((float)acc, w * token_scale, sums), the product w * token_scale
/// rounded by itself.
struct GroupRow {
  const std::int32_t* acc;   // [panel_rows]
  PanelScales weight_scale;  // w of the group
  float token_scale;         // s of the token and the group; 1 where the token has one scale, s
  float* sums;               // [panel_rows]
};

/// The product of one panel with a few tokens over whole groups of k.
struct GroupTile {
  ProductTile tile;             // begins with a group; q_sum and acc are not used
  std::int64_t group;           // inputs of a group
  const std::int32_t* offsets;  // of the first token and group, as GroupKernel::offsets writes them
  std::int64_t offsets_stride;  // between tokens
  PanelScales weight_scale;     // from the first group on
  std::int64_t
      scale_prefetch_distance;      // bytes behind the scales of a group: what the kernel prefetches there
  const float* token_scale;         // [tokens, groups] of the first token and group, or null
  std::int64_t token_scale_stride;  // between tokens
  float* sums;                      // [tokens, panel_rows]: what GroupRow does for each group
};

/// A product tile that adds up the groups itself.
struct GroupKernel {
  /// Integers of a token and a group.
  std::int64_t offset_count;
  /// From codes of a token, q [k], to [groups, offset_count].
  void (*offsets)(const std::int8_t* q, std::int64_t k, std::int64_t group, std::int32_t* offsets);
  std::int64_t max_group;
  /// Whether it uses scales times 4^-j, j < 4, which is exact between these bounds.
  bool shifts_scales;
  void (*tile)(const GroupTile& tile);
};
inline constexpr float kMinGroupScale = 0x1p-96F;
inline constexpr float kMinTokenGroupScale = 0x1p-24F;  // a quantised group has at least 1e-5 / 127
inline constexpr float kMaxGroupScale = 0x1p60F;

/// acc -> y for the rows of one panel and one token: y = ((float)acc * s) * beta + bias.
struct EpilogueRow {
  const std::int32_t* acc;    // [rows]
  std::int64_t rows;          // 1..panel_rows
  float token_scale;          // s of the token
  const float* weight_scale;  // beta: one value, or one per row
  bool weight_scale_per_row;
  const float* bias;  // [rows] or null
  DataType y_type;
  void* y;                      // [rows] of y_type
  bool non_temporal = false;    // use non-temporal stores for whole cache lines of y
  const float* sums = nullptr;  // [rows] in place of (float)acc where it is not null; weight_scale is 1 then
};

/// Panels times a block of tokens over all of k, finished: y = ((float)acc * s) * beta + bias.
struct ManyTokens {
  const std::uint8_t* panels;   // the first panel
  std::int64_t panel_bytes;     // bytes between panels
  std::int64_t rows;            // output rows of the panels; the last one may hold fewer than panel_rows
  const std::int8_t* arranged;  // the block's part of what `arrange` made of q
  std::int64_t k;               // a multiple of 4 (the padding counts)
  std::int64_t tokens;
  const float* token_scale;   // [tokens], s
  const float* weight_scale;  // beta of the first row: one value, or one per row
  bool weight_scale_per_row;
  const float* bias;  // [rows] or null
  DataType y_type;
  std::int64_t y_bytes;           // of a result
  void* y;                        // the first token's result of the first row
  std::int64_t y_stride;          // bytes between tokens
  bool non_temporal;              // y is large: use non-temporal stores
  std::int64_t group = 0;         // inputs of a group of weight scales, a multiple of group_step; or 0
  std::int64_t groups = 0;        // of k
  PanelScales group_scales = {};  // of the first panel's first group
};

/// A kernel that reads q in an order of its own and writes a row's results while it multiplies the next.
struct ManyTokensKernel {
  std::int64_t min_tokens;  ///< fewer go to the product tile
  std::int64_t token_step;  ///< blocks of tokens begin at multiples of this
  std::int64_t group_step;  ///< groups of weight scales of multiples of this, where a token has one scale
  /// q [tokens, q_stride bytes apart] in the kernel's order, on a cache line. Tokens from n * token_step on
  /// begin at arranged_bytes(n * token_step, k).
  std::int64_t (*arranged_bytes)(std::int64_t tokens, std::int64_t k);
  void (*arrange)(const std::int8_t* q, std::int64_t q_stride, std::int64_t tokens, std::int64_t k,
                  std::int8_t* arranged);
  void (*product)(const ManyTokens& args);
};

namespace generic {
struct Product;
}

/// y of panels [0, panels) x tokens [0, tokens).
struct DonePart {
  std::int64_t panels;
  std::int64_t tokens;
};

/// One way to lay out weights, and the functions that write and read it.
struct PanelLayout {
  PanelFormat format;
  /// Whether this CPU can run it, where its row runs.
  bool (*available)();
  /// Output rows in one panel, and the bytes of a panel per 4 inputs.
  std::int64_t panel_rows;
  std::int64_t panel_bytes_per_4;
  /// Stored rows (rows <= panel_rows of them, `row_bytes` apart) to one panel; missing
  /// rows and the padding become zero weights.
  void (*prepare_panel)(const std::uint8_t* codes, std::int64_t row_bytes, std::int64_t rows,
                        std::int64_t in_features, std::uint8_t* panel);

  /// The product tile: at most this many tokens, at most this many k a call (int32 safety of the codes). A
  /// caller provides acc for max_tokens x panel_rows.
  std::int64_t max_tokens;
  std::int64_t max_k;
  void (*product_tile)(const ProductTile& tile);

  /// Each is null where there is none. The first two multiply matrices without group scales; without the
  /// last, the product tile takes one group after the other, and group_row adds them up.
  const ManyTokensKernel* many_tokens = nullptr;
  /// Another way to multiply: writes the part of y that it is faster for, and leaves the rest to the product
  /// tile.
  DonePart (*product_part)(Parallel& parallel, const generic::Product& args) = nullptr;
  const GroupKernel* groups = nullptr;
};

/// At most a step of A, times one of the scales.
struct FloatRows {
  const float* values;  // [rows, stride]
  std::int64_t stride;
  std::int64_t rows, columns;
  const float* row_scale;     // [rows], or null
  const float* column_scale;  // [columns], or null
  float scale;                // of all
};

/// A panel of columns of C = A · B, for some blocks of rows: sums over `steps` of 32.
struct FloatProduct {
  const std::int8_t* parts;    // A of the first block, its steps one after the other
  std::int64_t block_bytes;    // of A, between blocks of rows
  const std::int8_t* pairs;    // B, its steps one after the other
  std::int64_t steps;          // >= 1
  std::int64_t rows, columns;  // of C; columns at most those of a panel
  float* c;                    // [rows, stride]
  std::int64_t stride;
  bool add;           // to what is there
  bool non_temporal;  // C is large, and this is the last that is written to it
};

/// Products of floats with small integers that agree with a float GEMM's to the rounding of fp32 sums. A is arranged in
/// blocks of rows, B in panels of columns, both in steps of 32 of what is summed over, what is missing as zeros.
struct FloatProductKernel {
  bool (*available)();
  std::int64_t rows;          // of a block of A, at most 32
  std::int64_t columns;       // of a panel of B, at most 32 and a multiple of 4
  std::int64_t cached_bytes;  // of A: what stays in the second-level cache while panels of B go by
  std::int64_t max_tokens;    // of dX at once
  std::int64_t max_steps;     // of what is summed over, at once: so much of a panel stays in L1
  std::int64_t parts_bytes;   // of a step of A
  std::int64_t pairs_bytes;   // of a step of B
  /// A step of A; of A = transposed rows.
  void (*rows_to_parts)(const FloatRows& from, std::int8_t* parts);
  void (*columns_to_parts)(const FloatRows& from, std::int8_t* parts);
  /// A step of B from stored codes, which begin at the first column's byte, and from integers.
  void (*codes_to_pairs)(const std::uint8_t* codes, std::int64_t row_bytes, std::int64_t rows,
                         std::int64_t columns, std::int8_t* pairs);
  void (*integers_to_pairs)(const std::int8_t* q, std::int64_t stride, std::int64_t rows,
                            std::int64_t columns, std::int8_t* pairs);
  void (*product)(const FloatProduct& args);
};

/// The kernels of one instruction set. Every function is pure (no state, no threads) and gives the scalar's
/// bits.
struct CpuKernels {
  Backend backend;
  /// Whether this CPU and its operating system can run the row.
  bool (*available)();

  /// At least one; the first, the default, is available wherever the row is.
  std::span<const PanelLayout> layouts;
  /// The same for every layout.
  void (*epilogue_row)(const EpilogueRow& row);
  void (*group_row)(const GroupRow& row, std::int64_t panel_rows);

  void (*norm_quant_row)(const NormQuantRow& row);

  /// x = H x / sqrt(block) of each block of x [in_features], as walsh_hadamard_row of format/rotation.h.
  void (*walsh_hadamard_row)(float* x, std::int64_t in_features, std::int64_t block);

  /// lane_sum of |w|, w [in_features].
  float (*abs_sum_row)(const float* w, std::int64_t in_features);
  /// clamp(rint(w * inverse), -1, 1) to the stored form, packed_row_bytes(in_features) bytes.
  void (*ternarize_pack_row)(const float* w, float inverse, std::int64_t in_features, std::uint8_t* codes);
  /// w = t * scale (backward passes and tests).
  void (*dequantize_row)(const std::uint8_t* codes, std::int64_t in_features, float scale, float* w);

  /// For the float products of a backward; null: a float GEMM is faster. The bits are not the scalar's.
  const FloatProductKernel* float_product = nullptr;
};

// The rows, each defined in src/cpu/<isa>/kernels.cpp. The build decides which of them exist
// (src/cpu/CMakeLists.txt).
extern const CpuKernels k_scalar;
extern const CpuKernels k_avx2;
extern const CpuKernels k_avx_vnni;
extern const CpuKernels k_avx512_vnni;
extern const CpuKernels k_amx;

/// All rows that were compiled in, slowest first.
std::span<const CpuKernels* const> cpu_kernels();

}  // namespace trit
