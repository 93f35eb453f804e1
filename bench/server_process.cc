#include "server_process.h"

#include <anteroom/acceptor.h>
#include <anteroom/bench/random.h>
#include <anteroom/blocking_server.h>
#include <anteroom/timer.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <tuple>
#include <utility>

namespace anteroom::bench {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::nanoseconds;

constexpr std::string_view kGreeting = "Hello World!";

/// What one server saw of its guests.
struct Seen {
  std::uint64_t accepted = 0;
  std::uint64_t rests = 0;
  std::uint32_t queue_peak = 0;
  std::chrono::milliseconds longest_wait{0};
};

/// Writes down who was accepted, and how long each has waited, before anything is sent to them: 0.6 µs.
class Observer {
 public:
  explicit Observer(SharedTrial* shared) : shared_(shared) {}
  ~Observer() { flush(); }
  Observer(const Observer&) = delete;
  Observer& operator=(const Observer&) = delete;

  void look_at(const Endpoint& peer, const std::optional<TcpInfo>& info) {
    if (info) waits_.record(info->since_last_sent);
    if (const std::uint64_t key = peer_key(peer)) shared_->add_peer(key);
  }
  void look_at(int guest) {
    sockaddr_storage address{};
    socklen_t size = sizeof(address);
    ::getpeername(guest, reinterpret_cast<sockaddr*>(&address), &size);
    look_at(Endpoint::from(reinterpret_cast<sockaddr*>(&address), size), tcp_info(guest));
  }
  bool is_on() const noexcept { return shared_ != nullptr; }

  /// What it has seen goes on the board; several threads may come to it.
  void note(const Seen& seen) {
    if (!is_on()) return;
    const std::lock_guard lock(mutex());
    TrialBoard& board = shared_->board();
    board.accepted += seen.accepted;
    board.server_rests += seen.rests;
    board.queue_peak_at_accept = std::max(board.queue_peak_at_accept, seen.queue_peak);
    board.longest_wait_ms = std::max<std::int64_t>(board.longest_wait_ms, seen.longest_wait.count());
  }

 private:
  static std::mutex& mutex() {
    static std::mutex board_mutex;
    return board_mutex;
  }
  void flush() {
    if (!is_on()) return;
    const std::lock_guard lock(mutex());
    shared_->board().queue_wait.merge(waits_);
  }
  SharedTrial* shared_;
  Histogram waits_;
};

/// What each guest costs: the same for the n-th guest of every server, whoever serves it.
class Service {
 public:
  explicit Service(const Scenario& scenario) : handler_(scenario.handler), seed_(scenario.seed) {}

  Handling kind() const noexcept { return handler_.kind; }

  nanoseconds draw() {
    if (!handler_.is_exponential) return handler_.time;
    const std::uint64_t guest = guests_.fetch_add(1, std::memory_order_relaxed);
    const double time = -std::log(Random(seed_ + guest * 0x9e37).unit());
    return nanoseconds(std::llround(time * static_cast<double>(handler_.time.count())));
  }

  /// Takes that time in this thread.
  void take() {
    if (handler_.kind == Handling::kNone) return;
    const nanoseconds time = draw();
    if (handler_.kind != Handling::kCompute) return std::this_thread::sleep_for(time);
    const auto used = [] {
      timespec now{};
      ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
      return std::chrono::seconds(now.tv_sec) + nanoseconds(now.tv_nsec);
    };
    for (const nanoseconds until = used() + time; used() < until;) {
    }
  }

 private:
  Handler handler_;
  std::uint64_t seed_;
  std::atomic<std::uint64_t> guests_{0};
};

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
  const AcceptStall& stall_;
  Timer timer_;
};

/// One reactor with its listener.
class ReactorServer {
 public:
  ReactorServer(Listener listener, int accepts_per_turn_max, Service& service, SharedTrial* shared)
      : service_(service),
        observer_(shared),
        acceptor_(reactor_, std::move(listener), {.open = [this](Connection& guest) { greet(guest); }},
                  {.accepts_per_turn_max = accepts_per_turn_max}) {}

  void run(const AcceptStall& stall) {
    const LoopStall loop_stall(reactor_, stall);
    reactor_.run();
    const AcceptorStats& stats = acceptor_.stats();
    observer_.note({.accepted = stats.accepted,
                    .rests = stats.rests,
                    .queue_peak = stats.queue_peak,
                    .longest_wait = stats.longest_wait});
  }
  void stop() { reactor_.stop(); }

 private:
  void greet(Connection& guest) {
    if (observer_.is_on()) observer_.look_at(guest.peer(), guest.tcp_info());
    if (service_.kind() == Handling::kWait) return greet_later(guest);
    service_.take();
    greet_now(guest);
  }
  static void greet_now(Connection& guest) { guest.close(kGreeting); }
  void greet_later(Connection& guest) {
    const ChannelId id = guest.id();
    const auto [place, _] = waiting_.insert_or_assign(id, Timer(reactor_, [this, id] {
                                                        if (auto* const there = reactor_.find<Connection>(id))
                                                          greet_now(*there);
                                                        waiting_.erase(id);
                                                      }));
    place->second.arm(service_.draw());
  }

