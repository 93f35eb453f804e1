#include <anteroom/bench/swarm.h>
#include <anteroom/connector.h>
#include <anteroom/timer.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "answers.h"
#include "server_side.h"

namespace anteroom::bench {
namespace {

using Clock = std::chrono::steady_clock;

/// Then those who called before are looked after; a burst does not wait for that.
constexpr int kCallsPerTurn = 32;
// Of the 28,232 ports of one address, so that a free one is found at once.
constexpr std::size_t kClientsPerSource = 4000;
constexpr std::size_t kReservedDescriptors = 64;
// No SYN goes out again before the first wait of 1 s is over (RFC 6298, 2.1; TCP_TIMEOUT_INIT in the kernel's
// include/net/tcp.h). The rest is a margin for coarse ticks.
constexpr std::chrono::nanoseconds kNoRetransmitBefore = std::chrono::milliseconds(900);
// Data goes out again after 0.2 s at the earliest (TCP_RTO_MIN, ibid.), with the same margin.
constexpr std::chrono::nanoseconds kNoRepeatBefore = std::chrono::milliseconds(150);
// A greeting server closes with its greeting, or a round trip later. Who does not in so long stays on, as
// redis does, and would hold a descriptor of each client until the end.
constexpr std::chrono::nanoseconds kCloseGrace = std::chrono::milliseconds(200);
// For those, and for the last to close in order, when nobody is left to be served.
constexpr std::chrono::nanoseconds kLastGrace = std::chrono::milliseconds(500);
// Until a swarm notices that it is to stop.
constexpr std::chrono::nanoseconds kStopLook = std::chrono::milliseconds(50);
// In a closed loop, of those that were served and not closed yet: a server may have no more than the usual
// 1,024 descriptors, and who asks for 5 flows does not mean thousands.
constexpr std::size_t kServedLivingMax = 500;
// Until a closed loop that has found no descriptor looks again.
constexpr std::chrono::nanoseconds kDescriptorLook = std::chrono::milliseconds(1);
// And until it tells that it has none.
constexpr std::chrono::nanoseconds kDescriptorPatience = std::chrono::milliseconds(100);
// What fits into one segment, however small they are (RFC 1122, 4.2.2.6). Of several the last may be sent
// again after two round trips (the tail loss probe, RFC 8985, 7.2), of one not before kNoRepeatBefore.
constexpr std::size_t kOneSegmentMax = 536;

Fate fate_of_failure(int error) noexcept {
  switch (error) {
    case 0:
      return Fate::kResetAfterAccept;  // a FIN: only who has accepted sends one
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
      return Fate::kResetBeforeAccept;  // as far as a client can tell
  }
}

/// How many SYNs the kernel has sent again when it gives up after that time: it waits for 1.024 s, as often
/// as `linear` says once more, and then twice as long each time; the last wait is followed by none.
std::uint8_t retransmits_within(std::int64_t ns, int linear) noexcept {
  double wait_ns = 1.024e9;
  std::uint8_t waits = 0;
  for (double left = static_cast<double>(ns) + wait_ns / 4; left >= wait_ns; ++waits) {
    left -= wait_ns;
    if (waits >= linear) wait_ns *= 2;
  }
  return waits > 0 ? static_cast<std::uint8_t>(waits - 1) : std::uint8_t{0};
}

class Swarm {
 public:
  explicit Swarm(const SwarmPlan& plan)
      : plan_(plan),
        next_(plan.first),
        longest_living_(plan.first),
        connector_(reactor_, {.open = [this](Connection& c) { opened(c); },
                              .data = [this](Connection& c, std::string_view bytes) { heard(c, bytes); },
                              .closed = [this](Connection& c, std::error_code error) { closed(c, error); }}),
        call_timer_(reactor_, [this] { call(); }),
        close_timer_(reactor_, [this] { close_greeted(); }),
        end_timer_(reactor_, [this] { give_up(); }),
        stop_timer_(reactor_, [this] { look_whether_to_stop(); }),
        answers_(plan.dialogue),
        no_repeat_before_(plan.dialogue.request.size() > kOneSegmentMax ? 0 : kNoRepeatBefore.count()) {
    if (is_closed_loop()) living_max_ = std::min(swarm_clients_max(), plan.flows + kServedLivingMax);
    ids_.resize(plan.records.size() / plan.step + 1);
  }

