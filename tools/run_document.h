#pragma once
#include <array>
#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace anteroom::tool {

/// A finished run as `--json` wrote it; tools/JSON.md tells what each field means.
using Json = nlohmann::ordered_json;

/// This is no run, or not a whole one. what() is one line that names the field.
class RunDocumentError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The run in a file, or in the standard input if `path` is "-". It has been understood once: nothing here
/// that takes a run will throw for this one. Throws RunDocumentError, with the path in it.
Json read_run(const std::string& path);

/// What is in a file, or in the standard input if `path` is "-", as JSON. Throws RunDocumentError, with the
/// path in it.
Json read_json(const std::string& path);

/// How a message calls that file.
std::string name_of_file(const std::string& path);

/// One number over the runs of a row. `best` and `worst` are single runs.
struct Estimate {
  double median = 0;
  double low = 0;   ///< of the 95 % interval
  double high = 0;  ///< of the 95 % interval
  double best = 0;
  double worst = 0;

  double largest() const noexcept { return best > worst ? best : worst; }  ///< of any single run
};

/// In seconds. What is not there was not measured: a percentile of nobody.
struct Latencies {
  std::optional<double> p50;
  std::optional<double> p90;
  std::optional<double> p99;
  std::optional<double> p99_9;
  std::optional<double> max;
  std::optional<double> unserved;         ///< clients, who count with their age
  std::vector<std::string> lower_bounds;  ///< names of those that are only known to be larger

  bool is_lower_bound(std::string_view name) const noexcept;
};

/// The field `fates` has these, in this order.
constexpr std::array<std::string_view, 13> kFateNames{
    "served_at_once",    "served_after_retransmit", "ghost_half_open",    "ghost_unknown",
    "refused",           "reset_before_accept",     "reset_after_accept", "deadline",
    "timed_out",         "no_local_port",           "no_descriptor",      "not_started",
    "answered_otherwise"};

/// Clients, each under the fate of that place in kFateNames. Nothing where a run cannot tell.
using FateCounts = std::array<std::optional<double>, kFateNames.size()>;
std::optional<double> fate(const FateCounts& fates, std::string_view name) noexcept;
/// Of both together; nothing if either is not known.
std::optional<double> sum(const std::optional<double>& a, const std::optional<double>& b) noexcept;

/// What tells one row of a run from the others. Names are printable and short.
struct RowName {
  std::string server;
  std::string loop;
  int backlog = 0;  ///< bench::kUnlimitedBacklog if it has no bounds

  friend bool operator==(const RowName&, const RowName&) = default;
};

/// What is known of a row of which at least one run counts.
struct Measured {
  double clients = 0;  ///< of all runs
  std::optional<Estimate> connections_per_second;
  std::optional<Estimate> lost_first_syn;  ///< share of clients
  /// Share of clients that lost their first SYN, became ghosts or were reset before the accept. Nothing in
  /// older runs.
  std::optional<Estimate> turned_away;
  std::optional<double> turned_away_upper;  ///< one-sided 95 % upper bound
  std::optional<double> model_loss;         ///< share of clients
  FateCounts fates{};                       ///< of all runs
  std::optional<Estimate> ghosts;
  std::optional<Estimate> listen_overflows;
  std::optional<Estimate> listen_drops;
  std::optional<Estimate> syn_retransmits;
  std::optional<Estimate> first_stall_drops;
  std::optional<double> law;
  std::optional<Estimate> deepest_queue;
  std::optional<Estimate> server_cpu_s_per_connection;
  Latencies first_byte;
  Latencies connect;
  Latencies queue_wait;
  std::vector<double> first_byte_clients;  ///< in each bin of RunDocument::edges_s
  std::vector<double> unfinished_clients;  ///< by age, in the same bins

  /// The loss: who was turned away, or lost the first SYN where no more is known.
  const std::optional<Estimate>& loss() const noexcept { return turned_away ? turned_away : lost_first_syn; }
};

struct Row {
  RowName name;
  double runs = 0;  ///< that count
  double void_runs = 0;
  std::optional<Measured> measured;  ///< if any run counts
};

/// The numbers of one trial that are compared between runs; nothing if it could not be run to its end.
struct Trial {
  RowName name;
  bool is_void = false;
  std::optional<double> lost_first_syn;  ///< share of its clients
  std::optional<double> turned_away;     ///< share of its clients
  std::optional<double> ghosts;
  std::optional<double> connections_per_second;
  std::optional<double> deepest_queue;
  std::optional<double> server_cpu_s_per_connection;  ///< of the served
  std::optional<double> first_byte_p99_s;
};

/// One thing that was given to a run and not measured by it: `load.rate`, `machine.kernel`, …
struct Condition {
  std::string field;
  std::string value;             ///< in one line, printable
  std::optional<double> number;  ///< if it is one
};

/// A run with every field that we use looked at: a number where one belongs, and within its bounds.
struct RunDocument {
  bool is_tune = false;   ///< else it is a compare or a swarm
  bool is_swarm = false;  ///< which tries no backlogs: an unlimited one is one that is not known
  std::string version;   ///< of the anteroom that measured
  bool interrupted = false;
  std::optional<int> recommended;
  std::optional<bool> confirmed;  ///< the recommendation, by trials at that very backlog
  std::optional<double> target_loss;
  std::vector<Condition>
      conditions;  ///< load, machine, network and its sysctls, and the target if one is named
  std::vector<Row> rows;
  std::vector<double> edges_s;  ///< ascending, one more than there are bins
  std::vector<Trial> trials;
};

/// Throws RunDocumentError.
RunDocument understand(const Json& run);

/// `text` in one line of at most `most` bytes, and without what would command a terminal.
std::string printable(std::string_view text, std::size_t most = 200);

}  // namespace anteroom::tool
