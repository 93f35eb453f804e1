#pragma once
#include <array>
#include <span>
#include <string>

#include "faults.h"

/// Little worlds of one thread and about a millisecond each, in which one fault happens, and what has to be
/// true afterwards.
///
/// Everybody gets exactly their bytes or sees their connection closed; nobody waits for ever. A fault costs
/// at most the connection that it hits, and a transient one (EINTR, a lawful EAGAIN, less moved than asked
/// for) or one at the door (accept4) costs nobody anything. Once it is over a fresh guest is served. Each
/// `closed` is told exactly once, no handler runs inside another, no descriptor is lost, and nobody spins
/// meanwhile.
namespace anteroom::torture {

/// What came of one run.
struct Report {
  std::string failure;  ///< empty if all that has to be true was
  int injected = 0;     ///< 0: the run never came to that call
  std::array<int, faults::kCalls> counts{};
};

struct Scenario {
  const char* name;
  void (*run)(const faults::Fault* fault, Report& report);
  /// Otherwise only errors that are transient, or that last: its calls are those of another scenario.
  bool tries_every_error;
  /// Of those that wait for clocks, or make the calls of others, only one fault point in so many is tried;
  /// all of them with ANTEROOM_TORTURE=all in the environment.
  int one_in = 1;
};

std::span<const Scenario> scenarios();

/// Runs it with `fault`, or with none if that is null.
Report run(const Scenario& scenario, const faults::Fault* fault);

}  // namespace anteroom::torture
