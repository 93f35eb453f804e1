#include <anteroom/bench/sandbox.h>
#include <anteroom/fd.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

namespace anteroom::bench {
namespace {

bool raise_loopback() {
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strncpy(request.ifr_name, "lo", sizeof(request.ifr_name) - 1);
  if (!socket || ::ioctl(socket.get(), SIOCGIFFLAGS, &request) != 0) return false;
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
  return ::ioctl(socket.get(), SIOCSIFFLAGS, &request) == 0;
}

std::string last_words(std::string_view tried) {
  return fmt::format("{}: {}", tried, std::system_category().message(errno));
}

}  // namespace

Sandbox enter_sandbox() {
  // Root in a chroot may make a network namespace but no user namespace, an ordinary user only both together.
  if (::unshare(CLONE_NEWNET) != 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) {
    return {.is_private = false, .why_not = last_words("unshare")};
  }
  if (!raise_loopback())
    throw std::system_error(errno, std::system_category(), "raising a private network's loopback device");
  return {.is_private = true, .why_not = ""};
}

bool write_sysctl(std::string_view name, std::string_view value) {
  std::string path = fmt::format("/proc/sys/{}", name);
  std::ranges::replace(path, '.', '/');
  const Fd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  return file && ::write(file.get(), value.data(), value.size()) == static_cast<ssize_t>(value.size());
}

}  // namespace anteroom::bench
