// SPDX-License-Identifier: MIT
#include "io/checksum.h"

#include <array>
#include <cstdio>

#include "io/dtype.h"
#include "trit/error.h"

namespace trit::io {

ContentChecksum::ContentChecksum(const std::map<std::string, std::string, std::less<>>& metadata) {
  for (const auto& [key, value] : metadata) {
    if (key != kChecksumKey) {
      add_text(key);
      add_text(value);
    }
  }
}

void ContentChecksum::add(std::string_view name, std::string_view dtype, std::span<const std::int64_t> shape,
                          std::uint32_t data_crc, std::uint64_t data_bytes) {
  add_text(name);
  add_text(dtype);
  add_text(shape_text(shape));
  crc_ = crc32c_combine(crc_, data_crc, data_bytes);
}

// A zero byte behind each text: "ab" + "c" and "a" + "bc" differ.
void ContentChecksum::add_text(std::string_view text) {
  constexpr std::array kEnd{std::byte{0}};
  crc_ = crc32c(std::as_bytes(std::span(text)), crc_);
  crc_ = crc32c(kEnd, crc_);
}

std::string ContentChecksum::text() const {
  std::array<char, 9> digits{};
  std::snprintf(digits.data(), digits.size(), "%08x", static_cast<unsigned>(crc_));
  return digits.data();
}

void verify_checksum(const SafetensorsFile& file) { verify_checksum(file, {}); }

void verify_checksum(const SafetensorsFile& file, const std::map<std::string, std::uint32_t>& known) {
  const auto stored = file.metadata().find(kChecksumKey);
  if (stored == file.metadata().end()) {
    return;
  }
  ContentChecksum checksum(file.metadata());
  for (const auto& [name, tensor] : file.tensors()) {
    const auto crc = known.find(name);
    checksum.add(name, tensor.dtype, tensor.shape, crc == known.end() ? crc32c(tensor.data) : crc->second,
                 tensor.data.size());
  }
  if (checksum.text() != stored->second) {
    throw Error(file.path().string() + ": corrupt: the checksum of its contents is " + checksum.text() +
                ", its metadata \"" + std::string(kChecksumKey) + "\" says " + stored->second.substr(0, 60));
  }
}

}  // namespace trit::io
