#pragma once
#include <anteroom/channel.h>
#include <anteroom/endpoint.h>
#include <anteroom/export.h>
#include <anteroom/tcp_info.h>

#include <cassert>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <system_error>

namespace ANTEROOM_EXPORT anteroom {

class Connection;
class Output;

/// What a connection tells. All handlers run from the turn, never inside one another, and none of them needs
/// to be there.
struct ConnectionHandlers {
  /// It is established: the guest has been accepted, or the connection that we asked for has come about.
  std::function<void(Connection&)> open = nullptr;
  /// `bytes` came, and are gone when the handler returns. There may be any number of them, from 1 on.
  std::function<void(Connection&, std::string_view bytes)> data = nullptr;
  /// All that waited to be sent has been given to the kernel. Only told when something had to wait: when
  /// unsent_bytes() was more than 0, or the rest of a file was left.
  std::function<void(Connection&)> drained = nullptr;
  /// The peer has ended its side (its FIN), and all that it sent has been told; told once. With this handler
  /// the connection is half-closed from then on: it can still send, and stays until close(). Without it, it
  /// ends in order as soon as nothing waits to be sent.
  std::function<void(Connection&)> peer_ended = nullptr;
  /// The acceptor drains (Acceptor::drain): finish what is begun, and close(). Without this handler a
  /// connection stays until it ends by itself, or until the drain's deadline.
  std::function<void(Connection&)> draining = nullptr;
  /// It is over; told exactly once, and last, of each connection, also of one that never got to
  /// `open`; but no more once its acceptor, connector or reactor is gone. No
  /// `error` means an orderly end; with one, a peer that did not get all that was sent to it gets a reset.
  /// The descriptor is closed already; id(), context() and was_open() still answer.
  std::function<void(Connection&, std::error_code error)> closed = nullptr;
};

/// What all connections of one acceptor or connector have in common.
struct ConnectionOptions {
  // Times that are negative, and a high watermark below the low one, are refused: whatever is made with them
  // throws std::system_error (invalid_argument).

  /// As long as this much or more waits to be sent, nothing is read: who does not take our answers may not
  /// ask either.
  std::size_t high_watermark_bytes = 256 * 1024;
  /// Reading goes on when no more than this waits.
  std::size_t low_watermark_bytes = 64 * 1024;
  /// A hard cap of what one connection may have waiting, files not counted: a send() beyond it is refused,
  /// and ends the connection with no_buffer_space. 0: none. See also Reactor::set_buffered_bytes_max().
  std::size_t output_bytes_max = 0;
  /// The most that is read in one turn, so that one fast peer does not starve the others.
  std::size_t read_bytes_per_turn_max = 256 * 1024;
  /// How long a closed connection waits for the peer to take the last answer and close too, from the last
  /// progress on (at send_bytes_per_second_min, if that is set). If the kernel still holds bytes of ours
  /// then, or already at close(), that the peer does not take, the connection is reset, and ends with
  /// timed_out.
  std::chrono::milliseconds linger{2000};

  // ---- Deadlines; 0: none. A connection that misses one ends with timed_out, and with a reset if the kernel
  // still holds bytes for the peer, so that these are freed, too. They cost a connection some 120 bytes, and an
  // event two stores: a timer only looks when the deadline would be over.

  /// From `open` until the peer's first byte.
  std::chrono::milliseconds first_byte_deadline{0};
  /// Since the last byte came, or was taken by the kernel.
  std::chrono::milliseconds idle_deadline{0};
  /// Slow senders: while input is expected (see Connection::expect_input) and reading is not paused, at least
  /// so many bytes a second have to come, over each `rate_window`.
  std::size_t receive_bytes_per_second_min = 0;
  /// Slow readers: while output waits, at least so many bytes a second have to be taken, over each
  /// `rate_window`.
  std::size_t send_bytes_per_second_min = 0;
  std::chrono::milliseconds rate_window{5000};

  bool has_deadlines() const noexcept {
    return first_byte_deadline.count() > 0 || idle_deadline.count() > 0 || receive_bytes_per_second_min > 0 ||
           send_bytes_per_second_min > 0;
  }
};

/// A stream of bytes to one peer.
///
/// The reactor owns it. Handlers borrow it; whoever wants it later keeps its id() and asks
/// Reactor::find<Connection>(id). No function here ever calls a handler: what follows from it is told by the
/// turn, later.
class Connection final : public Channel {
 public:
  class Kind;

  /// Sends now what the kernel takes, and keeps the rest until it takes more. False, and nothing kept, once
  /// the connection is closing, or if there is no memory to keep it in (which also ends the connection).
  bool send(std::string_view bytes) noexcept;

