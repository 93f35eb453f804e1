#include <anteroom/bench/paired.h>
#include <anteroom/bench/road.h>
#include <anteroom/bench/swarm.h>
#include <anteroom/connector.h>
#include <anteroom/listener.h>
#include <anteroom/timer.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <system_error>
#include <thread>
#include <utility>

#include "process.h"
#include "server_process.h"

namespace anteroom::bench {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr std::uint16_t kFirstPort = 7777;
// More than enough to have every source's ports free again.
constexpr std::size_t kSources = 64;
constexpr int kPairsMax = 1000;

/// What the process of the comparison writes, for the one that asked.
struct PairBoard {
  std::atomic<int> pairs{0};
  double ratios[kPairsMax] = {};
  double cpu_s[2] = {};
  std::uint64_t served[2] = {};
  bool complete = false;
  char failure[192] = "";
};

/// Calls one server with so many flows for a while, and then waits until all of them have been served.
class Caller {
 public:
  explicit Caller(const Road& road)
      : connector_(reactor_, {.data = [this](Connection&, std::string_view) { ++served_; },
                              .closed = [this](Connection&, std::error_code) { ended(); }}),
        end_(reactor_, [this] { is_over_ = true; }) {
    for (std::size_t i = 0; i < kSources; ++i)
      sources_.emplace_back(road.source_address(i), std::uint16_t{0});
  }

  /// How many were served.
  std::uint64_t call(const Endpoint& server, int flows, Clock::duration length) {
    server_ = server;
    served_ = 0;
    is_over_ = false;
    end_.arm(length);
    for (int i = 0; i < flows; ++i) call_once();
    if (living_ > 0) reactor_.run();
    end_.cancel();
    return served_;
  }

 private:
  void call_once() {
    const auto result = connector_.connect(
        server_, {.deadline = 5s, .source = sources_[calls_++ % kSources], .no_delay = false});
    if (!result.error) ++living_;
  }
  void ended() {
    --living_;
    if (!is_over_) call_once();
    if (living_ == 0) reactor_.stop();
  }

  Reactor reactor_;
  Connector connector_;
  Timer end_;
  std::vector<Endpoint> sources_;
  std::size_t calls_ = 0;
  Endpoint server_;
  std::uint64_t served_ = 0;
  int living_ = 0;
  bool is_over_ = false;
};

/// One of the two.
struct Server {
  Child process;
  Endpoint endpoint;
  clockid_t clock = 0;

  double cpu_s() const {
    timespec used{};
    if (::clock_gettime(clock, &used) != 0)
      throw std::system_error(errno, std::system_category(), "reading a server's CPU clock");
    return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) * 1e-9;
  }
};

Server start_server(const Scenario& scenario, const Road& road, std::uint16_t port, const Failed& failed,
                    const Processors& processors) {
  Server server;
  std::vector<Listener> listeners;
  const std::size_t count = listeners_for(scenario);
  std::uint16_t wanted = road.kind() == RoadKind::kShared ? 0 : port;
  for (std::size_t i = 0; i < count; ++i) {
    listeners.emplace_back(Endpoint(road.server_address(), wanted),
                           ListenerOptions{.backlog = scenario.backlog, .reuse_port = count > 1});
    wanted = listeners.front().endpoint().port();
  }
  server.endpoint = listeners.front().endpoint();
  std::optional<cpu_set_t> one;
  if (processors.server) one = first_of(*processors.server);
  server.process.pid = fork_process(failed, one, [&] {
    std::vector<Listener> own;
    for (const Listener& listener : listeners)
      own.emplace_back(Fd(::fcntl(listener.fd(), F_DUPFD_CLOEXEC, 0)));
    serve(scenario, std::move(own));
  });
  if (::clock_getcpuclockid(server.process.pid, &server.clock) != 0)
    throw std::system_error(ESRCH, std::system_category(), "a server's CPU clock");
  return server;
}

