// SPDX-License-Identifier: MIT
//
// Working memory of runs: one arena per concurrent caller, kept and reused, grown when a program needs more.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

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
    std::byte* data() const { return arena_.data.get(); }

   private:
    friend class ArenaPool;
    ArenaPool& pool_;
    struct Deleter {
      void operator()(std::byte* data) const { ::operator delete(data, kAlignment); }
    };
    struct Arena {
      std::unique_ptr<std::byte, Deleter> data;
      std::size_t bytes = 0;
    };
    Arena arena_;
  };

 private:
  static constexpr std::align_val_t kAlignment{64};

  Loan::Arena take(std::size_t bytes) {
    Loan::Arena arena;
    {
      const std::lock_guard lock(mutex_);
      if (!free_.empty()) {
        arena = std::move(free_.back());
        free_.pop_back();
      }
    }
    if (arena.bytes < bytes) {
      arena = {};  // free the small one first
      arena.data.reset(static_cast<std::byte*>(::operator new(bytes, kAlignment)));
      arena.bytes = bytes;
    }
    return arena;
  }
  void give_back(Loan::Arena arena) {
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(arena));
  }

  std::mutex mutex_;
  std::vector<Loan::Arena> free_;
};

}  // namespace trit::runtime
