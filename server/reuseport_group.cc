#include <anteroom/reuseport_group.h>
#include <anteroom/socket.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <system_error>
#include <utility>

namespace anteroom {
namespace {

template <std::size_t N>
bool attach(int socket, int option, std::array<sock_filter, N>& code) noexcept {
  const sock_fprog program{.len = N, .filter = code.data()};
  return ::setsockopt(socket, SOL_SOCKET, option, &program, sizeof(program)) == 0;
}

// A filter of a TCP socket sees each segment from its TCP header on (tcp_filter in the kernel's
// net/ipv4/tcp_ipv4.c), whose flags are the byte at 13 (RFC 9293, 3.1).
constexpr std::uint32_t kFlagsAt = 13;
constexpr std::uint32_t kWholeSegment = 0xffffffff;
constexpr std::array<sock_filter, 5> kRefuseSyns{{
    BPF_STMT(BPF_LD | BPF_B | BPF_ABS, kFlagsAt),
    BPF_STMT(BPF_ALU | BPF_AND | BPF_K, TH_SYN | TH_ACK),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, TH_SYN, 0, 1),
    BPF_STMT(BPF_RET | BPF_K, 0),  // to throw it away
    BPF_STMT(BPF_RET | BPF_K, kWholeSegment),
}};

/// Whether the filter of a socket is ours; nothing if it is no socket. SO_GET_FILTER, whose length counts
/// instructions, refuses a filter that is longer than the array (EINVAL), and an eBPF program (EACCES).
std::optional<bool> refuses_syns(int listener) noexcept {
  std::array<sock_filter, kRefuseSyns.size()> code{};
  socklen_t length = kRefuseSyns.size();
  if (::getsockopt(listener, SOL_SOCKET, SO_GET_FILTER, code.data(), &length) != 0)
    return errno == EBADF || errno == ENOTSOCK ? std::nullopt : std::optional(false);
  return length == kRefuseSyns.size() &&
         std::ranges::equal(code, kRefuseSyns, [](const sock_filter& a, const sock_filter& b) {
           return a.code == b.code && a.jt == b.jt && a.jf == b.jf && a.k == b.k;
         });
}

/// 0 if a program steered the group; now none does.
int detach_steering(int listener) noexcept {
  const int ignored = 0;
  return ::setsockopt(listener, SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, &ignored, sizeof(ignored));
}

/// One more of the group of `listener`, which is steered to number 1; it sees no SYN. Not open if there
/// cannot be one. A socket that is bound to a device, for one, is of another group than this one would be:
/// there it finds no program.
Fd open_stand_in(int listener) noexcept {
  const Endpoint at = local_endpoint(listener);
  std::error_code error;
  Fd socket = open_stream_socket(at.family(), error);
  int v6_only = 0;
  socklen_t size = sizeof(v6_only);
  const bool is_v6 = at.family() == AF_INET6;
  const bool joins = socket && refuse_syns(socket.get()) &&
                     (!is_v6 || (::getsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &v6_only, &size) == 0 &&
                                 !set_socket_option(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, v6_only))) &&
                     !set_socket_option(socket.get(), SOL_SOCKET, SO_REUSEADDR, 1) &&
                     !set_socket_option(socket.get(), SOL_SOCKET, SO_REUSEPORT, 1) &&
                     ::bind(socket.get(), at.data(), at.size()) == 0 && ::listen(socket.get(), 1) == 0 &&
                     detach_steering(socket.get()) == 0 && steer_group(socket.get(), 1, 1);
  return joins ? std::move(socket) : Fd();
}

}  // namespace

bool steer_group(int listener, std::uint32_t first, std::uint32_t count) noexcept {
  std::array<sock_filter, 4> code{{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<std::uint32_t>(SKF_AD_OFF + SKF_AD_RANDOM)),
      BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, count),  // with 0 the kernel does not take it
      BPF_STMT(BPF_ALU | BPF_ADD | BPF_K, first),
      BPF_STMT(BPF_RET | BPF_A, 0),
  }};
  return attach(listener, SO_ATTACH_REUSEPORT_CBPF, code);
}

bool unsteer_group(int listener) noexcept {
  return detach_steering(listener) == 0 || errno == ENOENT;  // ENOENT: nobody had steered it
}

bool refuse_syns(int listener) noexcept {
  auto code = kRefuseSyns;
  return attach(listener, SO_ATTACH_FILTER, code);
}

bool admit_syns(int listener) noexcept {
  const std::optional<bool> refuses = refuses_syns(listener);
  if (!refuses || !*refuses) return refuses.has_value();
  const int ignored = 0;
  // ENOENT: another holder of the socket was faster.
  return ::setsockopt(listener, SOL_SOCKET, SO_DETACH_FILTER, &ignored, sizeof(ignored)) == 0 ||
         errno == ENOENT;
}

void close_first_of_group(std::span<Fd> listeners) noexcept {
  // The last of the group gets the number of the one that is closed. So number k is another's before k - 1 is
  // closed, and after it, too, if the others are two or more.
  for (std::size_t k = listeners.size(); k > 1; --k) {
    (void)steer_group(listeners.front().get(), static_cast<std::uint32_t>(k), 1);
    (void)admit_syns(listeners[k - 1].get());
    listeners[k - 1].reset();
  }
  if (listeners.empty()) return;
  Fd& last = listeners.front();
  const bool is_steered = steer_group(last.get(), 1, 1);
  // Without the filter, a SYN that meets the last one is a connection that its close resets. So it keeps its
  // number until it is closed, and a new socket, which nobody else can hold, ends the steering after that.
  const Fd stand_in = is_steered ? open_stand_in(last.get()) : Fd();
  if (!stand_in) (void)unsteer_group(last.get());
  (void)admit_syns(last.get());
  last.reset();
  if (stand_in) (void)unsteer_group(stand_in.get());
}

bool is_in_group(int listener) noexcept {
  int shared = 0;
  socklen_t size = sizeof(shared);
  return ::getsockopt(listener, SOL_SOCKET, SO_REUSEPORT, &shared, &size) == 0 && shared != 0;
}

}  // namespace anteroom
