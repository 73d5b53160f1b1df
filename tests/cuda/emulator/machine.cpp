// SPDX-License-Identifier: MIT
//
// The scheduler: makes the fibers of a cluster, runs whoever can run, does late copies when nobody can, and
// reports a deadlock when there are none.
#include "cuda/emulator/machine.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <new>
#include <numeric>
#include <sstream>

namespace trit::emulator {
namespace {

// Rounds in which every thread was blocked or in a spin loop before this is called a deadlock: a thread may
// have done something for others before it gave up its turn.
constexpr int kIdleRounds = 3;

Policy chosen_policy;
Machine* running = nullptr;

// Stacks are kept from launch to launch: mapping them is slower than most tests.
class Stacks {
 public:
  std::byte* at(std::size_t i) {
    while (stacks_.size() <= i) {
      void* stack =
          mmap(nullptr, kFiberStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (stack == MAP_FAILED) {
        throw std::bad_alloc();
      }
      mprotect(stack, 4096, PROT_NONE);  // a stack that is too small faults
      stacks_.push_back(static_cast<std::byte*>(stack));
    }
    return stacks_[i];
  }

 private:
  std::vector<std::byte*> stacks_;
};

Stacks& stacks() {
  static Stacks the_stacks;
  return the_stacks;
}

std::string text_of(const Dim3& d) {
  return "(" + std::to_string(d.x) + "," + std::to_string(d.y) + "," + std::to_string(d.z) + ")";
}

Dim3 position(std::size_t linear, const Dim3& shape) {
  return {static_cast<unsigned>(linear % shape.x), static_cast<unsigned>(linear / shape.x % shape.y),
          static_cast<unsigned>(linear / shape.x / shape.y)};
}

}  // namespace

void set_policy(const Policy& policy) { chosen_policy = policy; }

std::span<const Policy> all_policies() {
  static constexpr std::array<Policy, 4> policies = {{{Order::forward, Copies::late, 1},
                                                      {Order::backward, Copies::early, 2},
                                                      {Order::random, Copies::late, 3},
                                                      {Order::random, Copies::early, 4}}};
  return policies;
}

Machine& machine() {
  if (running == nullptr) {
    throw Error("emulator: device code outside of run()");
  }
  return *running;
}

std::string name_of(const Fibre& fibre) {
  return "block " + text_of(fibre.thread.block) + ", thread " + std::to_string(fibre.thread.linear) +
         " (warp " + std::to_string(fibre.thread.warp()) + ", lane " + std::to_string(fibre.thread.lane()) +
         ")";
}

void fail(const std::string& message) {
  const Machine& m = machine();
  std::string where = m.kernel + ": ";
  if (m.current != nullptr) {
    where += name_of(*m.current) + ": ";
  }
  throw Error(where + message);
}

void block_current(std::string_view waits_for, std::string what, std::function<bool()> ready) {
  Machine& m = machine();
  Fibre& me = *m.current;
  me.blocked = true;
  me.ready = std::move(ready);
  me.waits_for = waits_for;
  me.waits_for_what = std::move(what);
  // make_fibres has made it. NOLINTNEXTLINE(bugprone-unchecked-optional-access)
  me.fiber->switch_to(m.scheduler);
}

void Machine::make_fibres(const std::function<void()>& body) {
  const std::size_t threads = launch.block.count();
  for (const auto& block : blocks) {
    for (std::size_t t = 0; t < threads; ++t) {
      auto fibre = std::make_unique<Fibre>();
      fibre->thread.index = position(t, launch.block);
      fibre->thread.block = block->index;
      fibre->thread.linear = static_cast<unsigned>(t);
      fibre->block = block.get();
      Fibre* me = fibre.get();
      me->fiber.emplace(stacks().at(fibres.size()), kFiberStackBytes, [this, me, &body] {
        try {
          body();
          if (!me->thread.copy_groups.idle() || !me->thread.bulk_groups.idle()) {
            fail("left the kernel with copies that it has not waited for");
          }
        } catch (...) {
          error = std::current_exception();
        }
        me->done = true;
        me->fiber->switch_to(scheduler, true);
      });
      block->threads.push_back(me);
      fibres.push_back(std::move(fibre));
    }
  }
}

// Runs `fibre` until it blocks; false if it cannot run or only spins.
bool Machine::step(Fibre& fibre) {
  if (fibre.done) {
    return false;
  }
  if (fibre.blocked) {
    if (!fibre.ready || !fibre.ready()) {
      return false;
    }
    fibre.blocked = false;
  }
  current = &fibre;
  fibre.spins = false;
  scheduler.switch_to(*fibre.fiber);  // NOLINT(bugprone-unchecked-optional-access): make_fibres has made it
  current = nullptr;
  if (error) {
    std::rethrow_exception(error);
  }
  return !fibre.spins;
}

void Machine::complete_a_copy() {
  std::size_t which = 0;
  if (policy.order == Order::backward) {
    which = copies.size() - 1;
  } else if (policy.order == Order::random) {
    which = random() % copies.size();
  }
  const std::function<void()> copy = std::move(copies[which]);
  copies.erase(copies.begin() + static_cast<std::ptrdiff_t>(which));
  copy();
}

// Runs the threads of a warp until none of them can go on; in random order, until it loses its turn. Warps so
// drift as far apart as barriers let them, and what lies between two barriers is not shown in step.
bool Machine::run_warp(std::vector<Fibre*>& warp) {
  bool progress = false;
  for (bool again = true; again;) {
    again = false;
    if (policy.order == Order::random) {
      std::shuffle(warp.begin(), warp.end(), random);
    }
    for (Fibre* fibre : warp) {
      again = step(*fibre) || again;
    }
    progress = progress || again;
    again = again && (policy.order != Order::random || random() % 16 != 0);
  }
  return progress;
}

void Machine::schedule() {
  std::vector<std::vector<Fibre*>> warps;
  for (const auto& block : blocks) {
    for (Fibre* fibre : block->threads) {
      if (fibre->thread.lane() == 0) {
        warps.emplace_back();
      }
      warps.back().push_back(fibre);
    }
  }
  if (policy.order == Order::backward) {
    std::reverse(warps.begin(), warps.end());
    for (auto& warp : warps) {
      std::reverse(warp.begin(), warp.end());
    }
  }
  for (int idle_rounds = 0;;) {
    if (policy.order == Order::random) {
      std::shuffle(warps.begin(), warps.end(), random);
    }
    bool progress = false;
    for (auto& warp : warps) {
      progress = run_warp(warp) || progress;
    }
    if (std::all_of(fibres.begin(), fibres.end(), [](const auto& f) { return f->done; })) {
      return;
    }
    idle_rounds = progress ? 0 : idle_rounds + 1;
    if (!progress && !copies.empty()) {
      complete_a_copy();
    } else if (idle_rounds > kIdleRounds) {
      report_deadlock();
    }
  }
}

void Machine::report_deadlock() const {
  // One line per thing waited for, with the first threads that do.
  std::map<std::string, std::pair<std::size_t, std::string>> groups;
  for (const auto& fibre : fibres) {
    if (!fibre->done) {
      auto& [count, first] = groups[std::string(fibre->waits_for) + fibre->waits_for_what];
      if (count++ == 0) {
        first = name_of(*fibre);
      }
    }
  }
  std::ostringstream text;
  text << kernel << ": deadlock, every thread waits:";
  for (const auto& [what, group] : groups) {
    text << "\n  " << group.first << " for " << what << ", the first: " << group.second;
  }
  throw Error(text.str());
}

// What must hold when all threads of a cluster have left.
void Machine::finish() {
  if (!copies.empty()) {
    throw Error(kernel + ": the kernel ended with " + std::to_string(copies.size()) +
                " copies that nobody waited for");
  }
  for (const auto& block : blocks) {
    const std::string where = kernel + ": block " + text_of(block->index) + ": ";
    if (!block->shared->intact()) {
      throw Error(where + "wrote outside its " + std::to_string(launch.shared_bytes) +
                  " bytes of shared memory");
    }
    for (const auto& [address, barrier] : block->memory_barriers) {
      if (barrier.bytes != 0) {
        throw Error(where + "the mbarrier at shared address " + std::to_string(address) + " still expects " +
                    std::to_string(barrier.bytes) + " bytes");
      }
    }
    const bool waited = std::any_of(block->threads.begin(), block->threads.end(),
                                    [](const Fibre* f) { return f->thread.waited_for_predecessor; });
    if (launch.programmatic && !waited) {
      throw Error(where + "launched before its predecessor ends, and never waits for it");
    }
  }
}

void Machine::run_cluster(const std::function<void()>& body) {
  running = this;
  try {
    make_fibres(body);
    schedule();
    finish();
  } catch (...) {
    running = nullptr;
    throw;
  }
  running = nullptr;
}

void run(const Launch& launch, std::string_view name, const std::function<void()>& kernel) {
  report_faults();
  const std::size_t threads = launch.block.count();
  if (threads == 0 || threads > 1024 || launch.grid.count() == 0 || launch.grid.y > 65535 ||
      launch.grid.z > 65535 || launch.cluster == 0 || launch.grid.x % launch.cluster != 0 ||
      launch.shared_bytes > 232448) {
    throw Error(std::string(name) + ": cannot launch grid " + text_of(launch.grid) + ", block " +
                text_of(launch.block) + ", " + std::to_string(launch.shared_bytes) +
                " bytes of shared memory, clusters of " + std::to_string(launch.cluster));
  }
  const std::size_t clusters = launch.grid.count() / launch.cluster;
  std::vector<std::size_t> order(clusters);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::mt19937_64 random(chosen_policy.seed);
  if (chosen_policy.order == Order::backward) {
    std::reverse(order.begin(), order.end());
  } else if (chosen_policy.order == Order::random) {
    std::shuffle(order.begin(), order.end(), random);
  }
  for (const std::size_t c : order) {
    Machine m;
    m.launch = launch;
    m.kernel = name;
    m.policy = chosen_policy;
    m.random.seed(chosen_policy.seed + c);
    for (unsigned rank = 0; rank < launch.cluster; ++rank) {
      auto block = std::make_unique<Block>();
      block->index = position(c * launch.cluster + rank, launch.grid);
      block->rank = rank;
      block->shared = std::make_unique<SharedMemory>(launch.shared_bytes, 1024, random());
      m.blocks.push_back(std::move(block));
    }
    m.run_cluster(kernel);
  }
}

}  // namespace trit::emulator
