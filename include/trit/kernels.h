// SPDX-License-Identifier: MIT
//
// The table of CPU kernels: one row per instruction set, read by dispatch, tests and benchmarks alike.
// src/cpu/<isa>/kernels.cpp fills a row; src/cpu/generic/ does tiling, tails, long K and threads, once for
// all.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "trit/export.h"
#include "trit/format.h"
#include "trit/quantize.h"

TRIT_EXPORT_BEGIN

namespace trit {

/// Where a layer runs. `automatic` is the fastest that this machine has.
enum class Backend : std::uint8_t { automatic, scalar, avx2, avx_vnni, avx512_vnni, amx, cuda };

/// "auto", "scalar", "avx2", "avx_vnni", "avx512_vnni", "amx", "cuda".
std::string_view name_of(Backend backend);
/// The inverse; throws Error that lists the names.
Backend backend_from_name(std::string_view name);

/// How prepared weights are coded in memory. `automatic` is the one that is fastest for the layer.
enum class PanelFormat : std::uint8_t {
  automatic,
  two_bit,  ///< 2 bits a weight: cheap to unpack
  base3,    ///< 1.6 bits a weight, five to a byte: fewest bytes to read
};

/// "auto", "two_bit", "base3".
std::string_view name_of(PanelFormat format);
/// The inverse; throws Error that lists the names.
PanelFormat panel_format_from_name(std::string_view name);

/// Rows of q are this long in memory: in_features rounded up to a multiple of 4, the extra bytes zero.
constexpr std::int64_t padded_in_features(std::int64_t in_features) { return (in_features + 3) / 4 * 4; }

/// norm_quant of one row; see norm_quant_row in quantize.h for the arithmetic.
struct NormQuantRow {
  const void* x;  // [in_features] of x_type
  DataType x_type;
  std::int64_t in_features;  // K
  Norm norm;
  const float* norm_weight;  // [K], or null for all ones
  float eps;
  std::int8_t* q;        // [padded_in_features(K)], the padding is written as zero
  float* scale;          // s
  float* rstd;           // r (1 without a norm)
  std::int32_t* q_sum;   // sum of q, for kernels whose codes are t + 1
  bool streams = false;  // whether whole cache lines of q may go to memory past the caches
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
  // What the kernel fetches into L2 while it runs: with each line of the panel 1 / ahead_parts of a line,
  // from `ahead` bytes behind `panel` on. 8 KiB cover the latency of memory, and against 2 KiB are worth 15
  // to 25 % of its bandwidth.
  std::int64_t ahead = 8192;
  std::int64_t ahead_parts = 1;
};

/// The product of many panels with many tokens over all of k, by a kernel that blocks for itself.
struct ProductBlock {
  const std::uint8_t* panels;  // the first panel
  std::int64_t panel_bytes;    // bytes between panels
  std::int64_t panel_count;    // a multiple of BlockKernel::panels
  const std::int8_t* q;        // the first token's
  std::int64_t q_stride;       // bytes between tokens
  std::int64_t k;              // a multiple of 4 (the padding counts), at most max_k of the layout
  std::int64_t tokens;         // a multiple of BlockKernel::tokens
  const std::int32_t* q_sum;   // [tokens]
  // Written: for each group of BlockKernel::tokens tokens, for each of BlockKernel::panels panels, for each
  // token of the group, for each panel, its panel_rows sums of q * t. On a cache line.
  std::int32_t* acc;
  std::uint8_t* scratch;  // BlockKernel::scratch_bytes(panel_count), on a cache line
};

/// acc -> y for the rows of one panel and one token: y = ((float)acc * s) * beta + bias.
struct EpilogueRow {
  const std::int32_t* acc;  // [rows]
  std::int64_t rows;        // 1..panel_rows
  float row_scale;          // s of the token
  const float* scale;       // beta: one value, or one per row
  bool scale_per_row;
  const float* bias;  // [rows] or null
  DataType y_type;
  void* y;               // [rows] of y_type
  bool streams = false;  // whether whole cache lines of y may go to memory past the caches
};

/// A second way to multiply, from the same panels, for many tokens. Whether it is faster than the product
/// tile depends on the CPU, so it is used where a measurement on this one says so.
struct BlockKernel {
  std::int64_t panels;  ///< works on multiples of this many panels
  std::int64_t tokens;  ///< and of this many tokens
  std::int64_t (*scratch_bytes)(std::int64_t panel_count);
  void (*product_block)(const ProductBlock& block);
};

/// Panels times a block of tokens over all of k, finished: y = ((float)acc * s) * beta + bias.
struct ManyTokens {
  const std::uint8_t* panels;   // the first panel
  std::int64_t panel_bytes;     // bytes between panels
  std::int64_t rows;            // output rows of the panels; the last one may hold fewer than panel_rows
  const std::int8_t* arranged;  // the block's part of what `arrange` made of q
  std::int64_t k;               // a multiple of 4 (the padding counts)
  std::int64_t tokens;
  const float* row_scale;  // [tokens], s
  const float* scale;      // beta of the first row: one value, or one per row
  bool scale_per_row;
  const float* bias;  // [rows] or null
  DataType y_type;
  std::int64_t y_bytes;   // of a result
  void* y;                // the first token's result of the first row
  std::int64_t y_stride;  // bytes between tokens
  // Whether y is so large that it is better written to memory past the caches.
  bool y_streams;
};

/// A kernel that reads q in an order of its own and has a row's results written while it multiplies the next.
struct ManyTokensKernel {
  std::int64_t least_tokens;  ///< fewer go to the product tile
  std::int64_t token_step;    ///< blocks of tokens begin at multiples of this
  /// q [tokens, q_stride bytes apart] in the kernel's order, on a cache line. Tokens from n * token_step on
  /// begin at arranged_bytes(n * token_step, k).
  std::int64_t (*arranged_bytes)(std::int64_t tokens, std::int64_t k);
  void (*arrange)(const std::int8_t* q, std::int64_t q_stride, std::int64_t tokens, std::int64_t k,
                  std::int8_t* arranged);
  void (*product)(const ManyTokens& args);
};

/// One way to lay out weights, and the functions that write and read it.
struct PanelLayout {
  PanelFormat format;
  /// Whether this CPU can run it, where its row runs.
  bool (*available)();
  /// Output rows in one panel, and the bytes of a panel per 4 inputs.
  std::int64_t panel_rows;
  std::int64_t panel_bytes_per_4;
  /// Stored rows (rows <= panel_rows of them, `row_bytes` apart) to one panel; missing rows and the padding
  /// become zero weights.
  void (*prepare_panel)(const std::uint8_t* codes, std::int64_t row_bytes, std::int64_t rows,
                        std::int64_t in_features, std::uint8_t* panel);

