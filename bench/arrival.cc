#include <anteroom/bench/arrival.h>
#include <anteroom/bench/random.h>

#include <cmath>

namespace anteroom::bench {

std::vector<std::chrono::nanoseconds> schedule(Arrival arrival, int clients, double rate,
                                               std::uint64_t seed) {
  std::vector<std::chrono::nanoseconds> times(static_cast<std::size_t>(clients), std::chrono::nanoseconds(0));
  if (arrival == Arrival::kBurst) return times;
  Random random(seed);
  const double gap_ns = 1e9 / rate;
  double at_ns = 0;
  for (std::chrono::nanoseconds& time : times) {
    time = std::chrono::nanoseconds(std::llround(at_ns));
    at_ns += arrival == Arrival::kSteady ? gap_ns : -std::log(random.unit()) * gap_ns;
  }
  return times;
}

}  // namespace anteroom::bench
