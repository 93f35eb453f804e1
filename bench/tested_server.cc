#include "tested_server.h"

#include <anteroom/bench/processes.h>
#include <anteroom/bench/socket_diag.h>
#include <anteroom/bench/swarm.h>
#include <anteroom/listener.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <optional>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "server_process.h"

namespace anteroom::bench {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

// Below the local ports of the road, so that nobody can meet himself.
constexpr std::uint16_t kServerPort = 7777;
// Beyond what its guests cost, before a server counts as hung.
constexpr std::chrono::seconds kEndGrace{5};

class EmbeddedServer : public TestedServer {
 public:
  EmbeddedServer(const Scenario& scenario, const Road& road, SharedTrial& shared,
                 const Processors& processors, const Failed& failed)
      : scenario_(scenario), shared_(shared), processors_(processors), failed_(failed) {
    const std::size_t count = listeners_for(scenario);
    const bool is_blocking = scenario.server == ServerKind::kBlocking ||
                             scenario.server == ServerKind::kThreads || scenario.server == ServerKind::kPool;
    std::uint16_t port = road.kind() == RoadKind::kShared ? 0 : kServerPort;
    for (std::size_t i = 0; i < count; ++i) {
      listeners_.emplace_back(
          Endpoint(road.server_address(), port),
          ListenerOptions{.backlog = scenario.backlog, .reuse_port = count > 1, .blocking = is_blocking});
      port = listeners_.front().endpoint().port();
    }
    address_ = listeners_.front().endpoint();
  }

  const Endpoint& address() const noexcept override { return address_; }

  std::size_t start() override {
    child_.pid = fork_process(failed_, processors_.server, [this] {
      swarm_clients_max();  // raises the limit of descriptors: each guest is one
      std::vector<Listener> own;
      for (const Listener& listener : listeners_) own.emplace_back(Fd(::dup(listener.fd())));
      run_server_process(scenario_, std::move(own), shared_);
    });
    return 1;
  }

  Queues queues() override {
    Queues all;
    for (const Listener& listener : listeners_) {
      const auto queue = listener.queue();
      if (!queue) continue;
      if (&listener == &listeners_.front()) all.limit = queue->limit;
      all.deepest = std::max(all.deepest, queue->depth);
      all.waiting += queue->depth;
      all.drops += queue->drops;
    }
    return all;
  }

  bool has_ended() override { return child_.has_ended(); }

  std::chrono::nanoseconds end() override {
    if (!child_.has_ended()) ::kill(child_.pid, SIGTERM);
    // It finishes its turn, in which it may have as many guests as a reactor accepts at once.
    const Clock::time_point limit = Clock::now() + scenario_.stall + 64 * scenario_.handler.time + kEndGrace;
    while (!child_.has_ended() && Clock::now() < limit) std::this_thread::sleep_for(500us);
    child_.kill_and_wait();
    return std::chrono::nanoseconds(child_.cpu);
  }

 private:
  const Scenario& scenario_;
  SharedTrial& shared_;
  const Processors& processors_;
  const Failed& failed_;
  std::vector<Listener> listeners_;
  Endpoint address_;
  Child child_;
};

class ForeignServer : public TestedServer {
 public:
  explicit ForeignServer(const Target& target) : target_(target) {
    for (const ListeningSocket& listener : look()) drops_before_[listener.cookie] = listener.drops;
  }

  const Endpoint& address() const noexcept override { return target_.address; }
  std::uint16_t local_port() const noexcept override { return target_.local_port; }

  std::size_t start() override {
    for (const pid_t pid : target_.processes) cpu_before_[pid] = processor_time(pid);
    return 0;
  }

  Queues queues() override {
    Queues all;
    for (const ListeningSocket& listener : look()) {
      if (listener.cookie == target_.listeners.front()) all.limit = listener.limit;
      all.deepest = std::max(all.deepest, listener.depth);
      all.waiting += listener.depth;
      all.drops += listener.drops - drops_before_[listener.cookie];  // modulo 2^32, as the kernel counts
    }
    return all;
  }

  bool has_ended() override { return sockets_.size() < target_.listeners.size(); }

  std::chrono::nanoseconds end() override {
    std::chrono::nanoseconds sum{0};
    for (const auto& [pid, before] : cpu_before_)
      sum += std::max(processor_time(pid) - before, 0ns);  // 0 if it has ended
    return sum;
  }

 private:
  /// Its listeners, those that are still there: 20 µs.
  const std::vector<ListeningSocket>& look() {
    sockets_.clear();
    if (target_.listeners.empty()) return sockets_;
    const std::uint16_t port = target_.local_port;
    diag_.listeners(sockets_, std::span(&port, 1));
    std::erase_if(sockets_, [this](const ListeningSocket& socket) {
      return std::ranges::count(target_.listeners, socket.cookie) == 0;
    });
    return sockets_;
  }

  const Target& target_;
  SocketDiag diag_;
  std::vector<ListeningSocket> sockets_;
  std::map<std::uint64_t, std::uint32_t> drops_before_;  // by cookie
  std::map<pid_t, std::chrono::nanoseconds> cpu_before_;
};

}  // namespace

std::unique_ptr<TestedServer> embedded_server(const Scenario& scenario, const Road& road, SharedTrial& shared,
                                              const Processors& processors, const Failed& failed) {
  return std::make_unique<EmbeddedServer>(scenario, road, shared, processors, failed);
}

std::unique_ptr<TestedServer> foreign_server(const Target& target) {
  return std::make_unique<ForeignServer>(target);
}

}  // namespace anteroom::bench
