#include <anteroom/bench/forecast.h>
#include <anteroom/bench/models.h>

#include <algorithm>
#include <cmath>

namespace anteroom::bench {
namespace {

using std::chrono::nanoseconds;

double in_seconds(nanoseconds duration) noexcept { return std::chrono::duration<double>(duration).count(); }

double places_of(int backlog) noexcept { return backlog == kUnlimitedBacklog ? 1e9 : backlog + 1.0; }

// A server that is slower than its load needs more places than there are.
constexpr double kNoQueueIsEnough = 1e9;

// A swarm calls at once about so fast; a stall has to last longer than that for a burst to meet it whole.
constexpr double kLaunchPerClientS = 50e-6;

bool has_stall(const Scenario& scenario) noexcept { return scenario.stall > nanoseconds(0); }

double period_s(const Scenario& scenario) noexcept {
  return in_seconds(scenario.stall_every > nanoseconds(0) ? scenario.stall_every : scenario.load_length());
}

double dispersion_of(const Scenario& scenario) noexcept {
  return scenario.arrival == Arrival::kSteady ? 0 : scenario.dispersion;
}

/// How long a stall is within the load: the only one of a load may outlast it.
double stall_within_load_s(const Scenario& scenario) noexcept {
  const double stall_s = in_seconds(scenario.stall);
  if (scenario.stall_every > nanoseconds(0)) return stall_s;
  return std::min(stall_s, in_seconds(scenario.load_length()) * 3 / 4);  // it begins a quarter into it
}

/// How many lose their place in one stall on average.
double lost_in_a_stall(const Scenario& scenario, double rate, double places) noexcept {
  const StallLoad load{.rate = rate,
                       .stall_s = stall_within_load_s(scenario),
                       .every_s = std::max(period_s(scenario), in_seconds(scenario.stall)),
                       .dispersion = dispersion_of(scenario)};
  return stall_loss_share(load, places) * load.rate * load.every_s;
}

/// Whether what comes in a stall is nearly normal, and comes whole or not at all.
bool is_for_the_stall_model(const Scenario& scenario) noexcept {
  const double mean = scenario.rate * in_seconds(scenario.stall);
  const double deviation = std::sqrt(dispersion_of(scenario) * mean);
  // SYNs that are under way when the queue fills become ghosts: few, as long as the stall is much longer.
  const bool is_near = scenario.rtt * 10 <= scenario.stall;
  const bool has_few_bursts = scenario.burst == 0 || scenario.burst_every >= scenario.stall;
  const bool is_mixed = scenario.arrival != Arrival::kOnOff ||
                        (scenario.stall_every > nanoseconds(0) && scenario.stall * 2 <= scenario.on);
  return is_near && has_few_bursts && is_mixed && (deviation == 0 || deviation * 2 < mean);
}

/// A stall that may hold one of the bursts that come on top, or fall into a time that is on.
double loss_by_stalls(const Scenario& scenario, double places) noexcept {
  double lost = 0;
  double rate_in_all = scenario.rate;
  if (scenario.arrival == Arrival::kOnOff) {
    const double share_on = in_seconds(scenario.on) / in_seconds(scenario.on + scenario.off);
    lost = share_on * lost_in_a_stall(scenario, scenario.rate / share_on, places);
  } else if (scenario.burst > 0) {
    const double chance = std::min(in_seconds(scenario.stall) / in_seconds(scenario.burst_every), 1.0);
    lost = (1 - chance) * lost_in_a_stall(scenario, scenario.rate, places);
    // The burst takes its places from the others, or if it is larger, is turned away itself.
    const double left = places - scenario.burst;
    lost += chance * (left >= 0 ? lost_in_a_stall(scenario, scenario.rate, left)
                                : lost_in_a_stall(scenario, scenario.rate, 0) - left);
    rate_in_all += scenario.burst / in_seconds(scenario.burst_every);
  } else {
    lost = lost_in_a_stall(scenario, scenario.rate, places);
  }
  return std::min(lost / (rate_in_all * period_s(scenario)), 1.0);
}

/// Whose service time is known to be exponential, and how many serve at once; 0 if it is not.
int servers_of(const Scenario& scenario) noexcept {
  if (scenario.handler.kind == Handling::kNone || !scenario.handler.is_exponential) return 0;
  const bool waits = scenario.handler.kind == Handling::kWait;
  switch (scenario.server) {
    case ServerKind::kBlocking:
      return 1;
    case ServerKind::kPool:
      return scenario.handler.kind == Handling::kCompute
                 ? 0
                 : scenario.threads;  // that many do not compute at once
    case ServerKind::kReactor:
    case ServerKind::kAcceptOne:
      return waits ? 0 : 1;
    default:
      return 0;
  }
}

}  // namespace

std::string_view name(Term term) noexcept {
  switch (term) {
    case Term::kStall:
      return "stall";
    case Term::kBurst:
      return "burst";
    case Term::kService:
      return "service";
  }
  return "?";
}

std::optional<Forecast> forecast(const Scenario& scenario, double accepts_per_s) {
  if (scenario.loop != Loop::kOpen || scenario.loss > 0) return std::nullopt;
  const double places = places_of(scenario.backlog);
  const bool has_handler = scenario.handler.kind != Handling::kNone;

  if (scenario.arrival == Arrival::kBurst) {
    const double within_s = in_seconds(scenario.burst_within);
    const double stall_s = in_seconds(scenario.stall);
    if (has_handler || scenario.rtt > nanoseconds(0)) return std::nullopt;
    const double launch_s = std::max(within_s, scenario.clients * kLaunchPerClientS);
    if (within_s == 0 && stall_s <= launch_s) return std::nullopt;  // a race
    // Nobody is accepted while the stall lasts; a hash has dealt the clients out to the listeners.
    if (scenario.server == ServerKind::kReactors) {
      if (stall_s <= launch_s) return std::nullopt;
      return Forecast{.model = "binomial",
                      .loss = reuseport_loss_share(scenario.clients, scenario.threads, places)};
    }
    if (stall_s > launch_s)
      return Forecast{.model = "burst", .loss = burst_loss_share(scenario.clients, 0, 0, places)};
    if (stall_s > 0) return std::nullopt;
    return Forecast{.model = "burst",
                    .loss = burst_loss_share(scenario.clients, within_s, accepts_per_s, places)};
  }

  if (scenario.server == ServerKind::kReactors) return std::nullopt;
  if (has_handler) {
    const int servers = servers_of(scenario);
    if (servers == 0 || has_stall(scenario) || scenario.arrival != Arrival::kPoisson || scenario.burst > 0 ||
        scenario.dispersion != 1)
      return std::nullopt;
    // What it computes is in the processor's time of a connection already.
    const bool computes = scenario.handler.kind == Handling::kCompute && accepts_per_s > 0;
    const double service_s =
        (computes ? 0 : in_seconds(scenario.handler.time)) + (accepts_per_s > 0 ? 1 / accepts_per_s : 0);
    return Forecast{.model = servers == 1 ? "M/M/1/K" : "M/M/c/K",
                    .loss = mmck_loss(scenario.rate * service_s, servers, servers + places)};
  }
  if (scenario.arrival == Arrival::kRamp) return std::nullopt;
  if (has_stall(scenario)) {
    if (!is_for_the_stall_model(scenario)) return std::nullopt;
    return Forecast{.model = scenario.burst > 0 ? "stall and bursts" : "stall",
                    .loss = loss_by_stalls(scenario, places)};
  }
  if (scenario.burst > 0 || scenario.arrival != Arrival::kPoisson || accepts_per_s <= 0) return std::nullopt;
  return Forecast{.model = "M/M/1/K", .loss = mm1k_loss(scenario.rate / accepts_per_s, places)};
}

Needs needs(const Scenario& scenario, double accepts_per_s, double loss) {
  Needs all;
  if (has_stall(scenario) && scenario.rate > 0) {
    const double on_share = scenario.arrival == Arrival::kOnOff
                                ? in_seconds(scenario.on) / in_seconds(scenario.on + scenario.off)
                                : 1;
    all.stall = stall_places({.rate = scenario.rate / on_share,
                              .stall_s = in_seconds(scenario.stall),
                              .every_s = std::max(period_s(scenario), in_seconds(scenario.stall)),
                              .dispersion = dispersion_of(scenario)},
                             loss);
  }
  const double burst = scenario.arrival == Arrival::kBurst ? scenario.clients : scenario.burst;
  if (burst > 0) {
    const double accepting_s = std::max(in_seconds(scenario.burst_within) - in_seconds(scenario.stall), 0.0);
    all.burst = burst_places(burst, accepting_s, accepts_per_s);
  }
  if (scenario.arrival != Arrival::kBurst && all.stall > 0 && scenario.burst > 0) {
    const double bursts = std::ceil(in_seconds(scenario.stall) / in_seconds(scenario.burst_every));
    all.together = all.stall + bursts * scenario.burst;
  }
  const bool holds_the_server = scenario.handler.kind == Handling::kBlock ||
                                (scenario.handler.kind == Handling::kWait &&
                                 servers_of(scenario) > 0);  // computing is in accepts_per_s
  if (scenario.rate > 0 && accepts_per_s > 0) {
    const double service_s = 1 / accepts_per_s + (holds_the_server ? in_seconds(scenario.handler.time) : 0);
    const double servers = scenario.server == ServerKind::kPool ? scenario.threads : 1;
    all.service = mm1k_places(scenario.rate * service_s / servers, loss).value_or(kNoQueueIsEnough);
  }
  return all;
}

}  // namespace anteroom::bench