  /// The product tile: at most this many tokens, at most this many k a call (int32 safety of the codes). A
  /// caller provides acc for max_tokens x panel_rows.
  std::int64_t max_tokens;
  std::int64_t max_k;
  void (*product_tile)(const ProductTile& tile);

  /// Null where there is none.
  const ManyTokensKernel* many_tokens = nullptr;
  const BlockKernel* block = nullptr;
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

  void (*norm_quant_row)(const NormQuantRow& row);

  /// lane_sum of |w|, w [in_features].
  float (*abs_sum_row)(const float* w, std::int64_t in_features);
  /// clamp(rint(w * inverse), -1, 1) to the stored form, packed_row_bytes(in_features) bytes.
  void (*ternarize_pack_row)(const float* w, float inverse, std::int64_t in_features, std::uint8_t* codes);
  /// w = t * scale (backward passes and tests).
  void (*dequantize_row)(const std::uint8_t* codes, std::int64_t in_features, float scale, float* w);
};

/// All rows that were compiled in, slowest first.
std::span<const CpuKernels* const> cpu_kernels();
/// The row of `backend`; for `automatic` the one that TRIT_BACKEND names, else the fastest available. Throws
/// Error, listing what this machine has, for one that is missing.
const CpuKernels& cpu_kernels_for(Backend backend);
/// `backend`, and for `automatic` the one that TRIT_BACKEND names, if it names one.
Backend requested_backend(Backend backend);
/// Names of the CPU backends that this machine can run.
std::vector<std::string> available_backends();

}  // namespace trit

TRIT_EXPORT_END
