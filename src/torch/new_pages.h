// SPDX-License-Identifier: MIT
//
// Pages of large results. Free of torch: src/torch and src/torch_stable share it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "trit/parallel.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace trit::torch_layer {

/// Has the kernel give out the pages of new memory now, many at a time, and not by one fault for each: of 64 MiB, two
/// threads, in 19 ms and not 26 (Zen 3, a virtual machine). From 32 MiB on: smaller memory malloc may give out again,
/// and looking for what is missing takes 3 ms for 64 MiB. Advice; what it does not do the faults do.
inline void take_new_pages([[maybe_unused]] Parallel& parallel, [[maybe_unused]] void* data,
                           [[maybe_unused]] std::int64_t bytes) {
#if defined(__linux__) && defined(MADV_POPULATE_WRITE)
  constexpr std::int64_t kMinBytes = std::int64_t{32} << 20;
  constexpr std::int64_t kPage = 4096;
  constexpr std::int64_t kChunk = std::int64_t{1} << 20;
  if (bytes < kMinBytes) {
    return;
  }
  // Whole pages; the first and the last one are left to faults.
  const std::int64_t ahead = -static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(data)) & (kPage - 1);
  auto* const begin = static_cast<std::uint8_t*>(data) + ahead;
  const std::int64_t size = (bytes - ahead) / kPage * kPage;
  parallel.run((size + kChunk - 1) / kChunk, [&](std::int64_t chunk) {
    const std::int64_t at = chunk * kChunk;
    static_cast<void>(
        madvise(begin + at, static_cast<std::size_t>(std::min(kChunk, size - at)), MADV_POPULATE_WRITE));
  });
#endif
}

}  // namespace trit::torch_layer
