#pragma once
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

/// Run documents with invented numbers, as tools/JSON.md describes them, no two of them alike where that can
/// be.
namespace anteroom::test {

using Json = nlohmann::ordered_json;

inline Json estimate(double median) {
  return {{"median", median},
          {"low", median * 0.9},
          {"high", median * 1.2},
          {"best", median * 1.3},
          {"worst", median * 0.8}};
}

inline const char* const kEmptyFates[] = {
    "served_at_once",    "served_after_retransmit", "ghost_half_open",    "ghost_unknown",
    "refused",           "reset_before_accept",     "reset_after_accept", "deadline",
    "timed_out",         "no_local_port",           "no_descriptor",      "not_started",
    "answered_otherwise"};
inline constexpr int kBins = 60;  ///< of the histograms: ten for each power of ten, from 10 us to 10 s

/// `lost` of a thousand clients a run lost their first SYN, half of whom were never served. No two rows are
/// alike.
inline Json row(const std::string& server, std::optional<int> backlog, int lost, int salt) {
  const int clients = 3000;
  const int unserved = lost / 2 * 3, late = lost * 3 - unserved;
  Json fates;
  for (const char* fate : kEmptyFates) fates[fate] = 0;
  fates["served_at_once"] = clients - late - unserved;
  fates["served_after_retransmit"] = late;
  fates["ghost_unknown"] = unserved / 3;
  fates["deadline"] = unserved - unserved / 3;
  std::vector<int> first_byte(kBins, 0), connect(kBins, 0), unfinished(kBins, 0);
  first_byte[static_cast<std::size_t>(9 + salt % 3)] = clients - late - unserved - 7;
  first_byte[20] = 7;
  first_byte[50] = late;  // 1.0 to 1.3 s: the first SYN that is sent again
  connect[static_cast<std::size_t>(5 + salt % 2)] = clients - late;
  connect[50] = late;
  unfinished[53] = unserved;
  std::vector<int> depth(80, 0);
  for (int i = 20; i < 30; ++i)
    depth[static_cast<std::size_t>(i)] = (i - 19) * (backlog.value_or(900) > 50 ? 6 : 2) + salt;
  const double s = salt * 1e-6;
  const auto latencies = [&](double p50) -> Json {
    return {{"p50", p50 + s},
            {"p90", 2 * p50 + s},
            {"p99", lost > 10 ? 1.03 + s : 1e-3 + s},
            {"p99_9", lost > 0 ? 2.1 + s : 2e-3 + s},
            {"max", lost > 0 ? 2.2 + s : 3e-3 + s},
            {"unserved", unserved},
            {"lower_bounds", unserved > 0 ? Json{"p99_9", "max"} : Json::array()}};
  };
  const double share = lost / 1000.0;
  Json turned_away = estimate(share * 1.1);
  turned_away["upper"] = share * 1.25 + 1e-3;
  return {{"server", server},
          {"loop", "open"},
          {"backlog", backlog ? Json(*backlog) : Json()},
          {"runs", 3},
          {"void_runs", salt == 1 ? 1 : 0},
          {"clients", clients},
          {"connections_per_second", estimate(5000 - 3 * lost + salt)},
          {"lost_first_syn", estimate(share)},
          {"turned_away", turned_away},
          {"model_loss", share * 0.97},
          {"fates", fates},
          {"ghosts", estimate(unserved / 9.0)},
          {"listen_overflows", estimate(lost * 2.1)},
          {"listen_drops", estimate(lost * 2.1)},
          {"syn_retransmits", estimate(lost * 2)},
          {"first_stall_drops", backlog ? estimate(lost) : Json()},
          {"law", backlog ? Json(lost) : Json()},
          {"deepest_queue", estimate(60 + salt)},
          {"server_cpu_s_per_connection", estimate(2e-5 + s)},
          {"first_byte_s", latencies(8e-5)},
          {"connect_s", latencies(3e-5)},
          {"queue_wait_s", {{"p50", 0}, {"p99", 0.09}, {"max", 0.1}}},
          {"histograms", {{"first_byte", first_byte}, {"connect", connect}, {"unfinished", unfinished}}},
          {"queue_over_time", {{"step_s", 0.005}, {"depth", depth}}}};
}

inline Json run(const std::string& schema) {
  std::vector<double> edges;
  for (int i = 0; i <= kBins; ++i) edges.push_back(1e-5 * std::pow(10, i / 10.0));
  return {{"schema", schema},
          {"version", "0.2.0"},
          {"started", "2026-11-22T18:40:00Z"},
          {"took_s", 47.1},
          {"command", "anteroom tune --seed 7"},
          {"seed", 7},
          {"interrupted", false},
          {"notes", Json::array()},
          {"machine",
           {{"kernel", "Linux 6.18"},
            {"architecture", "x86_64"},
            {"processor", "a processor"},
            {"processors", 2},
            {"memory_bytes", 25769803776},
            {"somaxconn", 4096},
            {"descriptors", 20000}}},
          {"network",
           {{"kind", "pair"},
            {"why", ""},
            {"rtt_s", 0},
            {"loss", 0},
            {"sysctls", {{"net.core.somaxconn", "1000000"}}}}},
          {"load",
           {{"in_words", "1,000 clients call"},
            {"clients", 1000},
            {"loop", "open"},
            {"arrival", "steady"},
            {"rate", 5000},
            {"stall_s", 0.1},
            {"handler", "none"},
            {"patience_s", 1.6}}},
          {"repeat", 3},
          {"until", nullptr},
          {"until_met", nullptr},
          {"rows", Json::array()},
          {"edges_s", edges},
          {"trials", Json::array()}};
}

inline Json tune_run() {
  Json tune = run("anteroom.tune/2");
  int salt = 0;
  for (const auto& [backlog, lost] : std::vector<std::pair<std::optional<int>, int>>{
           {1, 400}, {15, 390}, {128, 300}, {511, 12}, {768, 0}, {4096, 0}, {std::nullopt, 0}}) {
    tune["rows"].push_back(row("reactor", backlog, lost, salt++));
  }
  tune["target_loss"] = 0.001;
  tune["recommended"] = 768;
  tune["advice"] = {{"reason", "the queue was at most 603 deep where nobody was turned away"},
                    {"confirmed", true},
                    {"dominant", "stall"},
                    {"loss_upper", 0.0004},
                    {"deepest_queue", 598},
                    {"deepest_queue_low", 590},
                    {"deepest_queue_high", 603},
                    {"headroom", 0.27},
                    {"predicted_depth", 500.0},
                    {"upper_bound", nullptr},
                    {"limits", Json::array({{{"name", "net.core.somaxconn"},
                                             {"now", 128},
                                             {"needed", 768},
                                             {"command", "sysctl -w net.core.somaxconn=768"}}})},
                    {"valid_trials", 21},
                    {"void_trials", 1}};
  return tune;
}

inline Json compare_run() {
  Json compare = run("anteroom.compare/2");
  int salt = 0;
  for (const char* server : {"reactor", "blocking", "pool"}) {
    for (const int backlog : {64, 1024})
      compare["rows"].push_back(row(server, backlog, backlog == 64 ? 350 + salt : 4 * salt, salt)), ++salt;
  }
  for (const char* server : {"blocking", "pool"}) {
    compare["comparisons"].push_back({{"server", server},
                                      {"against", "reactor"},
                                      {"backlog", 1024},
                                      {"loop", "open"},
                                      {"metric", "connections_per_second"},
                                      {"ratio", 0.8},
                                      {"low", 0.75},
                                      {"high", 0.86},
                                      {"p", 0.0004},
                                      {"p_holm", 0.002},
                                      {"verdict", "less"},
                                      {"method", "runs"},
                                      {"n", 9}});
  }
  compare["theory"] = Json::array(
      {{{"server", "pool"}, {"model", "M/M/c/K"}, {"predicted_loss", 0.02}, {"measured_loss", 0.018}}});
  return compare;
}

/// Wherever a string may come from outside, it tries to become markup. `intruder` would be set if it did.
inline Json hostile_run() {
  const std::string hostile =
      "</script><script>intruder=1</script><!--<img src=x "
      "onerror=intruder=1>\xe2\x80\xa8{{run}}&lt;'\"`${intruder=1}";
  Json tune = tune_run();
  tune["command"] = hostile;
  tune["notes"] = {hostile, hostile + " void"};
  tune["machine"]["processor"] = tune["machine"]["kernel"] = hostile;
  tune["network"]["kind"] = "shared";
  tune["network"]["why"] = hostile;
  tune["network"]["sysctls"] = {{hostile, hostile}};
  tune["load"]["in_words"] = tune["load"]["handler"] = hostile;
  tune["advice"]["reason"] = tune["advice"]["dominant"] = hostile;
  tune["advice"]["limits"][0]["name"] = tune["advice"]["limits"][0]["command"] = hostile;
  for (Json& one : tune["rows"]) one["server"] = hostile;
  tune["comparisons"] = compare_run()["comparisons"];
  for (Json& one : tune["comparisons"]) one["server"] = one["metric"] = one["verdict"] = hostile;
  tune["theory"] = compare_run()["theory"];
  tune["theory"][0]["server"] = tune["theory"][0]["model"] = hostile;
  return tune;
}

}  // namespace anteroom::test
