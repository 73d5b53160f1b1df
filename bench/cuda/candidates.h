// SPDX-License-Identifier: MIT
//
// The ways in which trit can compute one product on a GPU: by the default plan, and by every candidate of the
// autotuner.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "trit/cuda.h"

namespace trit::bench {

struct Candidate {
  std::string name;
  std::function<void(const std::uint8_t* weights, bool programmatic, cudaStream_t stream)> launch;
};

/// `product.weights` and `.programmatic` are set by each launch. The rest must outlive the candidates.
Candidate dispatched(const cuda::Device& device, const cuda::Product& product);
/// Those of cuda::possible_plans.
std::vector<Candidate> all_candidates(const cuda::Device& device, const cuda::Product& product);

}  // namespace trit::bench
