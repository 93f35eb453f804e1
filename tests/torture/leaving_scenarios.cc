// Servers that leave, alone, out of a group, or for a successor, and lose nobody.
#include <anteroom/acceptor.h>
#include <anteroom/handover.h>
#include <anteroom/reactor.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "guests.h"
#include "house.h"
#include "judge.h"
#include "scenarios.h"
#include "server.h"

namespace anteroom::torture {
namespace {

using End = Script::End;
using faults::Call;
using faults::Fault;
using faults::Tortured;
using std::chrono::milliseconds;

const Script kEchoes{.request = "Echo and FIN", .answer = "Echo and FIN"};
const Script kStays{.end = End::kStay};
const Script kHearsALot{.request = "L",
                        .answer = kLongAnswer,
                        .end = End::kHearOut,
                        .bytes_read_per_step = 64 * 1024,
                        .receive_buffer = kReceiveBuffer};
/// Begins nothing, and wants to be told when the house is left.
const Script kIdles{.end = End::kExpectReset};

/// Whether nobody listens there.
bool is_refused(const Endpoint& at) {
  const RawSocket caller = RawSocket::open(at.family());
  char byte = 0;
  return caller.connect(at) == ECONNREFUSED || caller.recv(&byte, 1) == -ECONNREFUSED;
}

/// What a drain has attached and not taken off again, seen by another holder of the socket. Null if
/// there is nothing. A system that takes back nothing is no fault of the drain.
const char* left_on(int socket, const Fault* fault) {
  if (fault != nullptr && (fault->call == Call::kSetsockopt || fault->call == Call::kGetsockopt))
    return nullptr;
  socklen_t instructions = 0;
  (void)::syscall(SYS_getsockopt, socket, SOL_SOCKET, SO_ATTACH_FILTER, nullptr, &instructions);
  if (instructions > 0) return "a filter stays on the socket";
  const int ignored = 0;
  const bool was_steered =
      ::syscall(SYS_setsockopt, socket, SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, &ignored, sizeof(ignored)) == 0;
  return was_steered ? "the group stays steered" : nullptr;
}

/// A door with its guests, of which there may be several in one reactor.
struct Wing {
  explicit Wing(std::optional<Reactor>& reactor) : house(reactor) {}

  void open(Reactor& reactor, Listener listener, ConnectionHandlers handlers) {
    at = local_with_small_buffer(listener.fd());
    acceptor.emplace(reactor, std::move(listener), std::move(handlers));
  }
  void open(Reactor& reactor, Listener listener) {
    open(reactor, std::move(listener), house.handlers_of_leaving());
  }

  /// False if there was no memory for it, and nothing was done.
  bool drain(const DrainOptions& options) {
    try {
      const Tortured tortured;
      DrainOptions told = options;
      told.door_closed = [this] { ++doors_closed; };
      acceptor->drain(told, [this](std::size_t count) {
        ++drained;
        cut = count;
      });
      return true;
    } catch (const std::bad_alloc&) {
      return false;
    }
  }
  bool has_left() const { return drained > 0; }

  Endpoint at;
  House house;
  std::optional<Acceptor> acceptor;
  int doors_closed = 0;
  int drained = 0;
  std::size_t cut = 0;
};

/// What all who leave have in common.
class Leaving {
 public:
  Leaving(const Fault* fault, Report& report)
      : fault_(fault), report_(report), guests_(fault, report), leaves_(reactor_), stays_(reactor_) {}

 protected:
  bool start(const std::function<void()>& open) {
    return !refuses(fault_, report_, [&] {
      reactor_.emplace();
      open();
    });
  }

  void turn_once(milliseconds wait) { turn(*reactor_, fault_, report_, wait); }
  /// Until all have got what they came for and `is_settled`.
  void settle(const std::function<bool()>& is_settled, const char* what) {
    guests_.settle([this](milliseconds wait) { turn_once(wait); }, is_settled, what);
  }

  void drain(Wing& wing, const DrainOptions& options) {
    if (wing.drain(options)) return;
    if (fault_ == nullptr || fault_->call != Call::kNew) fail(report_, "drain() throws bad_alloc");
    faults::disarm();
    if (!wing.drain(options)) fail(report_, "drain() throws bad_alloc again");
  }

  /// From now on somebody else holds its socket, too.
  void keep(const Wing& wing) {
    keeper_ = static_cast<int>(::syscall(SYS_fcntl, wing.acceptor->fd(), F_DUPFD_CLOEXEC, 0));
  }

