// SPDX-License-Identifier: MIT
//
// The kernel itself, for avx2.cpp and avx512.cpp, which include it behind their type `Isa` inside an
// unnamed namespace: nothing of it is shared between instruction sets.
//
//     x --pack--> rows of pixels [row][column][channel], zeros around it
//       --B^T d B--> v [36][channels / C][tile][C]        d: a tile's patch of 6x6, C channels at a time
//       --36 products--> m [36][tile][block] = v [tile][channels] . u [channels][block]
//       --A^T m A, bias, ReLU, pool--> rows of outputs [row][column][out channel] --unpack--> y
//
// v and m hold kTilesOfBlock tiles at a time, and stay in L1 and L2.
#pragma once

#include "runtime/winograd/pack.h"
#include "runtime/winograd/transforms.h"

/// For each point m[tile][block] = v[tile][channels] . u[channels][block], of Tiles tiles and the first
/// Halves registers of the block.
template <int C, int Halves, int Tiles>
void multiply(const Plan& plan, const float* v, const float* u, std::int64_t channels, float* m) {
  using V = Vec<kLanes>;
  for (std::int64_t point = 0; point < kPoints; ++point) {
    typename V::Register sums[Tiles][Halves] = {};
    const float* x = v + point * plan.v_point;
    for (std::int64_t c = 0; c < channels; c += C, x += kTilesOfBlock * C) {
      const std::int64_t count = min(C, channels - c);
      for (std::int64_t k = 0; k < count; ++k, u += kBlock) {
        typename V::Register weights[Halves];
#pragma GCC unroll 2
        for (int h = 0; h < Halves; ++h) {
          weights[h] = V::load(u + h * kLanes);
        }
#pragma GCC unroll 16
        for (int t = 0; t < Tiles; ++t) {
          const auto value = Isa::broadcast(x[t * C + k]);
#pragma GCC unroll 2
          for (int h = 0; h < Halves; ++h) {
            sums[t][h] = fma(value, weights[h], sums[t][h]);
          }
        }
      }
    }
#pragma GCC unroll 16
    for (int t = 0; t < Tiles; ++t) {
#pragma GCC unroll 2
      for (int h = 0; h < Halves; ++h) {
        V::store(m + point * Plan::kPointStride + t * kBlock + h * kLanes, sums[t][h]);
      }
    }
  }
}

/// The same for `tiles` tiles, at most kTilesOfBlock.
template <int C, int Halves>
void multiply_tiles(const Plan& plan, std::int64_t tiles, const float* v, const float* u,
                    std::int64_t channels, float* m) {
  if (tiles == kTilesOfBlock) {
    multiply<C, Halves, kTilesOfBlock>(plan, v, u, channels, m);
    return;
  }
  std::int64_t t = 0;
  if (tiles >= 4) {
    multiply<C, Halves, 4>(plan, v, u, channels, m);
    t = 4;
  }
  if (t + 2 <= tiles) {
    multiply<C, Halves, 2>(plan, v + t * C, u, channels, m + t * kBlock);
    t += 2;
  }
  if (t < tiles) {
    multiply<C, Halves, 1>(plan, v + t * C, u, channels, m + t * kBlock);
  }
}

/// Where the outputs go: into y itself, where whole tiles of whole blocks fit there, or else into scratch
/// memory.
struct Result {
  float* data;
  std::int64_t row, pixel;  // strides
};

template <int C>
void run_tiles(const Task& task, const Plan& plan, const float* packed, float* v, float* m,
               const Result& result) {
  const ConvolutionShape& shape = task.shape;
  const std::int64_t tiles = task.rows * plan.columns;
  for (std::int64_t first = 0; first < tiles; first += kTilesOfBlock) {
    const std::int64_t count = min(kTilesOfBlock, tiles - first);
    const float* patches[kTilesOfBlock];
    float* outputs[kTilesOfBlock];
    for (std::int64_t t = 0; t < count; ++t) {
      const std::int64_t row = (first + t) / plan.columns, column = (first + t) % plan.columns;
      patches[t] = packed + row * kTile * plan.packed_row + column * kTile * plan.channels;
      outputs[t] = result.data + row * plan.tile_out * result.row + column * plan.tile_out * result.pixel;
      for (std::int64_t c = 0; c < plan.channels; c += C) {
        transform_patch<C>(patches[t] + c, plan.packed_row, plan.channels, v + c * kTilesOfBlock + t * C,
                           plan.v_point);
      }
    }
    for (std::int64_t block = 0; block < plan.outputs; block += kBlock) {
      const std::int64_t lanes = min(kBlock, round_up(shape.out_channels - block, kLanes));
      const float* const u = task.transformed + block * kPoints * shape.channels;
      if (lanes == kLanes) {
        multiply_tiles<C, 1>(plan, count, v, u, shape.channels, m);
      } else {
        multiply_tiles<C, 2>(plan, count, v, u, shape.channels, m);
      }
      for (std::int64_t t = 0; t < count; ++t) {
        for (std::int64_t lane = 0; lane < lanes; lane += kLanes) {
          const float* const bias = task.bias + block + lane;
          float* const y = outputs[t] + block + lane;
          if (!transform_outputs(m + t * kBlock + lane, bias, shape.relu, shape.pool, y, result.row,
                                 result.pixel)) {
            direct_tile(shape, patches[t], plan.packed_row, plan.channels,
                        task.direct + block * shape.channels * kWindow * kWindow + lane, bias, y, result.row,
                        result.pixel);
          }
        }
      }
    }
  }
}

void run(const Task& task) {
  const Plan plan(task.shape, task.rows);
  float* const packed = reinterpret_cast<float*>(task.scratch);
  float* const v = packed + plan.packed;
  float* const m = v + plan.v;
  const std::int64_t width = task.shape.out_width();
  const bool in_place = task.y_order == ImageOrder::pixels && task.shape.out_channels % kLanes == 0 &&
                        width == plan.columns * plan.tile_out &&
                        (task.first_row + task.rows) * plan.tile_out <= task.shape.out_height();
  Result result{m + plan.m, plan.columns * plan.tile_out * plan.outputs, plan.outputs};
  if (in_place) {
    result.pixel = task.shape.out_channels;
    result.row = width * result.pixel;
    result.data = task.y + task.first_row * plan.tile_out * result.row;
  }
  pack(task, plan, packed);
  if (plan.lanes_in == kFewChannels) {
    run_tiles<kFewChannels>(task, plan, packed, v, m, result);
  } else {
    run_tiles<kLanes>(task, plan, packed, v, m, result);
  }
  if (!in_place) {
    unpack(task, plan, result.data);
  }
}

std::size_t scratch_bytes(const ConvolutionShape& shape, std::int64_t rows) {
  return static_cast<std::size_t>(Plan(shape, rows).all()) * sizeof(float);
}
