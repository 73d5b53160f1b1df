// SPDX-License-Identifier: MIT
//
// What an instruction set's kernel is given: a few rows of tiles of one image.
//
// A tile is 4x4 outputs, computed from a patch of 6x6 inputs. Output channels come in blocks of `block`, a
// number of the kernel's own; the last block is filled with zeros.
#pragma once

#include <cstdint>

#include "runtime/winograd/winograd.h"

namespace trit::runtime::winograd {

inline constexpr std::int64_t kTile = 4;    // outputs of a tile's side
inline constexpr std::int64_t kWindow = 3;  // the filter's side
inline constexpr std::int64_t kPatch = kTile + kWindow - 1;
inline constexpr std::int64_t kPoints = kPatch * kPatch;  // multiplications of a tile, channel and output

/// A sum of the squares of a tile's 16 outputs, of one channel, above which the tile is computed directly.
/// Then no transform has overflowed in a tile that stands, and one huge input does not drown its tile's other
/// outputs in rounding errors: an error is relative to the largest input of the patch.
inline constexpr float kMaxSquares = 0x1p40F;

struct Task {
  ConvolutionShape shape;
  std::int64_t first_row;  // of tiles
  std::int64_t rows;       // of tiles
  const float* x;          // the image
  float* y;                // the image
  ImageOrder x_order, y_order;
  const float* transformed;  // [blocks][kPoints][channels][block]
  const float* direct;       // [blocks][channels][3][3][block]
  const float* bias;         // [blocks][block]
  std::byte* scratch;        // aligned to 64 bytes
};

struct Kernel {
  const char* name;
  std::int64_t block;
  /// Bytes of scratch memory of a task, which depend on its shape and rows.
  std::size_t (*scratch_bytes)(const ConvolutionShape& shape, std::int64_t rows);
  void (*run)(const Task& task);
};

#if defined(__x86_64__)
extern const Kernel k_avx2;
extern const Kernel k_avx512;
#endif

}  // namespace trit::runtime::winograd
