#pragma once
#include <anteroom/bench/dialogue.h>
#include <anteroom/bench/fate.h>
#include <anteroom/bench/socket_diag.h>
#include <anteroom/endpoint.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace anteroom::bench {

/// A share of the clients of one trial, and where and when they are to call.
struct SwarmPlan {
  Endpoint server;
  /// The clients' own addresses: sources_for(records.size()) of them. With none the kernel picks, which is
  /// cheaper, and enough for a server that closes first: the ports of one address are then free again at
  /// once.
  std::vector<Endpoint> sources;
  /// All clients of the trial, `intended_ns` set and ascending. This swarm plays number `first`, `first +
  /// step`, ...
  std::span<ClientRecord> records;
  std::size_t first = 0;
  std::size_t step = 1;
  bool is_burst = false;  ///< call without looking up: those who are greeted meanwhile are read afterwards
  /// 0 is an open loop. Else so many flows, each of which plays the next record as soon as its last one was
  /// served, from the start to the end; `intended_ns` is set then. Of those that were served, 500 at most
  /// live on until they are closed in order: to make room for the next, the longest served is reset.
  std::size_t flows = 0;
  Dialogue dialogue;  ///< the default is served by the first byte that it hears
  std::chrono::steady_clock::time_point start;
  /// From the start; whoever is not served by then has lost.
  std::chrono::nanoseconds end{0};
  int syn_linear_timeouts = 4;  ///< net.ipv4.tcp_syn_linear_timeouts, of the clients' side
  /// What the server's side knows of its port, to tell ghosts from guests. Without it nobody can: they all
  /// count as Fate::kDeadline.
  std::function<std::vector<ConnectedSocket>()> server_sockets;
  /// Set by whoever wants it to end now: nobody calls any more, and who still waits has Fate::kDeadline or is
  /// a ghost.
  const std::atomic<bool>* stop = nullptr;
  std::atomic<std::uint32_t>* called = nullptr;  ///< counts the clients that have called
  std::atomic<std::uint32_t>* ended = nullptr;   ///< counts the clients whose fate is known
};

/// Plays the clients on one reactor, in this thread, and fills in their records. Returns when every fate is
/// known. Each client calls at its time, says its request, waits for the answer, and closes when the server
/// does; or, if that is not for the server to do or it takes longer than 0.2 to 0.4 s, by itself. In an open
/// loop it never waits for another. Half a second after the last fate is known, who still has not closed is
/// reset. Throws std::system_error if there is no reactor to be had.
void run_swarm(const SwarmPlan& plan);

/// How many source addresses so many clients need, so that a free port is found at once.
std::size_t sources_for(std::size_t clients) noexcept;

/// Clients that one process of this user can play, with its limit of descriptors raised as far as it may be.
std::size_t swarm_clients_max() noexcept;

}  // namespace anteroom::bench
