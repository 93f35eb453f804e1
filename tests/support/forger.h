#pragma once
#include <anteroom/endpoint.h>
#include <anteroom/fd.h>
#include <arpa/inet.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <atomic>
#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

namespace anteroom::test {

/// Sends answers to every sock_diag socket of the network namespace but its own, as root of a container may:
/// of `address`, with 4,096 of 4,096 waiting; and some that are too short for a socket.
class Forger {
 public:
  explicit Forger(const Endpoint& address) : port_(address.port()), thread_([this] { run(); }) {}
  ~Forger() {
    ended_ = true;
    thread_.join();
  }
  /// Whether it has tried to reach another socket so often.
  bool has_tried(int times) const { return tries_ >= times; }

 private:
  void run() {
    const Fd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
    const sockaddr_nl any{.nl_family = AF_NETLINK, .nl_pad = 0, .nl_pid = 0, .nl_groups = 0};
    (void)::bind(socket.get(), reinterpret_cast<const sockaddr*>(&any), sizeof(any));
    sockaddr_nl own{};
    socklen_t size = sizeof(own);
    (void)::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&own), &size);
    while (!ended_) {
      // proc(5) has no page of it: "sk Eth Pid ...", where Eth is the protocol and Pid the port.
      std::ifstream file("/proc/thread-self/net/netlink");
      std::string line;
      std::getline(file, line);
      while (std::getline(file, line)) {
        std::istringstream fields(line);
        std::string address;
        int protocol = 0;
        std::uint32_t port = 0;
        if (!(fields >> address >> protocol >> port) || protocol != NETLINK_SOCK_DIAG) continue;
        if (port != 0 && port != own.nl_pid) flood(socket, port);
      }
    }
  }
  void flood(const Fd& socket, std::uint32_t port) {
    const sockaddr_nl to{.nl_family = AF_NETLINK, .nl_pad = 0, .nl_pid = port, .nl_groups = 0};
    struct {
      nlmsghdr header{};
      inet_diag_msg body{};
    } message;
    message.body.idiag_family = AF_INET;
    message.body.idiag_state = TCP_LISTEN;
    message.body.id.idiag_sport = htons(port_);
    message.body.id.idiag_src[0] = htonl(INADDR_LOOPBACK);
    message.body.id.idiag_cookie[0] = 0xdead;
    message.body.idiag_rqueue = message.body.idiag_wqueue = 4096;
    for (std::uint32_t number = 1; number < 200 && !ended_; ++number) {
      for (const std::uint32_t length : {static_cast<std::uint32_t>(sizeof(message)), 20U}) {
        message.header = {.nlmsg_len = length,
                          .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                          .nlmsg_flags = NLM_F_MULTI,
                          .nlmsg_seq = number,
                          .nlmsg_pid = port};
        (void)::sendto(socket.get(), &message, length, MSG_DONTWAIT, reinterpret_cast<const sockaddr*>(&to),
                       sizeof(to));
      }
    }
    ++tries_;
  }

  std::uint16_t port_;
  std::atomic<bool> ended_{false};
  std::atomic<int> tries_{0};
  std::thread thread_;
};

}  // namespace anteroom::test
