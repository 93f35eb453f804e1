#pragma once
#include <anteroom/activation.h>
#include <anteroom/channel.h>
#include <anteroom/export.h>
#include <anteroom/fd.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

/// A restart under load: a process hands its listening sockets to its successor over a Unix socket
/// (SCM_RIGHTS, unix(7)). Both hold the very same sockets meanwhile, with whoever waits in their queues, so
/// there is no moment at which nobody listens.
///
///   successor ──calls──▶ predecessor             its path: mode 0600, and only for our user or root
///             ◀─ names and descriptors ─
///   accepts
///             ── ready ──▶                        until here nothing has changed for the predecessor
///             ◀─ let go ──                        handed_over: it stops accepting, and drains
namespace ANTEROOM_EXPORT anteroom {

/// The successor's side, at start-up. Owns what it was given until it is moved out.
class Handover {
 public:
  /// Calls the predecessor at `path` ("@name" for the abstract namespace), and blocks until it has given us
  /// all of its listeners, which are taken over as by adopt_listener(). Nothing if nobody listens there: then
  /// there is nobody to succeed. Throws std::system_error: timed_out after `timeout`, invalid_argument for
  /// one below 0; permission_denied if another user's process answers; operation_canceled if it refuses;
  /// too_many_files_open if we may not have so many descriptors; and whatever else went wrong. The
  /// predecessor goes on then.
  static std::optional<Handover> take(const std::string& path,
                                      std::chrono::milliseconds timeout = std::chrono::seconds(10));

  Handover(Handover&&) noexcept = default;
  Handover& operator=(Handover&&) noexcept = default;
  /// Without ready(): the predecessor goes on as if nothing had happened.
  ~Handover() = default;

  /// In the predecessor's order, under its names. Of a Unix listener nobody removes the path any more.
  std::vector<NamedListener> listeners;

  /// We accept: the predecessor stops, and drains. Waits for its answer, as long as take() may. No error: it
  /// has let go, or it has died. operation_canceled: we were too late, and it goes on itself; end, and try
  /// again. timed_out: it has not answered yet, and will let go when it comes to it: go on, and keep this
  /// object.
  /// not_connected: this object was moved from, and another is to say it.
  std::error_code ready() noexcept;

 private:
  friend class HandoverOffer;
  Handover(Fd predecessor, std::chrono::milliseconds timeout) noexcept;
  std::size_t take_record();

  Fd predecessor_;  // the conversation with it
  Fd door_;         // the socket at the path, which goes from hand to hand with the others
  std::chrono::milliseconds timeout_;
  bool said_ready_ = false;
};

/// A listening socket of ours, and the name under which the successor is to find it.
struct OfferedListener {
  std::string name{};  ///< without '\0', 255 bytes at most
  int fd = -1;         ///< only borrowed: Acceptor::fd(), ReactorPool::listeners()
};

/// Why a caller did not become our successor.
struct HandoverFailure {
  /// permission_denied: another user; timed_out: not ready at the deadline; connection_aborted: it ended
  /// before; bad_message: it said what no successor says; else what failed.
  std::error_code why;
  /// How many failures since the last call were not reported by themselves. If they differ, `why` is the
  /// latest that is not permission_denied.
  std::uint64_t suppressed = 0;

  /// For handlers that take the error alone.
  operator std::error_code() const noexcept { return why; }  // NOLINT(google-explicit-constructor)
};

/// What an offer tells. Only from the turn.
struct HandoverHandlers {
  /// A successor has called: what it shall be given, 4,096 at most. Needed.
  std::function<std::vector<OfferedListener>()> listeners = nullptr;
  /// The successor accepts, and the offer is over: stop accepting and drain (DrainOptions::handed_over). Told
  /// once. Needed.
  std::function<void()> handed_over = nullptr;
  /// Somebody called and did not become our successor; all goes on as before. Called at once for the first,
  /// then at most once a second, with the number of the others: anybody can call an abstract name, as often
  /// as they like. Not for those of the last second of an offer. Need not be there; may take a
  /// std::error_code instead.
  std::function<void(HandoverFailure failure)> failed = nullptr;
};

struct HandoverOptions {
  /// How long a successor may take from its call until it is ready. Not negative.
  std::chrono::milliseconds deadline{30'000};
};

/// The predecessor's side: offers our listeners to whoever will succeed us, to one at a time. A successor
/// that ends, hangs or talks nonsense before it is ready changes nothing.
///
/// The reactor owns its sockets; the offer ends them. The path stays when all have ended, as those of
/// systemd's sockets do: a dead one is replaced, and so nobody can ever remove the path of another.
class HandoverOffer {
 public:
  /// Listens at `path`, with mode 0600. Throws std::system_error; address_in_use if somebody offers there
  /// already, or is faster to begin (UnixPathLock); invalid_argument without a handler that is needed.
  HandoverOffer(Reactor& reactor, const std::string& path, HandoverHandlers handlers,
                const HandoverOptions& options = {});
  /// Goes on at the path of our predecessor, with the very socket that it had there: whoever calls meanwhile
  /// waits, and finds us. To be made once, after `predecessor` is ready(). Throws std::system_error
  /// (invalid_argument) the second time.
  HandoverOffer(Reactor& reactor, Handover& predecessor, HandoverHandlers handlers,
                const HandoverOptions& options = {});
  HandoverOffer(HandoverOffer&&) = delete;
  /// A successor that has called already takes it that we have ended.
  ~HandoverOffer();

  /// Somebody has our listeners and is not ready yet. Who has to leave now leaves to them
  /// (DrainOptions::handed_over), lest a drain shuts a door that is theirs, too.
  bool is_taken() const noexcept;

 private:
  class Door;
  class Successor;
  HandoverOffer(Reactor& reactor, Fd&& door, HandoverHandlers&& handlers, const HandoverOptions& options);

  Reactor& reactor_;
  ChannelId door_;  // ends itself when all is handed over
};

}  // namespace anteroom
