#include <anteroom/bench/road.h>
#include <anteroom/socket.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <stdexcept>
#include <system_error>
#include <thread>

#include "delay_line.h"
#include "netlink.h"

namespace anteroom::bench {
namespace {

using namespace std::chrono_literals;

const std::string kLink = "road";  // in both namespaces
constexpr Network kServer{.ip = "10.77.0.1", .prefix_bits = 24};
constexpr Network kClient{.ip = "10.77.0.2", .prefix_bits = 24};
// Where clients call from: all of it is local on their side (AnyIP), and one route on the server's.
constexpr Network kSourceNetwork{.ip = "10.128.0.0", .prefix_bits = 9};
// Packets that a TUN device holds until the line reads them; the kernel's 500 would lose most of a burst.
constexpr std::uint32_t kTunQueue = 100'000;
// The kernel looks after its links within a second at the latest (LINKWATCH).
constexpr std::chrono::seconds kRunningLimit{5};

constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kPrivateSysctls{{
    {"net.core.somaxconn", "1000000"},  // so that listen's number alone decides
    {"net.ipv4.ip_local_port_range", "10000 65535"},
    {"net.ipv6.conf.all.disable_ipv6", "1"},  // its chatter is no packet of a client's
    {"net.ipv6.conf.default.disable_ipv6", "1"},
}};

/// Into a network namespace of our own. Root in a chroot may make one but no user namespace, an ordinary user
/// only both together. Inside the latter nobody needs to be mapped: what counts is its maker's capabilities.
std::error_code unshare_network() noexcept {
  if (::unshare(CLONE_NEWNET) == 0) return {};
  if (errno != EPERM) return last_error();  // as root: there are too many, or this kernel has none
  if (::unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0) return {};
  return last_error();
}

Fd open_own_namespace() {
  Fd own(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  if (!own) throw setup_error(last_error(), "open", "/proc/thread-self/ns/net");
  return own;
}

void enter(const Fd& network_namespace) {
  if (::setns(network_namespace.get(), CLONE_NEWNET) != 0)
    throw setup_error(last_error(), "setns", "to a side of the road");
}

/// A TUN device of the namespace that we are in.
Fd open_tun() {
  Fd tun(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!tun) throw setup_error(last_error(), "open", "/dev/net/tun");
  ifreq request{};
  kLink.copy(request.ifr_name, sizeof(request.ifr_name) - 1);
  request.ifr_flags = IFF_TUN | IFF_NO_PI;
  if (::ioctl(tun.get(), TUNSETIFF, &request) != 0)
    throw setup_error(last_error(), "make a device of", "/dev/net/tun");
  return tun;
}

void raise_link(const Network& address, bool is_tun) {
  Netlink netlink;
  netlink.add_address(kLink, address);
  if (is_tun) netlink.set_queue_length(kLink, kTunQueue);
  netlink.raise_without_arp(kLink);
}

/// In the namespace that we are in. Takes a moment for a veth pair's end, nothing for a TUN device.
void wait_until_running() {
  Netlink netlink;
  const auto end = std::chrono::steady_clock::now() + kRunningLimit;
  while (!netlink.is_running(kLink)) {
    if (std::chrono::steady_clock::now() > end)
      throw setup_error(std::make_error_code(std::errc::timed_out), "raise the link", kLink);
    std::this_thread::sleep_for(50us);
  }
}

bool is_delay_asked_for(const RoadPlan& plan) noexcept { return plan.rtt > 0ns || plan.loss > 0; }

/// A name with a slash could lead anywhere, and outside of net. it would be the machine's own.
void check_sysctls(const RoadPlan& plan) {
  for (const auto& [name, value] : plan.sysctls) {
    const bool is_clean = name.find("..") == std::string::npos && name.find('/') == std::string::npos;
    if (!name.starts_with("net.") || !is_clean)
      throw std::runtime_error(fmt::format(
          "sysctl {}: a trial may set only those of its network, whose names begin with net.", name));
  }
}

std::string path_of_sysctl(std::string_view name) {
  std::string path = fmt::format("/proc/sys/{}", name);
  std::ranges::replace(path, '.', '/');
  return path;
}

}  // namespace

std::string_view name(RoadKind kind) noexcept {
  switch (kind) {
    case RoadKind::kPair:
      return "pair";
    case RoadKind::kLoopback:
      return "loopback";
    case RoadKind::kShared:
      return "shared";
  }
  return "?";
}

Road::Road(const RoadPlan& plan) : plan_(plan) {
  assert(plan.rtt >= 0ns && plan.loss >= 0 && plan.loss <= 1);
  check_sysctls(plan);
  if (plan.stays) {
    assert(!is_delay_asked_for(plan) && plan.sysctls.empty());
    why_not_ = "the server was there before";
    return;
  }
  if (const std::error_code error = unshare_network()) {
    why_not_ = fmt::format("unshare: {}", error.message());
    if (!is_delay_asked_for(plan) && plan.sysctls.empty()) return;
    throw std::runtime_error(fmt::format(
        "{} a private network, which is not to be had ({}): run as root, or allow user namespaces "
        "(sysctl user.max_user_namespaces, user.max_net_namespaces)",
        is_delay_asked_for(plan) ? "a round-trip time or loss needs" : "sysctls need", why_not_));
  }
  try {
    make_pair();
    kind_ = RoadKind::kPair;
  } catch (const std::system_error& error) {
    why_not_ = error.what();
    if (is_delay_asked_for(plan))
      throw std::runtime_error(fmt::format(
          "a round-trip time or loss needs two private networks with a TUN device each, which are "
          "not to be had ({}): raise sysctl user.max_net_namespaces, load the module tun, and let "
          "this user open /dev/net/tun (a container: --device /dev/net/tun)",
          why_not_));
    kind_ = RoadKind::kLoopback;
    furnish();
  }
}

/// From the namespace that has just been entered, which becomes the clients'.
void Road::make_pair() {
  const bool is_tun = is_delay_asked_for(plan_);
  client_namespace_ = open_own_namespace();
  if (is_tun) client_tun_ = open_tun();
  if (::unshare(CLONE_NEWNET) != 0) throw setup_error(last_error(), "unshare", "for the server's side");
  server_namespace_ = open_own_namespace();
  if (is_tun) {
    server_tun_ = open_tun();
  } else {
    Netlink().make_veth(kLink, client_namespace_.get());
  }
  enter(client_namespace_);
  furnish();
  raise_link(kClient, is_tun);
  Netlink().make_local(kSourceNetwork);
  enter(server_namespace_);
  furnish();
  raise_link(kServer, is_tun);
  Netlink().add_route(kSourceNetwork, kClient.ip);
  for (const Fd* side : {&client_namespace_, &server_namespace_}) {
    enter(*side);
    wait_until_running();
  }
}

/// What each private namespace has.
void Road::furnish() const {
  for (const auto& [name, value] : kPrivateSysctls) write_sysctl(name, value);  // some kernels know no IPv6
  for (const auto& [name, value] : plan_.sysctls) {
    if (!write_sysctl(name, value))
      throw std::runtime_error(
          fmt::format("sysctl {} = {} in a private network: {}", name, value, last_error().message()));
  }
  Netlink().raise("lo");
}

void Road::go_to_client_side() const {
  if (kind_ == RoadKind::kPair) enter(client_namespace_);
}

void Road::go_to_server_side() const {
  if (kind_ == RoadKind::kPair) enter(server_namespace_);
}

std::string Road::server_address() const {
  return std::string(kind_ == RoadKind::kPair ? kServer.ip : "127.0.0.1");
}

std::string Road::source_address(std::size_t i) const {
  assert(i < kSourcesMax);
  // 127.0.0.1, 127.0.1.1, ...: all of 127/8 is ours on the loopback device.
  if (kind_ != RoadKind::kPair) return fmt::format("127.{}.{}.1", i / 256, i % 256);
  // 10.128.0.1, 10.128.1.1, ... 10.255.255.1, 10.128.0.2, ...
  return fmt::format("10.{}.{}.{}", 128 + i / 256 % 128, i % 256, 1 + i / 32'768);
}

void Road::carry(RoadTraffic& traffic) const {
  if (!is_delayed()) return;
  DelayLine({.client_tun = client_tun_.get(),
             .server_tun = server_tun_.get(),
             .one_way = plan_.rtt / 2,
             .loss = plan_.loss,
             .seed = plan_.seed},
            traffic)
      .run();
}

bool write_sysctl(std::string_view name, std::string_view value) {
  const Fd file(::open(path_of_sysctl(name).c_str(), O_WRONLY | O_CLOEXEC));
  return file && ::write(file.get(), value.data(), value.size()) == static_cast<ssize_t>(value.size());
}

std::string read_sysctl(std::string_view name) {
  const Fd file(::open(path_of_sysctl(name).c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 4096> text{};
  const ssize_t size = file ? ::read(file.get(), text.data(), text.size()) : -1;
  if (size <= 0) return {};
  std::string value(text.data(), static_cast<std::size_t>(size));
  if (value.back() == '\n') value.pop_back();
  std::ranges::replace(value, '\t', ' ');
  return value;
}

}  // namespace anteroom::bench
