// What the loop itself costs: dispatching events, timers, posting.
#include <anteroom/bench/random.h>
#include <anteroom/reactor.h>
#include <anteroom/timer.h>
#include <benchmark/benchmark.h>
#include <sys/eventfd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace {

using namespace anteroom;
using namespace std::chrono_literals;

/// An eventfd whose every write is an edge, so that nothing but the dispatch itself is left to measure.
class CountingChannel final : public Channel {
 public:
  explicit CountingChannel(Reactor& reactor)
      : Channel(reactor, Fd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC))) {}
  void ring() const { (void)::eventfd_write(fd(), 1); }
  std::uint64_t rung = 0;

 private:
  void on_ready(std::uint32_t /*events*/) noexcept override { ++rung; }
};

/// One turn in which so many descriptors are ready: epoll_wait, finding each channel, calling it.
void BM_Dispatch(benchmark::State& state) {
  Reactor reactor;
  std::vector<CountingChannel*> channels;
  for (int i = 0; i < state.range(0); ++i) {
    channels.push_back(&reactor.adopt(std::make_unique<CountingChannel>(reactor)));
    if (reactor.watch(*channels.back())) return state.SkipWithError("epoll_ctl");
  }
  for (auto _ : state) {
    for (const CountingChannel* channel : channels) channel->ring();
    const auto begin = std::chrono::steady_clock::now();
    reactor.turn(0ns);
    state.SetIterationTime(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_Dispatch)->ArgName("ready")->Arg(1)->Arg(16)->Arg(256)->UseManualTime();

/// A turn that finds nothing.
void BM_EmptyTurn(benchmark::State& state) {
  Reactor reactor;
  for (auto _ : state) reactor.turn(0ns);
}
BENCHMARK(BM_EmptyTurn);

/// `live` timers, seconds away, as a service with idle deadlines has them.
struct Timers {
  explicit Timers(std::int64_t live) {
    for (std::int64_t i = 0; i < live; ++i) {
      timers.emplace_back(reactor, [] {});
      timers.back().arm(delay());
    }
  }
  std::chrono::nanoseconds delay() {
    return std::chrono::nanoseconds(1s) + std::chrono::nanoseconds(random.below(60'000'000'000));
  }
  Timer& pick() { return timers[next++ % timers.size()]; }

  Reactor reactor;
  bench::Random random{1};
  std::vector<Timer> timers;
  std::size_t next = 0;
};

void BM_TimerRearm(benchmark::State& state) {
  Timers timers(state.range(0));
  for (auto _ : state) timers.pick().arm(timers.delay());
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_TimerRearm)->ArgName("live")->Arg(1000)->Arg(100'000);

void BM_TimerCancelAndArm(benchmark::State& state) {
  Timers timers(state.range(0));
  for (auto _ : state) {
    Timer& timer = timers.pick();
    timer.cancel();
    timer.arm(timers.delay());
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_TimerCancelAndArm)->ArgName("live")->Arg(1000)->Arg(100'000);

/// Arms so many timers for now, and lets them fire in one turn.
void BM_TimerFire(benchmark::State& state) {
  Reactor reactor;
  std::uint64_t fired = 0;
  std::vector<Timer> timers;
  for (std::int64_t i = 0; i < state.range(0); ++i) timers.emplace_back(reactor, [&fired] { ++fired; });
  for (auto _ : state) {
    for (Timer& timer : timers) timer.arm(0ns);
    reactor.turn(0ns);
  }
  if (fired != static_cast<std::uint64_t>(state.iterations() * state.range(0)))
    state.SkipWithError("some did not fire");
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_TimerFire)->ArgName("timers")->Arg(1000);

/// Tasks posted by this thread, and run by its reactor in one turn.
void BM_PostFromItself(benchmark::State& state) {
  Reactor reactor;
  std::uint64_t ran = 0;
  for (auto _ : state) {
    for (std::int64_t i = 0; i < state.range(0); ++i) reactor.post([&ran] { ++ran; });
    reactor.turn(0ns);
  }
  if (ran != static_cast<std::uint64_t>(state.iterations() * state.range(0)))
    state.SkipWithError("some did not run");
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_PostFromItself)->ArgName("tasks")->Arg(1)->Arg(1000);

/// Tasks posted to a reactor that runs in another thread, until all of them have been run.
void BM_PostToAnotherThread(benchmark::State& state) {
  Reactor reactor;
  std::jthread thread([&reactor] { reactor.run(); });
  std::atomic<std::uint64_t> ran{0};
  std::uint64_t posted = 0;
  for (auto _ : state) {
    for (std::int64_t i = 0; i < state.range(0); ++i)
      reactor.post([&ran] { ran.fetch_add(1, std::memory_order_relaxed); });
    posted += static_cast<std::uint64_t>(state.range(0));
    while (ran.load(std::memory_order_relaxed) < posted) std::this_thread::yield();
  }
  reactor.stop();
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_PostToAnotherThread)->ArgName("tasks")->Arg(10'000)->UseRealTime();

}  // namespace

BENCHMARK_MAIN();
