// SPDX-License-Identifier: MIT
#include "trit/parallel.h"

#include <omp.h>
#include <pthread.h>

#include <atomic>
#include <string>
#include <vector>

#include "base/tasks.h"
#include "base/team.h"
#include "trit/error.h"

namespace trit {

namespace {

// Of the calling thread. fork() copies this thread alone, so that a child knows from its copy whether the
// threads that libgomp keeps for it are gone.
thread_local bool has_team = false;
thread_local bool lost_team = false;

extern "C" void note_fork() { lost_team = lost_team || has_team; }

}  // namespace

void use_team() {
  static const int registered = pthread_atfork(nullptr, nullptr, note_fork);
  static_cast<void>(registered);
  has_team = true;
}

bool team_is_lost() { return lost_team; }

namespace {

class OpenMpParallel final : public Parallel {
 public:
  explicit OpenMpParallel(int threads) : threads_(threads) {}
  int threads() const override { return threads_; }

  void run(std::int64_t tasks, const std::function<void(std::int64_t)>& task) override {
    if (tasks <= 1 || threads_ == 1 || team_is_lost()) {
      const DefaultFloatingPoint environment;
      for (std::int64_t i = 0; i < tasks; ++i) {
        task(i);
      }
      return;
    }
    use_team();
    // Thread t begins with the t-th part of the tasks and then helps the others: weights are read by the
    // thread that has written them, as far as possible (their pages lie in its part of the memory), and a
    // thread that loses its core for a while hands its tasks on.
    std::vector<NextTask> parts(static_cast<std::size_t>(threads_));
    // Always the whole team, even for fewer tasks: libgomp ends the threads that a smaller team leaves over
    // and starts them again for the next one, tens of microseconds each time.
#pragma omp parallel num_threads(threads_)
    {
      const DefaultFloatingPoint environment;
      for (int turn = 0; turn < threads_; ++turn) {
        const int owner = (omp_get_thread_num() + turn) % threads_;
        const Part part = part_of(tasks, threads_, owner);
        std::atomic<std::int64_t>& next = parts[static_cast<std::size_t>(owner)].index;
        // Most parts of others are used up. A read, unlike fetch_add, leaves the line in the caches of the
        // threads that read it too.
        if (next.load(std::memory_order_relaxed) >= part.size()) {
          continue;
        }
        for (std::int64_t i = 0;
             (i = part.begin + next.fetch_add(1, std::memory_order_relaxed)) < part.end;) {
          task(i);
        }
      }
    }
  }

 private:
  /// How many tasks of a part are taken; on a cache line of its own.
  struct alignas(64) NextTask {
    std::atomic<std::int64_t> index{0};
  };
  int threads_;
};

}  // namespace

std::unique_ptr<Parallel> make_parallel(int threads) {
  if (threads < 0) {
    throw Error("threads: " + std::to_string(threads) + ", wanted 0 (all) or more");
  }
  return std::make_unique<OpenMpParallel>(threads == 0 ? omp_get_max_threads() : threads);
}

}  // namespace trit