  /// The same for several pieces, one after the other, in one system call (sendmsg(2)).
  bool send(std::span<const std::string_view> pieces) noexcept;

  /// Sends `size` bytes of a file from `offset` on, after all that was sent before, without copying them
  /// (sendfile(2)); what is sent later comes after it. `file` is a descriptor that can be mapped, and closed
  /// when it is through. The connection ends with io_error if the file turns out to be shorter, with
  /// bad_file_descriptor if `file` is none (open(2) has failed), and with value_too_large if `offset` and
  /// `size` are beyond what a file may have; the peer gets a reset then, for it cannot have what it was
  /// promised. Otherwise as send().
  bool send_file(Fd file, std::uint64_t offset, std::uint64_t size) noexcept;

  /// Sends what waits, then ends our side (FIN): the peer sees the end, and we go on reading until it ends
  /// its own. To send() more is refused. Asserts before `open`.
  void end_output() noexcept;

  /// Sends what waits, then ends in order. The peer gets all of it, even if it is still sending itself, as
  /// long as it takes it: after `linger` without progress we give up, and it gets a reset. Reads no more. A
  /// peer that ends its own side first is ended in the same way, as soon as nothing waits to be sent, unless
  /// there is a `peer_ended`.
  void close() noexcept;

  /// send() and close() in one: where nothing else waits, the last bytes and our FIN share a segment
  /// (MSG_MORE, which close(2) pushes), so the peer is woken once and not twice. A hello costs the server a
  /// sixth less. Words that cannot be sent end the connection with an error: not_connected before `open`,
  /// broken_pipe after end_output(). Once it closes already, it is as close().
  void close(std::string_view last_words) noexcept;

  /// Ends at once: the peer gets a reset, and what was not sent is lost. `closed` will say
  /// operation_canceled.
  void abort() noexcept;

  /// Stops and goes on calling `data`. The kernel keeps what comes meanwhile, and in time stops the peer.
  /// While it is paused with nothing to send, the peer's end and its reset are not noticed either.
  void pause_reading() noexcept;
  void resume_reading() noexcept;

  /// Whether the peer has to send now, at `receive_bytes_per_second_min`. True from `open` on; a server that
  /// has got a whole request says false, and true when the next has begun.
  void expect_input(bool expected) noexcept;

  /// Bytes that wait to be sent, those of files not counted.
  std::size_t unsent_bytes() const noexcept;
  bool is_open() const noexcept {
    assert(is_thread_of(reactor()));
    return state_ == State::kOpen;
  }
  /// In `closed`: whether `open` had been told.
  bool was_open() const noexcept {
    assert(is_thread_of(reactor()));
    return was_open_;
  }
  /// The peer has ended its side, and we have not.
  bool is_half_closed() const noexcept {
    assert(is_thread_of(reactor()));
    return state_ == State::kOpen && peer_has_ended_ && !output_ended_;
  }

  Endpoint peer() const noexcept;   ///< no address if the peer is gone already
  Endpoint local() const noexcept;  ///< ours
  std::optional<TcpInfo> tcp_info() const noexcept;

  Connection* as_connection() noexcept override { return this; }

  /// For the user; the library never looks at it.
  void* context() const noexcept {
    assert(is_thread_of(reactor()));
    return context_;
  }
  void set_context(void* context) noexcept {
    assert(is_thread_of(reactor()));
    context_ = context;
  }

  // ---- For acceptors and connectors ----

  /// Takes in an established socket, tells `open`, and reads what is there already. Only from the turn, never
  /// from a handler. `ticket` is given back to Kind::left. On std::bad_alloc the descriptor is closed.
  static void start(Reactor& reactor, Fd&& socket, Kind& kind, int family, std::uint32_t ticket = 0);

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
  static Connection& start_connecting(Reactor& reactor, Fd&& socket, Kind& kind, const Attempt& attempt);

  // What is done with a group costs as much as the group is large, whatever else the reactor has.

  /// Closes every connection of `kind`, calls none of its handlers again, and frees it with the last of them.
  static void end_all(Reactor& reactor, Kind& kind) noexcept;

  /// Closes every connection of `kind`; their handlers are still called.
  static void close_all(Reactor& reactor, const Kind& kind) noexcept;

  /// Tells `draining` to every open connection of `kind`. Only from the turn, never from a handler.
  static void tell_draining(Reactor& reactor, Kind& kind) noexcept;

  Connection(Reactor& reactor, Fd&& socket, Kind& kind, int family, std::uint32_t ticket) noexcept;
  ~Connection() override;

