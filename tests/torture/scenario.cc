#include "scenario.h"

#include <anteroom/acceptor.h>
#include <anteroom/blocking_server.h>
#include <anteroom/connector.h>
#include <anteroom/listen_queue.h>
#include <anteroom/reactor.h>
#include <anteroom/signals.h>
#include <anteroom/timer.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "peers.h"

namespace anteroom::torture {
namespace {

using faults::Call;
using faults::Fault;
using faults::kForEver;
using faults::Tortured;
using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr milliseconds kPatience{5000};  // then somebody has been left hanging
constexpr milliseconds kHold{30};        // how long "for ever" is: longer than the doorman rests

// The kernel doubles these (socket(7)). Small enough that large answers meet EAGAIN.
constexpr int kSendBuffer = 16 * 1024;
constexpr int kReceiveBuffer = 16 * 1024;

const std::string kLongRequest = pattern('E', 160 * 1024);
const std::string kLongAnswer = pattern('l', 200 * 1024);
const std::string kChatter = "Q" + pattern('q', 3000);
const std::string kUnixPath =
    fmt::format("{}anteroom-torture-{}", ::testing::TempDir(), static_cast<int>(::getpid()));

int milliseconds_since(Clock::time_point begin) {
  return static_cast<int>(std::chrono::duration_cast<milliseconds>(Clock::now() - begin).count());
}

// ---- What a fault may cost

enum class Side : std::uint8_t { kServer, kClient, kBoth };

bool is_transient(const Fault& fault) {
  if (fault.bytes_max > 0 || fault.error == EINTR || fault.error == EINPROGRESS) return true;
  const bool has_lawful_eagain = fault.call == Call::kAccept4 || fault.call == Call::kRecv ||
                                 fault.call == Call::kSend || fault.call == Call::kRead ||
                                 fault.call == Call::kWrite;
  return fault.error == EAGAIN && has_lawful_eagain;
}

/// Of one kind of call it is known to belong to one connection; all others have to be made good.
bool costs_nobody(const Fault& fault, Side side) {
  if (is_transient(fault)) return true;
  switch (fault.call) {
    case Call::kConnect:
    case Call::kEpollCtl:
    case Call::kNew:
    case Call::kNewNothrow:
    case Call::kRecv:
    case Call::kSend:
    case Call::kShutdown:
    case Call::kSocketError:
      return false;
    case Call::kBind:        // of a connector: its source address
    case Call::kGetsockopt:  // how connect(2) went, unless it is the doorman's question
    case Call::kSetsockopt:
    case Call::kSocket:
      return side == Side::kServer;
    default:
      return true;
  }
}

/// A turn may throw what epoll_wait(2) says; for want of epoll_pwait2(2), or of leave to call it, there is
/// epoll_wait.
bool may_throw(const Fault* fault, const std::error_code& why) {
  if (fault == nullptr || is_transient(*fault) || why.value() != fault->error) return false;
  const bool has_another_way = fault->error == ENOSYS || fault->error == EPERM;
  return fault->call == Call::kEpollWait || (fault->call == Call::kEpollPwait2 && !has_another_way);
}

int cost_max(const Fault* fault, Side side) {
  return fault == nullptr || costs_nobody(*fault, side) ? 0 : faults::injected();
}

/// accept(2) reports these of the guest at the head of the queue.
bool is_the_guests_trouble(int error) {
  constexpr std::array kErrors = {ECONNABORTED, EPROTO,    EPERM,        ENETDOWN,    ENETUNREACH,
                                  ENONET,       EHOSTDOWN, EHOSTUNREACH, ENOPROTOOPT, EOPNOTSUPP};
  return std::ranges::find(kErrors, error) != kErrors.end();
}

/// Setting up may fail, if it says why. Returns what is wrong with it.
std::string refused(const Fault* fault, const std::error_code& why) {
  if (fault == nullptr || is_transient(*fault)) return fmt::format("does not start: {}", why.message());
  if (why.value() == fault->error) return {};
  // Who could not look at a Unix path that was left behind, or not remove it, finds it in use.
  const bool path_stays = fault->call == Call::kLstat || fault->call == Call::kUnlink ||
                          fault->call == Call::kConnect || fault->call == Call::kSocket;
  if (path_stays && why.value() == EADDRINUSE) return {};
  return fmt::format("does not start, and gives a wrong reason: {}", why.message());
}

/// Runs `start` under torture. Whether it has thrown.
template <class Start>
bool refuses(const Fault* fault, Report& report, Start&& start) {
  try {
    const Tortured tortured;
    start();
    return false;
  } catch (const std::system_error& error) {
    report.failure = refused(fault, error.code());
  } catch (const std::bad_alloc&) {
    if (fault == nullptr || fault->call != Call::kNew) report.failure = "does not start: bad_alloc";
  }
  return true;
}

/// How long what happens in turns may go on.
class Patience {
 public:
  /// Of a reactor that has nothing to do a turn lasts a millisecond; more turns than that mean that it spins.
  bool is_spinning(const Fault* fault, int idle_turns) const {
    const bool fault_ends_waits =
        fault != nullptr &&
        (fault->times < kForEver || fault->call == Call::kEpollWait || fault->call == Call::kEpollPwait2);
    return idle_turns > 100 + 4 * elapsed() + (fault_ends_waits ? 2 * faults::injected() : 0);
  }
  bool is_at_an_end() const { return elapsed() > kPatience.count(); }
  int elapsed() const { return milliseconds_since(begin_); }

