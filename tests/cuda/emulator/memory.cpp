// SPDX-License-Identifier: MIT
//
// Shared memory and mbarriers of the cluster that runs, and the report of a fault.
#include <csignal>
#include <cstdio>
#include <cstring>

#include "cuda/emulator/machine.h"
#include "cuda/emulator/mbarrier.h"
#include "cuda/emulator/sanitizer.h"

namespace trit::emulator {
namespace {

// The first shared addresses belong to the system on a GPU; an address of 0 that works by luck must not.
constexpr std::uint32_t kSharedBase = 1024;
// What stands in memory where a live mbarrier is.
constexpr std::uint64_t kCookie = 0x626172726965725fU;
constexpr std::int64_t kMaxBytes = (1 << 20) - 1;  // of a transaction count

Block* block_of(const void* pointer) {
  const auto* p = static_cast<const std::uint8_t*>(pointer);
  for (const auto& block : machine().blocks) {
    if (p >= block->shared->data() && p <= block->shared->data() + block->shared->bytes()) {
      return block.get();
    }
  }
  return nullptr;
}

std::uint32_t address_in(const Block& block, const void* pointer) {
  return kSharedBase +
         static_cast<std::uint32_t>(static_cast<const std::uint8_t*>(pointer) - block.shared->data());
}

std::string text_of(const Block& block, std::uint32_t address) {
  return "mbarrier at shared address " + std::to_string(address) + " of cluster rank " +
         std::to_string(block.rank);
}

MemoryBarrier& live_barrier(std::uint64_t* memory) {
  check_shared(memory, 8, 8, "mbarrier");
  Block& block = *block_of(memory);
  const auto found = block.memory_barriers.find(address_in(block, memory));
  if (found == block.memory_barriers.end()) {
    fail(text_of(block, address_in(block, memory)) + " is not initialised");
  }
  std::uint64_t there = 0;
  std::memcpy(&there, memory, sizeof there);
  if (there != kCookie) {
    fail(text_of(block, found->first) + " was overwritten");
  }
  return found->second;
}

void complete_phase(MemoryBarrier& barrier) {
  if (barrier.pending == 0 && barrier.bytes == 0) {
    barrier.phase = !barrier.phase;
    barrier.pending = barrier.expected;
  }
}

void on_fault(int signal, siginfo_t* info, void* /*context*/) {
  // Only what may be called in a handler; the message matters more than tidiness, for the program is lost.
  std::signal(signal, SIG_DFL);
  char text[512];
  int length = std::snprintf(text, sizeof text, "emulator: fault at %p", info->si_addr);
  try {
    const Machine& m = machine();
    if (m.current != nullptr) {
      const auto offset = static_cast<const std::uint8_t*>(info->si_addr) - m.current->block->shared->data();
      length =
          std::snprintf(text, sizeof text, "emulator: %s: %s: fault at %p, shared memory %+td of %zu bytes\n",
                        m.kernel.c_str(), name_of(*m.current).c_str(), info->si_addr, offset,
                        m.current->block->shared->bytes());
    }
  } catch (const Error&) {
    // outside of a kernel: the address is all that is known
  }
  std::fwrite(text, 1, static_cast<std::size_t>(length), stderr);
}

}  // namespace

std::uint8_t* shared_memory() { return machine().current->block->shared->data(); }

void* map_to_rank(void* shared, unsigned rank) {
  const Machine& m = machine();
  const Block* from = block_of(shared);
  if (from == nullptr || rank >= m.blocks.size()) {
    fail("mapa: not shared memory, or rank " + std::to_string(rank) + " of a cluster of " +
         std::to_string(m.blocks.size()));
  }
  return m.blocks[rank]->shared->data() + (static_cast<std::uint8_t*>(shared) - from->shared->data());
}

std::uint32_t shared_address(const void* pointer) {
  const Block& mine = *machine().current->block;
  if (block_of(pointer) != &mine) {
    fail("an address that is not in this block's shared memory");
  }
  return address_in(mine, pointer);
}

std::uint8_t* shared_pointer(std::uint32_t address) {
  const Block& mine = *machine().current->block;
  if (address < kSharedBase || address > kSharedBase + mine.shared->bytes()) {
    fail("shared address " + std::to_string(address) + " is outside of " +
         std::to_string(mine.shared->bytes()) + " bytes");
  }
  return mine.shared->data() + (address - kSharedBase);
}

void check_shared(const void* pointer, std::size_t bytes, std::size_t alignment, std::string_view name) {
  const Block* block = block_of(pointer);
  if (block == nullptr) {
    fail(std::string(name) + ": the address is not in shared memory");
  }
  const auto offset =
      static_cast<std::size_t>(static_cast<const std::uint8_t*>(pointer) - block->shared->data());
  if (offset + bytes > block->shared->bytes()) {
    fail(std::string(name) + ": bytes " + std::to_string(offset) + " to " + std::to_string(offset + bytes) +
         " of shared memory, which has " + std::to_string(block->shared->bytes()));
  }
  if (offset % alignment != 0) {
    fail(std::string(name) + ": shared offset " + std::to_string(offset) + " is not a multiple of " +
         std::to_string(alignment));
  }
}

void barrier_init(std::uint64_t* memory, std::uint32_t arrivals) {
  check_shared(memory, 8, 8, "mbarrier.init");
  if (arrivals == 0) {
    fail("mbarrier.init with no arrivals");
  }
  std::memcpy(memory, &kCookie, sizeof kCookie);
  Block& block = *block_of(memory);
  block.memory_barriers[address_in(block, memory)] = {arrivals, arrivals, 0, false};
}

void barrier_expect_bytes(std::uint64_t* memory, std::uint32_t bytes) {
  MemoryBarrier& barrier = live_barrier(memory);
  barrier.bytes += bytes;
  if (barrier.bytes > kMaxBytes) {
    fail("mbarrier: a transaction of " + std::to_string(barrier.bytes) + " bytes");
  }
}

void barrier_complete_bytes(std::uint64_t* memory, std::uint32_t bytes) {
  // Copies may complete before the expectation is made: the count is then negative for a while.
  MemoryBarrier& barrier = live_barrier(memory);
  barrier.bytes -= bytes;
  complete_phase(barrier);
}

void barrier_arrive(std::uint64_t* memory, std::uint32_t count) {
  MemoryBarrier& barrier = live_barrier(memory);
  if (barrier.pending < count) {
    fail("mbarrier: an arrival more than the " + std::to_string(barrier.expected) +
         " it was initialised with");
  }
  barrier.pending -= count;
  complete_phase(barrier);
}

void barrier_arrive_expect_bytes(std::uint64_t* memory, std::uint32_t bytes) {
  barrier_expect_bytes(memory, bytes);
  barrier_arrive(memory, 1);
}

bool barrier_done(std::uint64_t* memory, unsigned parity) {
  return live_barrier(memory).phase != (parity != 0);
}

void barrier_wait(std::uint64_t* memory, unsigned parity) {
  if (!barrier_done(memory, parity)) {
    const Block& block = *block_of(memory);
    block_current("phase ", std::to_string(parity) + " of the " + text_of(block, address_in(block, memory)),
                  [memory, parity] { return barrier_done(memory, parity); });
  }
}

void barrier_invalidate(std::uint64_t* memory) {
  static_cast<void>(live_barrier(memory));
  Block& block = *block_of(memory);
  block.memory_barriers.erase(address_in(block, memory));
}

void start_barrier_copy(std::uint64_t* memory, std::uint32_t bytes, std::function<void()> copy) {
  static_cast<void>(live_barrier(memory));
  start_copy([memory, bytes, copy = std::move(copy)] {
    copy();
    barrier_complete_bytes(memory, bytes);
  });
}

void report_faults() {
#if !defined(TRIT_EMULATOR_ASAN)
  static const bool installed = [] {
    static char stack[1 << 16];  // the fiber's own stack may be what overflowed
    const stack_t alternate = {.ss_sp = stack, .ss_flags = 0, .ss_size = sizeof stack};
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    return sigaltstack(&alternate, nullptr) == 0 && sigaction(SIGSEGV, &action, nullptr) == 0 &&
           sigaction(SIGBUS, &action, nullptr) == 0;
  }();
  static_cast<void>(installed);
#else
  static_cast<void>(on_fault);
#endif
}

}  // namespace trit::emulator
