// SPDX-License-Identifier: MIT
//
// Where in one arena each buffer lies, so that buffers that are never live together share bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace trit::runtime {

/// A buffer that is live from step `first` to step `last`, both included.
struct Lifetime {
  std::size_t bytes;
  std::size_t first;
  std::size_t last;
};

struct MemoryPlan {
  std::vector<std::size_t> offsets;  // of each buffer, multiples of 64
  std::size_t bytes = 0;             // of the arena
};

/// Largest buffers first, each at the lowest offset that is free during its life. Throws Error beyond 64 GiB.
MemoryPlan plan_memory(std::span<const Lifetime> buffers);

}  // namespace trit::runtime