 private:
  Clock::time_point begin_ = Clock::now();
};

// ---- The server under test

/// Handlers that do what the first byte of a guest says, and watch how they are called.
class House {
 public:
  explicit House(std::optional<Reactor>& reactor) : reactor_(reactor) {}

  ConnectionHandlers handlers() {
    return {.open = [this](Connection& guest) { open(guest); },
            .data = [this](Connection& guest, std::string_view bytes) { data(guest, bytes); },
            .drained = [this](Connection&) { const Inside inside(*this); },
            .closed = [this](Connection& guest, std::error_code) { closed(guest); }};
  }

  int guests() const { return static_cast<int>(guests_); }
  int living() const {
    return static_cast<int>(std::count_if(records_.begin(),
                                          records_.begin() + static_cast<std::ptrdiff_t>(guests_),
                                          [](const Record& record) { return record.closes == 0; }));
  }
  const char* trouble() const { return trouble_; }
  std::function<void()> changed;

 private:
  struct Record {
    int closes = 0;
    char wish = 0;
  };

  class Inside {
   public:
    explicit Inside(House& house) : house_(house) {
      if (house_.inside_++ > 0) house_.trouble_ = "a handler runs inside another";
    }
    ~Inside() { --house_.inside_; }
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;

   private:
    House& house_;
  };

  void open(Connection& guest) {
    const Inside inside(*this);
    if (guests_ == records_.size()) return faults::die("more guests than there are"), void();
    guest.set_context(&records_[guests_++]);
  }

  void data(Connection& guest, std::string_view bytes) {
    const Inside inside(*this);
    Record& record = *static_cast<Record*>(guest.context());
    if (record.closes > 0) trouble_ = "data after closed";
    const bool first = record.wish == 0;
    if (first) record.wish = bytes.front();
    switch (record.wish) {
      case 'A':  // abort
        return guest.abort();
      case 'L':  // the long answer
        if (first) guest.send(kLongAnswer);
        return guest.close();
      case 'Q':  // quit, whatever comes behind it
        guest.send("bye");
        return guest.close();
      case 'W':  // wait
        guest.send(bytes);
        if (first) wait(guest);
        return;
      default:  // echo
        guest.send(bytes);
    }
  }

  void wait(Connection& guest) {
    guest.pause_reading();
    try {
      reactor_->post([this, id = guest.id()] {
        const Inside inside(*this);
        if (auto* const waiting = reactor_->find<Connection>(id)) waiting->resume_reading();
      });
    } catch (const std::bad_alloc&) {
      guest.resume_reading();
    }
  }

