// SPDX-License-Identifier: MIT
#include "common/standard_streams.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <system_error>

#include "trit/error.h"

namespace trit::apps {
namespace {

// Opens /dev/null in the wrong direction: reading from the input and writing to the outputs fails, as for
// closed descriptors. open() takes the lowest free number, which is `descriptor`: those below are occupied.
void occupy(int descriptor) {
  if (::fcntl(descriptor, F_GETFD) >= 0 || errno != EBADF) {
    return;
  }
  if (::open("/dev/null", descriptor == STDIN_FILENO ? O_WRONLY : O_RDONLY) != descriptor) {
    std::_Exit(1);  // no /dev/null, and no way to report it
  }
}

[[noreturn]] void fail(int error) {
  throw Error("standard output: " + std::generic_category().message(error));
}

}  // namespace

void prepare_standard_streams() {
  occupy(STDIN_FILENO);
  occupy(STDOUT_FILENO);
  occupy(STDERR_FILENO);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
}

void print(std::string_view text) {
  errno = 0;
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    fail(errno);
  }
}

void check_standard_output() {
  const int flags = ::fcntl(STDOUT_FILENO, F_GETFL);
  if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY) {
    fail(EBADF);
  }
}

void write_error(std::string_view text) noexcept {
  // One write() per message, unlike std::fputs: messages of several processes do not mix.
  while (!text.empty()) {
    const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written <= 0) {
      return;
    }
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

void say(std::string_view line) noexcept {
  try {
    write_error(std::string(line) + "\n");
  } catch (const std::bad_alloc&) {
    write_error(line);
  }
}

}  // namespace trit::apps
