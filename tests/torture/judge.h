#pragma once
#include <anteroom/reactor.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <new>
#include <optional>
#include <string>
#include <system_error>

#include "faults.h"
#include "scenario.h"

/// What a fault may cost, and for how long.
namespace anteroom::torture {

using Clock = std::chrono::steady_clock;

inline constexpr std::chrono::milliseconds kPatience{5000};  // then somebody has been left hanging
inline constexpr std::chrono::milliseconds kHold{
    30};  // how long "for ever" is: longer than the doorman rests

int milliseconds_since(Clock::time_point begin);

enum class Side : std::uint8_t { kServer, kClient, kBoth };

/// It is over as soon as it has happened, and nobody is to notice.
bool is_transient(const faults::Fault& fault);

/// How many connections it may have cost by now.
int cost_max(const faults::Fault* fault, Side side);

/// A turn may throw what epoll_wait(2) says; for want of epoll_pwait2(2), or of leave to call it, there is
/// epoll_wait.
bool may_throw(const faults::Fault* fault, const std::error_code& why);

/// accept(2) reports these of the guest at the head of the queue.
bool is_the_guests_trouble(int error);

/// It goes on until it is lifted.
bool lasts(const faults::Fault* fault);

/// Keeps the first failure of all.
void fail(Report& report, std::string why);

/// One turn under torture.
void turn(Reactor& reactor, const faults::Fault* fault, Report& report,
          std::optional<std::chrono::milliseconds> wait);

/// Setting up may fail, if it says why. What is wrong with the reason; empty if nothing is.
std::string refused(const faults::Fault* fault, const std::error_code& why);

/// Runs `start` under torture. Whether it has thrown.
template <class Start>
bool refuses(const faults::Fault* fault, Report& report, Start&& start) {
  try {
    const faults::Tortured tortured;
    start();
    return false;
  } catch (const std::system_error& error) {
    report.failure = refused(fault, error.code());
  } catch (const std::bad_alloc&) {
    if (fault == nullptr || fault->call != faults::Call::kNew) report.failure = "does not start: bad_alloc";
  }
  return true;
}

/// How long what happens in turns may go on.
class Patience {
 public:
  /// Of a reactor that has nothing to do a turn lasts a millisecond; more turns than that mean that it spins.
  bool is_spinning(const faults::Fault* fault, int idle_turns) const;
  bool is_at_an_end() const { return elapsed() > kPatience.count(); }
  int elapsed() const { return milliseconds_since(begin_); }

 private:
  Clock::time_point begin_ = Clock::now();
};

}  // namespace anteroom::torture