  void closed(Connection& guest) {
    const Inside inside(*this);
    if (++static_cast<Record*>(guest.context())->closes > 1) trouble_ = "closed is told twice";
    if (changed) changed();
  }

  std::optional<Reactor>& reactor_;
  int inside_ = 0;
  const char* trouble_ = nullptr;
  std::size_t guests_ = 0;
  std::array<Record, 64> records_;
};

/// Raw guests at the door of an Acceptor.
class Server {
 public:
  Server(const Fault* fault, Report& report, const Endpoint& at, int accepts_per_turn_max)
      : fault_(fault),
        report_(report),
        at_(at),
        accepts_per_turn_max_(accepts_per_turn_max),
        house_(reactor_) {}

  void run() {
    if (start()) {
      admit_the_first();
      settle();
      admit_the_second();
      settle();
      faults::disarm();
      admit_the_last();
      faults::rearm();
    }
    finish();
  }

 private:
  bool lasts() const { return fault_ != nullptr && fault_->times == kForEver; }

  void fail(std::string why) {
    if (report_.failure.empty()) report_.failure = std::move(why);
  }

  bool start() {
    ConnectionHandlers handlers = house_.handlers();
    AcceptorOptions options;
    options.connection = {.high_watermark_bytes = 32 * 1024,
                          .low_watermark_bytes = 8 * 1024,
                          .read_bytes_per_turn_max = 32 * 1024};
    options.accepts_per_turn_max = accepts_per_turn_max_;
    options.resting = [this](std::error_code, std::optional<std::uint32_t>) { told_of_rest_ = true; };
    return !refuses(fault_, report_, [&] {
      reactor_.emplace();
      Listener listener(at_);
      door_ = local(listener.fd());
      acceptor_.emplace(*reactor_, std::move(listener), std::move(handlers), std::move(options));
    });
  }

  /// Accepted sockets inherit the small buffer.
  static Endpoint local(int listener) {
    const RawSocket borrowed(static_cast<int>(::syscall(SYS_dup, listener)));
    borrowed.set_option(SOL_SOCKET, SO_SNDBUF, kSendBuffer);
    return borrowed.local();
  }

  void admit(const Script& script) { peers_.push_back(std::make_unique<Peer>(door_, script)); }

  /// All are there before the doorman looks.
  void admit_the_first() {
    using End = Script::End;
    static const std::string_view greeting = "Echo this, in pieces";
    static const std::string_view waiting = "Wait a moment, and then go on";
    admit({.request = greeting, .answer = greeting, .bytes_per_step = 7});
    admit({.request = kLongRequest,
           .answer = kLongRequest,
           .bytes_per_step = 80 * 1024,
           .bytes_read_per_step = 24 * 1024,
           .receive_buffer = kReceiveBuffer});
    admit({.request = "L",
           .answer = kLongAnswer,
           .end = End::kHearOut,
           .bytes_read_per_step = 32 * 1024,
           .receive_buffer = kReceiveBuffer});
    admit({.request = kChatter, .answer = "bye", .bytes_per_step = 1000});
    admit({.request = "Echo this to nobody", .answer = "Echo this to nobody", .end = End::kReset});
    admit({.request = "Abort", .end = End::kExpectReset});
    admit({.request = waiting, .answer = waiting, .end = End::kClose, .bytes_per_step = 13});
    for (const auto& peer : peers_) peer->step();
    turn(std::nullopt);
  }

  /// They come to a house that was empty: one says all at once, one nothing at all.
  void admit_the_second() {
    admit({.request = "Echo and FIN", .answer = "Echo and FIN"});
    admit({.end = Script::End::kStay});
    idle_ = peers_.back().get();
  }

