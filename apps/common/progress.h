// SPDX-License-Identifier: MIT
//
// A progress bar on stderr with rate and remaining time; silent unless stderr is a terminal.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace trit::apps {

class Progress {
 public:
  /// `unit` names the things that are counted ("images"); `total` is the final count.
  Progress(std::string_view title, std::int64_t total, std::string_view unit);
  /// Clears the line.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Sets the count and a short text after the rate (such as "loss 1.23"). Draws at most ten times a second.
  void update(std::int64_t done, std::string_view detail = {});
  /// Clears the line now, so that other output can follow.
  void clear();

 private:
  std::string title_, unit_;
  std::int64_t total_;
  bool terminal_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point start_, last_draw_;
};

/// The content of the bar.
struct ProgressState {
  std::string_view title, unit, detail;
  std::int64_t done = 0, total = 0;
  double seconds = 0;  // since the start
};

/// The bar as one line of ASCII of at most `width` characters. If the text does not fit, first the bar is left
/// out, then the text is truncated.
///   epoch 3/20 [=======>         ]  45%  22500/50000 images  3120 images/s  ETA 0:08  loss 1.23
std::string progress_line(const ProgressState& state, std::size_t width);

/// Installs handlers for SIGINT, SIGTERM and SIGHUP (unless it is ignored, as under nohup) that only record the
/// signal. A second SIGINT or SIGTERM ends the process at once.
void install_interrupt_handler();
/// Whether a signal has arrived. The program should then save and exit with 130.
bool interrupted();

}  // namespace trit::apps
