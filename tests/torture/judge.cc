#include "judge.h"

#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <utility>

namespace anteroom::torture {

using faults::Call;
using faults::Fault;

namespace {

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
    case Call::kSendfile:
    case Call::kSendmsg:
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

}  // namespace

int milliseconds_since(Clock::time_point begin) {
  return static_cast<int>(
      std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - begin).count());
}

bool is_transient(const Fault& fault) {
  if (fault.bytes_max > 0 || fault.error == EINTR || fault.error == EINPROGRESS) return true;
  constexpr std::array kHaveLawfulEagain = {Call::kAccept4,  Call::kRead,    Call::kRecv,
                                            Call::kRecvmmsg, Call::kSend,    Call::kSendfile,
                                            Call::kSendmmsg, Call::kSendmsg, Call::kWrite};
  return fault.error == EAGAIN && std::ranges::find(kHaveLawfulEagain, fault.call) != kHaveLawfulEagain.end();
}

int cost_max(const Fault* fault, Side side) {
  return fault == nullptr || costs_nobody(*fault, side) ? 0 : faults::injected();
}

bool may_throw(const Fault* fault, const std::error_code& why) {
  if (fault == nullptr || is_transient(*fault) || why.value() != fault->error) return false;
  const bool has_another_way = fault->error == ENOSYS || fault->error == EPERM;
  return fault->call == Call::kEpollWait || (fault->call == Call::kEpollPwait2 && !has_another_way);
}

bool is_the_guests_trouble(int error) {
  constexpr std::array kErrors = {ECONNABORTED, EPROTO,    EPERM,        ENETDOWN,    ENETUNREACH,
                                  ENONET,       EHOSTDOWN, EHOSTUNREACH, ENOPROTOOPT, EOPNOTSUPP};
  return std::ranges::find(kErrors, error) != kErrors.end();
}

bool lasts(const Fault* fault) { return fault != nullptr && fault->times == faults::kForEver; }

void fail(Report& report, std::string why) {
  if (report.failure.empty()) report.failure = std::move(why);
}

void turn(Reactor& reactor, const Fault* fault, Report& report,
          std::optional<std::chrono::milliseconds> wait) {
  try {
    const faults::Tortured tortured;
    reactor.turn(wait);
  } catch (const std::system_error& error) {
    if (!may_throw(fault, error.code())) fail(report, fmt::format("a turn throws: {}", error.what()));
  }
}

std::string refused(const Fault* fault, const std::error_code& why) {
  if (fault == nullptr || is_transient(*fault)) return fmt::format("does not start: {}", why.message());
  if (why.value() == fault->error) return {};
  // Who could not look at a Unix path that was left behind, or not remove it, finds it in use.
  const bool path_stays = fault->call == Call::kLstat || fault->call == Call::kUnlink ||
                          fault->call == Call::kConnect || fault->call == Call::kSocket;
  if (path_stays && why.value() == EADDRINUSE) return {};
  return fmt::format("does not start, and gives a wrong reason: {}", why.message());
}

bool Patience::is_spinning(const Fault* fault, int idle_turns) const {
  const bool fault_ends_waits = fault != nullptr && (!lasts(fault) || fault->call == Call::kEpollWait ||
                                                     fault->call == Call::kEpollPwait2);
  return idle_turns > 100 + 4 * elapsed() + (fault_ends_waits ? 2 * faults::injected() : 0);
}

}  // namespace anteroom::torture