  void admit_the_last() {
    const int lost_before = lost();
    admit({.request = "Echo to a fresh guest", .answer = "Echo to a fresh guest"});
    settle();
    if (peers_.back()->fate() != Peer::Fate::kServed) {
      fail("the fault is over, and a fresh guest is not served: " + peers_.back()->to_string());
    }
    const int cost = cost_max(fault_, Side::kServer);
    if (lost_before > cost) {
      fail(fmt::format("{} guests are lost, {} may be:{}", lost_before, cost, describe(Peer::Fate::kClosed)));
    }
    const std::string wrong = describe(Peer::Fate::kWrong);
    if (!wrong.empty()) fail("wrong bytes:" + wrong);
  }

  int lost() const {
    return static_cast<int>(
        std::ranges::count_if(peers_, [](const auto& peer) { return peer->fate() == Peer::Fate::kClosed; }));
  }

  std::string describe(Peer::Fate fate) const {
    std::string text;
    for (const auto& peer : peers_) {
      if (peer->fate() == fate) text += "\n    " + peer->to_string();
    }
    return text;
  }

  void turn(std::optional<milliseconds> wait) {
    try {
      const Tortured tortured;
      reactor_->turn(wait);
    } catch (const std::system_error& error) {
      if (!may_throw(fault_, error.code())) fail(fmt::format("a turn throws: {}", error.what()));
    }
  }

  bool is_settled() const {
    return std::ranges::all_of(peers_, [](const auto& peer) { return peer->is_done(); }) &&
           house_.living() <= (idle_ != nullptr ? 1 : 0);
  }

  /// Until everybody has got what they came for. What lasts for ever is lifted after a while.
  void settle() {
    const Patience patience;
    int idle_turns = 0;
    while (!is_settled() && report_.failure.empty()) {
      if (lasts() && faults::injected() > 0 && patience.elapsed() > kHold.count()) faults::disarm();
      bool moved = false;
      for (const auto& peer : peers_) moved = peer->step() || moved;
      if (!moved) ++idle_turns;
      turn(milliseconds(moved ? 0 : 1));
      if (patience.is_spinning(fault_, idle_turns)) {
        fail(fmt::format("spins: {} idle turns in {} ms", idle_turns, patience.elapsed()));
      }
      if (patience.is_at_an_end()) {
        fail(fmt::format("{} connections are not closed, and some are left hanging:{}", house_.living(),
                         describe(Peer::Fate::kUnderWay)));
      }
    }
    check_knocking();
  }

  /// The doorman comes to the door for an edge, for a descriptor that has closed, and every 20 ms.
  void check_knocking() {
    const int looks =
        faults::count(Call::kClose) + milliseconds_since(begin_) / 20 + static_cast<int>(peers_.size()) + 3;
    const bool each_may_be_dead = fault_ != nullptr && is_the_guests_trouble(fault_->error);
    const bool each_may_repeat = fault_ != nullptr && is_transient(*fault_);
    const int tries = each_may_be_dead ? accepts_per_turn_max_ : 1;
    const int accepts_max =
        static_cast<int>(peers_.size()) + looks * tries + (each_may_repeat ? faults::injected() : 0);
    if (faults::count(Call::kAccept4) > accepts_max) {
      fail(fmt::format("accept4 is called {} times where {} would do", faults::count(Call::kAccept4),
                       accepts_max));
    }
  }

  void check_books() {
    if (house_.trouble() != nullptr) fail(house_.trouble());
    if (!acceptor_) return;
    const AcceptorStats& stats = acceptor_->stats();
    const bool may_lose_the_accepted = fault_ != nullptr && fault_->call == Call::kNew;
    if (!may_lose_the_accepted && stats.accepted != static_cast<std::uint64_t>(house_.guests()))
      fail(fmt::format("{} guests are accepted, {} opened", stats.accepted, house_.guests()));
    if (told_of_rest_ != (stats.rests > 0)) fail("the doorman rests, and does not say so");
    // Guests wait 20 ms for each rest: nothing that a second try would have got over is worth that.
    const bool second_try_helps = fault_ == nullptr || is_transient(*fault_) ||
                                  (fault_->times == 1 && is_the_guests_trouble(fault_->error));
    if (stats.rests > 0 && second_try_helps) fail("the doorman rests for nothing");
  }

