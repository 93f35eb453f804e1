// Connections that we ask for: by themselves, and in one reactor with a server of ours.
#include <anteroom/acceptor.h>
#include <anteroom/connector.h>
#include <anteroom/reactor.h>
#include <anteroom/signals.h>
#include <anteroom/timer.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "caller.h"
#include "house.h"
#include "judge.h"
#include "peers.h"
#include "scenarios.h"

namespace anteroom::torture {
namespace {

using faults::Call;
using faults::Fault;
using faults::Tortured;
using std::chrono::milliseconds;

/// Where there is nobody to answer: made once, for all runs.
struct Deserts {
  RawSocket refusing = RawSocket::bound(Endpoint("127.0.0.1", 0));
  RawSocket full = RawSocket::listening(Endpoint("127.0.0.1", 0), 0);
  RawSocket in_the_only_place = RawSocket::open(AF_INET);
  RawSocket full_unix = RawSocket::listening(Endpoint::unix_path("@anteroom-torture-full-" + unix_path()), 0);
  RawSocket in_the_only_unix_place = RawSocket::open(AF_UNIX);

  Deserts() {
    (void)in_the_only_place.connect(full.local());
    (void)in_the_only_unix_place.connect(full_unix.local());
  }
};

const Deserts& deserts() {
  static const Deserts made;
  return made;
}

/// A Connector that calls raw servers, and deserts.
class Client {
 public:
  Client(const Fault* fault, Report& report)
      : fault_(fault),
        report_(report),
        tcp_(Endpoint("127.0.0.1", 0)),
        unix_(Endpoint::unix_path("@anteroom-torture-" + unix_path())) {}

  void run() {
    ConnectionHandlers handlers = caller_.handlers();
    const bool refused = refuses(fault_, report_, [&] {
      reactor_.emplace();
      connector_.emplace(
          *reactor_, std::move(handlers),
          ConnectionOptions{.high_watermark_bytes = 1 << 20, .read_bytes_per_turn_max = 64 * 1024});
    });
    if (!refused) {
      call_everybody();
      settle();
      faults::disarm();
      call_once_more();
      faults::rearm();
    }
    finish();
  }

 private:
  void call_everybody() {
    static const std::string_view small = "Echo this";
    const Endpoint tcp = tcp_.endpoint();
    caller_.add({.to = tcp, .request = small, .answer = small});
    caller_.add({.to = deserts().refusing.local(), .request = small, .error_expected = ECONNREFUSED});
    caller_.add({.to = deserts().full.local(),
                 .request = small,
                 .error_expected = ETIMEDOUT,
                 .options = {.deadline = std::chrono::microseconds(500)}});
    caller_.add({.to = tcp, .request = kLongRequest, .answer = kLongRequest});
    caller_.add({.to = unix_.endpoint(), .request = small, .answer = small});
    caller_.add({.to = unix_.endpoint(), .request = kLongRequest, .answer = kLongRequest});
    caller_.add(
        {.to = tcp, .request = small, .answer = small, .options = {.source = Endpoint("127.0.0.2", 0)}});
    caller_.add({.to = tcp, .error_expected = ECANCELED});
    caller_.add({.to = tcp, .request = "Reset", .error_expected = ECONNRESET});
    caller_.add({.to = deserts().full_unix.local(), .request = small, .error_expected = EAGAIN});
    caller_.add({.to = tcp, .stays = true});
    caller_.call(*connector_);
  }

  void call_once_more() {
    static const std::string_view fresh = "Echo to a fresh caller";
    const int cost = cost_max(fault_, Side::kClient);
    if (caller_.lost() > cost) {
      fail(report_, fmt::format("{} connections are lost, {} may be:{}", caller_.lost(), cost,
                                caller_.describe(false)));
    }
    caller_.add({.to = tcp_.endpoint(), .request = fresh, .answer = fresh});
    caller_.call(*connector_);
    settle();
    if (!caller_.last().is_as_expected()) {
      fail(report_, "the fault is over, and a fresh call is not answered:" + caller_.last().to_string());
    }
  }

  bool step() {
    const bool moved = tcp_.step();
    return unix_.step() || moved;
  }

  void settle() {
    const Patience patience;
    int idle_turns = 0;
    while (!caller_.is_settled() && report_.failure.empty()) {
      if (lasts(fault_) && faults::injected() > 0 && patience.elapsed() > kHold.count()) faults::disarm();
      const bool moved = step();
      if (!moved) ++idle_turns;
      turn(*reactor_, fault_, report_, milliseconds(moved ? 0 : 1));
      if (patience.is_spinning(fault_, idle_turns)) {
        fail(report_, fmt::format("spins: {} idle turns in {} ms", idle_turns, patience.elapsed()));
      }
      if (patience.is_at_an_end()) fail(report_, "calls never end:" + caller_.describe(true));
    }
  }

  void finish() {
    const std::string trouble = caller_.trouble();
    if (!trouble.empty()) fail(report_, trouble);
    const int closes = caller_.closes();
    {
      const Tortured tortured;
      connector_.reset();
    }
    for (const Patience patience; reactor_ && report_.failure.empty();) {
      turn(*reactor_, fault_, report_, milliseconds(0));
      while (step()) {
      }
      if (tcp_.is_empty() && unix_.is_empty()) break;
      if (patience.is_at_an_end()) fail(report_, "the connector has ended, but not its connections");
    }
    if (caller_.closes() != closes) fail(report_, "a handler of a connector that has ended is called");
    const Tortured tortured;
    reactor_.reset();
  }

