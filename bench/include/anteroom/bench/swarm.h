#pragma once
#include <anteroom/bench/fate.h>
#include <anteroom/bench/kernel_counters.h>
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
  /// served, from the start to the end; `intended_ns` is set then.
  std::size_t flows = 0;
  std::string request;  ///< what a client says when it is connected; nothing if the server speaks first
  std::chrono::steady_clock::time_point start;
  /// From the start; whoever is not served by then has lost.
  std::chrono::nanoseconds end{0};
  int syn_linear_timeouts = 4;  ///< net.ipv4.tcp_syn_linear_timeouts, of the clients' side
  /// What the server's side knows, to tell ghosts from guests.
  std::function<std::vector<TcpSocket>()> server_sockets = read_tcp_sockets;
  std::atomic<std::uint32_t>* called = nullptr;  ///< counts the clients that have called
  std::atomic<std::uint32_t>* ended = nullptr;   ///< counts the clients whose fate is known
};

/// Plays the clients on one reactor, in this thread, and fills in their records. Returns when every fate is
/// known. Each client calls at its time, waits to be greeted, and closes when the server does. In an open
/// loop it never waits for another. Throws std::system_error if there is no reactor to be had.
void run_swarm(const SwarmPlan& plan);

/// How many source addresses so many clients need, so that a free port is found at once.
std::size_t sources_for(std::size_t clients) noexcept;

/// Clients that one process of this user can play, with its limit of descriptors raised as far as it may be.
std::size_t swarm_clients_max() noexcept;

}  // namespace anteroom::bench
