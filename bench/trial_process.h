#pragma once
#include <anteroom/bench/scenario.h>
#include <sys/types.h>

#include "trial_board.h"

namespace anteroom::bench {

/// The host of one trial, in a process of its own: enters a sandbox, opens the listener, forks the server and
/// the swarms, starts them, samples the queue, takes the counters before and after, and writes all of it on
/// the board.
void run_trial_process(const Scenario& scenario, SharedTrial& shared);

/// In a child just forked by `parent`: ends with it, however it dies, and leaves Ctrl-C to whom it is meant
/// for.
void tie_to_parent(pid_t parent) noexcept;

/// How many processes it takes to play so many clients.
std::size_t swarms_for(std::size_t clients) noexcept;

}  // namespace anteroom::bench
