#pragma once
#include <anteroom/bench/scenario.h>
#include <anteroom/listener.h>

#include <vector>

#include "trial_board.h"

namespace anteroom::bench {

/// How many listeners the server of a scenario has.
std::size_t listeners_for(const Scenario& scenario) noexcept;

/// The server under test, in a process of its own: says that it is ready, waits for the start, serves until
/// SIGTERM, and writes down what it saw.
void run_server_process(const Scenario& scenario, std::vector<Listener> listeners, SharedTrial& shared);

/// Waits until the host has fixed the start, and returns it.
std::chrono::steady_clock::time_point wait_for_start(TrialBoard& board);

/// Serves until SIGTERM (which has to be blocked in all threads), and looks at nothing.
void serve(const Scenario& scenario, std::vector<Listener> listeners);

}  // namespace anteroom::bench
