// SPDX-License-Identifier: MIT
//
// The cache sizes of the CPUs that this process may use: layout choice, benchmark limits and everything else
// ask here.
#pragma once

#include <algorithm>
#include <cstdint>

#include "trit/export.h"

TRIT_EXPORT_BEGIN

namespace trit {

/// The caches of one level that hold data.
struct CacheLevel {
  std::int64_t bytes = 0;        ///< of one cache, the largest where they differ; 0: none, or not known
  std::int64_t total_bytes = 0;  ///< of all of them together
  int instances = 0;             ///< number of such caches: an AMD processor has an L3 for each core complex
  bool operator==(const CacheLevel&) const = default;
};

struct CpuCaches {
  CacheLevel l1, l2, l3;
  bool operator==(const CpuCaches&) const = default;
  /// The last level that is known.
  const CacheLevel& last() const { return l3.bytes > 0 ? l3 : l2.bytes > 0 ? l2 : l1; }
  /// How much of the last level `threads` threads can use, if they run on CPUs of different caches.
  std::int64_t last_bytes(int threads) const { return std::min(threads * last().bytes, last().total_bytes); }
};

/// Read once, for the CPUs that the process may use at that time: from /sys/devices/system/cpu, as lscpu
/// does, or from the processor where that folder is missing (CPUID leaf 4, on AMD 0x8000001D). Not from
/// sysconf(_SC_LEVEL3_CACHE_SIZE): glibc multiplies the sizes of AMD's caches by the number of CPUs (2.36
/// gives 320 MiB for an L3 of 32).
const CpuCaches& cpu_caches();

}  // namespace trit

TRIT_EXPORT_END