  void check(const Wing& wing) {
    if (keeper_ >= 0) {
      if (const char* const trouble = left_on(keeper_, fault_)) fail(report_, trouble);
      (void)::syscall(SYS_close, std::exchange(keeper_, -1));
    }
    if (wing.house.trouble() != nullptr) fail(report_, wing.house.trouble());
    if (wing.doors_closed != 1) fail(report_, fmt::format("door_closed is told {} times", wing.doors_closed));
    if (wing.drained != 1) fail(report_, fmt::format("drained is told {} times", wing.drained));
    if (wing.acceptor->fd() >= 0 || wing.acceptor->open_connections() > 0)
      fail(report_, "has drained, and has a door or guests");
  }

  /// Who is told that nobody waits takes that for the end of the queue; or that a guest says nothing, for
  /// idle.
  int drain_cost_max() const {
    const bool is_lied_to = fault_ != nullptr && fault_->error == EAGAIN &&
                            (fault_->call == Call::kAccept4 || fault_->call == Call::kRecv);
    return is_lied_to ? faults::injected() : cost_max(fault_, Side::kServer);
  }

  void finish() {
    if (keeper_ >= 0) (void)::syscall(SYS_close, std::exchange(keeper_, -1));
    const Tortured tortured;
    leaves_.acceptor.reset();
    stays_.acceptor.reset();
    reactor_.reset();
  }

  const Fault* const fault_;
  Report& report_;
  std::optional<Reactor> reactor_;
  Guests guests_;
  Wing leaves_;
  Wing stays_;
  int keeper_ = -1;  // somebody else's
};

/// Some are inside, and some wait in the queue: all of them are served, or sent away, and then nobody is let
/// in any more.
class LeavesAlone : public Leaving {
 public:
  using Leaving::Leaving;

  void run() {
    if (start([&] { leaves_.open(*reactor_, Listener(Endpoint("127.0.0.1", 0))); })) {
      come({kEchoes, kHearsALot, kIdles});
      turn_once(milliseconds(0));
      come({kEchoes});
      keep(leaves_);
      drain(leaves_, {.deadline = milliseconds(3000), .handshakes = milliseconds(1)});
      settle([&] { return leaves_.has_left(); }, "the drain");
      faults::disarm();
      judge();
      faults::rearm();
    }
    finish();
  }

  /// One of them will not go by himself. Those whom the fault delays may be cut with him.
  void run_in_a_hurry() {
    constexpr milliseconds kDeadline{8};
    const Clock::time_point begin = Clock::now();
    if (start(
            [&] { leaves_.open(*reactor_, Listener(Endpoint("127.0.0.1", 0)), leaves_.house.handlers()); })) {
      come({kEchoes, kStays, kIdles});
      turn_once(milliseconds(0));
      drain(leaves_, {.deadline = kDeadline, .handshakes = milliseconds(1)});
      settle([&] { return leaves_.has_left(); }, "the drain");
      faults::disarm();
      if (report_.failure.empty()) check(leaves_);
      if (fault_ == nullptr && (leaves_.cut == 0 || Clock::now() - begin < kDeadline))
        fail(report_, "the one who stays is not cut at the deadline");
      faults::rearm();
    }
    finish();
  }

 private:
  void come(const std::vector<Script>& wave) {
    for (const Script& script : wave) guests_.admit(leaves_.at, script);
    (void)guests_.step();
  }

  void judge() {
    if (!report_.failure.empty()) return;
    check(leaves_);
    if (!is_refused(leaves_.at)) fail(report_, "somebody still listens");
    guests_.judge(drain_cost_max());
    if (leaves_.cut > 0) fail(report_, fmt::format("{} connections are cut", leaves_.cut));
  }
};

/// Two doors at one address, of which one goes; all the while guests come. From the group that it leaves
/// nobody is lost.
class LeavesAGroup : public Leaving {
 public:
  using Leaving::Leaving;

