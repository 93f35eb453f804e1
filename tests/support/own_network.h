#pragma once
#include <anteroom/endpoint.h>
#include <anteroom/fd.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>

/// A test program that includes this runs in a network namespace of its own, where the system allows it: its
/// own ports, its own sysctls, nobody else's traffic. Entered before main(), as long as there is one thread.
namespace anteroom::test {

inline bool write_file(const char* path, std::string_view text) {
  const Fd file(::open(path, O_WRONLY | O_CLOEXEC));
  return file && ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

inline bool bring_loopback_up() {
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  if (::ioctl(socket.get(), SIOCGIFFLAGS, &request) != 0) return false;
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
  return ::ioctl(socket.get(), SIOCSIFFLAGS, &request) == 0;
}

/// An address of this machine that is none of 127/8, in a namespace of our own. False if there is none to be
/// had.
inline bool add_address(const Endpoint& address) {
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strcpy(request.ifr_name, "lo:1");
  std::memcpy(&request.ifr_addr, address.data(), sizeof(sockaddr_in));
  return ::ioctl(socket.get(), SIOCSIFADDR, &request) == 0;
}

inline bool enter_own_network() {
  const std::string user_map = "0 " + std::to_string(::getuid()) + " 1";
  const std::string group_map = "0 " + std::to_string(::getgid()) + " 1";
  if (::unshare(CLONE_NEWNET) != 0) {
    if (::unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) {
      std::perror("no network namespace of our own, so the tests share this system's loopback");
      return false;
    }
    (void)write_file("/proc/self/setgroups", "deny");
    (void)write_file("/proc/self/uid_map", user_map);
    (void)write_file("/proc/self/gid_map", group_map);
  }
  if (bring_loopback_up()) return true;
  std::perror("cannot bring up the loopback of our network namespace");
  std::_Exit(1);  // without it no test here could mean anything
}

inline const bool has_own_network = enter_own_network();

/// For a sysctl of the network: only in a namespace of our own. False if it could not be set.
inline bool set_network_sysctl(const char* path, std::string_view value) {
  return has_own_network && write_file(path, value);
}

}  // namespace anteroom::test
