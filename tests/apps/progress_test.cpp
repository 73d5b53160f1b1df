// SPDX-License-Identifier: MIT
//
// The progress bar: what a line says, silence where stderr is no terminal, one line where it is one.
#include "common/progress.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <functional>
#include <thread>

namespace trit::apps {
namespace {

ProgressState half_way() {
  return {.title = "epoch 3/20",
          .unit = "images",
          .detail = "loss 1.23",
          .done = 25000,
          .total = 50000,
          .seconds = 10};
}

TEST(ProgressLine, ShowsRateAndRemainingTime) {
  EXPECT_EQ(
      progress_line(half_way(), 200),
      "epoch 3/20 [============>           ]  50%  25000/50000 images  2500 images/s  ETA 0:10  loss 1.23");
}

TEST(ProgressLine, NeverWiderThanTheTerminal) {
  for (std::size_t width = 0; width <= 120; ++width) {
    EXPECT_LE(progress_line(half_way(), width).size(), width);
  }
  EXPECT_EQ(progress_line(half_way(), 80).find('['), std::string::npos);  // the bar goes first
  EXPECT_EQ(progress_line(half_way(), 10), "epoch 3/20");
}

TEST(ProgressLine, Edges) {
  ProgressState state = half_way();
  state.done = 0;
  EXPECT_NE(progress_line(state, 200).find("ETA -:--"), std::string::npos);
  state.done = state.total;
  EXPECT_NE(progress_line(state, 200).find("[========================] 100%"), std::string::npos);
  state.done = 60000;  // more than announced
  EXPECT_NE(progress_line(state, 200).find("100%"), std::string::npos);
  state = {.title = "t", .unit = "x", .detail = {}, .done = 0, .total = 0, .seconds = 0};
  EXPECT_NE(progress_line(state, 200).find("0/0 x"), std::string::npos);
  state = {.title = "t", .unit = "x", .detail = {}, .done = 1, .total = 10000, .seconds = 1};
  EXPECT_NE(progress_line(state, 200).find("ETA 2:46:39"), std::string::npos);
}

/// What `work` writes to stderr, which is `end` in a child process; read from `start`.
std::string stderr_of(int start, int end, const std::function<void()>& work) {
  const pid_t child = fork();
  if (child == 0) {
    dup2(end, STDERR_FILENO);
    work();
    _exit(0);
  }
  close(end);
  std::string text;
  std::array<char, 4096> buffer{};
  for (ssize_t got = 0; (got = read(start, buffer.data(), buffer.size())) > 0;) {
    text.append(buffer.data(), static_cast<std::size_t>(got));
  }
  close(start);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  return text;
}

void count_to_100() {
  Progress progress("count", 100, "steps");
  for (int i = 1; i <= 100; ++i) {
    progress.update(i);
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
  }
}

TEST(Progress, SilentOnAPipe) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe(ends.data()), 0);
  EXPECT_EQ(stderr_of(ends[0], ends[1], count_to_100), "");
}

TEST(Progress, OneLineOnATerminal) {
  const int master = posix_openpt(O_RDWR | O_NOCTTY);
  ASSERT_GE(master, 0);
  ASSERT_EQ(grantpt(master), 0);
  ASSERT_EQ(unlockpt(master), 0);
  const int terminal = open(ptsname(master), O_RDWR | O_NOCTTY);
  ASSERT_GE(terminal, 0);
  const winsize size{.ws_row = 24, .ws_col = 60, .ws_xpixel = 0, .ws_ypixel = 0};
  ASSERT_EQ(ioctl(terminal, TIOCSWINSZ, &size), 0);
  const auto start = std::chrono::steady_clock::now();
  const std::string text = stderr_of(master, terminal, count_to_100);
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  EXPECT_EQ(text.find('\n'), std::string::npos);
  EXPECT_TRUE(text.ends_with("\r\x1b[K")) << text;  // cleared at the end
  std::size_t lines = 0;
  for (std::size_t at = 0; at < text.size(); ++lines) {
    const std::size_t next = std::min(text.find('\r', at + 1), text.size());
    EXPECT_LE(next - at, 1 + 59 + 3) << text.substr(at, next - at);  // \r, the text, \x1b[K
    at = next;
  }
  EXPECT_GE(lines, 3U);
  EXPECT_LE(lines,
            2 + static_cast<std::size_t>(10 * elapsed.count()));  // the first, ten a second, the clearing
  for (const char c : text) {
    EXPECT_LT(static_cast<unsigned char>(c), 0x80);
  }
}

TEST(Interrupt, FirstIsRecordedSecondEndsTheProcess) {
  const pid_t child = fork();
  if (child == 0) {
    install_interrupt_handler();
    if (interrupted()) {
      _exit(1);
    }
    raise(SIGINT);
    if (!interrupted()) {
      _exit(2);
    }
    raise(SIGTERM);
    _exit(3);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status)) << status;
  EXPECT_EQ(WTERMSIG(status), SIGTERM);
}

TEST(Interrupt, EveryHangupIsRecorded) {
  for (const bool ignored : {false, true}) {
    const pid_t child = fork();
    if (child == 0) {
      std::signal(SIGHUP, ignored ? SIG_IGN : SIG_DFL);
      install_interrupt_handler();
      raise(SIGHUP);
      const bool noted = interrupted();
      raise(SIGHUP);
      _exit(noted == ignored ? 1 : 0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0) << ignored;
  }
}

}  // namespace
}  // namespace trit::apps
