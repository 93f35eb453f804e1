#pragma once
#include <anteroom/acceptor.h>
#include <anteroom/listener.h>
#include <anteroom/loop_metrics.h>
#include <anteroom/reactor.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace anteroom {

/// How the threads of a pool share the arrivals.
enum class Sharing : std::uint8_t {
  kReusePort,  ///< each has a listener of its own (SO_REUSEPORT); the kernel deals by hash, also to a thread
               ///< that is busy
  kExclusive,  ///< all have the same listener (EPOLLEXCLUSIVE); who is idle takes: no guest waits behind a
               ///< busy thread
  kDealt,  ///< the first thread accepts, and deals out in turn: even to the last one, for connections that
           ///< last
};

struct ReactorPoolOptions {
  int threads = 0;  ///< 0: as many as processors are allowed to this process (sched_getaffinity(2))
  Sharing sharing = Sharing::kReusePort;
  ListenerOptions
      listener;  ///< `reuse_port` and `backlog` follow from the sharing and the acceptor's backlog
  AcceptorOptions
      acceptor;  ///< limits of the admission hold for each thread, but with kDealt for all together
  bool pin_threads = false;  ///< each to a processor of its own
};

/// One reactor a thread, all behind one address. Nothing is shared between them while they serve.
///
/// Made, started, drained and destroyed by one thread, which is none of the pool's. Handlers are made once
/// for each thread, and run in that thread only.
class ReactorPool {
 public:
  using MakeHandlers = std::function<ConnectionHandlers(Reactor& reactor, int thread)>;

  /// Listens at once; nobody is accepted before start(). Throws std::system_error.
  ReactorPool(const Endpoint& endpoint, const MakeHandlers& make_handlers, ReactorPoolOptions options = {});
  /// Takes over listeners: handed over by a predecessor, or inherited. With kReusePort one a thread (their
  /// number is the pool's), else exactly one.
  ReactorPool(std::vector<Listener> listeners, const MakeHandlers& make_handlers,
              ReactorPoolOptions options = {});
  ReactorPool(ReactorPool&&) = delete;
  /// Stops without a drain: connections are closed.
  ~ReactorPool();

  void start();
  /// Acceptor::drain() in every thread, then their end. Blocks until then. How many connections were cut.
  std::size_t drain(const DrainOptions& options = {});

  int threads() const noexcept;
  Reactor& reactor(int thread) const noexcept;  ///< for post()
  Endpoint endpoint() const noexcept;
  /// The listening sockets, for a successor: one a thread with kReusePort, else one.
  std::vector<int> listeners() const;

  struct ThreadState {
    LoopMetrics loop;
    AcceptorStats acceptor;
    std::optional<ListenQueue> queue;
    std::size_t open_connections = 0;
  };
  /// Of each thread, taken in that thread between two turns; blocks for them.
  std::vector<ThreadState> state() const;

 private:
  struct Worker;
  std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace anteroom
