#pragma once
#include <anteroom/bench/kernel_counters.h>
#include <anteroom/bench/room_log.h>
#include <anteroom/listener.h>
#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "watch_rooms.h"
#include "watch_rules.h"

namespace anteroom::tool {

// How the figures of `watch` come about:
//
//   SocketDiag            everything that listens: depth, limit, drops; every few milliseconds
//     → WatchedRooms      one RoomLog a socket, by cookie; who holds it (SocketHolders)
//   ListenDropsFile       of the whole namespace, whenever a listener has drops
//     → DropShares        which of them were handshakes thrown away
//   read_kernel_counters  of the whole namespace, twice a second
//     → ArrivalLog        how connections come
//   both → WatchState     → watch_view      what is shown, and the advice in words
//                         → watch_document  --json, --profile
//                         → prometheus      what is scraped
//                         → watch_rules     --fail-if
//
// Depths, peaks and times are samples: what comes and goes between two of them is not seen. Drops and
// counters are the kernel's own and miss nothing. What the kernel counts at one listener (sk_drops) has more
// in it than handshakes thrown away, and DropShares says how many were.

/// What is to be watched, and what is to become of it.
struct WatchCommand {
  std::vector<std::uint16_t> ports;  ///< none: all
  std::optional<pid_t> pid;
  std::vector<std::uint32_t> inodes;               ///< the sockets of `pid`; in its namespace we are already,
  bool is_elsewhere = false;                       ///< and that is not the one in which this was typed
  std::optional<std::chrono::nanoseconds> length;  ///< none: until we are told to end
  std::optional<std::chrono::nanoseconds> interval;  ///< none: as often as costs little
  int rows_max = 0;                                  ///< of the table; 0 is all there are
  std::optional<std::string> json;
  std::optional<std::string> profile;
  std::vector<WatchRule> fail_if;
  std::string command_line;
};

/// What has been seen so far.
struct WatchState {
  const WatchCommand& command;
  std::chrono::system_clock::time_point started;
  std::chrono::nanoseconds took{0};
  bool interrupted = false;
  bool failed = false;     ///< it could not go on, because of
  std::string why_failed;  ///< this
  double interval_mean_s = 0;
  double interval_max_s = 0;
  double cpu_share = 0;           ///< of one processor, ours, since the watch began
  bench::KernelCounters counted;  ///< since the watch began; of the whole namespace
  bench::KernelCounters counted_last_second;
  bench::ArrivalLog arrivals;
  WatchedRooms rooms;
  int hidden = 0;       ///< processes that could not be looked into
  int backlog_max = 0;  ///< somaxconn of the namespace
  std::vector<std::string> broken_rules;
  std::vector<std::string> notes;
};

struct GroupAdvice {
  const WatchedRoom* room = nullptr;  ///< which it is for
  bench::RoomAdvice advice;
};
/// The advice for a group: of its sockets that are there, the one that is worst off.
GroupAdvice advise(const WatchState& state, const RoomGroup& group);
/// For one of its sockets.
bench::RoomAdvice advise(const WatchState& state, const RoomGroup& group, const WatchedRoom& room);

/// Watches until the time is over, it is interrupted, or a rule is broken. `scrapes` is where Prometheus may
/// ask, if anywhere. Returns the exit status. If it cannot go on (the kernel answers no more), it writes what
/// it has seen, marked as interrupted, says why in one line and returns kCouldNotRun.
int watch(const WatchCommand& command, std::optional<Listener> scrapes, const std::atomic<bool>& interrupted);

}  // namespace anteroom::tool