 private:
  class Deadlines;
  friend class Deadlines;
  static constexpr std::size_t kSmallAnswer = 1400;  // bytes: one segment, which is on its way at once
  enum class State : std::uint8_t {
    kConnecting,  // connect(2) is under way
    kOpen,
    kFailing,    // sending has failed; what the peer had sent before is still read
    kClosing,    // close() was called; output is still waiting
    kLingering,  // our FIN is sent; the peer's is awaited
    kEnded,      // retired
  };

  void leave_group() noexcept;
  void on_ready(std::uint32_t events) noexcept override;
  void reaped() noexcept override;
  void free() noexcept override;
  static std::unique_ptr<Connection> make(Reactor& reactor, Fd&& socket, Kind& kind, int family,
                                          std::uint32_t ticket);

  bool finish_connecting(std::uint32_t events) noexcept;
  void tell_open() noexcept;
  void read() noexcept;
  bool may_read() const noexcept;
  void peer_ended() noexcept;
  void peer_gone() noexcept;
  std::size_t send_now(std::span<const std::string_view> pieces) noexcept;
  bool put(std::string_view bytes, int flags) noexcept;
  bool keep(std::string_view bytes) noexcept;
  bool make_output() noexcept;
  int send_output(std::size_t& sent) noexcept;
  void write() noexcept;
  void written() noexcept;
  void finish_output() noexcept;
  void last_words_lost(std::string_view last_words) noexcept;
  void note_sent(std::size_t count) noexcept;
  void drop_output() noexcept;
  void send_failed(int error) noexcept;
  void end_in_order() noexcept;
  void linger() noexcept;
  void end_behind_peer() noexcept;
  std::size_t unacknowledged() const noexcept;
  void read_last() noexcept;
  void peer_ended_last() noexcept;
  void end(int error) noexcept;
  bool watch_or_end() noexcept;
  Deadlines* deadlines() noexcept;
  void end_after(std::chrono::nanoseconds delay) noexcept;

  // 9,000 idle connections shall cost no more than they must: flags are bits, and what few need is allocated
  // late.
  State state_ = State::kOpen;
  bool was_open_ : 1 = false;
  bool paused_by_user_ : 1 = false;
  bool paused_by_output_ : 1 = false;
  bool peer_has_ended_ : 1 = false;  // its FIN has been read
  bool has_heard_ : 1 = false;       // bytes have come from it
  bool input_expected_ : 1 = true;
  bool output_ended_ : 1 = false;  // end_output() was called
  bool connected_ : 1 = false;     // connect(2) returned 0
  bool check_self_connect_ : 1 = false;
  bool more_to_read_ : 1 = false;      // reading stopped before it met EAGAIN
  bool short_read_means_drained_ : 1;  // until epoll tells of more than bytes; never on a Unix socket
  bool is_truncated_ : 1 = false;      // something that was to be sent is lost
  bool sees_error_ : 1 = false;        // epoll has told of one
  bool told_draining_ : 1 = false;     // with all others of its group
  std::uint16_t sent_bytes_ = 0;       // up to one more than a segment
  int error_ = 0;                      // errno
  std::uint32_t ticket_;
  // The one before it in the list of its group, by its descriptor, or -1: an index takes half the memory of a
  // pointer, and all that there is for it. The one behind it is Reapable::next_.
  std::int32_t previous_fd_ = -1;
  Kind* kind_;
  void* context_ = nullptr;
  std::unique_ptr<Deadlines> deadlines_;  // while there are any
  std::unique_ptr<Output> output_;        // while something waits
};

/// The handlers and options of many connections, and who is told when one has gone.
/// Owned by the acceptor or connector that made it until end_all(), and then by its last connection.
class Connection::Kind : public Reapable {
 public:
  /// Throws std::system_error (invalid_argument) if a time is negative, or the high watermark below the low
  /// one.
  Kind(ConnectionHandlers the_handlers, const ConnectionOptions& the_options);

  const ConnectionHandlers handlers;
  const ConnectionOptions options;  ///< times at most a year, and a rate_window of at least 10 ms
  std::size_t living() const noexcept { return living_; }

 protected:
  bool tells_left_ = false;  ///< whether left() is called at all

 private:
  friend class Connection;
  /// A connection has ended, and `closed` has been told. Not after end_all().
  virtual void left(std::uint32_t /*ticket*/) noexcept {}

  std::size_t living_ = 0;
  Connection* first_ = nullptr;  // of those that have not ended, the newest
  bool ended_ = false;
  bool draining_ = false;
  const bool has_deadlines_;
};

}  // namespace anteroom
