#pragma once
#include <anteroom/channel.h>
#include <anteroom/export.h>
#include <anteroom/loop_metrics.h>

#include <atomic>
#include <cassert>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

struct epoll_event;

namespace ANTEROOM_EXPORT anteroom {

class TimerWheel;

/// Waits for descriptors, timers and posted work, and tells whom it concerns.
///
/// One thread at a time calls a reactor, and what was made on it; while one turns it, in turn() or run(), the
/// others may only call post() and stop(). So it may be made in one thread, turned in another, and destroyed
/// in the first when that one has been joined. A library that is built with assertions asserts it. It owns
/// its channels, and must outlive the acceptors, connectors, timers and signals made on it. Handlers run only
/// from turn(), one after the other, never one inside another, and must not throw (an exception out of a
/// handler ends the program where it was thrown).
///
/// After fork(2) the reactor belongs to the parent. In the child, the destructors of the reactor and of all
/// that was made on it close descriptors and do nothing else, so the parent's connections, paths and epoll
/// stay as they are. A child that is to go on with the reactor calls continue_after_fork().
class Reactor {
 public:
  using Clock = std::chrono::steady_clock;  // CLOCK_MONOTONIC: no wall clock can fire or freeze a timer
  using Task = std::function<void()>;

  /// Throws std::system_error when the system gives no epoll or event descriptor.
  Reactor();
  /// Closes all that is still open. No handler is called any more.
  ~Reactor();
  Reactor(const Reactor&) = delete;
  Reactor& operator=(const Reactor&) = delete;

  /// One pass of the loop: waits for events (at most until the next timer, at most `wait_max`, and not at all
  /// if there is work), then tells the channels, fires timers, runs posted tasks, returns to whom stopped for
  /// a budget, and reaps. Throws std::system_error if epoll_wait(2) fails for another reason than a signal.
  /// A negative `wait_max` asserts, for poll(2) takes it for an endless wait; it does not wait.
  void turn(std::optional<Clock::duration> wait_max = std::nullopt);

  /// Turns until stop(). A stop() that came before run() counts: then there is one turn that does not wait.
  void run();

  /// Ends run() at the end of the current turn. From any thread, from a handler; whoever calls it, or post(),
  /// has to be through with it before the reactor is destroyed.
  void stop() noexcept;

  /// Runs `task` in this reactor's thread, in this turn or the next, and never from in here. From any thread,
  /// from a handler. What is posted but never run (no further turn) is destroyed with the reactor.
  /// Throws std::system_error (invalid_argument) if `task` is empty.
  void post(Task task);

  /// The time of this turn: read when it is first asked for, and the same until the turn ends.
  Clock::time_point now() noexcept {
    assert(is_thread_of(*this));
    if (!now_is_known_) now_ = Clock::now();
    now_is_known_ = true;
    return now_;
  }

  /// Makes this process the owner of the reactor, and of the acceptors, connections, timers and signals made on
  /// it: for a daemon that forks after it has been set up. Called in the child, by the thread that forked; the
  /// parent must not use the reactor any more, and leaves with _exit(2), as daemon(3) does. Without it, turn()
  /// throws std::system_error (operation_not_permitted) in the child. Does nothing where the reactor is already
  /// this process's. Throws std::system_error when the system gives no descriptor; then it may be called again.
  void continue_after_fork();

  /// False in a process that was forked from the owner and has not called continue_after_fork(). Processes made
  /// by _Fork(3) or clone(2) are not noticed.
  bool is_of_this_process() const noexcept { return static_cast<bool>(epoll_); }

  /// What has been done so far. From the reactor's own thread.
  const LoopMetrics& metrics() const noexcept {
    assert(is_thread_of(*this));
    return metrics_;
  }

  /// A hard cap of the memory that output which waits may take, of all connections together: a send() beyond
  /// it is refused, and ends its connection with no_buffer_space. 0, the default: none.
  void set_buffered_bytes_max(std::size_t bytes) noexcept {
    assert(is_thread_of(*this));
    buffered_bytes_max_ = bytes;
  }

  /// The channel of that name, if it still lives and is a T. The pointer is good until the end of the turn.
  /// With -fno-rtti, T is Channel or Connection.
  template <class T = Channel>
  T* find(ChannelId id) const noexcept {
    Channel* const channel = find_channel(id);
    if constexpr (std::is_same_v<T, Channel>) {
      return channel;
    } else if constexpr (std::is_same_v<std::remove_const_t<T>, Connection>) {
      return channel != nullptr ? channel->as_connection() : nullptr;
    } else {
#ifdef __cpp_rtti
      return dynamic_cast<T*>(channel);
#else
      static_assert(std::is_void_v<T>,
                    "with -fno-rtti, find() knows Channel and Connection: use static_cast<T*>(find(id))");
      return nullptr;
#endif
    }
  }

  // ---- For those who write channels ----

  /// Memory of one size (of a Connection) that was used before and is still warm; null if there is none. It
  /// came from operator new, and whoever takes it may delete it.
  void* take_spare() noexcept {
    assert(is_thread_of(*this));
    Spare* const spare = spares_;
    if (spare == nullptr) return nullptr;
    spares_ = spare->next;
    --spare_count_;
    return spare;
  }
  /// The other way round. A few are kept; false if there are enough.
  bool keep_spare(void* memory) noexcept {
    assert(is_thread_of(*this));
    if (spare_count_ == kSparesMax) return false;
    spares_ = ::new (memory) Spare{spares_};
    ++spare_count_;
    return true;
  }

