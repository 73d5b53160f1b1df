// SPDX-License-Identifier: MIT
//
// Inside the emulator: the state of the cluster that runs. Kernels and tests include emulator.h instead.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cuda/emulator/emulator.h"
#include "cuda/emulator/fiber.h"
#include "cuda/emulator/guarded_memory.h"

namespace trit::emulator {

/// A rendezvous in progress.
struct Barrier {
  std::string_view name;
  std::uint32_t mask = 0;              // the lanes that are expected (warp); a warpgroup expects all
  std::vector<void*> args;             // by lane
  std::vector<struct Fibre*> waiting;  // who is here already
};

/// One of the 16 named barriers of a block.
struct NamedBarrier {
  unsigned expected = 0;
  unsigned arrived = 0;
  std::vector<struct Fibre*> waiting;
};

/// An mbarrier; it lies beside the memory, which holds a cookie in its place.
struct MemoryBarrier {
  std::uint32_t expected = 0;
  std::uint32_t pending = 0;
  std::int64_t bytes = 0;  // transaction count: expected less completed
  bool phase = false;
};

struct Block {
  Dim3 index;
  unsigned rank = 0;
  std::unique_ptr<SharedMemory> shared;
  std::vector<struct Fibre*> threads;
  std::array<NamedBarrier, 16> named;
  std::map<std::uint32_t, MemoryBarrier> memory_barriers;  // by shared address
  std::map<unsigned, std::vector<Barrier>> warps;          // open barriers by warp
  std::map<unsigned, Barrier> warpgroups;
};

/// A thread and its fiber.
struct Fibre {
  Thread thread;
  Block* block = nullptr;
  std::optional<Fiber> fiber;
  bool done = false;
  bool blocked = false;
  std::function<bool()> ready;  // where blocked: ends it; empty if another thread will
  std::string_view waits_for;
  std::string waits_for_what;       // its details, where it has any
  bool spins = false;               // it has only given up its turn
  std::uint64_t cluster_phase = 0;  // of the cluster's barrier, when it arrived there
};

/// The cluster that runs (one block, unless launched otherwise), and the launch that it is part of.
struct Machine {
  Launch launch;
  std::string kernel;
  Policy policy;
  std::mt19937_64 random;
  Fiber scheduler;
  std::vector<std::unique_ptr<Block>> blocks;
  std::vector<std::unique_ptr<Fibre>> fibres;
  Fibre* current = nullptr;
  std::vector<std::function<void()>> copies;  // started, not done
  std::exception_ptr error;
  unsigned cluster_arrived = 0;
  std::uint64_t cluster_phase = 0;

  void run_cluster(const std::function<void()>& kernel);

 private:
  void make_fibres(const std::function<void()>& body);
  void schedule();
  bool run_warp(std::vector<Fibre*>& warp);
  bool step(Fibre& fibre);
  void complete_a_copy();
  void finish();
  [[noreturn]] void report_deadlock() const;
};

Machine& machine();
/// The running fiber waits until another one clears `blocked`.
void block_current(std::string_view waits_for, std::string what = {}, std::function<bool()> ready = {});
/// "block (0,0,0), thread 3"
std::string name_of(const Fibre& fibre);

}  // namespace trit::emulator
