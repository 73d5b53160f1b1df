// SPDX-License-Identifier: MIT
//
// Memory whose neighbours must not be touched: an access past its end faults (the next page is closed), bytes
// between the end and that page are canaries, and AddressSanitizer, where built with it, checks single bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

namespace trit::emulator {

/// An anonymous mapping with closed pages around it; the content starts as close to the end as the alignment
/// lets it.
class GuardedMemory {
 public:
  /// `alignment`: a power of two, at most 4096. The content is filled with garbage made from `seed`.
  GuardedMemory(std::size_t bytes, std::size_t alignment, std::uint64_t seed);
  ~GuardedMemory();
  GuardedMemory(const GuardedMemory&) = delete;
  GuardedMemory& operator=(const GuardedMemory&) = delete;
  GuardedMemory(GuardedMemory&& other) noexcept;
  GuardedMemory& operator=(GuardedMemory&&) = delete;

  std::uint8_t* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  /// Whether the canaries around the content are as they were.
  bool intact() const;

 private:
  std::uint8_t* mapping_ = nullptr;
  std::size_t mapping_bytes_ = 0;
  std::uint8_t* data_ = nullptr;
  std::size_t bytes_ = 0;
};

/// The dynamic shared memory of a block.
using SharedMemory = GuardedMemory;

/// What a test gives to a kernel as global memory: `count` values, aligned to 16 bytes plus `offset` values.
template <typename Value>
class DeviceArray {
 public:
  explicit DeviceArray(std::size_t count, std::size_t offset = 0, std::uint64_t seed = 1)
      : memory_((count + offset) * sizeof(Value), 16, seed), offset_(offset), count_(count) {}
  explicit DeviceArray(std::span<const Value> values, std::size_t offset = 0)
      : DeviceArray(values.size(), offset) {
    if (!values.empty()) {
      std::memcpy(data(), values.data(), values.size_bytes());
    }
  }
  Value* data() const { return reinterpret_cast<Value*>(memory_.data()) + offset_; }
  std::size_t size() const { return count_; }
  std::span<Value> span() const { return {data(), count_}; }
  Value& operator[](std::size_t i) const { return data()[i]; }
  bool intact() const { return memory_.intact(); }

 private:
  GuardedMemory memory_;
  std::size_t offset_;
  std::size_t count_;
};

/// Prints where a kernel is when it faults (SIGSEGV, SIGBUS), then lets the program die of it.
void report_faults();

}  // namespace trit::emulator
