#pragma once
#include <anteroom/bench/road.h>
#include <anteroom/bench/scenario.h>
#include <anteroom/bench/target.h>
#include <anteroom/endpoint.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "process.h"
#include "trial_board.h"

namespace anteroom::bench {

/// Of all listeners of a server.
struct Queues {
  std::uint32_t limit = 0;    ///< of the first
  std::uint32_t deepest = 0;  ///< guests in the one that has the most
  std::uint32_t waiting = 0;  ///< guests in all of them
  std::uint64_t drops = 0;    ///< of all of them since the trial began
};

/// The server of a trial, as its host sees it.
class TestedServer {
 public:
  TestedServer() = default;
  TestedServer(const TestedServer&) = delete;
  TestedServer& operator=(const TestedServer&) = delete;
  virtual ~TestedServer() = default;

  virtual const Endpoint& address() const noexcept = 0;  ///< which the clients call
  virtual std::uint16_t local_port() const noexcept { return address().port(); }  ///< of its own sockets
  /// Makes its processes, if they are not there yet, and returns how many will say on the board that they are
  /// ready.
  virtual std::size_t start() = 0;
  virtual Queues queues() = 0;
  virtual bool has_ended() = 0;
  /// Ends what start() began, and returns the processor time that the server took since, all its threads'.
  virtual std::chrono::nanoseconds end() = 0;
};

/// One of ours, in a process of its own, with listeners that the host has opened.
std::unique_ptr<TestedServer> embedded_server(const Scenario& scenario, const Road& road, SharedTrial& shared,
                                              const Processors& processors, const Failed& failed);
/// One that runs already.
std::unique_ptr<TestedServer> foreign_server(const Target& target);

}  // namespace anteroom::bench
