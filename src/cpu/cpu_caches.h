// SPDX-License-Identifier: MIT
//
// The two sources of trit::cpu_caches, for its tests.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <vector>

#include "trit/cpu_caches.h"

namespace trit {

/// The caches of `cpus` by the files <folder>/cpu<i>/cache/index*/{level,type,size,shared_cpu_list}. A cache
/// without a size, or with one that is not a number, is left out.
CpuCaches caches_of_folder(const std::filesystem::path& folder, std::span<const int> cpus);

/// eax, ebx, ecx, edx of a leaf and subleaf; zeros for a leaf that the processor does not have.
using CpuidFunction = std::function<std::array<std::uint32_t, 4>(std::uint32_t leaf, std::uint32_t subleaf)>;
/// The caches of `cpus` CPUs by CPUID. It tells how many CPUs can share a cache, not which ones, so
/// `instances` is the minimum.
CpuCaches caches_of_cpuid(const CpuidFunction& cpuid, int cpus);

/// The CPUs that this process may use.
std::vector<int> allowed_cpus();

}  // namespace trit
