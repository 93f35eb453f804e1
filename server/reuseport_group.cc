#include <anteroom/reuseport_group.h>
#include <linux/filter.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>

namespace anteroom {
namespace {

template <std::size_t N>
bool attach(int socket, int option, std::array<sock_filter, N>& code) noexcept {
  const sock_fprog program{.len = N, .filter = code.data()};
  return ::setsockopt(socket, SOL_SOCKET, option, &program, sizeof(program)) == 0;
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
  const int ignored = 0;
  // ENOENT: nobody had steered it.
  return ::setsockopt(listener, SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, &ignored, sizeof(ignored)) == 0 ||
         errno == ENOENT;
}

bool refuse_syns(int listener) noexcept {
  // A filter of a TCP socket sees each segment from its TCP header on (tcp_filter in the kernel's
  // net/ipv4/tcp_ipv4.c), whose flags are the byte at 13 (RFC 9293, 3.1).
  constexpr std::uint32_t kFlagsAt = 13;
  constexpr std::uint32_t kWholeSegment = 0xffffffff;
  std::array<sock_filter, 5> code{{
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, kFlagsAt),
      BPF_STMT(BPF_ALU | BPF_AND | BPF_K, TH_SYN | TH_ACK),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, TH_SYN, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, 0),  // to throw it away
      BPF_STMT(BPF_RET | BPF_K, kWholeSegment),
  }};
  return attach(listener, SO_ATTACH_FILTER, code);
}

void close_first_of_group(std::vector<Fd> listeners) noexcept {
  // The last of the group gets the number of the one that is closed. So number k is another's before k - 1 is
  // closed, and after it, too, if the others are two or more.
  for (std::size_t k = listeners.size(); k > 1; --k) {
    (void)steer_group(listeners.front().get(), static_cast<std::uint32_t>(k), 1);
    listeners[k - 1].reset();
  }
  if (listeners.empty()) return;
  (void)steer_group(listeners.front().get(), 1, 1);
  (void)unsteer_group(listeners.front().get());
  listeners.front().reset();
}

bool is_in_group(int listener) noexcept {
  int shared = 0;
  socklen_t size = sizeof(shared);
  return ::getsockopt(listener, SOL_SOCKET, SO_REUSEPORT, &shared, &size) == 0 && shared != 0;
}

}  // namespace anteroom
