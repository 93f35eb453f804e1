#include <anteroom/connector.h>
#include <anteroom/reactor.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "faults.h"
#include "scenario.h"
#include "support/own_network.h"
#include "support/sanitized.h"

namespace anteroom::torture {
namespace {

using faults::Call;
using faults::Fault;
using faults::kForEver;

constexpr int kFaultPointsMin = 1000;
constexpr int kFailuresMax = 3;  // of one test: then the rest is noise
constexpr int kUnknownError = 4000;
// With a sanitizer everything takes three to five times as long.
constexpr int kSparing = test::kIsSanitized ? 4 : 1;

int fault_points = 0;
int fault_points_in_all = 0;

/// The errors of the manual pages that can befall these calls, and where the kernel or a security module may
/// give any, one that nobody knows. EBADF, EFAULT and ENOTSOCK are left to calls whose every error has to be
/// survived.
std::vector<int> errors_of(Call call) {
  switch (call) {
    case Call::kAccept4:
      return {EAGAIN,      EBADF,           ECONNABORTED, EFAULT,          EINTR,    EINVAL, EMFILE,
              ENFILE,      ENOBUFS,         ENOMEM,       ENOTSOCK,        EPERM,    EPROTO, EOPNOTSUPP,
              ENOSR,       ESOCKTNOSUPPORT, ETIMEDOUT,    EPROTONOSUPPORT, ENETDOWN, ENONET, EHOSTDOWN,
              ENOPROTOOPT, EHOSTUNREACH,    ENETUNREACH,  kUnknownError};
    case Call::kBind:
      return {EACCES, EADDRINUSE, EADDRNOTAVAIL, EINVAL, ELOOP, ENAMETOOLONG, ENOENT, ENOMEM, ENOTDIR, EROFS};
    case Call::kClose:
      return {EINTR, EIO, ENOSPC, EDQUOT};
    case Call::kConnect:
      return {EACCES,   EADDRINUSE,  EADDRNOTAVAIL, EAFNOSUPPORT, EAGAIN,       EALREADY,    EBADF,
              EFAULT,   EINPROGRESS, EINTR,         EISCONN,      ECONNREFUSED, ENETUNREACH, EHOSTUNREACH,
              ENOTSOCK, ENOBUFS,     EPERM,         EPROTOTYPE,   ETIMEDOUT,    ENOENT,      kUnknownError};
    case Call::kEpollCreate1:
      return {EMFILE, ENFILE, ENOMEM};
    case Call::kEpollCtl:
      return {EEXIST, ELOOP, ENOENT, ENOMEM, ENOSPC, EPERM};
    case Call::kEpollPwait2:
      return {EINTR, ENOSYS, EPERM, EINVAL};
    case Call::kEpollWait:
      return {EINTR, EINVAL};
    case Call::kEventfd:
      return {EMFILE, ENFILE, ENODEV, ENOMEM};
    case Call::kFchmod:
      return {EIO, EPERM, EROFS};
    case Call::kFcntl:
      return {EACCES, EMFILE, EPERM};
    case Call::kFlock:
      return {EINTR, ENOLCK};
    case Call::kFstat:
      return {EACCES, ENOMEM};
    case Call::kGetpeername:
      return {ENOBUFS, ENOTCONN};
    case Call::kGetrandom:
      return {ENOSYS};
    case Call::kGetsockname:
      return {ENOBUFS};
    case Call::kGetsockopt:
      return {EBADF, EFAULT, EINVAL, ENOPROTOOPT, ENOTSOCK, ENOMEM, EACCES, kUnknownError};
    case Call::kIoctl:
      return {EINVAL, ENOTTY};
    case Call::kListen:
      return {EADDRINUSE, EOPNOTSUPP};
    case Call::kLstat:
      return {EACCES, ENOENT, ENOMEM, ENOTDIR};
    case Call::kOpen:
      return {EACCES, EINTR, EMFILE, ENFILE, ENOENT, ENOMEM};
    case Call::kPpoll:
      return {EINTR, ENOMEM};
    case Call::kRead:
      return {EAGAIN, EINTR};
    case Call::kRecv:
      return {EAGAIN,   EBADF,    ECONNREFUSED, ECONNRESET,   EFAULT,   EINTR, EINVAL,       ENOMEM,
              ENOTCONN, ENOTSOCK, ETIMEDOUT,    EHOSTUNREACH, ENETDOWN, EPIPE, kUnknownError};
    case Call::kSend:
      return {EACCES,   EAGAIN,     EALREADY, EBADF,     ECONNRESET,   EDESTADDRREQ, EFAULT,
              EINTR,    EINVAL,     EISCONN,  EMSGSIZE,  ENOBUFS,      ENOMEM,       ENOTCONN,
              ENOTSOCK, EOPNOTSUPP, EPIPE,    ETIMEDOUT, EHOSTUNREACH, ENETDOWN,     kUnknownError};
    case Call::kRecvmmsg:
      return {EAGAIN, EBADF,    ECONNREFUSED, EFAULT,   EINTR,        EINVAL,
              ENOMEM, ENETDOWN, ENOTCONN,     ENOTSOCK, EHOSTUNREACH, kUnknownError};
    case Call::kRecvmsg:
      return {EAGAIN, EBADF, ECONNRESET, EFAULT, EINTR, EINVAL, ENOMEM, ENOTCONN, ENOTSOCK, kUnknownError};
    case Call::kSendfile:
      return {EAGAIN,  EBADF,  ECONNRESET, EFAULT, EINTR,  EINVAL,    EIO,
              ENOBUFS, ENOMEM, EOVERFLOW,  EPIPE,  ESPIPE, ETIMEDOUT, kUnknownError};
    case Call::kSendmmsg:
    case Call::kSendmsg:
      return {EACCES,   EAGAIN,     EBADF,    ECONNREFUSED, ECONNRESET,   EDESTADDRREQ, EFAULT,
              EINTR,    EINVAL,     EMSGSIZE, ENETUNREACH,  ENOBUFS,      ENOMEM,       ENOTCONN,
              ENOTSOCK, EOPNOTSUPP, EPERM,    EPIPE,        EHOSTUNREACH, ENETDOWN,     kUnknownError};
    case Call::kSendto:
      return {EACCES, EAGAIN, ECONNREFUSED, EINTR, EMSGSIZE, ENOBUFS, ENOENT, ENOMEM, EPIPE};
    case Call::kSetsockopt:
      return {EDOM, EINVAL, ENOBUFS, ENOMEM, ENOPROTOOPT, EPERM};
    case Call::kShutdown:
      return {ENOTCONN, ENOBUFS, EINVAL};
    case Call::kSocket:
      return {EACCES, EAFNOSUPPORT, EINVAL, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPROTONOSUPPORT};
    case Call::kSocketError:
      return {ECONNREFUSED, ECONNRESET, ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, kUnknownError};
    case Call::kUnlink:
      return {EACCES, EBUSY, EIO, ENOENT, EPERM, EROFS};
    case Call::kWrite:
      return {EAGAIN, EINTR};
    case Call::kNew:
    case Call::kNewNothrow:
      return {ENOMEM};
    case Call::kCount:
      break;
  }
  return {};
}

/// How few bytes, or messages, a call may move.
std::vector<int> short_counts_of(Call call) {
  if (call == Call::kRecv || call == Call::kSend) return {1, 2, 7};
  if (call == Call::kSendfile || call == Call::kSendmsg) return {1, 7};
  if (call == Call::kRecvmmsg || call == Call::kSendmmsg) return {1};  // messages
  if (call == Call::kGetsockopt) return {104};                         // tcp_info of Linux 2.6
  return {};
}

/// What is over as soon as it has happened.
bool is_transient(int error) { return error == EINTR || error == EINPROGRESS || error == EAGAIN; }

/// One of each kind, to last longer than once.
bool is_in_earnest(Call call, int error) {
  switch (call) {
    case Call::kAccept4:
      return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM ||
             error == ECONNABORTED || error == kUnknownError;
    case Call::kRecv:
      return error == ECONNRESET || error == ENOMEM;
    case Call::kRecvmmsg:
      return error == ENOMEM || error == ECONNREFUSED;
    case Call::kSend:
    case Call::kSendmmsg:
    case Call::kSendmsg:
      return error == EPIPE || error == ENOBUFS;
    case Call::kSendfile:
      return error == EPIPE || error == EIO;
    default:
      return true;
  }
}

/// How often in a row. An EINTR or EAGAIN that lasts for ever is none. A doorman who rests needs 20 ms each
/// time.
std::vector<int> persistences_of(Call call, int error, int nth) {
  if (error == 0 || is_transient(error)) return {1, 3, 100};
  if (!is_in_earnest(call, error) || (call == Call::kAccept4 && nth > 8)) return {1};
  return {1, 3, kForEver};
}

bool tries_all() {
  const char* const wish = std::getenv("ANTEROOM_TORTURE");
  return wish != nullptr && std::string_view(wish) == "all";
}

/// One in so many: which ones is as good as random, and the same in every run.
bool is_of_sample(const Fault& fault, int one_in) {
  constexpr std::uint64_t kGoldenRatio = 0x9e3779b97f4a7c15;  // Fibonacci hashing: Knuth, TAOCP 6.4
  std::uint64_t number = 0;
  for (const int part : {fault.nth, fault.times, fault.error, fault.bytes_max})
    number = (number ^ static_cast<std::uint64_t>(part)) * kGoldenRatio;
  return (number >> 32) % static_cast<std::uint64_t>(one_in) == 0;
}

class Torture : public ::testing::TestWithParam<Call> {
 protected:
  /// What was found without a fault is there with one, too: nearly all of them happen.
  void TearDown() override {
    EXPECT_GE(2 * reached_, tried_);
    fault_points += reached_;
  }

