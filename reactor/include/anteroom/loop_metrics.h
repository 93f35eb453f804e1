#pragma once
#include <anteroom/export.h>
#include <anteroom/log2_histogram.h>

#include <cstddef>
#include <cstdint>

namespace ANTEROOM_EXPORT anteroom {

/// What one reactor has done so far, as a value: see Reactor::metrics(). Counts begin with the reactor and
/// never fall; those that may fall say "now".
struct LoopMetrics {
  std::uint64_t turns = 0;
  std::uint64_t events = 0;  ///< that epoll told
  std::uint64_t tasks = 0;   ///< posted tasks that were run
  std::uint64_t timers = 0;  ///< that fired
  /// How long a turn took from the events to the end, in µs; one turn in 64 is timed.
  Log2Histogram turn_us;
  std::uint64_t connections_opened = 0;
  std::uint64_t connections_closed = 0;  ///< of those opened
  std::size_t connections_open = 0;      ///< now
  std::size_t channels = 0;              ///< now: connections in any state, listeners, signals
  std::uint64_t received_bytes = 0;      ///< by connections
  std::uint64_t sent_bytes = 0;          ///< given to the kernel by connections
  std::size_t buffered_bytes = 0;        ///< now: memory that holds output which waits
  std::uint64_t timed_out = 0;           ///< connections that ended at a deadline of theirs
};

}  // namespace anteroom