  void finish() {
    check_books();
    const int living = house_.living();
    {
      const Tortured tortured;
      acceptor_.reset();
    }
    for (const Patience patience; reactor_ && report_.failure.empty();) {
      turn(milliseconds(0));
      if (idle_ == nullptr || idle_->step() || idle_->fate() != Peer::Fate::kUnderWay) break;
      if (patience.is_at_an_end()) fail("the door is closed, but its guest is not");
    }
    if (house_.living() != living) fail("a handler of an acceptor that has ended is called");
    const Tortured tortured;
    reactor_.reset();
  }

  const Fault* const fault_;
  Report& report_;
  const Endpoint at_;
  const int accepts_per_turn_max_;
  const Clock::time_point begin_ = Clock::now();
  bool told_of_rest_ = false;
  Endpoint door_;
  std::optional<Reactor> reactor_;
  House house_;
  std::optional<Acceptor> acceptor_;
  std::vector<std::unique_ptr<Peer>> peers_;
  Peer* idle_ = nullptr;
};

void tcp_server(const Fault* fault, Report& report) {
  Server(fault, report, Endpoint("127.0.0.1", 0), 2).run();
}

/// Over a path that a dead server has left behind.
void unix_server(const Fault* fault, Report& report) {
  const Endpoint path = Endpoint::unix_path(kUnixPath);
  (void)RawSocket::bound(path);
  Server(fault, report, path, 64).run();
  const bool is_gone = ::access(kUnixPath.c_str(), F_OK) != 0;
  const bool was_taken = faults::count(Call::kListen) > 0;
  const bool may_stay = !was_taken || (fault != nullptr && fault->call == Call::kUnlink);
  if (!is_gone && !may_stay && report.failure.empty())
    report.failure = "the path of the Unix socket is left behind";
  (void)::syscall(SYS_unlink, kUnixPath.c_str());
}

// ---- The client under test

/// Where there is nobody to answer: made once, for all runs.
struct Deserts {
  RawSocket refusing = RawSocket::bound(Endpoint("127.0.0.1", 0));
  RawSocket full = RawSocket::listening(Endpoint("127.0.0.1", 0), 0);
  RawSocket in_the_only_place = RawSocket::open(AF_INET);
  RawSocket full_unix = RawSocket::listening(Endpoint::unix_path("@anteroom-torture-full-" + kUnixPath), 0);
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

/// One connection that is asked for, and what became of it.
struct Attempt {
  Endpoint to;
  std::string_view request;  // none: it is aborted as soon as it is open
  std::string_view answer;
  int error_expected = 0;
  ConnectOptions options;
  bool stays = false;  // is opened, and left to the destructor

  ConnectResult result;
  int opens = 0;
  int closes = 0;
  std::size_t received = 0;
  std::error_code error;

  bool has_ended() const { return stays || closes > 0 || result.error; }
  bool is_as_expected() const {
    const std::error_code why = result.error ? result.error : error;
    if (stays) return true;
    return why.value() == error_expected && (error_expected != 0 || received == answer.size());
  }
  std::string to_string() const {
    const std::error_code why = result.error ? result.error : error;
    return fmt::format("\n    to {} with '{}': opened {}, closed {} times ({}, expected {}), {} of {} bytes",
                       to.to_string(), request.substr(0, 1), opens, closes, why.message(),
                       std::error_code(error_expected, std::system_category()).message(), received,
                       answer.size());
  }
};

/// Calls out, and watches how its handlers are called.
class Caller {
 public:
  void add(Attempt attempt) { attempts_.push_back(std::move(attempt)); }

  ConnectionHandlers handlers() {
    return {.open = [this](Connection& connection) { open(connection); },
            .data = [this](Connection& connection, std::string_view bytes) { data(connection, bytes); },
            .closed = [this](Connection& connection, std::error_code error) { closed(connection, error); }};
  }

  /// All that were not called yet.
  void call(Connector& connector) {
    for (; called_ < attempts_.size(); ++called_) {
      Attempt& attempt = attempts_[called_];
      attempt.options.context = &attempt;
      const Tortured tortured;
      attempt.result = connector.connect(attempt.to, attempt.options);
    }
  }

