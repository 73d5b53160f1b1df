// SPDX-License-Identifier: MIT
//
// Synchronisation: warp and warpgroup instructions, named barriers, the barrier of a cluster; and copies in
// flight.
#include <algorithm>
#include <bit>

#include "cuda/emulator/machine.h"

namespace trit::emulator {
namespace {

void wake(std::vector<Fibre*>& waiting) {
  for (Fibre* fibre : waiting) {
    fibre->blocked = false;
  }
  waiting.clear();
}

// Arrives at `barrier`. True for the last thread, which has called `all` and woken the others.
bool enter(Barrier& barrier, unsigned place, unsigned expected, void* args,
           const std::function<void(std::span<void* const>)>& all) {
  barrier.args[place] = args;
  if (barrier.waiting.size() + 1 < expected) {
    barrier.waiting.push_back(machine().current);
    return false;
  }
  all(barrier.args);
  wake(barrier.waiting);
  return true;
}

void synchronise_warp(std::uint32_t mask, std::string_view name, void* args,
                      const std::function<void(std::span<void* const>)>& all) {
  Fibre& me = *machine().current;
  Block& block = *me.block;
  const unsigned warp = me.thread.warp();
  const unsigned lane = me.thread.lane();
  if ((mask >> lane & 1U) == 0) {
    fail(std::string(name) + ": the lane is not in its own mask");
  }
  for (unsigned other = 0; other < 32; ++other) {
    const std::size_t t = std::size_t{warp} * 32 + other;
    if ((mask >> other & 1U) != 0 && (t >= block.threads.size() || block.threads[t]->done)) {
      fail(std::string(name) + ": lane " + std::to_string(other) +
           " of the mask has left the kernel or never was");
    }
  }
  std::vector<Barrier>& open = block.warps[warp];
  auto found = std::find_if(open.begin(), open.end(), [&](const Barrier& m) { return m.mask == mask; });
  if (found != open.end() && found->name != name) {
    fail("divergence: it is at " + std::string(name) + " while " + name_of(*found->waiting.front()) +
         " waits in " + std::string(found->name));
  }
  if (found == open.end()) {
    open.push_back({name, mask, std::vector<void*>(32, nullptr), {}});
    found = open.end() - 1;
  }
  if (enter(*found, lane, static_cast<unsigned>(std::popcount(mask)), args, all)) {
    open.erase(std::find_if(open.begin(), open.end(), [&](const Barrier& m) { return m.mask == mask; }));
  } else {
    block_current(name, " in its warp");
  }
}

void synchronise_warpgroup(std::string_view name, void* args,
                           const std::function<void(std::span<void* const>)>& all) {
  Fibre& me = *machine().current;
  Block& block = *me.block;
  const unsigned group = me.thread.linear / 128;
  if (block.threads.size() < std::size_t{group + 1} * 128) {
    fail(std::string(name) + ": its warpgroup has fewer than 128 threads");
  }
  for (unsigned t = group * 128; t < (group + 1) * 128; ++t) {
    if (block.threads[t]->done) {
      fail(std::string(name) + ": thread " + std::to_string(t) + " of the warpgroup has left the kernel");
    }
  }
  Barrier& barrier = block.warpgroups[group];
  if (barrier.waiting.empty()) {
    barrier.name = name;
    barrier.args.assign(128, nullptr);
  } else if (barrier.name != name) {
    fail("divergence: it is at " + std::string(name) + " while " + name_of(*barrier.waiting.front()) +
         " waits in " + std::string(barrier.name));
  }
  if (!enter(barrier, me.thread.linear % 128, 128, args, all)) {
    block_current(name, " in its warpgroup");
  }
}

}  // namespace

Thread& this_thread() {
  Machine& m = machine();
  if (m.current == nullptr) {
    throw Error("emulator: no thread runs");
  }
  return m.current->thread;
}
const Launch& this_launch() { return machine().launch; }
unsigned cluster_rank() { return machine().current->block->rank; }

void collective(Group group, std::uint32_t mask, std::string_view name, void* args,
                const std::function<void(std::span<void* const>)>& all) {
  if (group == Group::warp) {
    synchronise_warp(mask, name, args, all);
  } else {
    synchronise_warpgroup(name, args, all);
  }
}

void named_barrier(unsigned id, unsigned threads, bool wait) {
  Fibre& me = *machine().current;
  Block& block = *me.block;
  const auto all = static_cast<unsigned>(block.threads.size());
  const unsigned expected = threads == 0 ? all : threads;
  if (id >= block.named.size() || expected > all || (expected % 32 != 0 && expected != all)) {
    fail("barrier " + std::to_string(id) + " of " + std::to_string(expected) + " threads in a block of " +
         std::to_string(all));
  }
  NamedBarrier& barrier = block.named[id];
  if (barrier.arrived != 0 && barrier.expected != expected) {
    fail("barrier " + std::to_string(id) + " of " + std::to_string(expected) + " threads, where others say " +
         std::to_string(barrier.expected));
  }
  barrier.expected = expected;
  if (++barrier.arrived == expected) {
    barrier.arrived = 0;
    wake(barrier.waiting);
  } else if (wait) {
    barrier.waiting.push_back(&me);
    block_current("barrier ", std::to_string(id) + " of " + std::to_string(expected) + " threads");
  }
}

void cluster_arrive() {
  Machine& m = machine();
  m.current->cluster_phase = m.cluster_phase;
  if (++m.cluster_arrived == m.fibres.size()) {
    m.cluster_arrived = 0;
    ++m.cluster_phase;
  }
}

void cluster_wait() {
  Machine& m = machine();
  const std::uint64_t phase = m.current->cluster_phase;
  wait_until([&m, phase] { return m.cluster_phase != phase; }, "the barrier of the cluster");
}

void yield() {
  machine().current->spins = true;
  block_current("its turn in a spin loop", {}, [] { return true; });
}

void wait_until(std::function<bool()> ready, std::string what) {
  if (!ready()) {
    block_current("", std::move(what), std::move(ready));
  }
}

void start_copy(std::function<void()> copy) {
  Machine& m = machine();
  if (m.policy.copies == Copies::early) {
    copy();
  } else {
    m.copies.push_back(std::move(copy));
  }
}

void CopyGroups::add(std::function<void()> copy) {
  if (machine().policy.copies == Copies::early) {
    copy();
    copy = [] {};
  }
  open_.push_back(std::move(copy));
}

void CopyGroups::commit() {
  groups_.push_back(std::move(open_));
  open_.clear();
}

void CopyGroups::wait(std::size_t pending) {
  while (groups_.size() > pending) {
    for (const auto& copy : groups_.front()) {
      copy();
    }
    groups_.erase(groups_.begin());
  }
}

bool CopyGroups::idle() const {
  return open_.empty() &&
         std::all_of(groups_.begin(), groups_.end(), [](const auto& g) { return g.empty(); });
}

}  // namespace trit::emulator
