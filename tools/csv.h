#pragma once
#include <string>

#include "run_document.h"

namespace anteroom::tool {

/// The rows of a run as comma-separated values: a header, then one line a row, in the order of the document.
/// Quoting is RFC 4180's; lines end with a newline alone, as other programs here expect it. Numbers are as
/// precise as in the document, with a point; times are in seconds; a field without a value is empty, which in
/// a row without runs that count is all from `clients` on.
///
/// An estimate `x` is three columns: `x` (the median over runs), `x_low` and `x_high` (95 % interval).
///
/// | columns | meaning |
/// |---|---|
/// | `server`, `loop`, `backlog` | as in the document; `unlimited` is a backlog; empty: not known |
/// | `recommended` | `yes` in the row of the recommended backlog, else `no`; empty in a compare |
/// | `runs`, `void_runs`, `clients` | runs that count, runs that do not, clients of all that count |
/// | `connections_per_second` | estimate |
/// | `lost_first_syn`, `turned_away` | estimates, shares of clients |
/// | `turned_away_upper` | its one-sided 95 % upper bound |
/// | `model_loss` | what the model says of `lost_first_syn` |
/// | `served_at_once` … `answered_otherwise` | clients of all runs by fate, thirteen columns |
/// | `ghosts`, `listen_overflows`, `listen_drops`, `syn_retransmits` | estimates, a run |
/// | `first_stall_drops` | estimate, a run |
/// | `law` | what rate × stall − (backlog + 1) says of `first_stall_drops` |
/// | `deepest_queue`, `server_cpu_s_per_connection` | estimates |
/// | `first_byte_p50_s`, `_p90_s`, `_p99_s`, `_p99_9_s`, `_max_s` | of all clients of all runs |
/// | `first_byte_unserved` | how many of these are ages of unserved clients |
/// | `first_byte_lower_bounds` | percentiles that are known only to be larger, with a space between |
/// | `connect_p50_s` … `connect_lower_bounds` | the same, until the socket was writable |
/// | `queue_wait_p50_s`, `queue_wait_p99_s`, `queue_wait_max_s` | how long accepted connections had waited |
///
/// Throws RunDocumentError.
std::string csv(const Json& run);

}  // namespace anteroom::tool
