// SPDX-License-Identifier: MIT
//
// mbarrier objects in emulated shared memory, this block's or, where mapped, another one's of its cluster.
// A phase ends when all arrivals have come and the bytes expected less the bytes completed are 0.
#pragma once

#include <cstdint>
#include <functional>

namespace trit::emulator {

void barrier_init(std::uint64_t* memory, std::uint32_t arrivals);
void barrier_invalidate(std::uint64_t* memory);
void barrier_arrive(std::uint64_t* memory, std::uint32_t count = 1);
void barrier_expect_bytes(std::uint64_t* memory, std::uint32_t bytes);
void barrier_arrive_expect_bytes(std::uint64_t* memory, std::uint32_t bytes);
void barrier_complete_bytes(std::uint64_t* memory, std::uint32_t bytes);
/// Whether the phase of this parity has ended: try_wait.parity.
bool barrier_done(std::uint64_t* memory, unsigned parity);
/// Waits for it.
void barrier_wait(std::uint64_t* memory, unsigned parity);
/// An asynchronous copy that completes `bytes` of the barrier's transaction when done.
void start_barrier_copy(std::uint64_t* memory, std::uint32_t bytes, std::function<void()> copy);

}  // namespace trit::emulator
