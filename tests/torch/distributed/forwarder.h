// SPDX-License-Identifier: MIT
//
// For tests: a port of this machine that forwards connections to another one. The first one is closed at the client's first
// request after a reply: before that request is forwarded, or when it has been answered.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <thread>
#include <vector>

namespace trit::test {

class Forwarder {
 public:
  enum class Lost : std::uint8_t { request, reply };
  Forwarder(int to, Lost lost) : to_(to), lost_(lost) {
    sockaddr_in address = local(0);
    socklen_t size = sizeof(address);
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(listener_, 8) != 0 ||
        getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0 ||
        ntohs(address.sin_port) == to_) {
      close(listener_);
      throw std::runtime_error("no free port on 127.0.0.1");
    }
    port_ = ntohs(address.sin_port);
    accepting_ = std::thread([this] { accept_all(); });
  }
  /// Waits for the connections to end.
  ~Forwarder() {
    shutdown(listener_, SHUT_RDWR);
    accepting_.join();
    for (std::thread& connection : connections_) {
      connection.join();
    }
    close(listener_);
  }
  Forwarder(const Forwarder&) = delete;
  Forwarder& operator=(const Forwarder&) = delete;

  int port() const { return port_; }
  int closed() const { return closed_; }  // connections that were cut off: 0 or 1

 private:
  static sockaddr_in local(int port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    return address;
  }

  void accept_all() {
    for (int client; (client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC)) >= 0;) {
      connections_.emplace_back([this, client] { forward(client); });
    }
  }

  void forward(int client) {
    const int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_in address = local(to_);
    std::array<pollfd, 2> ends = {pollfd{client, POLLIN, 0}, pollfd{server, POLLIN, 0}};
    bool has_replied = false;
    bool has_asked = false;  // after the reply
    bool open = connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
    const bool is_first = open && !is_forwarding_.exchange(true);
    while (open && poll(ends.data(), ends.size(), -1) > 0) {
      for (std::size_t i = 0; i < ends.size() && open; ++i) {
        if (ends[i].revents == 0) {
          continue;
        }
        has_asked = has_asked || (i == 0 && has_replied);
        if (is_first && has_asked && i == (lost_ == Lost::request ? 0U : 1U)) {
          ++closed_;
          open = false;
          break;
        }
        std::array<char, 4096> bytes;
        const ssize_t count = read(ends[i].fd, bytes.data(), bytes.size());
        open = count > 0 &&
               send(ends[1 - i].fd, bytes.data(), static_cast<std::size_t>(count), MSG_NOSIGNAL) == count;
        has_replied = has_replied || i == 1;
      }
    }
    close(server);
    close(client);
  }

  int to_;
  Lost lost_;
  int listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int port_ = 0;
  std::atomic<bool> is_forwarding_ = false;  // a server has answered
  std::atomic<int> closed_ = 0;
  std::thread accepting_;
  std::vector<std::thread> connections_;
};

}  // namespace trit::test
