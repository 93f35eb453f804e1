#include "server_process.h"

#include <anteroom/acceptor.h>
#include <anteroom/blocking_server.h>
#include <anteroom/signals.h>
#include <anteroom/timer.h>
#include <signal.h>

#include <thread>
#include <utility>

namespace anteroom::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::string_view kGreeting = "Hello World!";

/// Holds the whole loop, as a handler would that computes, or waits for a disk.
class LoopStall {
 public:
  LoopStall(Reactor& reactor, const AcceptStall& stall) : stall_(stall), timer_(reactor, [this] { hold(); }) {
    arm_next();
  }

 private:
  void hold() {
    if (const auto end = stall_.end_of_current(Clock::now())) std::this_thread::sleep_until(*end);
    arm_next();
  }
  void arm_next() {
    if (stall_.end_of_current(Clock::now())) return timer_.arm({});
    if (const auto next = stall_.next_after(Clock::now())) timer_.arm_at(*next);
  }
  AcceptStall stall_;
  Timer timer_;
};

void serve_with_reactor(Listener listener, const AcceptStall& stall, TrialBoard& board) {
  Reactor reactor;
  const Signals signals(reactor, {SIGTERM}, [&reactor](int) { reactor.stop(); });
  const Acceptor acceptor(reactor, std::move(listener), {.open = [](Connection& guest) {
                            guest.send(kGreeting);
                            guest.close();
                          }});
  const LoopStall loop_stall(reactor, stall);
  reactor.run();
  board.accepted = acceptor.stats().accepted;
  board.queue_peak_at_accept = acceptor.stats().queue_peak;
  board.longest_wait_ms = acceptor.stats().longest_wait.count();
  board.server_rests = acceptor.stats().rests;
}

void serve_blocking(BlockingStyle style, int threads, Listener listener, const AcceptStall& stall,
                    TrialBoard& board) {
  sigset_t mask;
  ::sigemptyset(&mask);
  ::sigaddset(&mask, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &mask, nullptr);
  BlockingServer server(std::move(listener), {.style = style,
                                              .threads = threads,
                                              .greeting = std::string(kGreeting),
                                              .stall = stall,
                                              .observe_queue = true});
  std::jthread waits_for_the_end([&] {
    int signal = 0;
    ::sigwait(&mask, &signal);
    server.stop();
  });
  server.run();
  const BlockingServer::Stats stats = server.stats();
  board.accepted = stats.accepted;
  board.queue_peak_at_accept = stats.queue_peak;
  board.longest_wait_ms = stats.longest_wait.count();
  board.server_rests = stats.rests;
}

}  // namespace

Clock::time_point wait_for_start(TrialBoard& board) {
  board.ready.fetch_add(1);
  while (board.start_ns.load() == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
  return Clock::time_point(std::chrono::nanoseconds(board.start_ns.load()));
}

void run_server_process(const Scenario& scenario, Listener listener, TrialBoard& board) {
  const Clock::time_point start = wait_for_start(board);
  const AcceptStall stall{
      .first = start + scenario.first_stall(), .length = scenario.stall, .every = scenario.stall_every};
  switch (scenario.server) {
    case ServerKind::kReactor:
      return serve_with_reactor(std::move(listener), stall, board);
    case ServerKind::kBlocking:
      return serve_blocking(BlockingStyle::kOneAtATime, 1, std::move(listener), stall, board);
    case ServerKind::kThreads:
      return serve_blocking(BlockingStyle::kThreadPerConnection, 1, std::move(listener), stall, board);
    case ServerKind::kPool:
      return serve_blocking(BlockingStyle::kThreadPool, scenario.threads, std::move(listener), stall, board);
  }
}

}  // namespace anteroom::bench
