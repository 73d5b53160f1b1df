// SPDX-License-Identifier: MIT
//
// How fast this machine reads memory or a cache: the limit of a product that reads its weights once.
#pragma once

#include <cstddef>
#include <memory>

#include "trit/parallel.h"

namespace trit::bench {

/// Reads a buffer on huge pages, each thread its own part. The constructor tries a few loops (one stream or
/// four, with and without prefetch, vectors of 16, 32 or 64 bytes) and takes the fastest.
class MemoryRead {
 public:
  /// A buffer of about `bytes`, read in slices of about `slice_bytes` (0: one slice). Slices let a run take
  /// only milliseconds although the buffer is larger than the last cache and is read from memory.
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

}  // namespace trit::bench
