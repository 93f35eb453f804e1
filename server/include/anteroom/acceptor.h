#pragma once
#include <anteroom/admission.h>
#include <anteroom/backlog.h>
#include <anteroom/connection.h>
#include <anteroom/export.h>
#include <anteroom/listener.h>
#include <anteroom/log2_histogram.h>
#include <anteroom/queue_delay.h>
#include <anteroom/reactor.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <system_error>

namespace ANTEROOM_EXPORT anteroom {

/// What has happened at the door so far.
struct AcceptorStats {
  std::uint64_t accepted = 0;  ///< by accept(2): admitted or refused
  std::uint64_t aborted = 0;   ///< guests whose connection was dead when we came to accept it
  std::uint64_t refused = 0;   ///< accepted, and turned away by the admission
  std::uint64_t shed = 0;      ///< accepted, and turned away because the queue was overloaded
  std::uint64_t rests = 0;     ///< times that the doorman had to rest, for a reason that `resting` is told of
  std::uint64_t looks = 0;     ///< times that he came to the door: accepted / looks is the accepts a turn
  std::uint64_t carried_over = 0;  ///< looks that ended at the budget, with guests still waiting
  std::uint32_t queue_peak = 0;  ///< the most who waited when he came to the door, where the queue is deepest
  /// The longest that a guest waited in the queue, of those who were asked; in steps of 4 ms at HZ 250.
  std::chrono::milliseconds longest_wait{0};
  /// How long guests waited in the queue, in ms: of one guest in AcceptorOptions::sample_wait_every.
  Log2Histogram wait_ms;
  /// Self-tuning: the backlog that it began with or has set last (queue() knows the one in force), 0 if it is
  /// not self-tuning; how often it grew; and the number that it would take but that net.core.somaxconn does
  /// not allow, 0 if it does, as far as it knew when the room was last half full.
  int tuned_backlog = 0;
  std::uint32_t tunings = 0;
  int wanted_beyond_somaxconn = 0;
};

struct AcceptorOptions {
  ConnectionOptions connection{};
  /// Of a listener that the acceptor makes itself (with an Endpoint): its backlog. Of one that it is given
  /// only Backlog::self_tuning() counts: it begins with what is in force. On a Unix socket, whose queue
  /// nobody sees, that never grows.
  Backlog backlog = Backlog::system_maximum();
  /// The most that are let in before the others of the reactor get their turn again; at least 1.
  int accepts_per_turn_max = 64;
  AdmissionOptions admission{};
  /// Those who are shed go as `admission.refusal` says. Not for Unix sockets, whose guests' wait is not
  /// known.
  QueueDelayOptions queue_delay{};
  /// Of one guest in so many it is asked how long he waited (0.3 µs); 0: of none. The first of several is
  /// always asked.
  std::uint32_t sample_wait_every = 16;
  /// EPOLLEXCLUSIVE: several reactors have a socket of the same listener, and one of them is woken for an
  /// arrival.
  bool exclusive = false;
  /// Accepting has paused after an error: accept(2) failed for want of descriptors or memory, because another
  /// holder has shut the listener down (invalid_argument), or for every connection that one turn tried
  /// (connection_aborted). It is tried again when a descriptor of this reactor closes, and every 20 ms.
  /// Called once a second at most, with the number waiting, if the kernel tells it.
  std::function<void(std::error_code why, std::optional<std::uint32_t> waiting)> resting = nullptr;
  /// Self-tuning has changed the backlog from `was` to `now`, or would like to beyond net.core.somaxconn:
  /// then `wanted` is more than `now`.
  std::function<void(int was, int now, int wanted)> tuned = nullptr;
  /// Gives each admitted guest to somebody else (another reactor) instead of starting a connection here.
  /// Whoever gets it calls Acceptor::left(ticket), in this reactor's thread, when that guest has gone.
  std::function<void(Fd guest, int family, Admission::Ticket ticket)> deal = nullptr;
};

struct DrainOptions {
  /// By then, whoever is still open is closed: Connection::close() from then on has its `linger`. This and
  /// `handshakes` are a year at most, and not negative.
  std::chrono::milliseconds deadline{10'000};
  /// TCP: before the listener is closed, no further SYN is taken in for so long, while handshakes that are
  /// under way come to their end and are let in; to be longer than the longest round trip to your guests.
  std::chrono::milliseconds handshakes{200};
  /// SO_REUSEPORT: so many listeners of the group (at least 1) leave together, and began to listen before the
  /// others. New connections go to as many of the others meanwhile, until the first of several is closed; a
  /// ReactorPool closes its own together.
  std::uint32_t leaving = 1;
  /// Called from the turn when the door is closed; open connections may still be there.
  std::function<void()> door_closed = nullptr;
  /// Whether another process has the same listening socket, and goes on with it; then nothing is done to it.
  /// true: a successor accepts, so nothing is accepted here any more. But with AcceptorOptions::exclusive the
  /// queue is emptied once more, for the kernel may have woken no other thread or process for what is in it.
  /// To be said by a predecessor: its listener does not know that a copy was handed over.
  /// false: no other process has it, even if it came from another process.
  /// Not said: if Listener::is_shared(), the queue is emptied once more, as far as there are descriptors, and
  /// later connections wait in it for the other processes. Else as false.
  std::optional<bool> handed_over = std::nullopt;
};

/// The doorman: an edge-triggered accept loop.
///
/// He asks how many wait (TCP_INFO, 0.3 µs) and accepts just those, because an accept4 that finds nobody
/// costs ten times that. Whoever comes after the question brings an edge of their own. Running out of
/// descriptors costs neither the CPU nor a guest: he rests, and everybody keeps their place.
///
/// It may be destroyed in its own handlers. Its destructor closes the door and its connections, which still
/// send what they hold; none of its handlers is called any more.
class Acceptor {
 public:
  /// Throws std::system_error, and what Admission throws; invalid_argument for a listener without a socket,
  /// and a negative queue delay.
  Acceptor(Reactor& reactor, const Endpoint& endpoint, ConnectionHandlers handlers,
           AcceptorOptions options = {});
  Acceptor(Reactor& reactor, Listener listener, ConnectionHandlers handlers, AcceptorOptions options = {});
  Acceptor(Acceptor&&) = delete;
  ~Acceptor();