  bool is_settled() const { return std::ranges::all_of(attempts_, &Attempt::has_ended); }
  int lost() const {
    return static_cast<int>(
        std::ranges::count_if(attempts_, [](const Attempt& attempt) { return !attempt.is_as_expected(); }));
  }
  const Attempt& last() const { return attempts_.back(); }
  int closes() const { return closes_; }

  std::string trouble() const {
    if (trouble_ != nullptr) return trouble_;
    for (const Attempt& attempt : attempts_) {
      if (attempt.opens > 1 || attempt.closes > 1) return "is opened or closed twice:" + attempt.to_string();
      if (attempt.result.error && attempt.opens + attempt.closes > 0)
        return "is refused, and goes on:" + attempt.to_string();
    }
    return {};
  }
  std::string describe(bool only_unended) const {
    std::string text;
    for (const Attempt& attempt : attempts_) {
      if (only_unended ? !attempt.has_ended() : !attempt.is_as_expected()) text += attempt.to_string();
    }
    return text;
  }

  std::function<void()> changed;

 private:
  void open(Connection& connection) {
    Attempt& attempt = enter(connection);
    ++attempt.opens;
    if (attempt.closes > 0) trouble_ = "open after closed";
    if (!attempt.request.empty()) {
      connection.send(attempt.request);
    } else if (!attempt.stays) {
      connection.abort();
    }
    inside_ = false;
  }

  void data(Connection& connection, std::string_view bytes) {
    Attempt& attempt = enter(connection);
    if (attempt.opens == 0 || attempt.closes > 0) trouble_ = "data of what is not open";
    if (attempt.answer.substr(attempt.received, bytes.size()) != bytes) {
      trouble_ = "wrong bytes";
      connection.abort();
    } else {
      attempt.received += bytes.size();
      if (attempt.received == attempt.answer.size()) connection.close();
    }
    inside_ = false;
  }

  void closed(Connection& connection, std::error_code error) {
    Attempt& attempt = enter(connection);
    ++attempt.closes;
    ++closes_;
    attempt.error = error;
    if (connection.was_open() != (attempt.opens > 0)) trouble_ = "was_open() is wrong";
    inside_ = false;
    if (changed) changed();
  }

  Attempt& enter(Connection& connection) {
    if (std::exchange(inside_, true)) trouble_ = "a handler runs inside another";
    return *static_cast<Attempt*>(connection.context());
  }

  std::vector<Attempt> attempts_ = [] {
    std::vector<Attempt> attempts;
    attempts.reserve(32);  // their addresses are contexts
    return attempts;
  }();
  std::size_t called_ = 0;
  int closes_ = 0;
  bool inside_ = false;
  const char* trouble_ = nullptr;
};

/// A Connector that calls raw servers, and deserts.
class Client {
 public:
  Client(const Fault* fault, Report& report)
      : fault_(fault),
        report_(report),
        tcp_(Endpoint("127.0.0.1", 0)),
        unix_(Endpoint::unix_path("@anteroom-torture-" + kUnixPath)) {}

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
  void fail(std::string why) {
    if (report_.failure.empty()) report_.failure = std::move(why);
  }

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
      fail(fmt::format("{} connections are lost, {} may be:{}", caller_.lost(), cost,
                       caller_.describe(false)));
    }
    caller_.add({.to = tcp_.endpoint(), .request = fresh, .answer = fresh});
    caller_.call(*connector_);
    settle();
    if (!caller_.last().is_as_expected()) {
      fail("the fault is over, and a fresh call is not answered:" + caller_.last().to_string());
    }
  }

