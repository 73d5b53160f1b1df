// SPDX-License-Identifier: MIT
//
// Which float matrices of a model without a graph are the weights of linear layers: what a file holds are
// names and shapes, and an embedding is a matrix too. The config.json that came with the model decides where
// it says something, the names that PyTorch, transformers and llama.cpp use decide the rest.
#pragma once

#include <set>
#include <span>
#include <string>
#include <string_view>

#include "io/huggingface_config.h"
#include "trit/io.h"

namespace trit::io {

class LinearNames {
 public:
  /// `config` is the model's, or one with nothing set.
  LinearNames(HuggingFaceConfig config, std::span<const TensorInfo> tensors);

  /// Why the floating tensor is not a weight that BitNet makes ternary, in words ("an embedding"); empty if it
  /// is one: a matrix "<layer>.weight" of a linear layer. Throws Error as is_not_converted() does.
  std::string why_float(std::string_view name, std::span<const std::int64_t> shape) const;

 private:
  bool is_router(std::string_view module) const;
  bool is_conv1d(std::string_view module) const;

  HuggingFaceConfig config_;
  std::set<std::string, std::less<>> with_experts_;  // "model.layers.0.mlp." if it has "experts."
};

}  // namespace trit::io
