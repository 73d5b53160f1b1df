// SPDX-License-Identifier: MIT
//
// Packed ternary layers, timed beside the limits of the machine and checked against an exact reference in the
// same run, for `trit bench` and bench_linear.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bench/lib/linear_case.h"
#include "bench/lib/timing.h"
#include "trit/backend.h"

namespace trit::bench {

struct LinearBenchmark {
  std::vector<Backend> backends;  // each must be available
  std::vector<LinearShape> shapes;
  std::vector<std::int64_t> tokens;  // M
  int threads = 1;
  TimingOptions timing;
  std::uint64_t seed = 1;  // of weights and activations
  /// Inputs of a group: each layer also with float16 scales for groups, the default layout alone. 0: not.
  std::int64_t group = 0;
};

/// Where the weights are when a call begins.
enum class WeightsFrom : std::uint8_t {
  cache,   // the same layer repeatedly, as in a small network
  memory,  // layer after layer, more than fit into the last cache, as in a large network
};

/// The int8 peak of one backend on these threads, in the same rounds as the results.
struct BackendLimits {
  Backend backend;
  std::string_view instruction;  // of the int8 peak; empty where there is none
  double gops = 0;               // the peak, 1e9 operations a second; a multiply-add is two; best round
};

struct LinearResult {
  Backend backend;
  PanelFormat format;  // the layout of the weights
  bool chosen = true;  // whether choose_layout takes it for this many bytes
  LinearShape shape;
  std::int64_t tokens;
  WeightsFrom from;
  std::size_t weight_bytes;            // prepared
  double microseconds;                 // of one product, median
  double layer_microseconds;           // RMSNorm, quantisation and product of fp32 inputs, median
  double gops;                         // 2 M N K / time of the product
  double weight_gigabytes_per_second;  // weight_bytes / time of the product
  /// The bandwidth of reading a buffer of the weights' size from where they are: memory, or the cache that
  /// holds them; best round.
  double read_gigabytes_per_second;
  /// The minimum time that the limits allow (the larger of weight_bytes / read bandwidth and operations /
  /// int8 peak) over the product's time. Nothing if the product was faster: other guests of the machine then
  /// slowed down the reading loop.
  std::optional<double> share;
  std::string_view limit;  // the limit that binds: "int8 peak", "memory read" or "cache read"
  std::int64_t group = 0;  // inputs of a weight scale; 0: one for the matrix
  /// With groups: the time of the same product without them over this one's, median of the rounds' ratios.
  std::optional<double> of_ungrouped = {};
};

struct LinearReport {
  int threads;
  double memory_gigabytes_per_second;
  std::vector<BackendLimits> limits;
  std::vector<LinearResult> results;  // by shape, backend, layout, tokens, from
};

/// Every shape x tokens on every backend in each of its layouts. Only one shape's weights are in memory at a
/// time. Weights that fit into half of the last cache are measured from there; weights that do not fit into
/// L2 also, or only, from memory. Throws trit::Error unless all outputs are bit-identical to the reference.
LinearReport benchmark_linear(const LinearBenchmark& options, const TimingProgress& progress = {});

/// "cache" or "memory".
std::string_view name_of(WeightsFrom from);

/// The layers of common ternary models, and those of SimpleBitNetCNN.
std::vector<LinearShape> usual_shapes();
/// From decoding to prompts: 1, 4, 8, 32, 128, 512.
std::vector<std::int64_t> usual_tokens();

}  // namespace trit::bench
