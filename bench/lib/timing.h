// SPDX-License-Identifier: MIT
//
// Interleaved timing. A machine changes its speed while it is measured (clock, neighbours). To make subjects
// comparable, every round runs each of them once, a time is a median over rounds, and a ratio is the median
// of the rounds' ratios.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace trit::bench {

struct TimingOptions {
  int rounds = 11;
  double seconds_per_batch = 0.004;  // calls are repeated until they last this long
};

/// Called after each batch.
using TimingProgress = std::function<void(std::int64_t done, std::int64_t total)>;
/// A progress bar on standard error, until it is destroyed.
TimingProgress progress_bar(const std::string& title, const std::string& unit = "batches");

/// Seconds per call, [subjects][rounds]. At the start each subject is called once, untimed.
std::vector<std::vector<double>> time_interleaved(std::span<const std::function<void()>> subjects,
                                                  const TimingOptions& options,
                                                  const TimingProgress& progress = {});

/// Memory that is freed from here on stays with the process: a benchmark that allocates gigabytes again and
/// again then waits for the system's page faults once (half of the time in a virtual machine).
void keep_freed_memory();

/// The middle value, or the mean of the middle two. `values` is not empty.
double median(std::vector<double> values);

}  // namespace trit::bench
