#pragma once
#include <anteroom/acceptor.h>
#include <anteroom/export.h>
#include <anteroom/listener.h>
#include <anteroom/loop_metrics.h>
#include <anteroom/reactor.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

namespace ANTEROOM_EXPORT anteroom {

/// How the threads of a pool share the arrivals.
enum class Sharing : std::uint8_t {
  kReusePort,  ///< each has a listener of its own (SO_REUSEPORT); the kernel deals by hash, also to a thread
               ///< that is busy. Unix sockets have no such thing: kExclusive is taken instead
  kExclusive,  ///< all have the same listener (EPOLLEXCLUSIVE); who is idle takes: no guest waits behind a
               ///< busy thread. Of several who are idle, each is first in turn, for 16 guests
  kDealt,  ///< the first thread accepts, and deals out in turn: even to the last one, for connections that
           ///< last
};

struct ReactorPoolOptions {
  int threads = 0;  ///< 0: as many as processors are allowed to this process (sched_getaffinity(2))
  Sharing sharing = Sharing::kReusePort;
  /// `reuse_port` and `backlog` follow from the sharing and the acceptor's backlog. Listeners that are taken
  /// over stay as they came, and none of this counts.
  ListenerOptions listener{};
  /// Limits of the admission hold for each thread, but with kDealt for all together. `resting` and `tuned`
  /// are called in whatever thread it concerns; `exclusive` and, with kDealt, `deal` follow from the sharing.
  AcceptorOptions acceptor{};
  bool pin_threads = false;  ///< each to a processor of its own, as far as there are enough
};

/// One reactor a thread, all behind one address. Nothing is shared between them while they serve, but with
/// kDealt the guests who change hands.
///
/// Made, started, drained and destroyed by one thread, which is none of the pool's. Handlers are made once
/// for each thread, and run in that thread only. The pool's threads have the signal mask of the thread that
/// starts them, so a program that a handler starts inherits that, too.
class ReactorPool {
 public:
  using MakeHandlers = std::function<ConnectionHandlers(Reactor& reactor, int thread)>;

  /// Listens at once; nobody is accepted before start(). With kReusePort the listeners are bound in the
  /// order of the threads, so they are the first of their group, unless others were there before. Throws
  /// std::system_error; invalid_argument without `make_handlers`, and for less than 0 threads.
  ReactorPool(const Endpoint& endpoint, const MakeHandlers& make_handlers, ReactorPoolOptions options = {});
  /// Takes over listeners: handed over by a predecessor, or inherited. With kReusePort one a thread (their
  /// number is the pool's), else exactly one. Throws std::system_error (invalid_argument) for another number.
  ReactorPool(std::vector<Listener> listeners, const MakeHandlers& make_handlers,
              ReactorPoolOptions options = {});
  ReactorPool(ReactorPool&&) = delete;
  /// Stops without a drain: connections are closed. In a child that was forked while the pool ran, it only closes
  /// the listening sockets: the child has none of the threads, and what they were doing is not known. Connections
  /// of a running pool stay open in the child until it ends or calls exec(2).
  ~ReactorPool();

  /// Reactor::continue_after_fork() for every thread: for a daemon that forks between the constructor and
  /// start(). Throws std::system_error, operation_not_permitted of a pool that was running when it was forked.
  void continue_after_fork();

  /// Throws std::system_error if a thread cannot be made, or pinned, and std::bad_alloc; then nobody has been
  /// accepted, and it may be tried again. Once only, not after drain(), and not in a forked child without
  /// continue_after_fork(): std::system_error (operation_not_permitted).
  void start();
  /// Acceptor::drain() in every thread, then their end. Blocks until then. How many connections were cut.
  /// `leaving` follows from the sharing. Of a pool that does not run there is nothing to drain: 0, and
  /// whoever waits in the queue is reset by the destructor.
  ///
  /// Throws std::system_error (invalid_argument) as Acceptor::drain(), and std::bad_alloc; then it has not
  /// begun, and the pool serves on. Once begun it needs neither memory nor descriptors of its own. In a
  /// handler of the pool it throws std::system_error (resource_deadlock_would_occur), which ends the program
  /// if the handler lets it out: post to the thread that made the pool.
  std::size_t drain(DrainOptions options = {});

  int threads() const noexcept;
  /// For post(). To stop() it ends nothing: its thread goes on.
  Reactor& reactor(int thread) const noexcept;
  /// Where it listens, or did before drain().
  Endpoint endpoint() const noexcept { return endpoint_; }
  /// The listening sockets, for a successor or change_backlog(): one a thread with kReusePort, else one.
  /// None after drain().
  std::vector<int> listeners() const;

  struct ThreadState {
    LoopMetrics loop;
    AcceptorStats acceptor;            ///< with kDealt only of the first thread
    std::optional<ListenQueue> queue;  ///< of a shared listener only in the first thread, with all its peak
    std::size_t open_connections = 0;  ///< that came in by the door
  };
  /// Of each thread, taken in that thread between two turns; blocks for them. In a handler of the pool it
  /// throws std::system_error (resource_deadlock_would_occur). Before start() and after drain(), too. Throws
  /// std::bad_alloc.
  std::vector<ThreadState> state() const;

 private:
  struct Worker;
  struct Meeting;

  void make_doors(std::vector<Listener> listeners, std::vector<ConnectionHandlers> handlers,
                  AcceptorOptions options);
  void make_shares(Listener listener, std::vector<ConnectionHandlers> handlers, AcceptorOptions options);
  void pin();
  void refuse_child(const char* tried) const;
  void refuse_own_threads(const char* tried) const;
  void prepare_drain(DrainOptions options);
  bool is_of_this_process() const noexcept;
  void leave_to_parent() noexcept;
  void stop_and_join() noexcept;
  void join() noexcept;

  Sharing sharing_;
  bool pin_threads_;
  bool running_ = false;
  Endpoint endpoint_;
  std::unique_ptr<Meeting> meeting_;  // before the workers, who come to it
  std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace anteroom
