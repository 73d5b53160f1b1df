// SPDX-License-Identifier: MIT
//
// How the sharded optimizer cuts parameters: with P processes into P blocks of ceil(rows / P) rows.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "trit/torch.h"

namespace trit::distributed {

/// A parameter of the module and this process' block of it.
struct Block {
  std::string name;
  torch::Tensor parameter;
  std::shared_ptr<nn::BitLinearImpl> layer;  // whose weight it is, or null
  std::vector<std::int64_t> sizes;           // of `shard`, its rows first
  std::int64_t rows = 0;                     // of the parameter
  torch::Tensor shard;                       // float32

  std::int64_t elements() const { return shard.numel(); }
  bool as_codes() const {
    return layer && layer->options.lambda() >= 1 && layer->options.scale() != ScaleGranularity::group;
  }
  bool per_row() const { return layer->options.scale() == ScaleGranularity::row; }

  /// The parameter from the blocks of all processes, [P * rows of a block, ...].
  torch::Tensor without_padding(const torch::Tensor& blocks) const {
    return blocks.narrow(0, 0, rows).reshape(parameter.sizes());
  }
  /// The blocks [P * rows of a block, ...] of a tensor of the parameter's shape.
  torch::Tensor with_padding(const torch::Tensor& whole, int processes) const {
    std::vector<std::int64_t> all = sizes;
    all[0] = rows;
    torch::Tensor values = whole.reshape(all);
    all[0] = processes * sizes[0];
    if (all[0] == rows) {
      return values;
    }
    torch::Tensor padded = torch::zeros(all, values.options());
    padded.narrow(0, 0, rows).copy_(values);
    return padded;
  }
};

}  // namespace trit::distributed