  const Fault* const fault_;
  Report& report_;
  RawEcho tcp_;
  RawEcho unix_;
  std::optional<Reactor> reactor_;
  Caller caller_;
  std::optional<Connector> connector_;
};

// ---- Both in one reactor

/// A server and its clients, a signal, timers and posted work: one run() until all of it has happened.
class Household {
 public:
  Household(const Fault* fault, Report& report) : fault_(fault), report_(report), house_(reactor_) {}

  void run() {
    if (start()) {
      live();
      judge();
    }
    finish();
  }

 private:
  bool start() {
    struct sigaction ignore {};
    ignore.sa_handler = [](int) {};  // what was not told is delivered in the end, signals.h
    ::sigaction(SIGUSR1, &ignore, nullptr);
    house_.changed = caller_.changed = [this] { look(); };
    ConnectionHandlers door = house_.handlers();
    ConnectionHandlers calls = caller_.handlers();
    return !refuses(fault_, report_, [&] {
      reactor_.emplace();
      signals_.emplace(*reactor_, std::initializer_list<int>{SIGUSR1}, [this](int) {
        ++signals_told_;
        look();
      });
      acceptor_.emplace(*reactor_, Endpoint("127.0.0.1", 0), std::move(door));
      connector_.emplace(*reactor_, std::move(calls));
      ticking_.emplace(*reactor_, [this] {
        if (++ticks_ >= 2) ticking_.reset();
        look();
      });
      ticking_->arm_every(milliseconds(1));
      reactor_->post([this] {
        ++posts_run_;
        look();
      });
    });
  }

  void live() {
    static const std::string_view small = "Echo this";
    const Endpoint door = acceptor_->endpoint();
    caller_.add({.to = door, .request = small, .answer = small});
    caller_.add({.to = door, .request = kLongRequest, .answer = kLongRequest});
    caller_.add({.to = door, .request = "L", .answer = kLongAnswer});
    caller_.add({.to = door, .request = "Q", .answer = "bye"});
    caller_.call(*connector_);
    (void)::syscall(SYS_tgkill, ::getpid(), static_cast<int>(::syscall(SYS_gettid)), SIGUSR1);

    Timer lift(*reactor_, [] { faults::disarm(); });
    if (lasts(fault_)) lift.arm(kHold);
    Timer limit(*reactor_, [this] {
      is_late_ = true;
      reactor_->stop();
    });
    limit.arm(kPatience);
    while (!is_done() && !is_late_ && report_.failure.empty()) run_once();
  }

  void run_once() {
    try {
      const Tortured tortured;
      reactor_->run();
    } catch (const std::system_error& error) {
      if (!may_throw(fault_, error.code())) fail(report_, fmt::format("run() throws: {}", error.what()));
      if (patience_.elapsed() > kHold.count()) faults::disarm();
    }
  }

  bool is_done() const {
    return caller_.is_settled() && house_.living() == 0 && signals_told_ > 0 && posts_run_ > 0 && ticks_ >= 2;
  }
  void look() {
    if (is_done()) reactor_->stop();
  }

  void judge() {
    faults::disarm();
    if (is_late_) {
      fail(report_, fmt::format("never ends: {} guests, {} signals, {} posts, {} ticks, calls:{}",
                                house_.living(), signals_told_, posts_run_, ticks_, caller_.describe(true)));
    }
    const int cost = cost_max(fault_, Side::kBoth);
    if (caller_.lost() > cost) {
      fail(report_, fmt::format("{} connections are lost, {} may be:{}", caller_.lost(), cost,
                                caller_.describe(false)));
    }
    const bool ends_waits =
        fault_ != nullptr && (fault_->call == Call::kEpollWait || fault_->call == Call::kEpollPwait2);
    const int waits = faults::count(Call::kEpollWait) + faults::count(Call::kEpollPwait2);
    if (waits > 500 + 4 * patience_.elapsed() + (ends_waits || !lasts(fault_) ? 4 * faults::injected() : 0)) {
      fail(report_, fmt::format("spins: {} turns in {} ms", waits, patience_.elapsed()));
    }
    if (house_.trouble() != nullptr) fail(report_, house_.trouble());
    const std::string trouble = caller_.trouble();
    if (!trouble.empty()) fail(report_, trouble);
    faults::rearm();
  }

  void finish() {
    const Tortured tortured;
    ticking_.reset();
    connector_.reset();
    acceptor_.reset();
    signals_.reset();
    reactor_.reset();
  }

  const Fault* const fault_;
  Report& report_;
  const Patience patience_;
  int signals_told_ = 0;
  int posts_run_ = 0;
  int ticks_ = 0;
  bool is_late_ = false;
  std::optional<Reactor> reactor_;
  House house_;
  Caller caller_;
  std::optional<Signals> signals_;
  std::optional<Acceptor> acceptor_;
  std::optional<Connector> connector_;
  std::optional<Timer> ticking_;
};

}  // namespace

void prepare_deserts() {
  (void)deserts();
  Reactor reactor;  // the eventfd of all signals, which the process keeps
  const Signals signals(reactor, {SIGUSR2}, [](int) {});
}
void client(const Fault* fault, Report& report) { Client(fault, report).run(); }
void household(const Fault* fault, Report& report) { Household(fault, report).run(); }

}  // namespace anteroom::torture
