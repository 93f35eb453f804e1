#pragma once
#include <anteroom/endpoint.h>
#include <anteroom/export.h>
#include <anteroom/reactor.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>
#include <system_error>

namespace ANTEROOM_EXPORT anteroom {

/// One that came. All of it is gone when the handler returns.
struct Datagram {
  Endpoint from{};             ///< no address if the sender has none: a Unix socket that is not bound
  std::string_view bytes{};    ///< may be none: an empty datagram is one, too
  std::size_t lost_bytes = 0;  ///< how much longer it was than DatagramOptions::receive_bytes_max
};

/// What a datagram socket tells. All handlers run from the turn, never inside one another, and none of them
/// needs to be there.
struct DatagramHandlers {
  std::function<void(const Datagram&)> data = nullptr;
  /// All that waited to be sent has been given to the kernel. Only told when something had to wait longer
  /// than a turn, or when send() has said no.
  std::function<void()> drained = nullptr;
  /// Something did not go well, and the socket goes on. With an address: what was to be sent `to` it was not
  /// sent (message_size, network_unreachable, operation_not_permitted ...). Without one it is an error of a
  /// connected socket, such as connection_refused, which the network has told of an earlier datagram.
  std::function<void(std::error_code error, const Endpoint& to)> error = nullptr;
};

struct DatagramOptions {
  /// Connects to this one: the only one that it then hears, and the one that send(bytes) is for.
  std::optional<Endpoint> peer = std::nullopt;
  /// A longer datagram is cut, and says so. 1 to 65,536, of which UDP uses 65,507 (RFC 768). With one
  /// system call come as many as have room in 64 KiB, 32 at most.
  std::size_t receive_bytes_max = 2048;
  /// The most that are taken in before the others of the reactor get their turn again; at least 1.
  int datagrams_per_turn_max = 256;
  /// The most that may wait to be sent, with 16 to 126 bytes for the address of each; at least 68 KiB, at
  /// most 1 GiB. Twice that is set aside at the first send().
  std::size_t unsent_bytes_max = 256 * 1024;
  int receive_buffer_bytes = 0;  ///< SO_RCVBUF, at most net.core.rmem_max; 0: the system's
  int send_buffer_bytes = 0;     ///< SO_SNDBUF, at most net.core.wmem_max; 0: the system's
  /// SO_REUSEPORT: several sockets share one address, and each peer always meets the same of them.
  bool reuse_port = false;
};

/// What has happened so far.
struct DatagramStats {
  std::uint64_t received = 0;
  std::uint64_t received_bytes = 0;
  std::uint64_t cut = 0;            ///< of those received: longer than receive_bytes_max
  std::uint64_t receive_calls = 0;  ///< that brought any: received / receive_calls is the batch
  std::uint64_t sent = 0;           ///< given to the kernel
  std::uint64_t sent_bytes = 0;
  std::uint64_t send_calls = 0;  ///< that took any
  std::uint64_t refused = 0;     ///< send() said no
  std::uint64_t failed = 0;      ///< dropped, and told by `error`
  /// By the kernel, of those that came: the receive buffer was full, or the checksum wrong (sk_drops by
  /// SO_MEMINFO, 32 bits wide). Unix sockets lose nothing: there the sender waits.
  std::uint64_t kernel_drops = 0;
};

/// A UDP or Unix datagram socket in the loop.
///
/// Reads and sends up to 32 datagrams with one system call (recvmmsg(2), sendmmsg(2)). What is sent in answer
/// to a batch goes out right after it; everything else at the end of the turn, or when 32 are together, and
/// what a posted task or a `closed` handler sends in the next turn, which does not wait then.
/// The owner ends it, also in its own handlers: what waits is then offered to the kernel once more, and none
/// of its handlers is called any more.
class DatagramSocket {
 public:
  /// Bound to `local`; without an address there, to what the kernel picks when it connects to options.peer.
  /// A Unix socket's path left behind by a dead socket is replaced; it is removed at the end.
  /// Throws std::system_error that says what failed, on what address; invalid_argument if an option makes no
  /// sense (a peer that is no address, a number below its least).
  DatagramSocket(Reactor& reactor, const Endpoint& local, DatagramHandlers handlers,
                 const DatagramOptions& options = {});
  DatagramSocket(DatagramSocket&&) = delete;
  ~DatagramSocket();

  /// Takes it to be sent. False, and nothing kept, if too much waits already (`drained` tells when that has
  /// gone), if it is longer than unsent_bytes_max, or if there is no memory.
  /// Only while the socket's own buffer is full does anything wait longer than a turn. A Unix socket that is
  /// not connected does not wait for a peer whose queue is full: `error` tells of it
  /// (resource_unavailable_try_again).
  bool send(const Endpoint& to, std::string_view bytes) noexcept;
  /// The same to the peer that it is connected to.
  bool send(std::string_view bytes) noexcept { return send(Endpoint(), bytes); }

  /// Sends at once what would be sent at the end of the turn.
  void flush() noexcept;

  std::size_t unsent_bytes() const noexcept;
  Endpoint endpoint() const noexcept;  ///< ours, with the port that the kernel picked
  int fd() const noexcept;             ///< for options without a name here: multicast, TOS
  /// Asks the kernel for its drops: 0.3 µs.
  DatagramStats stats() const noexcept;

 private:
  class Mailbox;
  Mailbox* mailbox_;  // the reactor owns it
};

}  // namespace anteroom
