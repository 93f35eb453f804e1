#pragma once
#include <anteroom/bench/scenario.h>
#include <anteroom/listener.h>

#include "trial_board.h"

namespace anteroom::bench {

/// The server under test, in a process of its own: says that it is ready, waits for the start, serves until
/// SIGTERM, and writes down what it saw.
void run_server_process(const Scenario& scenario, Listener listener, TrialBoard& board);

/// Waits until the host has fixed the start, and returns it.
std::chrono::steady_clock::time_point wait_for_start(TrialBoard& board);

}  // namespace anteroom::bench