  /// Takes a channel in and names it. epoll does not know it yet.
  /// Throws std::system_error (invalid_argument) if it has no descriptor.
  template <class T>
  T& adopt(std::unique_ptr<T> channel) {
    assert(channel != nullptr && "adopt() of no channel");
    T& adopted = *channel;
    make_room_for(adopted);  // throws std::bad_alloc; then the channel is freed
    take_in(channel.release());
    return adopted;
  }

  /// Registers with epoll: IN|PRI|OUT|RDHUP, edge-triggered, once, never changed. What is ready already is
  /// told in the next turn, so it is enough to register after the first EAGAIN, and a short connection never
  /// needs to.
  std::error_code watch(Channel& channel) noexcept;

  /// The same for a descriptor that several reactors watch, one of which is to be woken: IN|EXCLUSIVE.
  std::error_code watch_exclusive(Channel& channel) noexcept;

  /// epoll forgets the channel. Only for a descriptor that others hold too: else its close does that.
  void unwatch(Channel& channel) noexcept;

  /// Calls the channel back in the next turn, with no event: it stopped for its budget, and an edge does not
  /// come twice.
  void again(Channel& channel) noexcept;

  /// Closes the descriptor now, frees the channel at the end of the turn. Twice is once.
  void retire(Channel& channel) noexcept;

  /// Frees at the end of the turn what a handler may be running in.
  void retire(std::unique_ptr<Reapable> object) noexcept;

  /// Retires a channel without closing its descriptor, which is the caller's from now on; epoll forgets it.
  Fd release(Channel& channel) noexcept;

  /// Calls `channel` back (as again() does) once some descriptor of this reactor has been closed.
  void again_when_a_descriptor_closes(Channel& channel);

  /// Every living channel, in the order of descriptors. `visit` may retire the channel that it is given.
  /// Throws std::system_error (invalid_argument) if `visit` is empty.
  void for_each_channel(const std::function<void(Channel&)>& visit);

  /// Where channels read into: shared, so it holds nothing from one call to the next.
  std::span<char> scratch() noexcept {
    assert(is_thread_of(*this));
    return {scratch_.get(), kScratchBytes};
  }

  TimerWheel& timers() noexcept {
    assert(is_thread_of(*this));
    return *timers_;
  }

  /// What channels count into.
  LoopMetrics& counts() noexcept {
    assert(is_thread_of(*this));
    return metrics_;
  }
  std::size_t buffered_bytes_max() const noexcept { return buffered_bytes_max_; }

 private:
  friend bool is_thread_of(const Reactor& reactor) noexcept;
  friend class Connection;  // finds its neighbours by their descriptors

  /// First come, first freed. Linked through themselves, so that to retire never needs memory.
  struct Retired {
    Reapable* first = nullptr;
    Reapable* last = nullptr;
  };

  struct Spare {
    Spare* next;
  };
  static constexpr std::size_t kSparesMax = 64;

  static constexpr std::size_t kScratchBytes = 64 * 1024;  // the most that one recv takes

  Channel* find_channel(ChannelId id) const noexcept {
    assert(is_thread_of(*this));
    const auto fd = static_cast<std::size_t>(static_cast<std::uint32_t>(id));
    Channel* const channel = fd < channels_.size() ? channels_[fd].get() : nullptr;
    return channel != nullptr && channel->id_ == id ? channel : nullptr;
  }
  void make_room_for(const Channel& channel);
  void make_more_room(std::size_t fd);
  void take_in(Channel* channel) noexcept;
  std::error_code add_to_epoll(Channel& channel, Channel::Watch watch) noexcept;
  void turn_once(Clock::duration wait_max);
  int wait(epoll_event* events, Clock::duration wait_max);
  int wait_for(epoll_event* events, Clock::duration wait_max);
  int wait_failed(epoll_event* events);
  void run_posted();
  void run_again() noexcept;
  void free_later(Reapable* object) noexcept;
  void call_waiting_for_descriptor() noexcept;
  void reap() noexcept;
  static void free_all(Retired retired) noexcept;
  struct Living;
  class InThread;
  void open_epoll();
  void leave_to_parent() noexcept;
  void wake() noexcept;

  Fd epoll_;
  Fd wake_;
  Clock::time_point now_;
  bool now_is_known_ = false;
  std::uint32_t generation_ = 0;
  bool turning_ = false;   // from when the events are there
  int events_ready_ = 0;  // of this turn; 0 in a forked child, which has no part in them
  LoopMetrics metrics_;
  std::size_t buffered_bytes_max_ = 0;
  std::uint8_t again_mark_ = 1;                     // 1 or 2, in turn: of who goes on in this turn
  std::vector<std::unique_ptr<Channel>> channels_;  // by descriptor
  std::vector<ChannelId> again_;                    // whom to call back next turn
  std::vector<ChannelId> again_now_;                // whom to call back this turn
  std::vector<ChannelId> want_descriptor_;          // whom to call back when a descriptor closes
  std::size_t room_ = 0;                            // that each of these lists has
  std::size_t room_taken_ = 0;  // by channels that there are, or were since the turn began
  Spare* spares_ = nullptr;
  std::size_t spare_count_ = 0;
  Retired retired_;  // whom to free at the end of the turn
  std::unique_ptr<TimerWheel> timers_;
  std::unique_ptr<char[]> scratch_;

  std::atomic<const void*> thread_{nullptr};  // that turns it; only with assertions, but always there
  std::atomic<bool> stopping_{false};
  std::atomic<bool> has_posted_{false};
  std::atomic<bool> asleep_{false};  // waits, or is about to: whoever posts has to wake it
  std::mutex posted_mutex_;
  std::vector<Task> posted_;
  std::vector<Task> running_;  // what was posted before; kept for its memory

  Reactor* next_living_ = nullptr;  // all reactors of the process, for fork(2)
  Reactor* previous_living_ = nullptr;
};

}  // namespace anteroom
