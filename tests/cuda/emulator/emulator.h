// SPDX-License-Identifier: MIT
//
// Runs CUDA kernels on the CPU: the sources of src/cuda themselves, compiled by a C++ compiler.
//
//   Policy policy{.order = Order::backward, .copies = Copies::late, .seed = 7};
//   set_policy(policy);
//   run({.grid = {3}, .block = {64}, .shared_bytes = 4096}, "my_kernel", [&] { my_kernel(x, y, n); });
//
// How: each thread of a block is a fiber (fiber.h). It runs until it has to wait, at a barrier, a warp
// instruction or an mbarrier; then another one runs. Blocks follow each other; those of a cluster run
// together. There is one host thread.
//
// What it checks, with an Error that names kernel, block, thread and place:
//   * deadlock: every fiber waits; the message says which thread waits for what
//   * divergence: lanes of one warp instruction that are at different instructions, or have left the kernel
//   * shared memory: it is filled with garbage at the start; its end is checked by canaries (to the byte by
//     AddressSanitizer, where built with it) and by a page that faults; the instructions of ptx.h check
//     addresses and alignment
//   * mbarriers: use before init, an overwritten barrier, too many arrivals, bytes still due at the end
//   * asynchronous copies: with Copies::late they happen when they are waited for and not before, so that a
//     missing wait reads garbage; with Copies::early at once, so that a buffer that is filled too early is
//     destroyed under its readers. A copy that no thread waited for is an error.
//   * races between barriers: Order::forward, backward and random run the warps in different orders, each as
//     far as it can go. Run each case under several policies: a missing barrier is found by the order in
//     which it matters.
//
// What it does not: time, memory ordering weaker than the program's, a race that no such order shows, bank
// conflicts.
//
// To emulate an instruction of your own, write its wrapper in terms of
//   * collective(group, mask, name, args, all): a barrier of a warp or a warpgroup; the last thread calls
//     `all` with the args of all threads, by lane, and all continue. `args` may point into the caller's stack.
//   * start_barrier_copy(barrier, bytes, copy) of mbarrier.h: a copy that completes `bytes` of an mbarrier's
//     transaction (bulk copies, TMA, st.async)
//   * Thread::copy_groups, bulk_groups: copies in groups that the thread commits and waits for (cp.async;
//     bulk stores)
//   * barrier_init, barrier_wait, ... of mbarrier.h; named_barrier; shared_address and shared_pointer (32-bit
//     addresses, for descriptors); check_shared(pointer, bytes, alignment, name); fail(message)
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace trit::emulator {

/// What an emulated kernel did wrong.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
  std::size_t count() const { return std::size_t{x} * y * z; }
};

/// Which warp runs next, as far as it can (in random order, for a while), and in which order blocks and lanes
/// run.
enum class Order : std::uint8_t { forward, backward, random };
/// When asynchronous copies happen: at once, or when nothing else can happen.
enum class Copies : std::uint8_t { early, late };

struct Policy {
  Order order = Order::forward;
  Copies copies = Copies::late;
  std::uint64_t seed = 1;
};
void set_policy(const Policy& policy);
/// forward/late, backward/early, random/late, random/early: what tests run each case under.
std::span<const Policy> all_policies();

struct Launch {
  Dim3 grid = {};
  Dim3 block = {};
  std::size_t shared_bytes = 0;  // dynamic; there is no other
  unsigned cluster = 1;          // blocks of a cluster, along x
  bool programmatic = false;  // launched with programmatic dependent launch: it must wait for its predecessor
};

/// Runs `kernel` once per thread of the grid. Throws Error.
void run(const Launch& launch, std::string_view name, const std::function<void()>& kernel);

/// Ends the launch with an Error: `message`, and which thread of which block of which kernel it is.
[[noreturn]] void fail(const std::string& message);

/// Copies that a thread starts, joins to groups and waits for: cp.async.commit_group and wait_group.
class CopyGroups {
 public:
  void add(std::function<void()> copy);
  void commit();
  /// All but the latest `pending` groups are done.
  void wait(std::size_t pending);
  bool idle() const;

 private:
  std::vector<std::function<void()>> open_;
  std::vector<std::vector<std::function<void()>>> groups_;  // the oldest first
};

/// The thread whose fiber runs.
struct Thread {
  Dim3 index = {};  // threadIdx
  Dim3 block;       // blockIdx
  unsigned linear;  // index in the block
  unsigned lane() const { return linear % 32; }
  unsigned warp() const { return linear / 32; }
  CopyGroups copy_groups;  // cp.async
  CopyGroups bulk_groups;  // cp.async.bulk in bulk groups
  bool waited_for_predecessor = false;
  std::shared_ptr<void> sm90;  // what ptx_sm90.h keeps per thread
};
Thread& this_thread();
const Launch& this_launch();
/// blockIdx within the cluster.
unsigned cluster_rank();

/// Groups of threads that execute an instruction together.
enum class Group : std::uint8_t { warp, warpgroup };

/// Waits until every lane of `mask` in this warp (all 128 threads of a warpgroup; mask is then ignored) is at
/// the instruction `name`; the last calls all(args), indexed by lane, null for lanes that are not in it.
void collective(Group group, std::uint32_t mask, std::string_view name, void* args,
                const std::function<void(std::span<void* const>)>& all);

/// bar.sync / bar.arrive on one of a block's 16 barriers. threads = 0 stands for the whole block.
void named_barrier(unsigned id, unsigned threads, bool wait = true);
/// barrier.cluster.arrive, then .wait.
void cluster_arrive();
void cluster_wait();

/// The block's dynamic shared memory, aligned to 1024.
std::uint8_t* shared_memory();
/// The same place in the shared memory of another block of the cluster.
void* map_to_rank(void* shared, unsigned rank);
/// The 32-bit address of a place in this block's shared memory, and back. Addresses start at 1024, not at 0.
std::uint32_t shared_address(const void* pointer);
std::uint8_t* shared_pointer(std::uint32_t address);
/// Fails unless [pointer, pointer + bytes) lies in the shared memory of this block's cluster and is aligned.
void check_shared(const void* pointer, std::size_t bytes, std::size_t alignment, std::string_view name);

/// Lets other fibers run; for spin loops.
void yield();
/// Blocks the fiber until `ready()`, which depends on what other fibers and copies do. `what` is for the
/// deadlock report.
void wait_until(std::function<bool()> ready, std::string what);
/// Does `copy` now or later, as the policy says. Its completion may make waiting fibers ready.
void start_copy(std::function<void()> copy);

}  // namespace trit::emulator
