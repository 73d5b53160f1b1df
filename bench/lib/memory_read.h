// SPDX-License-Identifier: MIT
//
// How fast this machine reads memory or a cache: what bounds a product that reads its weights once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "trit/parallel.h"

namespace trit::apps {

/// Reads a buffer, each thread its own part, on huge pages where the system gives them. Which of a few loops
/// (one stream or four, with and without prefetch, vectors of 16, 32 or 64 bytes) does it is found out at the
/// start: the fastest one here.
class MemoryRead {
 public:
  /// A buffer of about `bytes`, read in slices of about `slice_bytes`: a buffer larger than the last cache is
  /// then read from memory although a run takes only milliseconds. 0: one slice.
  MemoryRead(Parallel& parallel, std::size_t bytes, std::size_t slice_bytes = 0);
  ~MemoryRead();
  MemoryRead(const MemoryRead&) = delete;
  MemoryRead& operator=(const MemoryRead&) = delete;

  /// Reads the next slice once.
  void run();
  /// Bytes of one run.
  std::size_t bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace trit::apps
