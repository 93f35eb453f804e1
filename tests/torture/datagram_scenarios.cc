// Sockets that send and hear datagrams.
#include <anteroom/datagram_socket.h>
#include <anteroom/reactor.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "judge.h"
#include "peers.h"
#include "scenarios.h"

namespace anteroom::torture {
namespace {

using faults::Call;
using faults::Fault;
using faults::Tortured;
using std::chrono::milliseconds;

/// Another end: sends numbered datagrams, and looks for their echoes, each of them once and in order.
class Correspondent {
 public:
  Correspondent(const Endpoint& own, const Endpoint& to, int count)
      : socket_(RawSocket::bound_for_datagrams(own)), count_(count) {
    (void)socket_.connect(to);
  }

  bool step() {
    bool moved = false;
    for (; sent_ < count_ && socket_.send(text(sent_)) > 0; ++sent_) moved = true;
    std::array<char, 256> bytes{};
    for (std::ptrdiff_t size = 0; (size = socket_.recv(bytes.data(), bytes.size())) >= 0; moved = true)
      take({bytes.data(), static_cast<std::size_t>(size)});
    return moved;
  }
  int unanswered() const { return count_ - answered_; }
  bool has_sent_all() const { return sent_ == count_; }
  bool is_wrong() const { return is_wrong_; }

 private:
  static std::string text(int number) { return fmt::format("datagram {}", number); }

  void take(std::string_view bytes) {
    while (next_ < sent_ && text(next_) != bytes) ++next_;  // those between are lost
    if (next_ == sent_) is_wrong_ = true;
    ++next_;
    ++answered_;
  }

  RawSocket socket_;
  int count_;
  int sent_ = 0;
  int next_ = 0;
  int answered_ = 0;
  bool is_wrong_ = false;
};

/// Hears, and answers.
class Exchange {
 public:
  Exchange(const Fault* fault, Report& report, Endpoint at)
      : fault_(fault), report_(report), at_(std::move(at)) {}

  void run() {
    if (start()) {
      for (int i = 0; i < 2; ++i) add(20);
      settle();
      const int lost = unanswered();
      if (lost > cost()) fail(report_, fmt::format("{} datagrams are lost, {} may be", lost, cost()));
      faults::disarm();
      add(5);
      settle();
      if (correspondents_.back().unanswered() > 0)
        fail(report_, "the fault is over, and fresh datagrams are not answered");
      judge();
      faults::rearm();
    }
    finish();
  }

 private:
  bool start() {
    DatagramHandlers handlers{.data = [this](const Datagram& datagram) { answer(datagram); },
                              .drained = [this] { (void)Inside(*this); },
                              .error =
                                  [this](std::error_code, const Endpoint& to) {
                                    const Inside inside(*this);
                                    if (to.family() != AF_UNSPEC) ++told_;
                                  }};
    return !refuses(fault_, report_, [&] {
      reactor_.emplace();
      socket_.emplace(*reactor_, at_, std::move(handlers),
                      DatagramOptions{.receive_bytes_max = 256, .datagrams_per_turn_max = 16});
    });
  }

  class Inside {
   public:
    explicit Inside(Exchange& exchange) : exchange_(exchange) {
      if (exchange_.inside_++ > 0) fail(exchange_.report_, "a handler runs inside another");
    }
    ~Inside() { --exchange_.inside_; }
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;

   private:
    Exchange& exchange_;
  };

  void answer(const Datagram& datagram) {
    const Inside inside(*this);
    if (datagram.lost_bytes > 0) fail(report_, "a short datagram is cut");
    (void)socket_->send(datagram.from, datagram.bytes);
  }

  void add(int count) {
    const Endpoint own = at_.family() == AF_UNIX
                             ? Endpoint::unix_path(fmt::format("@{}-{}", unix_path(), correspondents_.size()))
                             : Endpoint("127.0.0.1", 0);
    const Endpoint to = at_.family() == AF_UNIX ? at_ : RawSocket::local_of(socket_->fd());
    correspondents_.emplace_back(own, to, count);
  }

  int unanswered() const {
    int count = 0;
    for (const Correspondent& correspondent : correspondents_) count += correspondent.unanswered();
    return count;
  }

  /// All are answered, but for those of which the socket says that it could not.
  bool is_settled() const {
    const DatagramStats stats = socket_->stats();
    const bool all_sent = std::ranges::all_of(correspondents_, &Correspondent::has_sent_all);
    return all_sent && unanswered() <= static_cast<int>(stats.failed + stats.refused);
  }

