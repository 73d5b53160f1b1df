// SPDX-License-Identifier: MIT
//
// What the emulated instructions of compute capability 9.0 share: addresses of shared memory, and the state
// of a thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cuda/emulator/device.h"

namespace trit::cuda::ptx::detail {

// An address in the window of the cluster: rank + 1 above 24 bits of the block's own window.
constexpr unsigned kRankShift = 24;

inline std::uint8_t* cluster_pointer(std::uint32_t address) {
  const std::uint32_t rank = address >> kRankShift;
  std::uint8_t* const own = emulator::shared_pointer(address & ((1U << kRankShift) - 1U));
  return rank == 0 ? own : static_cast<std::uint8_t*>(emulator::map_to_rank(own, rank - 1));
}
inline std::uint64_t* barrier_pointer(std::uint32_t address) {
  return reinterpret_cast<std::uint64_t*>(cluster_pointer(address));
}

// The 128-byte swizzle: address bits 4-6 are xored with bits 7-9.
constexpr std::uint32_t swizzled(std::uint32_t address) { return address ^ ((address >> 3U) & 0x70U); }

inline void check_address(std::uint32_t address, std::size_t bytes, std::size_t alignment, const char* name) {
  emulator::check_shared(cluster_pointer(address), bytes, alignment, name);
}

inline std::uint8_t* box_row(std::uint32_t box, std::int32_t row, std::uint32_t chunk) {
  return emulator::shared_pointer(swizzled(box + static_cast<std::uint32_t>(row) * 128 + chunk * 16));
}

enum class WgmmaType : std::uint8_t { int8, bfloat16, float16 };

// One thread's wgmma: registers by reference, since the hardware reads them when it gets there.
struct Wgmma {
  std::int32_t* d;
  const std::uint32_t* a;
  std::uint64_t b;
  std::int32_t tokens;
  bool accumulate;
  WgmmaType type = WgmmaType::int8;
};
struct WgmmaGroups {
  std::vector<Wgmma> open;
  std::vector<std::vector<Wgmma>> committed;  // the oldest first
  bool fenced = false;
};
struct ThreadState {
  WgmmaGroups wgmma;
  bool cluster_waited = false;
};
inline ThreadState& thread_state() {
  std::shared_ptr<void>& state = emulator::this_thread().sm90;
  if (state == nullptr) {
    state = std::make_shared<ThreadState>();
  }
  return *static_cast<ThreadState*>(state.get());
}
inline WgmmaGroups& wgmma_groups() { return thread_state().wgmma; }

}  // namespace trit::cuda::ptx::detail
