// SPDX-License-Identifier: MIT
//
// The parts of a training step on a GPU that LibTorch has no operator for: raw pointers and a stream, free of
// torch, no allocation and no synchronisation, so that a whole step may be one CUDA graph. What changes from
// step to step is read from GPU memory: nothing is passed by the host.
#pragma once

#include <cstdint>

#include "trit/cuda.h"

namespace trit::train::gpu {

using trit::cuda::Stream;

/// Where the run stands; finish_step moves it on.
struct Progress {
  std::int64_t epoch;
  std::int64_t image;  // position in the epoch's order of the next batch's first image
  std::int64_t step;   // of the whole run
  // Over the steps since the host last wrote this:
  double loss_sum;           // over images of steps with a finite loss
  std::int64_t loss_images;  // such images
  std::int64_t correct;
  std::int64_t skipped;          // steps in a row that were left out, up to now
  std::int64_t longest_skipped;  // the most in a row
  double last_loss;
};

/// A batch: images [first, first + images) of `order`, cropped and mirrored as EpochBatches does it, to the
/// same values, in channels-last order; and the step's learning rate.
struct BatchKernel {
  const std::uint8_t* pixels;  // [count, 3, 32, 32]
  const std::uint8_t* labels;  // [count]
  const float* table;          // [3, 256], normalize_table
  const std::int32_t* order;   // the epoch's permutation, or null: images as they are, without a crop
  const Progress* progress;    // the first image, with `order`
  std::int64_t first;          // the first image, without
  std::uint64_t seed;
  std::int64_t images;
  DataType x_type;
  void* x;               // out [images, 32, 32, 3]
  std::int64_t* y;       // out [images], labels
  const float* rates;    // [steps of the run] or null
  float* learning_rate;  // out [1]: rates[progress->step]
};
void make_batch(const BatchKernel& args, Stream stream);

/// y [N, H/2, W/2, C] = max(0, the largest of 2 x 2) of x [N, H, W, C] and the chosen one as relu_pool.h
/// keeps it; `rows` = N H/2, `columns` = W/2.
struct Pool {
  DataType type;
  std::int64_t rows, columns, channels;
  const void* x;
  void* y;
  std::uint8_t* choice;
};
void relu_max_pool(const Pool& args, Stream stream);

struct PoolBackward {
  DataType type;
  std::int64_t rows, columns, channels;
  const void* dy;
  const std::uint8_t* choice;
  void* dx;
};
void relu_max_pool_backward(const PoolBackward& args, Stream stream);

/// found[0] = 1 if one of the values is Inf or NaN, else 0; both pointers to floats, the second may be null.
void find_not_finite(const float* a, const float* b, float* found, Stream stream);

/// Adds a step to `progress`. logits [images, classes].
struct FinishStep {
  const float* loss;  // [1]
  const float* logits;
  const std::int64_t* labels;
  std::int64_t images, classes;
  const float* found_inf;  // [1], > 0: the step was left out
  Progress* progress;
};
void finish_step(const FinishStep& args, Stream stream);

}  // namespace trit::train::gpu