  Reactor reactor_;
  Service& service_;
  Observer observer_;
  std::map<ChannelId, Timer> waiting_;
  Acceptor acceptor_;
};

sigset_t sigterm() {
  sigset_t mask;
  ::sigemptyset(&mask);
  ::sigaddset(&mask, SIGTERM);
  return mask;
}

void wait_for_sigterm() {
  const sigset_t mask = sigterm();
  int signal = 0;
  ::sigwait(&mask, &signal);
}

/// Told when a server is ready; returns when it is not to accept.
using Ready = std::function<AcceptStall()>;

void serve_with_reactors(const Scenario& scenario, std::vector<Listener> listeners, const Ready& ready,
                         Service& service, SharedTrial* shared) {
  const int accepts = scenario.server == ServerKind::kAcceptOne ? 1 : AcceptorOptions().accepts_per_turn_max;
  std::vector<std::unique_ptr<ReactorServer>> servers;
  for (Listener& listener : listeners)
    servers.push_back(std::make_unique<ReactorServer>(std::move(listener), accepts, service, shared));
  const auto stop_all = [&servers] {
    for (const auto& server : servers) server->stop();
  };
  const AcceptStall stall = ready();
  std::vector<std::jthread> threads;
  try {
    for (std::size_t i = 1; i < servers.size(); ++i)
      threads.emplace_back([&server = *servers[i], &stall] { server.run(stall); });
    threads.emplace_back([&stop_all] {
      wait_for_sigterm();
      stop_all();
    });
  } catch (...) {
    stop_all();  // or they would be waited for in vain
    throw;
  }
  servers.front()->run(stall);
}

void serve_blocking(BlockingStyle style, const Scenario& scenario, Listener listener, const Ready& ready,
                    Service& service, SharedTrial* shared) {
  Observer observer(shared);
  BlockingServerOptions options{.style = style,
                                .threads = scenario.threads,
                                .greeting = std::string(kGreeting),
                                .stall = ready(),
                                .observe_queue = shared != nullptr};
  if (observer.is_on()) options.accepted = [&observer](int guest) { observer.look_at(guest); };
  if (service.kind() != Handling::kNone) options.before_greeting = [&service] { service.take(); };
  BlockingServer server(std::move(listener), std::move(options));
  const std::jthread waits_for_the_end([&server] {
    wait_for_sigterm();
    server.stop();
  });
  server.run();
  const BlockingServer::Stats stats = server.stats();
  observer.note({.accepted = stats.accepted,
                 .rests = stats.rests,
                 .queue_peak = stats.queue_peak,
                 .longest_wait = stats.longest_wait});
}

void serve_scenario(const Scenario& scenario, std::vector<Listener> listeners, const Ready& ready,
                    SharedTrial* shared) {
  const sigset_t mask = sigterm();
  ::pthread_sigmask(SIG_BLOCK, &mask, nullptr);
  Service service(scenario);
  switch (scenario.server) {
    case ServerKind::kReactor:
    case ServerKind::kAcceptOne:
    case ServerKind::kReactors:
      return serve_with_reactors(scenario, std::move(listeners), ready, service, shared);
    case ServerKind::kBlocking:
      return serve_blocking(BlockingStyle::kOneAtATime, scenario, std::move(listeners.front()), ready,
                            service, shared);
    case ServerKind::kThreads:
      return serve_blocking(BlockingStyle::kThreadPerConnection, scenario, std::move(listeners.front()),
                            ready, service, shared);
    case ServerKind::kPool:
      return serve_blocking(BlockingStyle::kThreadPool, scenario, std::move(listeners.front()), ready,
                            service, shared);
    case ServerKind::kRunning:
      break;  // it needs nobody to serve in its place
  }
}

}  // namespace

std::size_t listeners_for(const Scenario& scenario) noexcept {
  return scenario.server == ServerKind::kReactors ? static_cast<std::size_t>(std::max(scenario.threads, 1))
                                                  : 1;
}

Clock::time_point wait_for_start(TrialBoard& board) {
  board.ready.fetch_add(1);
  while (board.start_ns.load() == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
  return Clock::time_point(nanoseconds(board.start_ns.load()));
}

void run_server_process(const Scenario& scenario, std::vector<Listener> listeners, SharedTrial& shared) {
  const auto ready = [&] {
    const Clock::time_point start = wait_for_start(shared.board());
    std::vector<AcceptStall::Window> windows;
    for (const Stall& stall : scenario.stalls())
      windows.push_back({.begin = start + stall.begin, .length = stall.length});
    return AcceptStall(std::move(windows));
  };
  serve_scenario(scenario, std::move(listeners), ready, &shared);
}

void serve(const Scenario& scenario, std::vector<Listener> listeners) {
  serve_scenario(
      scenario, std::move(listeners), [] { return AcceptStall(); }, nullptr);
}

}  // namespace anteroom::bench
