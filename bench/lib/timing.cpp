// SPDX-License-Identifier: MIT
#include "bench/lib/timing.h"

#include <algorithm>
#include <chrono>
#include <memory>

#include "common/progress.h"

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace trit::bench {
namespace {

double seconds_of(const std::function<void()>& subject, std::int64_t calls) {
  const auto start = std::chrono::steady_clock::now();
  for (std::int64_t call = 0; call < calls; ++call) {
    subject();
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Doubles the calls until they can be timed, then scales to the batch.
std::int64_t calls_per_batch(const std::function<void()>& subject, double seconds) {
  for (std::int64_t calls = 1;; calls *= 2) {
    const double taken = seconds_of(subject, calls);
    if (taken >= seconds / 8) {
      return std::max<std::int64_t>(1,
                                    static_cast<std::int64_t>(static_cast<double>(calls) * seconds / taken));
    }
  }
}

}  // namespace

TimingProgress progress_bar(const std::string& title, const std::string& unit) {
  return
      [title, unit, bar = std::shared_ptr<apps::Progress>()](std::int64_t done, std::int64_t total) mutable {
        if (!bar) {
          bar = std::make_shared<apps::Progress>(title, total, unit);
        }
        bar->update(done);
      };
}

std::vector<std::vector<double>> time_interleaved(std::span<const std::function<void()>> subjects,
                                                  const TimingOptions& options,
                                                  const TimingProgress& progress) {
  std::vector<std::int64_t> calls;
  for (const auto& subject : subjects) {
    subject();
    calls.push_back(calls_per_batch(subject, options.seconds_per_batch));
  }
  std::vector<std::vector<double>> seconds(subjects.size());
  const auto total = static_cast<std::int64_t>(subjects.size()) * options.rounds;
  std::int64_t done = 0;
  for (int round = 0; round < options.rounds; ++round) {
    for (std::size_t i = 0; i < subjects.size(); ++i) {
      seconds[i].push_back(seconds_of(subjects[i], calls[i]) / static_cast<double>(calls[i]));
      if (progress) {
        progress(++done, total);
      }
    }
  }
  return seconds;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

void keep_freed_memory() {
#if defined(__GLIBC__)
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, -1);
#endif
}

}  // namespace trit::bench
