// SPDX-License-Identifier: MIT
#include "common/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "common/standard_streams.h"

namespace trit::apps {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kBetweenDraws = std::chrono::milliseconds(100);
constexpr std::size_t kBarCells = 24;

// One column less than the terminal has: some wrap after a full last column.
std::size_t line_width() {
  winsize size{};
  const bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
  return known ? size.ws_col - 1U : 79U;
}

std::string remaining(double seconds) {
  if (!std::isfinite(seconds) || seconds >= 360000) {  // 100 hours
    return "-:--";
  }
  const auto total = static_cast<std::int64_t>(std::ceil(seconds));
  return total >= 3600 ? fmt::format("{}:{:02}:{:02}", total / 3600, total / 60 % 60, total % 60)
                       : fmt::format("{}:{:02}", total / 60, total % 60);
}

}  // namespace

std::string progress_line(const ProgressState& state, std::size_t width) {
  const std::int64_t total = std::max<std::int64_t>(state.total, 1);
  const std::int64_t done = std::clamp<std::int64_t>(state.done, 0, total);
  const double share = static_cast<double>(done) / static_cast<double>(total);
  const double rate = state.seconds > 0 ? static_cast<double>(done) / state.seconds : 0;
  const double left = rate > 0 ? static_cast<double>(total - done) / rate : HUGE_VAL;
  std::string text =
      fmt::format("{:3.0f}%  {}/{} {}  {:.{}f} {}/s  ETA {}", std::floor(100 * share), done, state.total,
                  state.unit, rate, rate < 10 ? 2 : 0, state.unit, remaining(left));
  if (!state.detail.empty()) {
    text += fmt::format("  {}", state.detail);
  }
  std::string line(state.title);
  if (line.size() + kBarCells + text.size() + 5 <= width) {
    const auto filled = static_cast<std::size_t>(share * kBarCells);
    std::string bar(kBarCells, ' ');
    std::fill_n(bar.begin(), filled, '=');
    if (filled < kBarCells) {
      bar[filled] = '>';
    }
    line += fmt::format(" [{}]", bar);
  }
  line += " " + text;
  line.resize(std::min(line.size(), width));
  return line;
}

Progress::Progress(std::string_view title, std::int64_t total, std::string_view unit)
    : title_(title),
      unit_(unit),
      total_(total),
      terminal_(isatty(STDERR_FILENO) == 1),
      start_(Clock::now()),
      last_draw_(start_ - kBetweenDraws) {}

Progress::~Progress() { clear(); }

void Progress::update(std::int64_t done, std::string_view detail) {
  const auto now = Clock::now();
  if (!terminal_ || now - last_draw_ < kBetweenDraws) {
    return;
  }
  last_draw_ = now;
  drawn_ = true;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  // Back to the first column, the text, then "erase to the end of the line".
  write_error(
      fmt::format("\r{}\x1b[K", progress_line({title_, unit_, detail, done, total_, seconds}, line_width())));
}

void Progress::clear() {
  if (drawn_) {
    write_error("\r\x1b[K");
    drawn_ = false;
  }
}

}  // namespace trit::apps
