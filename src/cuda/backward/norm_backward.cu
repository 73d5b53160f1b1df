// SPDX-License-Identifier: MIT
//
// The backward of RMSNorm, both gradients in one pass over grad and x (16-bit types). With r of a row:
//
//   dx[k] = r g[k] u[k] - x[k] * (r^3 / K) * sum_j g[j] u[j] x[j]
//   dg[k] = sum over rows of u[k] x[k] r
//
// The kernel is norm_backward_lanes.cuh; here is which arrangement of it a row takes.
#include <algorithm>
#include <string>

#include "cuda/backward/norm_backward_lanes.cuh"
#include "cuda/common/checks.h"

namespace trit::cuda {
namespace {

constexpr std::int64_t kMaxFeatures = 16384;
constexpr std::int64_t kMaxTokens = 1 << 30;    // rows, and one step more, are counted in 32 bits
constexpr std::int64_t kMultiprocessors = 132;  // of an H200

/// Rows of up to so many inputs, and the blocks of a multiprocessor: 64 registers a thread, then 128.
constexpr std::int64_t kShort = 1024, kMiddle = 2560, kLong = 4096, kLonger = 8192;
constexpr std::int64_t blocks_of_one(std::int64_t in_features) {
  return in_features <= kShort || in_features > kLonger ? 1 : 2;
}

template <DataType kType, bool kWeighted>
void run(const Device& device, const NormBackward& args, Stream stream) {
  // Steps, segments, teams, blocks. All but the last fit in the 99 KiB that every GPU has.
  using Longest = NormBackwardLanes<kType, kWeighted, 16, 4, 1, 1>;
  if (args.in_features <= kShort) {
    NormBackwardLanes<kType, kWeighted, 4, 1, 8, 1>::run(args, stream);
  } else if (args.in_features <= kMiddle) {
    NormBackwardLanes<kType, kWeighted, 5, 2, 2, 2>::run(args, stream);
  } else if (args.in_features <= kLong) {
    NormBackwardLanes<kType, kWeighted, 16, 1, 2, 2>::run(args, stream);
  } else if (args.in_features <= kLonger) {
    NormBackwardLanes<kType, kWeighted, 16, 2, 1, 2>::run(args, stream);
  } else if (Longest::kSharedBytes <= device.shared_bytes) {
    Longest::run(args, stream);
  } else {
    NormBackwardLanes<kType, kWeighted, 16, 4, 1, 1, /*kWeightInShared=*/false>::run(args, stream);
  }
}

/// Calls call.operator()<type, weighted>().
template <typename Call>
void for_arguments(const NormBackward& args, const Call& call) {
  const bool weighted = args.norm_weight != nullptr;
  if (args.type == DataType::bfloat16) {
    weighted ? call.template operator()<DataType::bfloat16, true>()
             : call.template operator()<DataType::bfloat16, false>();
  } else {
    weighted ? call.template operator()<DataType::float16, true>()
             : call.template operator()<DataType::float16, false>();
  }
}

}  // namespace

std::int64_t norm_backward_parts(std::int64_t tokens, std::int64_t in_features) {
  return std::clamp<std::int64_t>(tokens / 4, 1, kMultiprocessors * blocks_of_one(in_features));
}

bool norm_backward_fits(const NormBackward& args) {
  return args.type != DataType::float32 && args.in_features % 8 == 0 && args.in_features >= 8 &&
         args.in_features <= kMaxFeatures && args.tokens >= 0 && args.tokens <= kMaxTokens &&
         args.parts >= 1 && args.parts <= INT32_MAX && is_aligned(args.grad, 16) && is_aligned(args.x, 16) &&
         is_aligned(args.norm_weight, 16) && is_aligned(args.grad_x, 16) &&
         is_aligned(args.grad_norm_weight, 16);
}

void norm_backward(const Device& device, const NormBackward& args, Stream stream) {
  if (!norm_backward_fits(args)) {
    throw Error("cuda::norm_backward: " + std::to_string(args.tokens) + " rows of " +
                std::to_string(args.in_features) + " " + std::string(name_of(args.type)) + " in " +
                std::to_string(args.parts) + " parts, wanted bfloat16 or float16 rows of 8 .. " +
                std::to_string(kMaxFeatures) +
                " inputs, a multiple of 8, aligned to 16 bytes, and 1 part or more");
  }
  for_arguments(args, [&]<DataType kType, bool kWeighted>() { run<kType, kWeighted>(device, args, stream); });
}

}  // namespace trit::cuda
