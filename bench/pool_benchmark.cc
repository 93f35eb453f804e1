// What it costs to be many: how evenly the threads of a pool share short connections in each of the three
// modes, and what it costs to post a task to another thread's reactor.
#include <anteroom/connector.h>
#include <anteroom/reactor_pool.h>
#include <benchmark/benchmark.h>
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <thread>
#include <vector>

namespace {

using namespace anteroom;
using namespace std::chrono_literals;

constexpr int kConnections = 20'000;
constexpr int kInFlight = 64;

/// Calls the server so often, `kInFlight` at a time, in a process of its own, and reads until it closes.
void call(const Endpoint& server) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  Reactor reactor;
  int called = 0;
  int ended = 0;
  Connector* caller = nullptr;
  const auto call_next = [&] {
    if (called++ < kConnections) (void)caller->connect(server);
  };
  Connector connector(reactor, {.closed = [&](Connection&, std::error_code) {
                        if (++ended == kConnections) reactor.stop();
                        call_next();
                      }});
  caller = &connector;
  for (int i = 0; i < kInFlight; ++i) call_next();
  reactor.run();
}

/// One iteration is 20,000 connections that are greeted and closed. `most` and `fewest` are in per cent of an
/// even share.
void BM_Shares(benchmark::State& state, Sharing sharing) {
  const auto threads = static_cast<int>(state.range(0));
  const auto hello = [](Reactor&, int) {
    return ConnectionHandlers{.open = [](Connection& guest) {
      guest.send("Hello World!");
      guest.close();
    }};
  };
  std::vector<double> all;
  for (auto _ : state) {
    ReactorPool pool(Endpoint("127.0.0.1", 0), hello, {.threads = threads, .sharing = sharing});
    const pid_t callers = ::fork();
    if (callers == 0) {
      call(pool.endpoint());
      ::_exit(0);
    }
    pool.start();
    const auto begin = std::chrono::steady_clock::now();
    ::waitpid(callers, nullptr, 0);
    state.SetIterationTime(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    for (const auto& thread : pool.state())
      all.push_back(100.0 * threads * static_cast<double>(thread.loop.connections_opened) / kConnections);
  }
  state.counters["most"] = *std::ranges::max_element(all);
  state.counters["fewest"] = *std::ranges::min_element(all);
  state.SetItemsProcessed(state.iterations() * kConnections);
}
BENCHMARK_CAPTURE(BM_Shares, reuse_port, Sharing::kReusePort)->ArgName("threads")->Arg(2)->UseManualTime();
BENCHMARK_CAPTURE(BM_Shares, exclusive, Sharing::kExclusive)->ArgName("threads")->Arg(2)->UseManualTime();
BENCHMARK_CAPTURE(BM_Shares, dealt, Sharing::kDealt)->ArgName("threads")->Arg(2)->UseManualTime();

void pin(pthread_t thread, int processor) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(processor, &one);
  (void)::pthread_setaffinity_np(thread, sizeof(one), &one);
}

/// The sender's time alone for so many tasks to a reactor on another core, one after the other.
void BM_PostToAnotherCore(benchmark::State& state) {
  if (std::thread::hardware_concurrency() < 2) return state.SkipWithError("there is no other core");
  Reactor reactor;
  std::jthread thread([&reactor] { reactor.run(); });
  pin(thread.native_handle(), 1);
  pin(::pthread_self(), 0);
  std::atomic<std::uint64_t> ran{0};
  std::uint64_t posted = 0;
  for (auto _ : state) {
    const auto begin = std::chrono::steady_clock::now();
    for (std::int64_t i = 0; i < state.range(0); ++i)
      reactor.post([&ran] { ran.store(ran.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed); });
    state.SetIterationTime(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    posted += static_cast<std::uint64_t>(state.range(0));
    while (ran.load(std::memory_order_relaxed) < posted) std::this_thread::yield();
  }
  reactor.stop();
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_PostToAnotherCore)->ArgName("tasks")->Arg(1000)->Arg(100'000)->UseManualTime();

}  // namespace

BENCHMARK_MAIN();
