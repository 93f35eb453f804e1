#pragma once
#include <anteroom/acceptor.h>
#include <anteroom/connection.h>
#include <anteroom/reactor.h>
#include <anteroom/timer.h>

#include <chrono>
#include <cstddef>
#include <functional>
#include <mutex>
#include <utility>
#include <vector>

namespace anteroom {

/// One thread's share of the guests that the first thread deals out. Guests go one way and tickets the other,
/// each with one post for all that gather meanwhile.
class Share final : public Connection::Kind {
 public:
  using Ticket = Admission::Ticket;

  Share(Reactor& reactor, ConnectionHandlers the_handlers, const AcceptorOptions& the_options)
      : Kind(std::move(the_handlers), the_options.connection),
        reactor_(reactor),
        guests_per_turn_max_(std::max(the_options.accepts_per_turn_max, 1)),
        deadline_(reactor, [this] { cut(); }),
        after_closing_(reactor, [this] { Connection::tell_draining(reactor_, *this); }) {
    tells_left_ = true;
  }

  /// `collect_later` has the first thread call collect(), also if there is no memory to post it.
  void open(Reactor& first, Acceptor& door, std::function<void()> collect_later) noexcept {
    first_ = &first;
    door_ = &door;
    collect_later_ = std::move(collect_later);
  }

  // ---- In the first thread

  /// On std::bad_alloc the guest is gone, and nothing else has happened.
  void deal(Fd socket, int family, Ticket ticket);
  /// Takes the tickets that have come back.
  void collect() noexcept;
  /// Who was dealt here and has not left, as far as the first thread knows.
  std::size_t out() const noexcept { return out_; }

  // ---- In its own

  /// At the deadline, whoever is still open is closed. The door knows when all have left.
  void drain(std::chrono::milliseconds deadline) noexcept { deadline_.arm(deadline); }
  /// Who was still there at the deadline. The door cannot know: it has a deadline of its own, and tickets
  /// are under way.
  std::size_t cut_off() const noexcept { return cut_off_; }
  /// In the next turn, for it calls handlers.
  void door_closed() noexcept { after_closing_.arm({}); }

 private:
  struct Guest {
    Fd socket;
    int family;
    Ticket ticket;
  };
  bool is_at_the_door() const noexcept { return &reactor_ == first_; }
  void take_in() noexcept;
  bool take_over() noexcept;
  bool come_back() noexcept;
  void start(Guest guest) noexcept;
  void left(Ticket ticket) noexcept override;
  void cut() noexcept;

  Reactor& reactor_;
  Reactor* first_ = nullptr;
  Acceptor* door_ = nullptr;
  std::function<void()> collect_later_;

  // The first thread's.
  std::size_t out_ = 0;

  // Its own thread's.
  const int guests_per_turn_max_;
  std::vector<Guest> taken_over_;
  std::size_t started_ = 0;  // of those
  bool is_past_deadline_ = false;
  std::size_t cut_off_ = 0;
  Timer deadline_;
  Timer after_closing_;

  // Between them.
  std::mutex mutex_;
  std::vector<Guest> dealt_;
  std::vector<Ticket> tickets_;  // has room for all who are out
  bool comes_for_guests_ = false;
  bool comes_for_tickets_ = false;
};

/// In turn. Who has far more open than another is passed over, lest connections that stay gather where they
/// come in step with others that do not.
class Dealer {
 public:
  explicit Dealer(std::vector<Share*> shares) : shares_(std::move(shares)) {}

  Share& next() noexcept;

 private:
  static constexpr std::size_t kLead = 64;  // what a busy moment makes is no imbalance
  std::vector<Share*> shares_;
  std::size_t turn_ = 0;
};

}  // namespace anteroom
