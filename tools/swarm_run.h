#pragma once
#include <anteroom/bench/dialogue.h>
#include <anteroom/endpoint.h>

#include <atomic>
#include <string>
#include <vector>

#include "tune.h"

namespace anteroom::tool {

/// One load on a server that runs, by itself.
struct SwarmCommand {
  ExperimentCommand run;            ///< of its fields the load and what has to do with the output
  std::string server;               ///< as it was typed
  std::vector<Endpoint> addresses;  ///< what that may mean; the first that somebody listens on is taken
  bench::Dialogue dialogue;
};

/// Talks to it once, lets the clients loose on it, and tells what became of them. Returns the exit status.
int swarm(const SwarmCommand& command, const std::atomic<bool>& interrupted);

}  // namespace anteroom::tool
