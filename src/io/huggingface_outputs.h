// SPDX-License-Identifier: MIT
//
// The tensors and the config.json of a folder of transformers, decided before anything is written.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/safetensors_stream.h"
#include "io/write_plan.h"

namespace trit::io {

/// A tensor of the output.
struct HuggingFaceOutput {
  enum class Kind : std::uint8_t { elements, packed, values } kind = Kind::elements;
  const PlannedTensor* planned = nullptr;  // of elements and packed
  SafetensorsEntry entry;
  std::vector<float> values;  // of values
  std::uint64_t bytes = 0;
};

struct HuggingFaceModel {
  std::vector<HuggingFaceOutput> outputs;
  std::string config;  // text of config.json
};

/// Throws Error for what transformers cannot hold.
HuggingFaceModel plan_huggingface(const WritePlan& plan);

}  // namespace trit::io
