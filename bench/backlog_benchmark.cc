// The sweep of backlogs as Google Benchmark sees it: one iteration is one trial of 2,000 clients that call
// all at once, timed from the first call to the last greeting. For the answer itself use `anteroom tune`,
// which interleaves its trials.
#include <anteroom/bench/trial.h>
#include <benchmark/benchmark.h>

#include <array>
#include <atomic>
#include <chrono>
#include <string>

namespace {

using namespace anteroom::bench;

constexpr int kClients = 2000;
const std::atomic<bool> not_interrupted{false};

void run_burst(benchmark::State& state, ServerKind server, int backlog) {
  std::uint64_t seed = 0;
  for (auto _ : state) {
    const TrialResult trial = run_trial(
        {.server = server, .backlog = backlog, .clients = kClients, .seed = ++seed}, not_interrupted);
    if (trial.is_void()) return state.SkipWithError(trial.problems.front().c_str());
    if (trial.fates.served() == 0) return state.SkipWithError("nobody was served");
    const double seconds = trial.fates.served() / trial.connections_per_second;
    state.SetIterationTime(seconds);
    state.counters["conn/s"] = trial.connections_per_second;
    state.counters["lost_first_syn"] = trial.lost_first_syn;
    state.counters["ghosts"] = trial.fates.ghosts();
    state.counters["p99_ms"] =
        std::chrono::duration<double, std::milli>(trial.first_byte.percentile(0.99)).count();
    state.counters["deepest_queue"] = trial.deepest_queue;
    state.counters["overflows"] = static_cast<double>(trial.entries.listen_overflows);
  }
}

void register_sweep() {
  constexpr std::array kServers{ServerKind::kReactor, ServerKind::kBlocking, ServerKind::kThreads,
                                ServerKind::kPool};
  for (const ServerKind server : kServers) {
    for (const int backlog : {1, 5, 15, 64, 128, 511, 1024, 4096}) {
      const std::string title =
          "BM_Burst/server:" + std::string(name(server)) + "/backlog:" + std::to_string(backlog);
      benchmark::RegisterBenchmark(
          title.c_str(), [server, backlog](benchmark::State& state) { run_burst(state, server, backlog); })
          ->UseManualTime()
          ->Iterations(1)
          ->Unit(benchmark::kMillisecond);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  register_sweep();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
