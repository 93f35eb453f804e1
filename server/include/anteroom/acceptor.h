#pragma once
#include <anteroom/connection.h>
#include <anteroom/listener.h>
#include <anteroom/reactor.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <system_error>

namespace anteroom {

/// What has happened at the door so far.
struct AcceptorStats {
  std::uint64_t accepted = 0;
  std::uint64_t aborted = 0;  ///< guests whose connection was dead when we came to accept it
  std::uint64_t rests = 0;    ///< times that the doorman had to rest, because descriptors or memory ran out
  std::uint32_t queue_peak = 0;  ///< the most who waited when he came to the door, where the queue is deepest
  /// The longest that a guest waited in the queue, of those who were first of several; in steps of 4 ms at HZ
  /// 250.
  std::chrono::milliseconds longest_wait{0};
};

struct AcceptorOptions {
  ConnectionOptions connection;
  /// The most that are let in before the others of the reactor get their turn again.
  int accepts_per_turn_max = 64;
  /// The doorman rests: accept(2) failed for want of descriptors or memory. He tries again when a descriptor
  /// of this reactor closes, and every 20 ms. Told once a second at most, with the number waiting, if the
  /// kernel tells it.
  std::function<void(std::error_code why, std::optional<std::uint32_t> waiting)> resting;
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
  /// Throws std::system_error.
  Acceptor(Reactor& reactor, const Endpoint& endpoint, ConnectionHandlers handlers,
           AcceptorOptions options = {});
  Acceptor(Reactor& reactor, Listener listener, ConnectionHandlers handlers, AcceptorOptions options = {});
  Acceptor(Acceptor&&) = delete;
  ~Acceptor();

  Endpoint endpoint() const noexcept;
  /// As Listener::set_backlog().
  void set_backlog(int backlog);
  const AcceptorStats& stats() const noexcept;
  /// Who waits right now; nothing for Unix sockets.
  std::optional<ListenQueue> queue() const noexcept;

 private:
  class Door;
  Door* door_;  // the reactor owns it
};

}  // namespace anteroom
