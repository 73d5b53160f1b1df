// SPDX-License-Identifier: MIT
#include <atomic>
#include <csignal>

#include "common/progress.h"

namespace trit::apps {
namespace {

std::atomic<bool> arrived{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler may only touch lock-free atomics");

extern "C" void note_signal(int) {
  arrived.store(true);
  // The next SIGINT or SIGTERM ends the process: saving may take long, or hang. SIGHUP is still only recorded:
  // the kernel and the shell may both send one when a terminal closes.
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

}  // namespace

void install_interrupt_handler() {
  struct sigaction action {};
  action.sa_handler = note_signal;
  action.sa_flags = SA_RESTART;  // a read or write in progress continues
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  struct sigaction before {};
  sigaction(SIGHUP, nullptr, &before);
  if (before.sa_handler != SIG_IGN) {  // as under nohup
    sigaction(SIGHUP, &action, nullptr);
  }
}

bool interrupted() { return arrived.load(); }

}  // namespace trit::apps
