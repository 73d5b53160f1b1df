// SPDX-License-Identifier: MIT
#include "cuda/candidates.h"

#include <optional>

#include "cuda/plan.h"

namespace trit::bench {
namespace {

Candidate candidate(std::string name, const cuda::Device& device,
                    const std::optional<cuda::ProductPlan>& plan, const cuda::Product& product) {
  return {std::move(name),
          [device, plan, product](const std::uint8_t* weights, bool programmatic, cudaStream_t stream) {
            cuda::Product args = product;
            args.weights = weights;
            args.programmatic = programmatic;
            plan ? cuda::product(device, *plan, args, stream) : cuda::product(device, args, stream);
          }};
}

}  // namespace

Candidate dispatched(const cuda::Device& device, const cuda::Product& product) {
  return candidate("dispatch", device, std::nullopt, product);
}

std::vector<Candidate> all_candidates(const cuda::Device& device, const cuda::Product& product) {
  std::vector<Candidate> candidates;
  for (const cuda::ProductPlan& plan :
       cuda::possible_plans(device, product.tokens, product.out_features, product.in_features)) {
    candidates.push_back(candidate(cuda::name_of(plan), device, plan, product));
  }
  return candidates;
}

}  // namespace trit::bench
