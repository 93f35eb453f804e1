#pragma once
#include <anteroom/endpoint.h>
#include <anteroom/fd.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace anteroom::bench {

/// One TCP socket that listens, as the kernel shows it to anybody in its network namespace.
struct ListeningSocket {
  Endpoint address;         ///< "[::]" takes IPv4 guests too, unless is_v6_only
  std::uint32_t depth = 0;  ///< guests that wait now
  std::uint32_t limit = 0;  ///< the backlog in force: it admits one more
  /// sk_drops, since it was made; it wraps. Handshakes thrown away, and what else is discarded here: the bare
  /// ACKs of TCP_DEFER_ACCEPT, and a half-open request's last ACK once more.
  std::uint32_t drops = 0;
  std::uint64_t cookie =
      0;  ///< its own for ever: SO_COOKIE, but of an MPTCP listener that of the TCP one within
  std::uint32_t inode = 0;  ///< "socket:[inode]" in /proc/<pid>/fd
  uid_t uid = 0;            ///< of who made it
  bool is_v6_only = false;
};

/// One end of a TCP connection.
struct ConnectedSocket {
  Endpoint local;
  Endpoint remote;
  int state = 0;  ///< TCP_ESTABLISHED, TCP_SYN_RECV, ... as in <netinet/tcp.h>
};

/// Asks the kernel for the TCP sockets of one network namespace, as ss(8) does (NETLINK_SOCK_DIAG,
/// sock_diag(7)). Takes no privilege. The namespace is that of the thread that makes it, for as long as it
/// lives. Only the kernel's own answers count, and each length in them is checked: root of a container may
/// send to any netlink socket of its network namespace.
class SocketDiag {
 public:
  /// Throws std::system_error if the kernel has no such thing.
  SocketDiag();

  /// All sockets that listen on these ports, or all with no port named; IPv4 and IPv6, in no order. What was
  /// in `into` is replaced. 10 µs for a few of them, however many connections there are, and 0.4 µs for each
  /// beyond; the kernel sends only those of the ports. Throws std::system_error.
  void listeners(std::vector<ListeningSocket>& into, std::span<const std::uint16_t> ports = {});

  /// Connections whose local port this is: half-open requests (TCP_SYN_RECV) among them, but not those in
  /// TIME_WAIT, of which there may be ten thousands. Throws std::system_error.
  std::vector<ConnectedSocket> connections(std::uint16_t local_port);

  /// Of a connection that `client` has made to `server`: the local address of the socket that the kernel made
  /// for it here, unmapped(). That is `server`, unless a packet filter has redirected it on its way. Nothing
  /// if there is none, as when the other end is in another network namespace. Throws std::system_error.
  std::optional<Endpoint> arrival_of(const Endpoint& client, const Endpoint& server);

 private:
  /// `ports` are local ones; with is_remote, those of the other end.
  template <class Take, class Restart>
  void dump(int family, std::uint32_t states, std::uint8_t extensions, std::span<const std::uint16_t> ports,
            Take take, Restart restart, bool is_remote = false);

  Fd socket_;  // connected to the kernel: nobody else can answer
  std::uint32_t port_ = 0;
  std::vector<std::byte> buffer_;
  std::uint32_t questions_ = 0;
};

/// The IPv4 address in an IPv4-mapped IPv6 one (::ffff:127.0.0.1), as a listener on [::] has its IPv4 guests;
/// any other as it is.
Endpoint unmapped(const Endpoint& endpoint) noexcept;

}  // namespace anteroom::bench
