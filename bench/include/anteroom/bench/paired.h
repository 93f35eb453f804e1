#pragma once
#include <anteroom/bench/scenario.h>
#include <anteroom/bench/statistics.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <vector>

namespace anteroom::bench {

struct PairedOptions {
  int pairs = 40;  ///< at least 6, or there is no interval of 95 %
  std::chrono::milliseconds slice{20};
  int flows = 16;  ///< clients at a time
};

/// What two servers cost a connection, side by side.
struct PairedCpu {
  /// Of the processor's time a connection: the second server's over the first's, of each pair of slices.
  std::vector<double> ratios;
  Estimate ratio;           ///< median_ratio() of them
  double first_cpu_s = 0;   ///< a connection, over all slices
  double second_cpu_s = 0;  ///< a connection, over all slices
  std::string problem;      ///< why there is nothing; empty if there is
};

/// Compares what two servers cost a connection. Both are alive at once, on one processor, and one client on
/// another calls now this one, now that one, in slices of 20 ms in the order A B B A, so that whatever else
/// happens to the machine happens to both. Of each slice the server's own CPU clock is taken before it and
/// after its last client. Resolves 1 % here, where runs one after the other resolve 10 to 30 %.
///
/// Of the scenarios, only who serves and how counts: server, threads, backlog, handler. Stops early when
/// `interrupted`, with a problem. The calling process must have one thread (it forks). Throws
/// std::system_error if there is no memory or no process.
PairedCpu compare_cpu(const Scenario& first, const Scenario& second, const PairedOptions& options,
                      const std::atomic<bool>& interrupted,
                      const std::function<void(int pairs)>& progress = {});

}  // namespace anteroom::bench
