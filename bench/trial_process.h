#pragma once
#include <anteroom/bench/scenario.h>
#include <anteroom/bench/target.h>

#include "trial_board.h"

namespace anteroom::bench {

/// The host of one trial, in a process of its own: makes a road, opens the listener, forks the server and the
/// swarms, starts them, samples the queue, takes the counters before and after, and writes all of it on the
/// board. With a target it stays where it is, and only calls and looks.
void run_trial_process(const Scenario& scenario, const Target* target, SharedTrial& shared);

/// How many processes it takes to play so many clients.
std::size_t swarms_for(std::size_t clients) noexcept;

}  // namespace anteroom::bench
