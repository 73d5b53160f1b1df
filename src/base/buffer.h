// SPDX-License-Identifier: MIT
//
// Memory that starts on a cache line, and on 2 MiB pages if it is large. Weights that are read from memory
// miss the TLB every 4 KiB without huge pages: those are worth 10 to 20 %, and more in a virtual machine
// whose host has small pages too (2560 x 2560, one token: 104 to 125 us, without them 143 to 690).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#include "base/integer.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace trit {

inline constexpr std::size_t kCacheLine = 64;

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  /// Uninitialised. Throws std::bad_alloc.
  explicit AlignedBuffer(std::size_t bytes) : bytes_(bytes) {
    const std::size_t alignment = bytes >= kMinHuge ? kHugePage : kCacheLine;
    const std::size_t rounded = round_up(bytes, alignment);
    data_.reset(static_cast<std::uint8_t*>(std::aligned_alloc(alignment, rounded)));
    if (data_ == nullptr) {
      throw std::bad_alloc();
    }
#if defined(__linux__)
    if (alignment == kHugePage) {
      // Advice: where it is refused the buffer stays on small pages.
      static_cast<void>(madvise(data_.get(), rounded, MADV_HUGEPAGE));
    }
#endif
  }

  std::uint8_t* data() const { return data_.get(); }
  std::size_t size() const { return bytes_; }

 private:
  static constexpr std::size_t kHugePage = std::size_t{2} << 20;
  static constexpr std::size_t kMinHuge = kHugePage / 4 * 3;  // at most a third more than asked for
  struct Free {
    void operator()(std::uint8_t* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::uint8_t, Free> data_;
  std::size_t bytes_ = 0;
};

/// The calling thread's buffer of this `Tag`, of at least `bytes`. It outlives the call: pages that are new
/// to the process cost more than most uses of them.
template <typename Tag>
std::uint8_t* thread_buffer(std::size_t bytes) {
  static thread_local AlignedBuffer buffer;
  if (buffer.size() < bytes) {
    buffer = AlignedBuffer(bytes);
  }
  return buffer.data();
}

}  // namespace trit
