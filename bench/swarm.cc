#include <anteroom/bench/kernel_counters.h>
#include <anteroom/bench/swarm.h>
#include <anteroom/connector.h>
#include <anteroom/timer.h>
#include <fmt/format.h>
#include <netinet/tcp.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

namespace anteroom::bench {
namespace {

using Clock = std::chrono::steady_clock;

/// Then those who called before are looked after; a burst does not wait for that.
constexpr int kCallsPerTurn = 32;
// Of the 28,232 ports of one address, so that a free one is found at once.
constexpr std::size_t kClientsPerSource = 4000;
constexpr std::size_t kReservedDescriptors = 64;

Fate fate_of_failure(int error) noexcept {
  switch (error) {
    case ECONNREFUSED:
      return Fate::kRefused;
    case ETIMEDOUT:
      return Fate::kTimedOut;
    case EADDRNOTAVAIL:
    case EADDRINUSE:
      return Fate::kNoLocalPort;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
      return Fate::kNoDescriptor;
    default:
      return Fate::kReset;
  }
}

/// What the server's side of this machine knows of the clients that believe to be connected.
class ServerSide {
 public:
  explicit ServerSide(std::uint16_t port) {
    for (const TcpSocket& socket : read_tcp_sockets()) {
      const bool is_known = socket.state != TCP_SYN_RECV && socket.state != TCP_LISTEN;
      if (socket.local_port == port && is_known)
        known_.push_back(key(socket.remote_address, socket.remote_port));
    }
    std::ranges::sort(known_);
  }

  bool knows(const Endpoint& client) const {
    const auto* address = reinterpret_cast<const sockaddr_in*>(client.data());
    return std::ranges::binary_search(known_, key(address->sin_addr.s_addr, client.port()));
  }

 private:
  static std::uint64_t key(std::uint32_t address, std::uint16_t port) {
    return std::uint64_t{address} << 16 | port;
  }
  std::vector<std::uint64_t> known_;
};

class Swarm {
 public:
  explicit Swarm(const SwarmPlan& plan)
      : plan_(plan),
        next_(plan.first),
        connector_(reactor_, {.open = [this](Connection& c) { opened(c); },
                              .data = [this](Connection& c, std::string_view) { greeted(c); },
                              .closed = [this](Connection& c, std::error_code error) { closed(c, error); }}),
        call_timer_(reactor_, [this] { call(); }),
        end_timer_(reactor_, [this] { give_up(); }) {
    ids_.resize(plan.records.size() / plan.step + 1);
    // 127.0.0.1, 127.0.1.1, ...: all of 127/8 is ours on the loopback device.
    for (std::size_t i = 0; i * kClientsPerSource < plan.records.size(); ++i) {
      sources_.emplace_back(fmt::format("127.{}.{}.1", i / 256 % 256, i % 256), std::uint16_t{0});
    }
  }

  void run() {
    if (next_ >= plan_.records.size()) return;
    call_timer_.arm_at(time_of(plan_.records[next_].intended_ns));
    end_timer_.arm_at(plan_.start + plan_.end);
    reactor_.run();
  }

 private:
  Clock::time_point time_of(std::int64_t ns) const { return plan_.start + std::chrono::nanoseconds(ns); }
  std::int64_t now_ns() const { return (Clock::now() - plan_.start).count(); }
  static ClientRecord& record_of(const Connection& connection) {
    return *static_cast<ClientRecord*>(connection.context());
  }

  /// Lets all call whose time has come, but looks after the others in between.
  void call() {
    for (int calls = 0; next_ < plan_.records.size(); ++calls, next_ += plan_.step) {
      ClientRecord& record = plan_.records[next_];
      const std::int64_t now = now_ns();
      if (record.intended_ns > now || (calls >= kCallsPerTurn && !plan_.is_burst))
        return call_timer_.arm_at(time_of(record.intended_ns));
      record.called_ns = now;
      const ConnectResult result =
          connector_.connect(plan_.server, {.deadline = std::chrono::nanoseconds(0),
                                            .source = sources_[next_ / kClientsPerSource],
                                            .no_delay = false,
                                            .context = &record});
      ids_[next_ / plan_.step] = result.id;
      if (result.error) {
        decide(record, fate_of_failure(result.error.value()));
      } else {
        ++living_;
      }
    }
    stop_if_done();
  }

  void opened(Connection& connection) {
    ClientRecord& record = record_of(connection);
    note_retransmits(connection, record);
  }

  void greeted(Connection& connection) {
    ClientRecord& record = record_of(connection);
    if (record.fate != Fate::kNotStarted) return;
    record.first_byte_ns = now_ns();
    decide(record, record.retransmits == 0 ? Fate::kServedAtOnce : Fate::kServedAfterRetransmit);
  }

  void closed(Connection& connection, std::error_code error) {
    ClientRecord& record = record_of(connection);
    if (record.fate == Fate::kNotStarted) decide(record, fate_of_failure(error.value()));
    --living_;
    stop_if_done();
  }

  /// The end of everybody's patience. The rest are reset, not closed: the FIN of a ghost would bring its
  /// cookie, and the server would take it in after all. Who is still connecting goes first, so that none of
  /// them connects while it is looked up what the server knows of the others.
  void give_up() {
    const std::size_t called =
        std::exchange(next_, plan_.records.size());  // who was not started by now never is
    std::vector<Connection*> connected;
    for (std::size_t i = plan_.first; i < called; i += plan_.step) {
      auto* const connection = reactor_.find<Connection>(ids_[i / plan_.step]);
      if (connection == nullptr) continue;
      ClientRecord& record = plan_.records[i];
      if (record.fate == Fate::kNotStarted) {
        const std::optional<TcpInfo> info = connection->tcp_info();
        if (!connection->was_open()) note_retransmits(*connection, record);
        record.in_syn_sent = info && info->connecting;
        if (!record.in_syn_sent) {
          connected.push_back(connection);
          continue;
        }
        decide(record, Fate::kDeadline);
      }
      connection->abort();
    }
    if (!connected.empty()) {
      const ServerSide server(plan_.server.port());
      for (Connection* connection : connected) {
        decide(record_of(*connection), server.knows(connection->local()) ? Fate::kDeadline : Fate::kGhost);
        connection->abort();
      }
    }
    stop_if_done();
  }

  static void note_retransmits(const Connection& connection, ClientRecord& record) {
    const std::optional<TcpInfo> info = connection.tcp_info();
    const std::uint32_t count = info ? info->total_retransmits : 0;
    record.retransmits = static_cast<std::uint8_t>(std::min<std::uint32_t>(count, 255));
  }

  void decide(ClientRecord& record, Fate fate) {
    record.fate = fate;
    if (plan_.ended != nullptr) plan_.ended->fetch_add(1, std::memory_order_relaxed);
  }

  void stop_if_done() {
    if (living_ == 0 && next_ >= plan_.records.size()) reactor_.stop();
  }

  const SwarmPlan& plan_;
  std::size_t next_;
  std::size_t living_ = 0;
  std::vector<ChannelId> ids_;
  std::vector<Endpoint> sources_;
  Reactor reactor_;
  Connector connector_;
  Timer call_timer_;
  Timer end_timer_;
};

}  // namespace

void run_swarm(const SwarmPlan& plan) { Swarm(plan).run(); }

std::size_t swarm_clients_max() noexcept {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  const auto descriptors = static_cast<std::size_t>(std::min<rlim_t>(limit.rlim_max, 1'000'000));
  return descriptors > kReservedDescriptors ? descriptors - kReservedDescriptors : 0;
}

}  // namespace anteroom::bench
