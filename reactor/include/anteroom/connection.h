#pragma once
#include <anteroom/buffer.h>
#include <anteroom/channel.h>
#include <anteroom/endpoint.h>
#include <anteroom/tcp_info.h>
#include <anteroom/timer.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <system_error>

namespace anteroom {

class Connection;

/// What a connection tells. All handlers run from the turn, never inside one another, and none of them needs
/// to be there.
struct ConnectionHandlers {
  /// It is established: the guest has been accepted, or the connection that we asked for has come about.
  std::function<void(Connection&)> open;
  /// `bytes` came, and are gone when the handler returns. There may be any number of them, from 1 on.
  std::function<void(Connection&, std::string_view bytes)> data;
  /// All that waited to be sent has been given to the kernel. Only told when something had to wait: when
  /// unsent_bytes() was more than 0.
  std::function<void(Connection&)> drained;
  /// It is over; told exactly once, and last, of each connection, also of one that never got to
  /// `open`; but no more once its acceptor, connector or reactor is gone. No
  /// `error` means an orderly end; with one, a peer that did not get all that was sent to it gets a reset.
  /// The descriptor is closed already; id(), context() and was_open() still answer.
  std::function<void(Connection&, std::error_code error)> closed;
};

/// What all connections of one acceptor or connector have in common.
struct ConnectionOptions {
  /// As long as this much or more waits to be sent, nothing is read: who does not take our answers may not
  /// ask either.
  std::size_t high_watermark_bytes = 256 * 1024;
  /// Reading goes on when no more than this waits.
  std::size_t low_watermark_bytes = 64 * 1024;
  /// The most that is read in one turn, so that one fast peer does not starve the others.
  std::size_t read_bytes_per_turn_max = 256 * 1024;
  /// How long a closed connection waits for the peer to take the last answer and close too.
  std::chrono::milliseconds linger{2000};
};

/// A stream of bytes to one peer.
///
/// The reactor owns it. Handlers borrow it; whoever wants it later keeps its id() and asks
/// Reactor::find<Connection>(id). No function here ever calls a handler: what follows from it is told by the
/// turn, later.
class Connection final : public Channel {
 public:
  /// The handlers and options of many connections. Owned by who made the connections, and retired, not
  /// deleted.
  struct Kind : Reapable {
    Kind(ConnectionHandlers the_handlers, ConnectionOptions the_options)
        : handlers(std::move(the_handlers)), options(the_options) {}
    ConnectionHandlers handlers;
    ConnectionOptions options;
    mutable bool ended = false;  // end_all() was called
  };

  /// Sends now what the kernel takes, and keeps the rest until it takes more. False, and nothing kept, once
  /// the connection is closing, or if there is no memory to keep it in (which also ends the connection).
  bool send(std::string_view bytes) noexcept;

  /// Sends what waits, then ends in order. The peer gets all of it, even if it is still sending itself, as
  /// long as it takes it: after `linger` without progress we give up. Reads no more. A peer that ends its own
  /// side first is ended in the same way, as soon as nothing waits to be sent.
  void close() noexcept;

  /// Ends at once: the peer gets a reset, and what was not sent is lost. `closed` will say
  /// operation_canceled.
  void abort() noexcept;

  /// Stops and goes on calling `data`. The kernel keeps what comes meanwhile, and in time stops the peer.
  /// While it is paused with nothing to send, the peer's end and its reset are not noticed either.
  void pause_reading() noexcept;
  void resume_reading() noexcept;

  std::size_t unsent_bytes() const noexcept { return output_.size(); }
  bool is_open() const noexcept { return state_ == State::kOpen; }
  bool was_open() const noexcept { return was_open_; }  ///< in `closed`: whether `open` had been told

  Endpoint peer() const noexcept;   ///< no address if the peer is gone already
  Endpoint local() const noexcept;  ///< ours
  std::optional<TcpInfo> tcp_info() const noexcept;

  /// For the user; the library never looks at it.
  void* context() const noexcept { return context_; }
  void set_context(void* context) noexcept { context_ = context; }

  // ---- For acceptors and connectors ----

  /// Takes in an established socket, tells `open`, and reads what is there already. Only from a channel's
  /// on_ready, never from a handler. On std::bad_alloc the descriptor is closed.
  static void start(Reactor& reactor, Fd socket, const Kind& kind, int family);

  /// How connect(2) went, and what is to be done about it.
  struct Attempt {
    int error = 0;                         ///< its errno: 0 and EINPROGRESS are good
    int family = 0;                        ///< of the socket
    bool check_self_connect = false;       ///< refuse a socket that has connected to itself
    std::chrono::nanoseconds deadline{0};  ///< give up with timed_out after it; 0 leaves it to the kernel
    void* context = nullptr;
  };

  /// Takes in a socket on which connect(2) has been called. The turn will tell `open` or `closed`.
  /// On std::bad_alloc the descriptor is closed.
  static Connection& start_connecting(Reactor& reactor, Fd socket, const Kind& kind, const Attempt& attempt);

  /// Closes every connection of `kind`, and calls none of its handlers again. The kind may be retired then.
  static void end_all(Reactor& reactor, const Kind& kind) noexcept;

  Connection(Reactor& reactor, Fd socket, const Kind& kind, int family) noexcept;
  ~Connection() override;

 private:
  enum class State : std::uint8_t {
    kConnecting,  // connect(2) is under way
    kOpen,
    kFailing,    // sending has failed; what the peer had sent before is still read
    kClosing,    // close() was called; output is still waiting
    kLingering,  // our FIN is sent; the peer's is awaited
    kEnded,      // retired
  };

  void on_ready(std::uint32_t events) noexcept override;
  void reaped() noexcept override;

  bool finish_connecting(std::uint32_t events) noexcept;
  void tell_open() noexcept;
  void read() noexcept;
  bool may_read() const noexcept;
  void write() noexcept;
  std::size_t write_now(std::string_view bytes) noexcept;
  void peer_ended() noexcept;
  void send_failed(std::error_code error) noexcept;
  void end_in_order() noexcept;
  void linger() noexcept;
  void read_last() noexcept;
  void end(std::error_code error) noexcept;
  bool watch_or_end() noexcept;
  void end_after(std::chrono::nanoseconds delay) noexcept;

  State state_ = State::kOpen;
  bool was_open_ = false;
  bool paused_by_user_ = false;
  bool paused_by_output_ = false;
  bool peer_has_ended_ = false;  // its FIN has been read
  bool has_heard_ = false;       // bytes have come from it
  bool connected_ = false;       // connect(2) returned 0
  bool check_self_connect_ = false;
  bool more_to_read_ = false;      // reading stopped before it met EAGAIN
  bool short_read_means_drained_;  // until epoll tells of more than bytes; never on a Unix socket
  bool is_truncated_ = false;      // something that was to be sent is lost
  int error_ = 0;                  // errno
  std::chrono::milliseconds linger_;
  std::size_t sent_bytes_ = 0;  // in all
  const Kind* kind_;
  void* context_ = nullptr;
  Timer deadline_;
  Buffer output_;
};

}  // namespace anteroom
