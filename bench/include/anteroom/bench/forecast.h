#pragma once
#include <anteroom/bench/scenario.h>

#include <cstdint>
#include <optional>
#include <string_view>

namespace anteroom::bench {

/// Which part of a load needs the most places.
enum class Term : std::uint8_t {
  kStall,    ///< rate x the time that nobody is accepted
  kBurst,    ///< those who call at once
  kService,  ///< the server is nearly busy all the time
};
std::string_view name(Term term) noexcept;  // "stall", "burst", "service"

/// What the models (models.h) say of a scenario before it is run.
struct Forecast {
  std::string_view model;  ///< "stall", "stall and bursts", "burst", "binomial", "M/M/1/K", "M/M/c/K"
  double loss = 0;         ///< share of clients that lose their first SYN, at the scenario's backlog
};

/// Nothing where no model of ours fits: a burst that races the server, a ramp, a closed loop, services that
/// are not exponential, several listeners but in a burst that a stall holds up.
/// `accepts_per_s` is what one thread of the server can accept.
std::optional<Forecast> forecast(const Scenario& scenario, double accepts_per_s);

/// The places that each part of a load needs alone, so that at most `loss` of the clients is turned away, and
/// which needs the most. 0 for a part that the load does not have.
struct Needs {
  double stall = 0;
  double burst = 0;
  double service = 0;
  /// What a stall needs that all bursts fall into that can: of a load that has both. Whether one does in a
  /// few runs is luck.
  double together = 0;

  Term dominant() const noexcept {
    if (stall >= burst && stall >= service) return Term::kStall;
    return burst >= service ? Term::kBurst : Term::kService;
  }
};
Needs needs(const Scenario& scenario, double accepts_per_s, double loss);

}  // namespace anteroom::bench
