// SPDX-License-Identifier: MIT
//
// Working memory of runs: one arena per concurrent caller, kept and reused, grown when a program needs more.
#pragma once

#include <cstddef>
#include <mutex>
#include <utility>
#include <vector>

#include "base/buffer.h"

namespace trit::runtime {

class ArenaPool {
 public:
  /// An arena on loan: goes back to the pool at the end of its life.
  class Loan {
   public:
    Loan(ArenaPool& pool, std::size_t bytes) : pool_(pool), arena_(pool.take(bytes)) {}
    ~Loan() { pool_.give_back(std::move(arena_)); }
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;
    std::byte* data() const { return reinterpret_cast<std::byte*>(arena_.data()); }

   private:
    ArenaPool& pool_;
    AlignedBuffer arena_;
  };

 private:
  AlignedBuffer take(std::size_t bytes) {
    AlignedBuffer arena;
    {
      const std::lock_guard lock(mutex_);
      if (!free_.empty()) {
        arena = std::move(free_.back());
        free_.pop_back();
      }
    }
    if (arena.size() < bytes) {
      arena = {};  // free the small one first
      arena = AlignedBuffer(bytes);
    }
    return arena;
  }
  void give_back(AlignedBuffer arena) {
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(arena));
  }

  std::mutex mutex_;
  std::vector<AlignedBuffer> free_;
};

}  // namespace trit::runtime
