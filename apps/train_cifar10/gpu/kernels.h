// SPDX-License-Identifier: MIT
//
// The parts of a training step on a GPU for which LibTorch has no operator. They take raw pointers and a
// stream, and neither allocate nor synchronise, so that a whole step can be one CUDA graph. Everything that
// changes from step to step is read from GPU memory; the host passes nothing.
#pragma once

#include <cstdint>

#include "train_cifar10/step_sums.h"
#include "trit/cuda.h"

namespace trit::train::gpu {

using trit::cuda::Stream;

/// How far the run has come, in GPU memory; finish_step updates it.
struct Progress {
  std::int64_t epoch;
  std::int64_t image;  // position in the epoch's order of the next batch's first image
  std::int64_t step;   // of the whole run
  StepSums sums;       // over the steps since the host last wrote this
};

/// Makes a batch, with the values of EpochBatches: images [first, first + images) of `order`, cropped,
/// mirrored and normalised, in channels-last order. Also reads the step's learning rate.
struct BatchKernel {
  const std::uint8_t* pixels;  // [count, 3, 32, 32]
  const std::uint8_t* labels;  // [count]
  const float* table;          // [3, 256], normalize_table
  const std::int32_t* order;   // the epoch's permutation, or null: images as they are, without a crop
  const Progress* progress;    // the first image of the batch, with `order`
  std::int64_t part_begin;     // of the batch, the first image of this process' part, with `order`
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

/// y [N, H/2, W/2, C] = max(0, maximum of 2 x 2) of x [N, H, W, C]; `choice` says which of the four it was,
/// as in relu_pool.cpp. `rows` = N H/2, `columns` = W/2.
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

/// found[0] = 1 if *a or *b is Inf or NaN, else 0. `b` may be null.
void find_not_finite(const float* a, const float* b, float* found, Stream stream);

/// Adds a step to `progress`. logits [images, classes].
struct FinishStep {
  const float* loss;  // [1]
  const float* logits;
  const std::int64_t* labels;
  std::int64_t images, classes;  // that count
  std::int64_t elsewhere;        // images of the batch in other processes
  const float* found_inf;        // [1], > 0: the step was skipped
  Progress* progress;
};
void finish_step(const FinishStep& args, Stream stream);

}  // namespace trit::train::gpu