  void run() {
    const bool is_up = start([&] {
      leaves_.open(*reactor_, Listener(Endpoint("127.0.0.1", 0), {.reuse_port = true}));
      stays_.open(*reactor_, Listener(leaves_.at, {.reuse_port = true}));
    });
    if (is_up) {
      for (int i = 0; i < 4; ++i) guests_.admit(leaves_.at, kEchoes);
      (void)guests_.step();
      drain(leaves_, {.deadline = milliseconds(3000), .handshakes = milliseconds(1)});
      for (int more = 4; more > 0 && may_come() && report_.failure.empty(); --more) {
        guests_.admit(leaves_.at, kEchoes);
        (void)guests_.step();
        turn_once(milliseconds(0));
      }
      settle([&] { return leaves_.has_left(); }, "the drain");
      judge();
    }
    finish();
  }

 private:
  /// Where the kernel does not tell of a group, or does not take the program that sends guests to its others,
  /// their SYNs are refused, and a second is lost.
  bool may_come() const {
    return fault_ == nullptr || (fault_->call != Call::kSetsockopt && fault_->call != Call::kGetsockopt);
  }

  void judge() {
    faults::disarm();
    if (!report_.failure.empty()) return;
    check(leaves_);
    if (const char* const trouble = left_on(stays_.acceptor->fd(), fault_)) fail(report_, trouble);
    for (int i = 0; i < 2; ++i) guests_.admit(stays_.at, kEchoes);
    settle([] { return true; }, "the other door");
    if (!report_.failure.empty()) return;
    guests_.expect_served(2);
    guests_.judge(drain_cost_max());
    if (stays_.house.trouble() != nullptr) fail(report_, stays_.house.trouble());
    faults::rearm();
  }
};

/// Two that have the same listener for a while: the one who leaves, and the one who comes. Whatever happens
/// between them, there is always one who accepts, and in the end it is the one who came.
class Succession {
 public:
  Succession(const Fault* fault, Report& report)
      : fault_(fault), report_(report), guests_(fault, report), old_(old_reactor_), new_(new_reactor_) {}

  void run() {
    faults::allow_blocking(true);
    current = this;
    if (start()) {
      come(2);
      succeed();
      come(2);
      settle([] { return true; }, "who came meanwhile");
      faults::disarm();
      if (said_ == std::errc::timed_out) hear_at_last();
      if (!has_succeeded()) try_again();
      leave();
      faults::rearm();
    }
    finish();
    faults::allow_blocking(false);
  }

 private:
  bool start() {
    return !refuses(fault_, report_, [&] {
      old_reactor_.emplace();
      old_.open(*old_reactor_, Listener(Endpoint("127.0.0.1", 0)));
      offer_.emplace(*old_reactor_, path_, handlers());
    });
  }

  HandoverHandlers handlers() {
    return {.listeners =
                [this] {
                  const faults::Spared spared;
                  return std::vector<OfferedListener>{{.name = "door", .fd = old_.acceptor->fd()}};
                },
            .handed_over = [this] { ++handed_over_; },
            .failed = [this](std::error_code) { ++refusals_; }};
  }

  void come(int count) {
    for (int i = 0; i < count; ++i) guests_.admit(old_.at, kEchoes);
    (void)guests_.step();
  }

  /// What the old one does while the new one waits for it.
  void old_turns() {
    const int interrupted = fault_ != nullptr && is_transient(*fault_) ? fault_->times : 0;
    for (int i = 0; i < 8 + std::min(interrupted, 100); ++i)
      turn(*old_reactor_, fault_, report_, milliseconds(0));
  }
  void turn_both(milliseconds wait) {
    if (new_reactor_) turn(*new_reactor_, fault_, report_, milliseconds(0));
    turn(*old_reactor_, fault_, report_, wait);
  }
  void settle(const std::function<bool()>& is_settled, const char* what) {
    guests_.settle([this](milliseconds wait) { turn_both(wait); }, is_settled, what);
  }

  /// As long as one lives, the old one turns whenever the new one waits.
  struct Visited {
    Visited() {
      faults::set_visitor([] { current->old_turns(); });
    }
    ~Visited() { faults::set_visitor(nullptr); }
    Visited(const Visited&) = delete;
    Visited& operator=(const Visited&) = delete;
  };

  bool has_succeeded() const { return handed_over_ > 0; }

  /// The new one's way in, as a program would go it.
  void succeed() {
    const bool refused = refuses_to_succeed([&] {
      handover_ = Handover::take(path_, kAnswer);
      if (!handover_) throw std::system_error(std::make_error_code(std::errc::no_such_process));
      new_reactor_.emplace();
      new_.open(*new_reactor_, std::move(handover_->listeners.at(0).listener));
      said_ = handover_->ready();
    });
    old_turns();
    const bool gives_up = refused || (said_ && said_ != std::errc::timed_out);
    if (gives_up) end_new();
    if (gives_up && has_succeeded()) fail(report_, "it has let go, and nobody has succeeded it");
    if (!gives_up && !said_ && !has_succeeded() && !is_lied_to())
      fail(report_, "both go on, each of which takes itself for the only one");
    if (has_succeeded() && report_.failure.empty()) offer_again();
  }