  void try_all(const Scenario& scenario) {
    const Call call = GetParam();
    const int calls = run(scenario, nullptr).counts[static_cast<std::size_t>(call)];
    for (int nth = 1; nth <= calls; ++nth) {
      for (const int error : errors_of(call)) {
        if (!scenario.tries_every_error && !is_transient(error) && !is_in_earnest(call, error)) continue;
        for (const int times : persistences_of(call, error, nth)) {
          attempt(scenario, {.call = call, .nth = nth, .times = times, .error = error});
        }
      }
      for (const int bytes : short_counts_of(call)) {
        for (const int times : persistences_of(call, 0, nth)) {
          attempt(scenario, {.call = call, .nth = nth, .times = times, .bytes_max = bytes});
        }
      }
    }
  }

 private:
  void attempt(const Scenario& scenario, const Fault& fault) {
    if (failures_ >= kFailuresMax) return;
    ++fault_points_in_all;
    if (!is_of_sample(fault, tries_all() ? 1 : scenario.one_in * kSparing)) return;
    ++tried_;
    const Report report = run(scenario, &fault);
    if (report.injected > 0) ++reached_;
    if (report.failure.empty()) return;
    ++failures_;
    ADD_FAILURE() << scenario.name << ", where " << fault.to_string() << ": " << report.failure;
  }

