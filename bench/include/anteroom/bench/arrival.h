#pragma once
#include <chrono>
#include <cstdint>
#include <vector>

namespace anteroom::bench {

/// How the clients of a trial come.
enum class Arrival : std::uint8_t {
  kBurst,    ///< all at once
  kSteady,   ///< one every 1/rate
  kPoisson,  ///< independently of one another, at `rate` on average
};

/// When each client is to call, from the start of the trial and in order. It is fixed before the trial
/// begins, so that a slow server cannot slow the load down (an open loop). `rate` is in clients a second; a
/// burst has none.
std::vector<std::chrono::nanoseconds> schedule(Arrival arrival, int clients, double rate, std::uint64_t seed);

}  // namespace anteroom::bench