  void run() {
    if (next_ >= plan_.records.size()) return;
    call_timer_.arm_at(is_closed_loop() ? plan_.start : time_of(plan_.records[next_].intended_ns));
    end_timer_.arm_at(plan_.start + plan_.end);
    if (plan_.stop != nullptr) stop_timer_.arm_every(kStopLook);
    reactor_.run();
  }

 private:
  Clock::time_point time_of(std::int64_t ns) const { return plan_.start + std::chrono::nanoseconds(ns); }
  std::int64_t now_ns() const { return (Clock::now() - plan_.start).count(); }
  static ClientRecord& record_of(const Connection& connection) {
    return *static_cast<ClientRecord*>(connection.context());
  }

  bool is_closed_loop() const noexcept { return plan_.flows > 0; }

  std::optional<Endpoint> source_of(std::size_t client) const {
    return plan_.sources.empty() ? std::nullopt : std::optional(plan_.sources[client / kClientsPerSource]);
  }

  /// Lets all call whose time has come, but looks after the others in between. In a closed loop it is the
  /// time of a flow when the last client of it has been served.
  void call() {
    for (int calls = 0; next_ < plan_.records.size(); ++calls, next_ += plan_.step) {
      ClientRecord& record = plan_.records[next_];
      const std::int64_t now = now_ns();
      if (is_closed_loop()) {
        if (waiting_ >= plan_.flows) return;
        if (living_ >= living_max_) return reset_longest_served();  // and calls when that has ended
        record.intended_ns = now;
      }
      if (record.intended_ns > now || (calls >= kCallsPerTurn && !plan_.is_burst))
        return call_timer_.arm_at(time_of(record.intended_ns));
      record.called_ns = now;
      const ConnectResult result = connector_.connect(plan_.server, {.deadline = std::chrono::nanoseconds(0),
                                                                     .source = source_of(next_),
                                                                     .no_delay = false,
                                                                     .context = &record});
      ids_[next_ / plan_.step] = result.id;
      if (result.error && is_closed_loop()) return call_failed(record, fate_of_failure(result.error.value()));
      count_call();
      if (result.error) {
        decide(record, fate_of_failure(result.error.value()), now);
      } else {
        ++living_;
        ++waiting_;
        last_call_ns_ = now;
      }
    }
    stop_if_done();
  }

  /// Of a flow. A descriptor will be free again, and it waits for one. Anything else would fail for ever.
  void call_failed(ClientRecord& record, Fate fate) {
    const std::int64_t now = record.called_ns;
    const bool may_come = fate == Fate::kNoDescriptor;
    if (may_come && now - last_call_ns_ < kDescriptorPatience.count()) {
      record.called_ns = -1;
      reset_longest_served();
      return call_timer_.arm(kDescriptorLook);
    }
    count_call();
    decide(record, fate, now);
    last_call_ns_ = now;
    next_ = may_come ? next_ + plan_.step : plan_.records.size();
    if (may_come) return call_timer_.arm(kDescriptorLook);
    stop_if_done();
  }

  /// Makes room for the next client of a closed loop: who was served waits for nothing any more.
  void reset_longest_served() {
    while (longest_living_ < next_) {
      const std::size_t client = std::exchange(longest_living_, longest_living_ + plan_.step);
      auto* const connection = reactor_.find<Connection>(ids_[client / plan_.step]);
      if (connection != nullptr && plan_.records[client].fate != Fate::kNotStarted)
        return connection->abort();
    }
  }