void compare(const Scenario& first, const Scenario& second, const PairedOptions& options, PairBoard& board,
             const Failed& failed) {
  const Road road({});
  const Processors processors = divide_processors();
  swarm_clients_max();
  Server servers[2] = {start_server(first, road, kFirstPort, failed, processors),
                       start_server(second, road, kFirstPort + 1, failed, processors)};
  if (processors.swarm) {
    const cpu_set_t one = first_of(*processors.swarm);
    ::sched_setaffinity(0, sizeof(one), &one);
  }
  road.go_to_client_side();
  Caller caller(road);
  struct Slice {
    double cpu_s;
    std::uint64_t served;
    double cost() const { return cpu_s / static_cast<double>(std::max<std::uint64_t>(served, 1)); }
  };
  const auto slice = [&](int which) {
    const double before = servers[which].cpu_s();
    const std::uint64_t served = caller.call(servers[which].endpoint, options.flows, options.slice);
    if (served == 0) throw std::runtime_error("a server of a pair served nobody in a slice");
    return Slice{.cpu_s = servers[which].cpu_s() - before, .served = served};
  };
  for (const int which : {0, 1, 1, 0}) slice(which);  // to warm up: not counted
  for (int pair = 0; pair < std::min(options.pairs, kPairsMax); ++pair) {
    const bool first_leads = pair % 2 == 0;  // A B, then B A
    const Slice lead = slice(first_leads ? 0 : 1);
    const Slice follow = slice(first_leads ? 1 : 0);
    const Slice& a = first_leads ? lead : follow;
    const Slice& b = first_leads ? follow : lead;
    board.ratios[pair] = b.cost() / a.cost();
    board.cpu_s[0] += a.cpu_s;
    board.cpu_s[1] += b.cpu_s;
    board.served[0] += a.served;
    board.served[1] += b.served;
    board.pairs.store(pair + 1);
  }
  for (Server& server : servers) server.process.kill_and_wait();
  board.complete = true;
}

/// Memory that this process and its children share.
class SharedPair {
 public:
  SharedPair() {
    memory_ = ::mmap(nullptr, sizeof(PairBoard), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory_ == MAP_FAILED) throw std::system_error(errno, std::system_category(), "mmap for a pair");
    new (memory_) PairBoard;
  }
  SharedPair(const SharedPair&) = delete;
  SharedPair& operator=(const SharedPair&) = delete;
  ~SharedPair() { ::munmap(memory_, sizeof(PairBoard)); }
  PairBoard& board() noexcept { return *static_cast<PairBoard*>(memory_); }

 private:
  void* memory_;
};

}  // namespace

PairedCpu compare_cpu(const Scenario& first, const Scenario& second, const PairedOptions& options,
                      const std::atomic<bool>& interrupted, const std::function<void(int)>& progress) {
  SharedPair shared;
  PairBoard& board = shared.board();
  const Failed failed = [&board](std::string_view why) {
    const std::size_t length = why.copy(board.failure, sizeof(board.failure) - 1);
    board.failure[length] = '\0';
  };
  // Each slice takes its length and the time of the last flows; ten times that is too long.
  const Clock::time_point limit = Clock::now() + 10s + options.slice * 20 * options.pairs;
  Child process{
      .pid = fork_process(failed, std::nullopt, [&] { compare(first, second, options, board, failed); })};
  bool was_hung = false;
  while (!process.has_ended()) {
    was_hung = Clock::now() > limit;
    if (interrupted.load() || was_hung) {
      process.kill_and_wait();
      break;
    }
    if (progress) progress(board.pairs.load());
    std::this_thread::sleep_for(10ms);
  }
  PairedCpu result;
  if (!board.complete) {
    result.problem = interrupted.load()         ? "interrupted"
                     : was_hung                 ? "it did not end in time"
                     : board.failure[0] != '\0' ? board.failure
                                                : "its process was killed";
    return result;
  }
  result.ratios.assign(board.ratios, board.ratios + board.pairs.load());
  result.ratio = median_ratio(result.ratios);
  result.first_cpu_s = board.cpu_s[0] / static_cast<double>(board.served[0]);
  result.second_cpu_s = board.cpu_s[1] / static_cast<double>(board.served[1]);
  return result;
}

}  // namespace anteroom::bench
