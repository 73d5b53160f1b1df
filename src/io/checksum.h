// SPDX-License-Identifier: MIT
//
// The checksum of a file in the stored form, metadata "trit.crc32c" (safetensors.h).
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "trit/crc32c.h"
#include "trit/safetensors.h"

namespace trit::io {

inline constexpr std::string_view kChecksumKey = "trit.crc32c";

/// Adds the contents in the order of the checksum's definition: metadata by key, then tensors by name.
class ContentChecksum {
 public:
  /// All entries except the checksum itself.
  explicit ContentChecksum(const std::map<std::string, std::string, std::less<>>& metadata);
  /// A tensor, by the CRC-32C of its data.
  void add(std::string_view name, std::string_view dtype, std::span<const std::int64_t> shape,
           std::uint32_t data_crc, std::uint64_t data_bytes);
  /// 8 hexadecimal digits.
  std::string text() const;

 private:
  void add_text(std::string_view text);
  std::uint32_t crc_ = 0;
};

/// Like verify_checksum(file), given the CRC-32C of the data of some tensors: tensor name -> CRC.
void verify_checksum(const SafetensorsFile& file, const std::map<std::string, std::uint32_t>& known);

}  // namespace trit::io
