#pragma once
#include <chrono>
#include <cstdint>
#include <vector>

namespace anteroom::bench {

struct Scenario;

/// How the clients of a trial come.
enum class Arrival : std::uint8_t {
  kBurst,    ///< all at once, or within a given time
  kSteady,   ///< one every 1/rate
  kPoisson,  ///< independently of one another, at `rate` on average; in batches if the dispersion is above 1
  kOnOff,    ///< Poisson while it is on, nobody while it is off; `rate` on average over both
  kRamp,     ///< evenly, ever faster: from nobody a second to `rate` at the end
};

/// When each client is to call, from the start of the trial and in order. It is fixed before the trial
/// begins, so that a slow server cannot slow the load down (an open loop). The same scenario gives the same
/// times to the byte, everywhere. Uses of `scenario`: clients, arrival, rate, dispersion, on, off, burst,
/// burst_every, burst_within and seed.
std::vector<std::chrono::nanoseconds> schedule(const Scenario& scenario);

}  // namespace anteroom::bench