  void opened(Connection& connection) {
    ClientRecord& record = record_of(connection);
    record.writable_ns = now_ns();
    record.local = peer_key(connection.local());
    // Who has to ask the kernel pays 1 % more processor time for each connection.
    if (record.writable_ns - record.called_ns >= kNoRetransmitBefore.count())
      note_retransmits(connection, record);
    if (!plan_.dialogue.request.empty()) connection.send(plan_.dialogue.request);
  }

  void heard(Connection& connection, std::string_view bytes) {
    ClientRecord& record = record_of(connection);
    if (record.fate != Fate::kNotStarted) return;
    const Dialogue::Verdict verdict = answers_.hear(record, bytes);
    const std::int64_t now = now_ns();
    note_request_retransmits(connection, record, now);  // when it is closed, nobody can say any more
    if (verdict == Dialogue::Verdict::kGoOn) return;
    if (verdict == Dialogue::Verdict::kServed) {
      record.first_byte_ns = now;
      decide(record, record.retransmits == 0 ? Fate::kServedAtOnce : Fate::kServedAfterRetransmit, now);
    } else {
      decide(record, Fate::kAnsweredOtherwise, now);
    }
    --waiting_;
    end_soon(connection);
    if (is_closed_loop()) return call();
    if (waiting_ == 0) stop_if_done();
  }

  /// By us, now; or, if the server is to close, after a grace, which is up to twice as long as it has to be,
  /// so that the timer is one for all.
  void end_soon(Connection& connection) {
    if (!plan_.dialogue.server_closes) return connection.close();
    greeted_.emplace_back(Clock::now() + kCloseGrace, connection.id());
    if (!close_timer_.is_armed()) close_timer_.arm(kCloseGrace);
  }

  void close_greeted() {
    for (const Clock::time_point now = Clock::now(); !greeted_.empty() && greeted_.front().first <= now;
         greeted_.pop_front()) {
      if (auto* const connection = reactor_.find<Connection>(greeted_.front().second)) connection->close();
    }
    if (!greeted_.empty()) close_timer_.arm(kCloseGrace);
  }

  void closed(Connection& connection, std::error_code error) {
    ClientRecord& record = record_of(connection);
    if (record.fate == Fate::kNotStarted) {
      const Fate fate = answers_.forget(record) ? Fate::kAnsweredOtherwise : fate_of_failure(error.value());
      if (fate == Fate::kTimedOut && !connection.was_open()) {
        record.in_syn_sent = true;  // until the kernel gave up
        record.retransmits = retransmits_within(now_ns() - record.called_ns, plan_.syn_linear_timeouts);
      }
      decide(record, fate, now_ns());
      --waiting_;
    }
    --living_;
    if (is_closed_loop()) return call();
    stop_if_done();
  }

