#pragma once
#include <anteroom/accept_stall.h>
#include <anteroom/export.h>
#include <anteroom/listener.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>

namespace ANTEROOM_EXPORT anteroom {

/// The servers of the textbook, which the reactor is compared with: socket, bind, listen, accept, write,
/// close.
enum class BlockingStyle : std::uint8_t {
  kOneAtATime,           ///< accepts, serves, closes, and only then accepts the next
  kThreadPerConnection,  ///< a thread is made for each guest
  kThreadPool,           ///< a fixed number of threads, each of which accepts and serves one at a time
};

struct BlockingServerOptions {
  BlockingStyle style = BlockingStyle::kOneAtATime;
  int threads = 8;  ///< of the pool
  std::string greeting = "Hello World!";
  /// For experiments: when not to accept, and whether to ask before each accept how many wait (0.3 µs each).
  AcceptStall stall{};
  bool observe_queue = false;
  /// For experiments: called with each guest's descriptor as soon as it has been accepted, by one thread at a
  /// time; and what serving it costs before it is greeted, in the thread that serves it.
  std::function<void(int guest)> accepted = nullptr;
  std::function<void()> before_greeting = nullptr;
};

/// Greets every guest and closes, with plain blocking calls.
class BlockingServer {
 public:
  /// What was seen with `observe_queue`.
  struct Stats {
    std::uint64_t accepted = 0;
    std::uint64_t rests = 0;  ///< times that it could not accept, for want of descriptors or memory
    std::uint32_t queue_peak = 0;
    std::chrono::milliseconds longest_wait{0};  ///< as AcceptorStats::longest_wait
  };

  /// Makes `listener` blocking. Throws std::system_error; invalid_argument for a pool of less than 1 thread.
  BlockingServer(Listener listener, BlockingServerOptions options);

  /// Serves until stop(), and until every thread that it made has ended.
  void run();

  /// Ends run(). From any thread or signal handler; before run() too. Who waits in the queue is reset.
  void stop() noexcept;

  Endpoint endpoint() const noexcept { return listener_.endpoint(); }
  Stats stats() const;

 private:
  void serve_one_by_one();
  void serve_with_a_thread_each();
  void serve_with_pool();
  Fd next_guest();
  void sit_out_stall() const;
  bool wait_for_guest() const;
  void greet(const Fd& guest) const;

  Listener listener_;
  const BlockingServerOptions options_;
  std::atomic<bool> stopping_{false};
  std::mutex door_;  // one thread of the pool accepts, the others wait here
  mutable std::mutex stats_mutex_;
  Stats stats_;
};

}  // namespace anteroom
