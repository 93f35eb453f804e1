#pragma once
#include <anteroom/bench/fate.h>
#include <anteroom/endpoint.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>

namespace anteroom::bench {

/// A share of the clients of one trial, and where and when they are to call.
struct SwarmPlan {
  Endpoint server;
  /// All clients of the trial, `intended_ns` set and ascending. This swarm plays number `first`, `first +
  /// step`, ...
  std::span<ClientRecord> records;
  bool is_burst = false;  ///< call without looking up: those who are greeted meanwhile are read afterwards
  std::size_t first = 0;
  std::size_t step = 1;
  std::chrono::steady_clock::time_point start;
  /// From the start; whoever is not served by then has lost.
  std::chrono::nanoseconds end{0};
  std::atomic<std::uint32_t>* ended = nullptr;  ///< counts the clients whose fate is known, for progress
};

/// Plays the clients on one reactor, in this thread, and fills in their records. Returns when every fate is
/// known. Each client calls at its time, waits to be greeted, and closes when the server does. It never waits
/// for another. Throws std::system_error if there is no reactor to be had.
void run_swarm(const SwarmPlan& plan);

/// Clients that one process of this user can play, with its limit of descriptors raised as far as it may be.
std::size_t swarm_clients_max() noexcept;

}  // namespace anteroom::bench