  /// The end of everybody's patience, or of the grace of the last. The rest are reset, not closed: the FIN of
  /// a ghost would bring its cookie, and the server would take it in after all. Who is still connecting goes
  /// first, so that none of them connects while it is looked up what the server knows of the others.
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
        decide(record, Fate::kDeadline, end_ns());
      }
      connection->abort();
    }
    if (!connected.empty()) decide_connected(connected);
    stop_if_done();
  }

  /// Those who believe to be connected, and were not served.
  void decide_connected(const std::vector<Connection*>& connected) {
    std::optional<ServerSide> server;
    if (plan_.server_sockets) server.emplace(plan_.server_sockets());
    for (Connection* connection : connected) {
      ClientRecord& record = record_of(*connection);
      note_request_retransmits(*connection, record, end_ns());
      // Whom the server has closed it has known, even if it has forgotten him by now.
      const std::optional<TcpInfo> info = connection->tcp_info();
      const bool was_closed = info && !info->established;
      Fate fate = Fate::kDeadline;
      if (answers_.forget(record)) {
        // Cut short by the end of a closed loop, or by the user, it may yet have become an answer.
        if (!is_cut_short()) fate = Fate::kAnsweredOtherwise;
      } else if (server && !was_closed) {
        fate = server->fate_of(peer_key(connection->local()));
      }
      decide(record, fate, end_ns());
      connection->abort();
    }
  }

  void look_whether_to_stop() {
    if (!plan_.stop->load(std::memory_order_relaxed)) return;
    stop_timer_.cancel();
    give_up();
  }

  /// The end came before the last client's timeout.
  bool is_cut_short() const { return is_closed_loop() || now_ns() < plan_.end.count(); }

  /// The end, or now, if that is earlier.
  std::int64_t end_ns() const { return std::min(plan_.end.count(), now_ns()); }

  static void note_retransmits(const Connection& connection, ClientRecord& record) {
    const std::optional<TcpInfo> info = connection.tcp_info();
    const std::uint32_t count = info ? info->total_retransmits : 0;
    record.retransmits = static_cast<std::uint8_t>(std::min<std::uint32_t>(count, 255));
  }

  void note_request_retransmits(const Connection& connection, ClientRecord& record, std::int64_t now) const {
    if (plan_.dialogue.request.empty() || now - record.writable_ns < no_repeat_before_) return;
    const std::optional<TcpInfo> info = connection.tcp_info();
    const std::uint32_t count = info ? info->total_retransmits : 0;
    const std::uint32_t of_request = count - std::min<std::uint32_t>(count, record.retransmits);
    record.request_retransmits = static_cast<std::uint8_t>(std::min<std::uint32_t>(of_request, 255));
  }

  void count_call() {
    if (plan_.called != nullptr) plan_.called->fetch_add(1, std::memory_order_relaxed);
  }

  void decide(ClientRecord& record, Fate fate, std::int64_t at_ns) {
    record.fate = fate;
    record.ended_ns = at_ns;
    if (plan_.ended != nullptr) plan_.ended->fetch_add(1, std::memory_order_relaxed);
  }

  void stop_if_done() {
    if (next_ < plan_.records.size()) return;
    if (living_ == 0) return reactor_.stop();
    if (waiting_ > 0 || is_last_grace_) return;
    is_last_grace_ = true;  // nobody is to be served any more
    end_timer_.arm_at(std::min(Clock::now() + kLastGrace, plan_.start + plan_.end));
  }

  const SwarmPlan& plan_;
  std::size_t next_;
  std::size_t longest_living_;  // in a closed loop, who may be reset first: whoever called before has been
  std::size_t living_ = 0;      // clients that are not closed yet
  std::size_t waiting_ = 0;     // of them, those that have no fate yet, but for the end
  std::size_t living_max_ = std::numeric_limits<std::size_t>::max();
  std::int64_t last_call_ns_ = 0;                                // that found a descriptor, or told of none
  std::deque<std::pair<Clock::time_point, ChannelId>> greeted_;  // whom the server is to close, until when
  std::vector<ChannelId> ids_;
  Reactor reactor_;
  Connector connector_;
  Timer call_timer_;
  Timer close_timer_;
  Timer end_timer_;
  Timer stop_timer_;
  Answers answers_;
  std::int64_t no_repeat_before_;  // of a request
  bool is_last_grace_ = false;
};

}  // namespace

void run_swarm(const SwarmPlan& plan) { Swarm(plan).run(); }

std::size_t sources_for(std::size_t clients) noexcept {
  return (clients + kClientsPerSource - 1) / kClientsPerSource;
}

std::size_t swarm_clients_max() noexcept {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  const auto descriptors = static_cast<std::size_t>(std::min<rlim_t>(limit.rlim_max, 1'000'000));
  return descriptors > kReservedDescriptors ? descriptors - kReservedDescriptors : 0;
}

}  // namespace anteroom::bench
