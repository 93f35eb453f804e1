#pragma once
#include <anteroom/bench/scenario.h>

#include "trial_board.h"

namespace anteroom::bench {

/// The host of one trial, in a process of its own: enters a sandbox, opens the listener, forks the server and
/// the swarms, starts them, samples the queue, takes the counters before and after, and writes all of it on
/// the board.
void run_trial_process(const Scenario& scenario, SharedTrial& shared);

/// How many processes it takes to play so many clients.
std::size_t swarms_for(std::size_t clients) noexcept;

}  // namespace anteroom::bench
