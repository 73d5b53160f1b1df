// SPDX-License-Identifier: MIT
//
// For tests: processes of a group, each this program once more as `program --worker NAME FOLDER`.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace trit::test {

/// A port of this machine that is free now.
inline int free_port() {
  const int descriptor = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  const bool bound = bind(descriptor, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                     getsockname(descriptor, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  close(descriptor);
  if (!bound) {
    throw std::runtime_error("no free port on 127.0.0.1");
  }
  return ntohs(address.sin_port);
}

struct Ended {
  int code = 0;  // of exit, or minus the signal
  std::string errors;
  double seconds = 0;
};

class Workers {
 public:
  Workers(std::string name, std::filesystem::path folder)
      : name_(std::move(name)), folder_(std::move(folder)) {
    std::filesystem::create_directories(folder_);
  }

  /// Starts process `rank` of `size`; `variables` are set over the usual ones.
  void start(int rank, int size, std::map<std::string, std::string> variables = {}) {
    std::map<std::string, std::string> all{{"RANK", std::to_string(rank)},
                                           {"WORLD_SIZE", std::to_string(size)},
                                           {"MASTER_ADDR", "127.0.0.1"},
                                           {"MASTER_PORT", std::to_string(port_)},
                                           {"OMP_NUM_THREADS", "1"}};
    variables.merge(all);
    const auto errors = errors_of(processes_.size());
    const pid_t child = fork();
    if (child == 0) {
      for (const auto& [key, value] : variables) {
        setenv(key.c_str(), value.c_str(), 1);
      }
      if (std::freopen(errors.c_str(), "w", stderr) == nullptr) {
        _exit(126);
      }
      alarm(120);  // ends the child where it hangs
      execl("/proc/self/exe", "worker", "--worker", name_.c_str(), folder_.c_str(), nullptr);
      _exit(127);
    }
    processes_.push_back(child);
  }

  int port() const { return port_; }

  /// Waits for all, in the order in which they were started.
  std::vector<Ended> wait() {
    std::vector<Ended> result;
    const auto begin = std::chrono::steady_clock::now();
    for (std::size_t i = 0; i < processes_.size(); ++i) {
      int status = 0;
      waitpid(processes_[i], &status, 0);
      std::ifstream errors(errors_of(i));
      result.push_back(
          {.code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status),
           .errors = {std::istreambuf_iterator<char>(errors), {}},
           .seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count()});
    }
    processes_.clear();
    return result;
  }

  std::vector<Ended> run(int size) {
    for (int rank = 0; rank < size; ++rank) {
      start(rank, size);
    }
    return wait();
  }

 private:
  std::filesystem::path errors_of(std::size_t process) const {
    return folder_ / ("errors-" + name_ + "-" + std::to_string(process));
  }

  std::string name_;
  std::filesystem::path folder_;
  int port_ = free_port();
  std::vector<pid_t> processes_;
};

}  // namespace trit::test
