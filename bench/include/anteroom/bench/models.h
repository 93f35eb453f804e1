#pragma once
#include <cstdint>
#include <optional>

namespace anteroom::bench {

// Queueing theory of the listen queue: how many clients a queue of a given size turns away, and how large it
// has to be. `places` is always backlog + 1, which is how many Linux admits. Shares and chances are from 0
// to 1, times in seconds, rates in a second. "Lost" is a client whose first SYN found no place; that it may
// come back a second later is not modelled. Without load nobody is lost.

// The stall: a loop that does something else for a while.

/// A server that accepts nobody for `stall_s`, once every `every_s`, and at once whoever comes in between.
struct StallLoad {
  double rate = 0;  ///< clients a second
  double stall_s = 0;
  double every_s = 1;  ///< from the beginning of a stall to that of the next one
  /// Variance over mean of the number that comes in a stall (the index of dispersion of counts, Cox and
  /// Lewis, 1966): 1 for Poisson, 0 for evenly spaced, more if they come in clumps.
  double dispersion = 1;
};

/// Expected share of clients that find no place. Who comes in a stall is taken to be normal with mean
/// m = rate x stall and deviation s = sqrt(dispersion x m); the expected excess over K places is then
/// s [phi(z) - z (1 - Phi(z))] with z = (K - m) / s (the loss function of Hadley and Whitin, Analysis of
/// Inventory Systems, 1963), out of rate x every clients.
/// Never more than came. A Poisson's tail is a little longer: one deviation above m = 100, the excess is 10 %
/// more than this. On Linux 6.18 with 2,000 clients a second and 0.3 s a second the kernel turned away within
/// 1 percentage point of this in each of 20 runs of 10 sizes.
double stall_loss_share(const StallLoad& load, double places) noexcept;
/// The smallest whole number of places at which at most `share` is lost. A normal never quite ends, so a
/// share of 0 asks for about 38 deviations: ask for one that matters.
double stall_places(const StallLoad& load, double share) noexcept;
/// m + z s, not rounded: a stall overflows so many places with the chance 1 - normal_cumulative(z), which is
/// 0.1 % at z = 3.09.
double stall_places_quantile(const StallLoad& load, double z) noexcept;

// Steady service: a server that never rests, and whose guests come and take as long as they like.

/// Share that M/M/1/K loses, (1 - rho) rho^K / (1 - rho^(K+1)), and 1 / (K+1) at rho = 1 (Kleinrock, Queueing
/// Systems 1, 1975, section 3.6). `rho` is the arrival rate over the service rate. Who is being served has
/// one of the places.
double mm1k_loss(double rho, double places) noexcept;
/// The smallest whole number of places at which at most `loss` is lost. Nothing if there is none: with
/// rho > 1 at least 1 - 1/rho is lost however long the queue, and never is nobody.
std::optional<double> mm1k_places(double rho, double loss) noexcept;

/// Share that a loss system of `servers` without a queue turns away (Erlang, 1917), by its recurrence
/// B(0) = 1, B(k) = a B(k-1) / (k + a B(k-1)). `erlangs` is the arrival rate x the mean time of service.
double erlang_b(double erlangs, int servers) noexcept;
/// Chance to have to wait in M/M/c, B / (1 - rho (1 - B)) with rho = a/c (Erlang, 1917); 1 from rho = 1 on.
double erlang_c(double erlangs, int servers) noexcept;
/// Share that M/M/c/K loses: Erlang's recurrence up to `servers`, and a geometric series for the queue, so it
/// costs no more for a long one and nothing overflows. `places_in_all` are those of the servers and the
/// queue's: for a blocking server threads + backlog + 1. Fewer places than servers are that many servers.
double mmck_loss(double erlangs, int servers, double places_in_all) noexcept;

/// Chance that more than `depth` are there, in heavy traffic, whatever the distributions:
/// exp(-2 k (1 - rho) / (rho ca2 + cs2)), the diffusion approximation (Kobayashi, Journal of the ACM 21,
/// 1974). `ca2` and `cs2` are the squared coefficients of variation of the gaps between arrivals and of the
/// times of service: 1 for exponential, 0 for constant. 1 from rho = 1 on.
double queue_tail(double rho, double ca2, double cs2, double depth) noexcept;
/// Mean wait in heavy traffic, rho / (1 - rho) x (ca2 + cs2) / 2 x `service_s` (Kingman, 1961); exact for
/// Poisson arrivals. Nothing from rho = 1 on, where it has no end.
std::optional<double> kingman_wait_s(double rho, double ca2, double cs2, double service_s) noexcept;

// The burst: all reconnect, because something that they were connected to has come back.

/// Places that `clients` need who call within `within_s`, evenly, while `served_per_s` are accepted:
/// N - mu w, from 0 to N. Conservation of flow; for calls that are not even add stall_places_quantile's z s.
double burst_places(double clients, double within_s, double served_per_s) noexcept;
/// Share of them that finds no place.
double burst_loss_share(double clients, double within_s, double served_per_s, double places) noexcept;

// SO_REUSEPORT: a queue for each listener, and a hash that says who goes where.

/// The smallest number of places for each of `listeners` such that when `clients` wait at once, the chance
/// that any queue overflows is at most `chance`. A listener has Binomial(N, 1/n) of them; the chances of the
/// n are added, which is never too few (Boole's inequality). Sums the exact terms; log-gamma gives them to
/// 1e-8 of their value at a million clients.
double reuseport_places(std::int64_t clients, int listeners, double chance) noexcept;
/// Expected share of them that finds no place, E[(X - K)+] n / N, exactly.
double reuseport_loss_share(std::int64_t clients, int listeners, double places_each) noexcept;

// What is too much.

/// Places beyond which a queue only keeps the dead: who is at a depth of mu (patience - stall) when a stall
/// begins has given up when it is accepted. Little's law. 0 if the stall outlasts the patience.
double upper_bound_places(double served_per_s, double patience_s, double stall_s) noexcept;

// The normal distribution.

double normal_density(double x) noexcept;
double normal_cumulative(double x) noexcept;
/// The x that a standard normal stays below with this chance, to 1e-12; minus infinity for 0, infinity for 1.
double normal_quantile(double chance) noexcept;
/// E[(X - places)+] of a normal X with this mean and deviation: s [phi(z) - z (1 - Phi(z))].
double normal_excess(double mean, double deviation, double places) noexcept;

}  // namespace anteroom::bench