  /// Where it listens; no address once it is closed.
  Endpoint endpoint() const noexcept;
  /// The listening socket, to be handed to a successor; -1 once it is closed.
  int fd() const noexcept;
  /// As Listener::set_backlog().
  void set_backlog(int backlog);
  const AcceptorStats& stats() const noexcept;
  /// Who waits right now, and the most who ever did; nothing for Unix sockets, and once the door is closed.
  std::optional<ListenQueue> queue() const noexcept;
  /// Connections that came in by this door and are still open.
  std::size_t open_connections() const noexcept;

  /// No more guests are let in until resume(); they wait in the queue. With `exclusive`, so do those of whom
  /// the kernel has told no other acceptor.
  void pause() noexcept;
  void resume() noexcept;

  /// Leaves without losing anybody: takes in who waits, closes the door, tells every open connection
  /// `draining` (earlier, if there are no descriptors for those who wait), and calls `drained` from the turn
  /// when the last has ended; at the deadline those who are left are closed, and counted as `cut`, and who
  /// waits in the queue even then (for want of descriptors) is reset. Beside other listeners of a
  /// SO_REUSEPORT group, new guests are sent to them first; a Unix socket's path is removed first. Once only.
  /// Throws std::system_error (invalid_argument) for times below 0, and std::bad_alloc; then it has not
  /// begun.
  ///
  /// The listening socket may have other holders that nobody knows of (dup(2), a child): whatever the drain
  /// attaches to it, or to its group, is taken off before it is closed, however the drain ends. Meanwhile
  /// they get no new connections. If there are none, a client whose SYN comes in the microsecond between the
  /// two is reset; not in a SO_REUSEPORT group.
  void drain(const DrainOptions& options, std::function<void(std::size_t cut)> drained);

  /// A guest that `deal` was given has gone.
  void left(Admission::Ticket ticket) noexcept;

 private:
  friend class ReactorPool;
  class Bell;
  class Door;
  class Guests;
  Door* door_;  // ours; freed at the end of the turn
};

}  // namespace anteroom