  int failures_ = 0;
  int tried_ = 0;
  int reached_ = 0;
};

/// Adds up at the end.
class Books : public ::testing::Environment {
 public:
  /// So many connections leave more of themselves behind than there are ports.
  void SetUp() override {
    (void)test::set_network_sysctl("/proc/sys/net/ipv4/tcp_max_tw_buckets", "64");
    begin_ = std::chrono::steady_clock::now();
  }
  void TearDown() override {
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin_;
    fmt::print("torture: {} fault points of {} in {:.1f} s\n", fault_points, fault_points_in_all,
               seconds.count());
    const bool are_all = GTEST_FLAG_GET(filter) == "*";
    EXPECT_GE(fault_points, are_all ? kFaultPointsMin : 0);
  }

 private:
  std::chrono::steady_clock::time_point begin_;
};

[[maybe_unused]] const auto* const books = ::testing::AddGlobalTestEnvironment(new Books);

TEST(Torture, BeginsWithRunsWithoutAFault) {
  for (const Scenario& scenario : scenarios()) {
    for (int i = 0; i < 10; ++i) EXPECT_EQ(run(scenario, nullptr).failure, "") << scenario.name;
  }
}

TEST(Torture, ReachesEveryCall) {
  std::array<int, faults::kCalls> counts{};
  for (const Scenario& scenario : scenarios()) {
    const Report report = run(scenario, nullptr);
    std::ranges::transform(counts, report.counts, counts.begin(), std::plus<>());
  }
  for (std::size_t call = 0; call < faults::kCalls; ++call) {
    EXPECT_GT(counts[call], 0) << faults::name(static_cast<Call>(call));
  }
}

/// Whom it was about to call back is called back by the next turn, which does not wait for something else
/// first.
TEST(Reactor, LosesNothingWhenAWaitFails) {
  int closed = 0;
  Reactor reactor;
  Connector connector(reactor, {.closed = [&](Connection&, std::error_code) { ++closed; }});
  connector.connect(Endpoint::unix_path("@anteroom-torture-where-nobody-listens"));
  const Fault fault{.call = Call::kEpollWait, .error = EINVAL};
  faults::begin(&fault, "a reactor");
  {
    const faults::Tortured tortured;
    EXPECT_THROW(reactor.turn(), std::system_error);
  }
  faults::disarm();
  reactor.turn(std::chrono::seconds(10));
  EXPECT_EQ(closed, 1);
}

/// Asks to be called again, and then takes in many others, so that the reactor's lists have to grow.
class Host final : public Channel {
 public:
  Host(Reactor& reactor, int guests, int& called)
      : Channel(reactor, Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))), guests_(guests), called_(called) {}

 private:
  void on_ready(std::uint32_t /*events*/) noexcept override {
    ++called_;
    for (int i = 0; i < guests_; ++i) reactor().adopt(std::make_unique<Host>(reactor(), 0, called_));
  }

  const int guests_;
  int& called_;
};

/// Seen by AddressSanitizer only: the list of whom to call back moved while it was being read.
TEST(Reactor, MayTakeInManyWhileItCallsBack) {
  Reactor reactor;
  int called = 0;
  for (int i = 0; i < 2; ++i) reactor.again(reactor.adopt(std::make_unique<Host>(reactor, 64, called)));
  reactor.turn();
  EXPECT_EQ(called, 2);
}

TEST_P(Torture, CostsNobodyMoreThanTheFaultTakes) {
  for (const Scenario& scenario : scenarios()) try_all(scenario);
}

std::vector<Call> every_call() {
  std::vector<Call> calls;
  for (std::size_t call = 0; call < faults::kCalls; ++call) calls.push_back(static_cast<Call>(call));
  return calls;
}

INSTANTIATE_TEST_SUITE_P(Of, Torture, ::testing::ValuesIn(every_call()),
                         [](const auto& call) { return std::string(faults::name(call.param)); });

}  // namespace
}  // namespace anteroom::torture