  void settle() {
    const Patience patience;
    int idle_turns = 0;
    while (!is_settled() && report_.failure.empty()) {
      if (lasts(fault_) && faults::injected() > 0 && patience.elapsed() > kHold.count()) faults::disarm();
      bool moved = false;
      for (Correspondent& correspondent : correspondents_) moved = correspondent.step() || moved;
      if (!moved) ++idle_turns;
      turn(*reactor_, fault_, report_, milliseconds(moved ? 0 : 1));
      if (patience.is_spinning(fault_, idle_turns))
        fail(report_, fmt::format("spins: {} idle turns in {} ms", idle_turns, patience.elapsed()));
      if (patience.is_at_an_end())
        fail(report_, fmt::format("{} datagrams are never answered", unanswered()));
    }
  }

  int cost() const {
    if (fault_ == nullptr || (fault_->call != Call::kSendmmsg && fault_->call != Call::kNewNothrow)) return 0;
    // A Unix socket that is not connected waits for nobody's queue.
    const bool is_full = at_.family() == AF_UNIX && fault_->error == EAGAIN;
    return is_transient(*fault_) && !is_full ? 0 : faults::injected();
  }

  void judge() {
    const DatagramStats stats = socket_->stats();
    if (told_ != static_cast<int>(stats.failed))
      fail(report_, fmt::format("{} have failed, {} are told", stats.failed, told_));
    for (const Correspondent& correspondent : correspondents_) {
      if (correspondent.is_wrong()) fail(report_, "a datagram comes twice, or with wrong bytes");
    }
  }

  void finish() {
    {
      const Tortured tortured;
      socket_.reset();
    }
    if (reactor_) turn(*reactor_, fault_, report_, milliseconds(0));
    const Tortured tortured;
    reactor_.reset();
  }

  const Fault* const fault_;
  Report& report_;
  const Endpoint at_;
  std::optional<Reactor> reactor_;
  std::optional<DatagramSocket> socket_;
  std::vector<Correspondent> correspondents_;
  int inside_ = 0;
  int told_ = 0;
};

/// Sends more than the one who hears has room for.
class Torrent {
 public:
  Torrent(const Fault* fault, Report& report) : fault_(fault), report_(report) {}

  void run() {
    constexpr int kDatagrams = 40;
    const bool refused = refuses(fault_, report_, [&] {
      reactor_.emplace();
      socket_.emplace(*reactor_, Endpoint(), DatagramHandlers{.drained = [this] { ++drained_; }},
                      DatagramOptions{.peer = kSink});
    });
    if (!refused) {
      {
        const Tortured tortured;
        for (int i = 0; i < kDatagrams; ++i) (void)socket_->send(fmt::format("datagram {}", i));
      }
      settle(kDatagrams);
    }
    const Tortured tortured;
    socket_.reset();
    reactor_.reset();
  }

 private:
  /// Takes one datagram a turn.
  void settle(int wanted) {
    const Patience patience;
    int idle_turns = 0;
    for (int heard = 0; report_.failure.empty();) {
      const DatagramStats stats = socket_->stats();
      if (heard + static_cast<int>(stats.failed + stats.refused) >= wanted) break;
      if (lasts(fault_) && faults::injected() > 0 && patience.elapsed() > kHold.count()) faults::disarm();
      std::array<char, 64> bytes{};
      const bool moved = sink_.recv(bytes.data(), bytes.size()) > 0;
      heard += moved ? 1 : 0;
      if (!moved) ++idle_turns;
      turn(*reactor_, fault_, report_, milliseconds(moved ? 0 : 1));
      if (patience.is_spinning(fault_, idle_turns)) fail(report_, "spins");
      if (patience.is_at_an_end())
        fail(report_, fmt::format("{} of {} datagrams come, {} have failed", heard, wanted, stats.failed));
    }
    const DatagramStats stats = socket_->stats();
    const bool costs = fault_ != nullptr && !is_transient(*fault_);
    const int lost = static_cast<int>(stats.failed + stats.refused);
    if (lost > (costs ? faults::injected() : 0)) fail(report_, fmt::format("{} datagrams are lost", lost));
    if (fault_ == nullptr && drained_ != 1) fail(report_, "drained is not told once");
  }

  const Endpoint kSink = Endpoint::unix_path("@" + unix_path() + "-sink");
  const Fault* const fault_;
  Report& report_;
  RawSocket sink_ = RawSocket::bound_for_datagrams(kSink);
  std::optional<Reactor> reactor_;
  std::optional<DatagramSocket> socket_;
  int drained_ = 0;
};

}  // namespace

void udp_exchange(const Fault* fault, Report& report) {
  Exchange(fault, report, Endpoint("127.0.0.1", 0)).run();
}

/// At a path that a dead socket has left behind.
void unix_exchange(const Fault* fault, Report& report) {
  const std::string path = unix_path() + "-mail";
  (void)RawSocket::bound_for_datagrams(Endpoint::unix_path(path));
  Exchange(fault, report, Endpoint::unix_path(path)).run();
  remove_path_and_lock(path);
}

void torrent(const Fault* fault, Report& report) { Torrent(fault, report).run(); }

}  // namespace anteroom::torture
