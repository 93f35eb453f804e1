#include "watch.h"

#include <anteroom/bench/processes.h>
#include <anteroom/bench/running_server.h>
#include <anteroom/bench/socket_diag.h>
#include <anteroom/listen_queue.h>
#include <anteroom/reactor.h>
#include <anteroom/timer.h>
#include <fmt/format.h>
#include <standard_streams.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <exception>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "output.h"
#include "prometheus.h"
#include "terminal.h"
#include "tune.h"
#include "watch_document.h"
#include "watch_pace.h"
#include "watch_screen.h"
#include "watch_view.h"

namespace anteroom::tool {
namespace {

using bench::Counter;
using bench::KernelCounters;
using std::chrono::nanoseconds;
using Clock = Reactor::Clock;

constexpr std::chrono::milliseconds kCountersEvery{500};
constexpr std::chrono::milliseconds kDrawEvery{500};
constexpr std::chrono::seconds kBusyFor{10};
constexpr std::chrono::milliseconds kLivelyFor{100};
// Of the whole namespace, where only some of its listeners are watched: what others have, and who is gone.
constexpr std::chrono::seconds kOthersEvery{1};
// To walk /proc is dear.
constexpr std::chrono::seconds kHoldersEvery{5};
// With fewer listeners a look at all of them costs little more than one at some.
constexpr std::size_t kFewListeners = 32;
constexpr std::size_t kBusyPortsMax = 64;
// Counters and listeners cannot be read at the same moment; so until nothing has moved in between.
constexpr int kSettleTries = 50;

nanoseconds cpu_used(clockid_t clock) {
  timespec time{};
  ::clock_gettime(clock, &time);
  return std::chrono::seconds(time.tv_sec) + nanoseconds(time.tv_nsec);
}

bool agree(const KernelCounters& a, const KernelCounters& b) {
  return a[Counter::kListenDrops] == b[Counter::kListenDrops] &&
         a[Counter::kListenOverflows] == b[Counter::kListenOverflows];
}

std::uint64_t cookie_of(int socket) {
  std::uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  ::getsockopt(socket, SOL_SOCKET, SO_COOKIE, &cookie, &size);
  return cookie;
}

class WatchRun {
 public:
  WatchRun(const WatchCommand& command, std::optional<Listener> scrapes,
           const std::atomic<bool>& interrupted);

  void run();
  const WatchState& state() const { return state_; }

 private:
  bool is_watched(const bench::ListeningSocket& socket) const;
  nanoseconds elapsed() const { return Clock::now() - began_; }

  /// Runs it; if it throws, the watch ends in order and says why. An exception that leaves a handler would
  /// end the program where it was thrown (ARCHITECTURE, law 1), with the terminal as it is then.
  void attempt(const std::function<void()>& work) noexcept;
  std::string answer_scrape();

  void begin();
  void end();
  void look();
  void look_at(bool is_whole, std::span<const std::uint16_t> ports);
  void ask(std::span<const std::uint16_t> ports);
  void take(bool is_whole, const WatchedRooms::ListenDrops& listen_drops);
  bool mixes() const;
  void take_gap(nanoseconds at);
  void read_counters();
  void take_counters(const KernelCounters& counters, nanoseconds at);
  KernelCounters settle();
  void check_rules();
  void break_rule(const std::string& sentence);
  void find_holders();
  void draw();
  void tick();

  const WatchCommand& command_;
  const std::atomic<bool>& interrupted_;
  std::uint64_t our_cookie_ = 0;  // of the socket at which Prometheus asks
  Clock::time_point began_;
  nanoseconds cpu_before_{0};
  bench::SocketDiag diag_;
  ListenDropsFile listen_drops_;
  std::vector<bench::ListeningSocket> seen_;
  nanoseconds seen_at_{0};
  std::size_t listeners_ = 0;  // in the whole namespace, when last counted
  WatchPace pace_;
  std::vector<std::uint16_t> busy_ports_;
  Clock::time_point whole_at_;  // the last look at all
  Clock::time_point holders_at_;
  nanoseconds last_look_{0};
  nanoseconds last_window_{0};
  nanoseconds last_use_wall_{0};
  nanoseconds last_use_cpu_{0};
  double gaps_s_ = 0;
  std::uint64_t gaps_ = 0;
  bool done_ = false;
  KernelCounters first_counters_;
  KernelCounters counted_a_second_ago_;
  WatchState state_;