  void turn(std::optional<milliseconds> wait) {
    try {
      const Tortured tortured;
      reactor_->turn(wait);
    } catch (const std::system_error& error) {
      if (!may_throw(fault_, error.code())) fail(fmt::format("a turn throws: {}", error.what()));
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
      const bool lasts = fault_ != nullptr && fault_->times == kForEver;
      if (lasts && faults::injected() > 0 && patience.elapsed() > kHold.count()) faults::disarm();
      const bool moved = step();
      if (!moved) ++idle_turns;
      turn(milliseconds(moved ? 0 : 1));
      if (patience.is_spinning(fault_, idle_turns)) {
        fail(fmt::format("spins: {} idle turns in {} ms", idle_turns, patience.elapsed()));
      }
      if (patience.is_at_an_end()) fail("calls never end:" + caller_.describe(true));
    }
  }

  void finish() {
    const std::string trouble = caller_.trouble();
    if (!trouble.empty()) fail(trouble);
    const int closes = caller_.closes();
    {
      const Tortured tortured;
      connector_.reset();
    }
    for (const Patience patience; reactor_ && report_.failure.empty();) {
      turn(milliseconds(0));
      while (step()) {
      }
      if (tcp_.is_empty() && unix_.is_empty()) break;
      if (patience.is_at_an_end()) fail("the connector has ended, but not its connections");
    }
    if (caller_.closes() != closes) fail("a handler of a connector that has ended is called");
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

void client(const Fault* fault, Report& report) { Client(fault, report).run(); }

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
  void fail(std::string why) {
    if (report_.failure.empty()) report_.failure = std::move(why);
  }

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
    if (fault_ != nullptr && fault_->times == kForEver) lift.arm(kHold);
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
      if (!may_throw(fault_, error.code())) fail(fmt::format("run() throws: {}", error.what()));
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
      fail(fmt::format("never ends: {} guests, {} signals, {} posts, {} ticks, calls:{}", house_.living(),
                       signals_told_, posts_run_, ticks_, caller_.describe(true)));
    }
    const int cost = cost_max(fault_, Side::kBoth);
    if (caller_.lost() > cost) {
      fail(fmt::format("{} connections are lost, {} may be:{}", caller_.lost(), cost,
                       caller_.describe(false)));
    }
    const bool ends_waits =
        fault_ != nullptr && (fault_->call == Call::kEpollWait || fault_->call == Call::kEpollPwait2);
    const int waits = faults::count(Call::kEpollWait) + faults::count(Call::kEpollPwait2);
    const bool lasts = fault_ != nullptr && fault_->times == kForEver;
    if (waits > 500 + 4 * patience_.elapsed() + (ends_waits || !lasts ? 4 * faults::injected() : 0)) {
      fail(fmt::format("spins: {} turns in {} ms", waits, patience_.elapsed()));
    }
    if (house_.trouble() != nullptr) fail(house_.trouble());
    const std::string trouble = caller_.trouble();
    if (!trouble.empty()) fail(trouble);
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

void household(const Fault* fault, Report& report) { Household(fault, report).run(); }

// ---- The textbook's server

BlockingServer* blocking_server = nullptr;
const RawSocket* blocking_door = nullptr;
int visits = 0;

/// Called before the server may block: when nobody waits any more it is to stop, and what lasts for ever is
/// lifted after a while.
void visit_blocking_server() {
  if (++visits > 10) faults::disarm();
  if (!blocking_door->is_readable()) blocking_server->stop();
}

void textbook_server(const Fault* fault, Report& report) {
  // shutdown(2) of a listener cannot fail, or else stop() could not stop; send(2) on a blocking socket knows
  // no EAGAIN.
  if (fault != nullptr &&
      (fault->call == Call::kShutdown || (fault->call == Call::kSend && fault->error == EAGAIN)))
    return;
  static const std::string_view greeting = "Hello World!";
  std::optional<BlockingServer> server;
  Endpoint endpoint;
  RawSocket door;
  const bool refused = refuses(fault, report, [&] {
    Listener listener(Endpoint("127.0.0.1", 0), {.blocking = true});
    door = RawSocket(static_cast<int>(::syscall(SYS_dup, listener.fd())));
    // A stall that is far away: so it polls before it accepts.
    server.emplace(std::move(listener),
                   BlockingServerOptions{.greeting = std::string(greeting),
                                         .stall = AcceptStall({{.begin = Clock::now() + std::chrono::hours(1),
                                                                .length = std::chrono::seconds(1)}}),
                                         .observe_queue = true});
  });
  if (!refused) {
    std::vector<std::unique_ptr<Peer>> peers;
    for (int i = 0; i < 3; ++i) {
      peers.push_back(
          std::make_unique<Peer>(door.local(), Script{.answer = greeting, .end = Script::End::kHearOut}));
    }
    visits = 0;
    blocking_server = &*server;
    blocking_door = &door;
    faults::allow_blocking(true);
    faults::set_visitor(visit_blocking_server);
    {
      const Tortured tortured;
      server->run();
    }
    faults::set_visitor(nullptr);
    faults::allow_blocking(false);
    door.close();
    int lost = 0;
    for (const auto& peer : peers) {
      for (const Patience patience; !peer->is_done() && !patience.is_at_an_end();) peer->step();
      if (!peer->is_done() || peer->fate() == Peer::Fate::kWrong) report.failure = peer->to_string();
      if (peer->fate() == Peer::Fate::kClosed) ++lost;
    }
    const int cost = cost_max(fault, Side::kServer);
    if (lost > cost) report.failure = fmt::format("{} guests are lost, {} may be", lost, cost);
  }
  const Tortured tortured;
  server.reset();
}

// ---- Setting up what the others do not

void setting_up(const Fault* fault, Report& report) {
  int backlog_max = 0;
  refuses(fault, report, [&] { backlog_max = system_backlog_max(); });
  if (backlog_max < 1) report.failure = "system_backlog_max() knows no number";

  refuses(fault, report, [&] {
    Listener listener(Endpoint("127.0.0.1", 0), {.backlog = 5, .reuse_port = true, .blocking = true});
    listener.set_backlog(6);
    const std::optional<ListenQueue> queue = listener.queue();
    const bool may_not_know = fault != nullptr && fault->call == Call::kGetsockopt;
    if (!may_not_know && (!queue || queue->limit != 6)) report.failure = "the listen queue is not known";
  });
  if (!report.failure.empty()) return;

  const auto open_before = open_descriptors().count();
  std::optional<Reactor> reactor;
  refuses(fault, report, [&] {
    reactor.emplace();
    Acceptor acceptor(*reactor, Endpoint("127.0.0.1", 0), {});
    acceptor.set_backlog(7);
    const Connector connector(*reactor, {});
    Timer timer(*reactor, [] {});
    timer.arm(milliseconds(1));
    const Signals signals(*reactor, {SIGUSR2}, [](int) {});
  });
  if (reactor && report.failure.empty()) {
    faults::disarm();
    refuses(nullptr, report, [&] { reactor->turn(milliseconds(0)); });
    // epoll and its eventfd: what did not come about, or has ended, leaves nothing in the reactor's hands.
    if (open_descriptors().count() != open_before + 2) report.failure = "a descriptor stays with the reactor";
    faults::rearm();
  }
  const Tortured tortured;
  reactor.reset();
}

constexpr std::array<Scenario, 6> kScenarios = {{
    {"a TCP server", tcp_server, true},
    {"a Unix server", unix_server, false},
    {"a client", client, true},
    {"a household", household, false},
    {"a textbook server", textbook_server, true},
    {"setting up", setting_up, true},
}};

}  // namespace

std::span<const Scenario> scenarios() { return kScenarios; }

Report run(const Scenario& scenario, const Fault* fault) {
  (void)deserts();
  const auto open_before = open_descriptors();
  Report report;
  faults::begin(fault, scenario.name);
  scenario.run(fault, report);
  faults::disarm();
  report.injected = faults::injected();
  for (std::size_t call = 0; call < faults::kCalls; ++call) {
    report.counts[call] = faults::count(static_cast<Call>(call));
  }
  const auto open_after = open_descriptors();
  if (report.failure.empty() && open_after != open_before)
    report.failure =
        fmt::format("{} descriptors are open before, {} after", open_before.count(), open_after.count());
  return report;
}

}  // namespace anteroom::torture
