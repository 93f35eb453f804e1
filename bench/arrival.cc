#include <anteroom/bench/arrival.h>
#include <anteroom/bench/random.h>
#include <anteroom/bench/scenario.h>

#include <algorithm>
#include <cmath>

namespace anteroom::bench {
namespace {

using std::chrono::nanoseconds;

// By how much of itself a period is shifted, so that it does not resonate with SYNs that come again each
// 1.024 s.
constexpr double kJitter = 0.25;

double in_ns(nanoseconds duration) { return static_cast<double>(duration.count()); }

/// The times of those who come one after another, for ever.
class Background {
 public:
  explicit Background(const Scenario& scenario)
      : scenario_(scenario), random_(scenario.seed), gap_ns_(1e9 / scenario.rate) {
    if (scenario.arrival == Arrival::kOnOff) {
      gap_ns_ *= in_ns(scenario.on) / in_ns(scenario.on + scenario.off);
      begin_period(0);
    }
  }

  double next_ns() {
    switch (scenario_.arrival) {
      case Arrival::kPoisson:
        return next_of_batch();
      case Arrival::kOnOff:
        return next_while_on();
      case Arrival::kRamp:
        // The integral of rate x t / T has to reach i; T is then twice as long as at full rate.
        return std::sqrt(2 * count_++ * in_ns(scenario_.load_length()) * gap_ns_);
      default: {
        const double at = at_ns_;
        at_ns_ += gap_ns_;
        return at;
      }
    }
  }

 private:
  double exponential() { return -std::log(random_.unit()) * gap_ns_; }

  /// A compound Poisson process: batches at random, each of a geometric size with mean b = (I + 1) / 2, has
  /// the index of dispersion I (Cox and Lewis, "The Statistical Analysis of Series of Events", 1966).
  double next_of_batch() {
    if (left_in_batch_ > 0) {
      --left_in_batch_;
      return at_ns_;
    }
    const double mean_batch = (scenario_.dispersion + 1) / 2;
    if (count_++ > 0) at_ns_ += exponential() * mean_batch;
    if (mean_batch > 1) left_in_batch_ = std::floor(std::log(random_.unit()) / std::log1p(-1 / mean_batch));
    return at_ns_;
  }

  double next_while_on() {
    at_ns_ += exponential();
    while (at_ns_ >= on_until_ns_) {
      const double rest = at_ns_ - on_until_ns_;  // what of the gap falls into the next time that it is on
      begin_period(on_until_ns_ + in_ns(scenario_.off) * jittered());
      at_ns_ += rest;
    }
    return at_ns_;
  }
  void begin_period(double at) {
    at_ns_ = at;
    on_until_ns_ = at + in_ns(scenario_.on) * jittered();
  }
  double jittered() { return 1 + kJitter * (2 * random_.unit() - 1); }

  const Scenario& scenario_;
  Random random_;
  double gap_ns_;
  double at_ns_ = 0;
  double on_until_ns_ = 0;
  double left_in_batch_ = 0;
  double count_ = 0;
};

/// The times of those who come in bursts on top of that, one burst each period.
class Bursts {
 public:
  explicit Bursts(const Scenario& scenario)
      : scenario_(scenario), random_(scenario.seed ^ 0xb0b57), every_ns_(in_ns(scenario.burst_every)) {
    begin_next();
  }

  double peek_ns() const { return times_[next_]; }
  void pop() {
    if (++next_ == times_.size()) begin_next();
  }

 private:
  void begin_next() {
    const double middle = every_ns_ * (bursts_++ + 0.5 + kJitter * (2 * random_.unit() - 1));
    times_.clear();
    for (int i = 0; i < scenario_.burst; ++i)
      times_.push_back(middle + in_ns(scenario_.burst_within) * random_.unit());
    std::ranges::sort(times_);
    next_ = 0;
  }

  const Scenario& scenario_;
  Random random_;
  double every_ns_;
  double bursts_ = 0;
  std::vector<double> times_;
  std::size_t next_ = 0;
};

}  // namespace

std::vector<nanoseconds> schedule(const Scenario& scenario) {
  std::vector<nanoseconds> times(static_cast<std::size_t>(scenario.clients), nanoseconds(0));
  if (scenario.arrival == Arrival::kBurst) {
    Random random(scenario.seed);
    if (scenario.burst_within > nanoseconds(0)) {
      for (nanoseconds& time : times) {
        time = nanoseconds(std::llround(in_ns(scenario.burst_within) * (1 - random.unit())));
      }
    }
    std::ranges::sort(times);
    return times;
  }
  Background background(scenario);
  const auto at = [](double ns) { return nanoseconds(std::llround(ns)); };
  if (scenario.burst == 0) {
    for (nanoseconds& time : times) time = at(background.next_ns());
    return times;
  }
  Bursts bursts(scenario);
  double next_ns = background.next_ns();
  for (nanoseconds& time : times) {
    if (next_ns <= bursts.peek_ns()) {
      time = at(next_ns);
      next_ns = background.next_ns();
    } else {
      time = at(bursts.peek_ns());
      bursts.pop();
    }
  }
  std::ranges::sort(times);  // two long bursts may overlap
  return times;
}

}  // namespace anteroom::bench