  template <class Succeed>
  bool refuses_to_succeed(Succeed&& succeed) {
    const Visited visited;
    try {
      const Tortured tortured;
      succeed();
      return false;
    } catch (const std::system_error& error) {
      if (fault_ == nullptr || may_not_refuse())
        fail(report_, fmt::format("cannot succeed: {}", error.what()));
    } catch (const std::bad_alloc&) {
      if (fault_ == nullptr || fault_->call != Call::kNew) fail(report_, "cannot succeed: bad_alloc");
    }
    return true;
  }
  bool may_not_refuse() const { return is_transient(*fault_) && fault_->error != EAGAIN; }

  /// Who is told again and again that the other one is not there any more has to believe it; and who cannot
  /// be told that it goes on, that it has ended.
  bool is_lied_to() const {
    if (fault_ == nullptr || fault_->times == 1) return false;
    const bool cannot_be_told = fault_->call == Call::kSend && fault_->error != 0 && fault_->error != EINTR;
    return cannot_be_told || (fault_->call == Call::kRecv && !is_transient(*fault_));
  }

  /// At the path of the old one. Without it, it serves all the same.
  void offer_again() {
    if (refuses(fault_, report_, [&] { successors_offer_.emplace(*new_reactor_, *handover_, handlers()); }))
      successors_offer_.reset();
  }

  void end_new() {
    const Tortured tortured;
    successors_offer_.reset();
    new_.acceptor.reset();
    handover_.reset();
    new_reactor_.reset();
  }

  /// It has gone on, as it was told to, and the old one lets go when it comes to it.
  void hear_at_last() {
    const Visited visited;
    const Tortured tortured;
    said_ = handover_->ready();
  }

  void try_again() {
    if (!report_.failure.empty()) return;
    end_new();
    settle([&] { return !offer_->is_taken(); }, "the first successor");
    come(1);
    succeed();
    if (!has_succeeded()) fail(report_, "the fault is over, and nobody can succeed");
  }

  void leave() {
    if (!report_.failure.empty()) return;
    if (!old_.drain({.deadline = milliseconds(3000), .handed_over = true})) fail(report_, "cannot drain");
    come(1);
    settle([&] { return old_.has_left(); }, "the drain");
    if (!report_.failure.empty()) return;
    come(1);
    settle([] { return true; }, "the successor");
    if (!report_.failure.empty()) return;
    guests_.expect_served(1);
    guests_.judge(cost_max(fault_, Side::kServer));
    for (const Wing* wing : {&old_, &new_}) {
      if (wing->house.trouble() != nullptr) fail(report_, wing->house.trouble());
    }
    if (handed_over_ != 1) fail(report_, fmt::format("it is handed over {} times", handed_over_));
  }

  void finish() {
    end_new();
    const Tortured tortured;
    offer_.reset();
    old_.acceptor.reset();
    old_reactor_.reset();
    remove_path_and_lock(path_);
  }

  static constexpr milliseconds kAnswer{20};
  static inline Succession* current = nullptr;

  const Fault* const fault_;
  Report& report_;
  const std::string path_ = unix_path() + "-handover";
  Guests guests_;
  std::optional<Reactor> old_reactor_;
  std::optional<Reactor> new_reactor_;
  Wing old_;
  Wing new_;
  std::optional<HandoverOffer> offer_;
  std::optional<HandoverOffer> successors_offer_;
  std::optional<Handover> handover_;
  std::error_code said_;
  int handed_over_ = 0;
  int refusals_ = 0;
};

}  // namespace

void handed_over_server(const Fault* fault, Report& report) { Succession(fault, report).run(); }
void drained_server(const Fault* fault, Report& report) { LeavesAlone(fault, report).run(); }
void hurried_server(const Fault* fault, Report& report) { LeavesAlone(fault, report).run_in_a_hurry(); }
void drained_group(const Fault* fault, Report& report) { LeavesAGroup(fault, report).run(); }

}  // namespace anteroom::torture
