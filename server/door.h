#pragma once
#include <anteroom/acceptor.h>
#include <anteroom/channel.h>
#include <anteroom/fd.h>
#include <anteroom/timer.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

namespace anteroom {

/// The listening sockets of acceptors that leave together, each in a thread of its own. They stay open until
/// the last acceptor is through; then what the drain has attached is taken off, and all are closed. This
/// needs neither memory nor descriptors.
class LeavingTogether {
 public:
  /// `are_group`: they are the first of a SO_REUSEPORT group, in this order; else all are one socket.
  LeavingTogether(std::size_t count, bool are_group)
      : sockets_(count), are_group_(are_group), remaining_(count) {}

  /// Of each number once. `is_altered`: this drain has attached something to the socket or its group.
  void leave(std::size_t number, Fd socket, bool is_altered) noexcept;

 private:
  std::vector<Fd> sockets_;
  const bool are_group_;
  std::atomic<bool> is_altered_{false};
  std::atomic<std::size_t> remaining_;
};

/// Throws std::system_error (invalid_argument) for what is no drain.
void check_drain_options(const DrainOptions& options);

/// The guests of a door, who tell it when they leave.
class Acceptor::Guests final : public Connection::Kind {
 public:
  Guests(Door& door, ConnectionHandlers the_handlers, const ConnectionOptions& the_options)
      : Connection::Kind(std::move(the_handlers), the_options), door_(door) {}
  void tell_left() noexcept { tells_left_ = true; }

 private:
  void left(std::uint32_t ticket) noexcept override;
  Door& door_;
};

/// The listening socket, as long as it is open.
class Acceptor::Bell final : public Channel {
 public:
  Bell(Reactor& reactor, Fd listener, Door& door) noexcept
      : Channel(reactor, std::move(listener)), door_(door) {}

 private:
  void on_ready(std::uint32_t events) noexcept override;
  void continued_after_fork() noexcept override;
  Door& door_;
};

class Acceptor::Door final : public Reapable {
 public:
  Door(Reactor& reactor, Listener listener, ConnectionHandlers handlers, AcceptorOptions options);

  const Reactor& reactor() const noexcept { return reactor_; }
  int fd() const noexcept { return bell_ == nullptr ? -1 : bell_->fd(); }
  const AcceptorStats& stats() const noexcept { return stats_; }
  std::size_t guests() const noexcept { return guests_->living() + dealt_; }

  void knocked(std::uint32_t events) noexcept {
    // Resting, he does not get up for one who knocks, only for the alarm or a descriptor that has become
    // free.
    if (events == 0 || !rests_) look();
  }
  bool is_of_this_process() const noexcept { return reactor_.is_of_this_process(); }
  void continue_after_fork() noexcept {
    if (listener_) listener_->continue_after_fork();
  }
  void close() noexcept;
  /// The acceptor goes, and with it the door, the guests, and, at the end of the turn, this.
  void end() noexcept;
  void pause(bool paused) noexcept;
  /// With `together` it is number `number` of those, and gives it its socket at the end.
  void drain(DrainOptions options, std::function<void(std::size_t)> drained,
             LeavingTogether* together = nullptr, std::size_t number = 0) noexcept;
  void left(Admission::Ticket ticket) noexcept;
  void dealt_one_left(Admission::Ticket ticket) noexcept;

 private:
  enum class Stage : std::uint8_t {
    kServing,
    kSteered,   // draining: new guests are sent to the others of the group
    kLastCall,  // draining: no SYN is taken any more; handshakes under way come to their end
    kEmptying,  // draining: the door closes when the queue is empty
    kLeaving,   // the door is closed; guests are still there
    kLeft,
  };

  void close_altered(Fd listener) const noexcept;
  void look() noexcept;
  bool go_to_the_end_of_the_line(std::uint32_t taken) noexcept;
  int accept_one(bool is_first_of_several) noexcept;
  bool has_waited_too_long(int guest, bool is_sample) noexcept;
  void deal_out(Fd guest, Admission::Ticket ticket) noexcept;
  void turn_away(const Fd& guest) const noexcept;
  void tune(std::uint32_t depth) noexcept;
  bool ask_queue(std::uint32_t& depth, std::uint32_t& limit) const noexcept;
  void rest(int error, std::optional<std::uint32_t> waiting) noexcept;
  void begin_last_call() noexcept;
  void next_stage() noexcept;
  void queue_is_empty() noexcept;
  void tell_draining() noexcept;
  void cut() noexcept;
  void leave_if_alone() noexcept;

  Reactor& reactor_;
  std::optional<Listener> listener_;  // without its socket, which is the bell's: it looks after a Unix path
  AcceptorOptions options_;
  int family_;
  bool admits_;    // some guests only
  bool asks_who_;  // they are
  Admission admission_;
  QueueDelay queue_delay_;
  BacklogTuner tuner_;
  std::uint64_t drops_seen_ = 0;
  std::uint32_t let_in_while_first_ = 0;
  std::uint32_t unasked_ = 0;  // guests since one was asked how long he waited
  Timer alarm_;
  Timer stage_end_;
  Timer deadline_;  // of the drain
  DrainOptions drain_;
  LeavingTogether* together_ = nullptr;
  std::size_t number_ = 0;        // of those who leave together
  bool is_others_too_ = false;    // the listening socket: nothing is done to it
  bool takes_in_nobody_ = false;  // of those who wait: the successor does
  bool told_draining_ = false;
  bool steers_ = false;        // the group
  bool refuses_syns_ = false;  // the listening socket does
  bool rests_ = false;
  bool paused_ = false;
  Stage stage_ = Stage::kServing;
  std::optional<Reactor::Clock::time_point> told_;
  std::function<void(std::size_t)> drained_;
  std::size_t cut_ = 0;
  std::size_t dealt_ = 0;
  Guests* guests_;  // ours until end_all()
  Bell* bell_;      // the reactor owns it
  AcceptorStats stats_;
};

}  // namespace anteroom