  Reactor reactor_;
  Timer look_timer_;
  Timer counters_timer_;
  Timer draw_timer_;
  Timer tick_timer_;
  Timer end_timer_;
  Screen screen_;
  std::unique_ptr<MetricsServer> metrics_;
};

WatchRun::WatchRun(const WatchCommand& command, std::optional<Listener> scrapes,
                   const std::atomic<bool>& interrupted)
    : command_(command),
      interrupted_(interrupted),
      our_cookie_(scrapes ? cookie_of(scrapes->fd()) : 0),
      pace_(command.interval),
      state_{
          .command = command,
          .started = std::chrono::system_clock::now(),
          .rooms = WatchedRooms([this](const bench::ListeningSocket& socket) { return is_watched(socket); })},
      look_timer_(reactor_, [this] { attempt([this] { look(); }); }),
      counters_timer_(reactor_, [this] { attempt([this] { read_counters(); }); }),
      draw_timer_(reactor_, [this] { attempt([this] { draw(); }); }),
      tick_timer_(reactor_, [this] { attempt([this] { tick(); }); }),
      end_timer_(reactor_, [this] { done_ = true; }),
      screen_(command.json != "-" && command.profile != "-") {
  if (scrapes) {
    metrics_ =
        std::make_unique<MetricsServer>(reactor_, std::move(*scrapes), [this] { return answer_scrape(); });
  }
}

std::string WatchRun::answer_scrape() {
  std::string text;
  attempt([&] {
    text = prometheus_text(state_);
    state_.rooms.scraped();
  });
  return text;
}

void WatchRun::attempt(const std::function<void()>& work) noexcept {
  try {
    work();
  } catch (const std::exception& error) {
    if (!state_.failed) state_.why_failed = error.what();
    state_.failed = done_ = true;
  }
}

bool WatchRun::is_watched(const bench::ListeningSocket& socket) const {
  const auto& ports = command_.ports;
  if (!ports.empty() && std::ranges::count(ports, socket.address.port()) == 0) return false;
  return !command_.pid || std::ranges::count(command_.inodes, socket.inode) > 0;
}

void WatchRun::run() {
  begin();
  while (!done_ && !interrupted_.load()) reactor_.turn();
  end();
}

void WatchRun::begin() {
  state_.backlog_max = system_backlog_max();
  began_ = whole_at_ = Clock::now();
  first_counters_ = settle();
  find_holders();
  // What has been paid once is none of the price a second.
  cpu_before_ = cpu_used(CLOCK_PROCESS_CPUTIME_ID);
  last_use_cpu_ = cpu_before_;
  last_use_wall_ = elapsed();
  look_timer_.arm(pace_.interval({}));
  counters_timer_.arm_every(kCountersEvery);
  tick_timer_.arm_every(std::chrono::seconds(1));
  if (screen_.is_on()) draw_timer_.arm_every(kDrawEvery);
  if (command_.length) end_timer_.arm(*command_.length);
  draw();
}

void WatchRun::end() {
  const bool was_cut = command_.length && !done_;
  if (!state_.failed) {
    attempt([this] {
      const KernelCounters last = settle();
      take_counters(last, elapsed());
      tick();
    });
  }
  state_.took = elapsed();
  state_.interrupted = was_cut || state_.failed;
  if (state_.failed) state_.notes.push_back("The watch ended early: " + state_.why_failed);
  screen_.leave();
}

/// The kernel's counters and a look at all, of one moment.
KernelCounters WatchRun::settle() {
  KernelCounters before = bench::read_kernel_counters();
  for (int tries = 1;; ++tries) {
    ask({});
    const KernelCounters after = bench::read_kernel_counters();
    const bool is_settled = agree(before, after);
    before = after;
    if (!is_settled && tries < kSettleTries) continue;
    if (!is_settled)
      state_.notes.emplace_back(
          "The kernel's counters moved while they were read, so the drops of the listeners and those of the "
          "namespace are not of quite the same time.");
    take(true, [&] { return after.since(first_counters_)[Counter::kListenDrops]; });
    return after;
  }
}

/// Whether there are so many listeners, and so few of them busy, that it pays to look at these more often.
bool WatchRun::mixes() const {
  if (command_.interval || busy_ports_.empty()) return false;
  return listeners_ > kFewListeners && busy_ports_.size() <= kBusyPortsMax;
}

void WatchRun::look() {
  const Clock::time_point now = Clock::now();
  const bool mixed = mixes();
  const bool has_others = !command_.ports.empty();
  const nanoseconds whole_every = has_others ? std::max<nanoseconds>(kOthersEvery, pace_.whole_interval())
                                  : mixed    ? pace_.whole_interval()
                                             : nanoseconds(0);
  if (now - whole_at_ >= whole_every) {
    look_at(true, {});
  } else {
    look_at(false, has_others ? command_.ports : busy_ports_);
  }
  busy_ports_ = state_.rooms.busy_ports(elapsed() - kBusyFor);
  check_rules();
  if (state_.rooms.has_strangers() && now - holders_at_ >= kHoldersEvery) find_holders();
  const bool is_lively = !state_.rooms.busy_ports(elapsed() - kLivelyFor).empty();
  const nanoseconds interval = pace_.interval({.is_mixed = mixes() || has_others, .is_lively = is_lively});
  look_timer_.arm(interval - (Clock::now() - now));
}

void WatchRun::look_at(bool is_whole, std::span<const std::uint16_t> ports) {
  const nanoseconds cpu = cpu_used(CLOCK_THREAD_CPUTIME_ID);
  ask(ports);
  take(is_whole, [this] { return listen_drops_.read() - first_counters_[Counter::kListenDrops]; });
  pace_.looked(is_whole, cpu_used(CLOCK_THREAD_CPUTIME_ID) - cpu);
}

void WatchRun::ask(std::span<const std::uint16_t> ports) {
  diag_.listeners(seen_, ports);
  seen_at_ = elapsed();
  if (our_cookie_ == 0) return;
  const auto ours = [&](const bench::ListeningSocket& socket) { return socket.cookie == our_cookie_; };
  if (std::erase_if(seen_, ours) > 0) state_.rooms.has_another();
}

/// What was answered.
void WatchRun::take(bool is_whole, const WatchedRooms::ListenDrops& listen_drops) {
  take_gap(seen_at_);
  state_.rooms.take(seen_at_, seen_, is_whole, listen_drops);
  if (!is_whole) return;
  listeners_ = seen_.size();
  whole_at_ = Clock::now();
}

void WatchRun::take_gap(nanoseconds at) {
  const double gap_s = std::chrono::duration<double>(at - std::exchange(last_look_, at)).count();
  if (state_.rooms.looks() == 0) return;
  gaps_s_ += gap_s;
  ++gaps_;
  state_.interval_max_s = std::max(state_.interval_max_s, gap_s);
  state_.interval_mean_s = gaps_s_ / static_cast<double>(gaps_);
}

void WatchRun::read_counters() {
  const nanoseconds at = elapsed();
  take_counters(bench::read_kernel_counters(), at);
  const nanoseconds cpu = cpu_used(CLOCK_PROCESS_CPUTIME_ID);
  pace_.used(cpu - std::exchange(last_use_cpu_, cpu), at - std::exchange(last_use_wall_, at));
  state_.took = at;
  state_.cpu_share =
      std::chrono::duration<double>(cpu - cpu_before_) / std::max<nanoseconds>(at, nanoseconds(1));
  const bool is_known = state_.counted.is_known(Counter::kListenOverflows);
  const auto overflows = is_known ? std::optional(state_.counted[Counter::kListenOverflows]) : std::nullopt;
  for (const WatchRule& rule : command_.fail_if) break_rule(broken(rule, overflows));
}

void WatchRun::take_counters(const KernelCounters& counters, nanoseconds at) {
  const std::uint64_t opened_before = state_.counted[Counter::kPassiveOpens];
  state_.counted = counters.since(first_counters_);
  const std::uint64_t opened = state_.counted[Counter::kPassiveOpens];
  state_.arrivals.take(at, opened + state_.counted[Counter::kListenOverflows]);
  state_.rooms.take_window(std::exchange(last_window_, at), opened - opened_before);
  state_.rooms.take_listen_drops(state_.counted[Counter::kListenDrops]);
}

void WatchRun::tick() {
  state_.backlog_max = system_backlog_max();  // who watches may be about to raise it
  state_.rooms.tick();
  state_.counted_last_second = state_.counted.since(counted_a_second_ago_);
  counted_a_second_ago_ = state_.counted;
}

void WatchRun::check_rules() {
  if (command_.fail_if.empty()) return;
  state_.rooms.for_each_active([this](const WatchedRoom& room) {
    for (const WatchRule& rule : command_.fail_if) break_rule(broken(rule, room));
  });
}

/// The first one ends it.
void WatchRun::break_rule(const std::string& sentence) {
  if (sentence.empty() || done_) return;
  state_.broken_rules.push_back(sentence);
  done_ = true;
}

void WatchRun::find_holders() {
  const bench::SocketHolders holders = bench::find_socket_holders();
  state_.rooms.take_holders(holders);
  state_.hidden = holders.hidden;
  holders_at_ = Clock::now();
}

void WatchRun::draw() {
  if (screen_.is_seen()) screen_.draw(live_view(state_, screen_.terminal(), screen_.lines()));
}

/// Of verdicts, which is worse.
int severity(const bench::RoomAdvice& advice) {
  using Verdict = bench::RoomAdvice::Verdict;
  constexpr std::array kByHarm{Verdict::kNeverNeeded, Verdict::kEnough, Verdict::kTooSmall, Verdict::kTooSlow,
                               Verdict::kNotAccepting};
  return static_cast<int>(std::ranges::find(kByHarm, advice.verdict) - kByHarm.begin());
}

/// Says why it could not be written, if it could not.
bool write_or_say(const std::optional<std::string>& path, const std::string& text) {
  if (!path) return true;
  const std::string why = write_output(*path, text);
  if (!why.empty()) print_error("anteroom: {}\n", why);
  return why.empty();
}

bool write_profile(const WatchState& state) {
  if (!state.command.profile) return true;
  const std::vector<RoomGroup> groups = state.rooms.groups(true);
  const Json profile = groups.size() == 1 ? watch_profile(state, groups.front()) : Json(nullptr);
  if (profile.is_null()) {
    print_error("anteroom: no profile is written: {}\n",
                groups.size() == 1 ? "nobody came" : "more than one address was watched in the end");
    return false;
  }
  return write_or_say(state.command.profile, profile.dump(2) + '\n');
}

}  // namespace

GroupAdvice advise(const WatchState& state, const RoomGroup& group) {
  std::optional<GroupAdvice> worst;
  for (const WatchedRoom* room : group.rooms) {
    // Whoever is gone is not to be tuned, unless there is nobody else.
    if (worst && room->is_gone) continue;
    const bench::RoomAdvice advice = advise(state, group, *room);
    const auto harm = [](const WatchedRoom& of, const bench::RoomAdvice& advised) {
      return std::tuple(severity(advised), advised.backlog.value_or(0), of.log.drops(),
                        of.log.deepest_wanted());
    };
    if (!worst || harm(*room, advice) > harm(*worst->room, worst->advice))
      worst = {.room = room, .advice = advice};
  }
  return worst.value();
}

bench::RoomAdvice advise(const WatchState& state, const RoomGroup& group, const WatchedRoom& room) {
  return bench::advise(room.log,
                       {.is_alone = group.is_alone, .sockets = group.members(), .arrivals = state.arrivals});
}

int watch(const WatchCommand& command, std::optional<Listener> scrapes,
          const std::atomic<bool>& interrupted) {
  if (scrapes) print_error("anteroom: http://{}/metrics\n", scrapes->endpoint().to_string());
  WatchRun run(command, std::move(scrapes), interrupted);
  run.run();
  const WatchState& state = run.state();
  const bool wrote_json = write_or_say(
      command.json,
      command.json ? watch_document(state).dump(2, ' ', false, Json::error_handler_t::replace) + '\n' : "");
  const bool wrote_profile = write_profile(state);
  bool wrote_view = true;
  if (command.json != "-" && command.profile != "-")
    wrote_view = write_or_say("-", final_view(state, Terminal::of(STDOUT_FILENO)));
  for (const std::string& sentence : state.broken_rules) print_error("anteroom: {}\n", sentence);
  if (!state.broken_rules.empty()) return kRuleBroken;
  if (state.failed) {
    fmt::print(stderr, "anteroom: {}\n", state.why_failed);
    return kCouldNotRun;
  }
  if (state.interrupted) return kInterrupted;
  return wrote_json && wrote_profile && wrote_view ? kDone : kCouldNotRun;
}

}  // namespace anteroom::tool
