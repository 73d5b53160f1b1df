// SPDX-License-Identifier: MIT
//
// A network's weights in GPU memory: ternary ones prepared (2 bits each), everything in one allocation.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/cuda/resources.h"
#include "runtime/network.h"
#include "trit/cuda.h"

namespace trit::runtime::gpu {

/// Where operators put their tensors (Operator::upload): all in one allocation.
class Weights {
 public:
  /// Checks codes, scales and the checksum of `file`, and has the operators of `network` upload their
  /// tensors. Throws Error that names the file, node and tensor.
  Weights(const io::SafetensorsFile& file, const Network& network);

  /// Copies the values, and frees those of the host; null where there are none. The pass that counts bytes
  /// returns null.
  const float* floats(std::vector<float>& values);
  /// Copies bytes as they are: stored codes, signs.
  const void* bytes(std::span<const std::byte> values);
  /// The codes, prepared for the products.
  const std::uint8_t* ternary(const TernaryView& matrix);
  /// Group scales, prepared for the products; `type` is how: float16 where that holds all of them exactly.
  const void* group_scales(const TernaryView& matrix, DataType& type);

  std::size_t size() const { return used_; }

 private:
  std::byte* take(std::size_t bytes);

  DeviceMemory memory_, staging_;  // empty while the bytes are counted
  std::size_t used_ = 0;
};

}  // namespace trit::runtime::gpu
