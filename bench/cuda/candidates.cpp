// SPDX-License-Identifier: MIT
#include "cuda/candidates.h"

#include "cuda/plan.h"

namespace trit::bench {

Candidate dispatched(const cuda::Device& device, const cuda::Product& product) {
  return {"dispatch", [device, product](const std::uint8_t* weights, bool programmatic, cudaStream_t stream) {
            cuda::Product args = product;
            args.weights = weights;
            args.programmatic = programmatic;
            cuda::product(device, args, stream);
          }};
}

std::vector<Candidate> all_candidates(const cuda::Device& device, const cuda::Product& product) {
  std::vector<Candidate> candidates;
  for (const cuda::ProductPlan& plan :
       cuda::possible_plans(device, product.tokens, product.out_features, product.in_features)) {
    candidates.push_back(
        {cuda::name_of(plan),
         [device, plan, product](const std::uint8_t* weights, bool programmatic, cudaStream_t stream) {
           cuda::Product args = product;
           args.weights = weights;
           args.programmatic = programmatic;
           cuda::product(device, plan, args, stream);
         }});
  }
  return candidates;
}

}  // namespace trit::bench
