#include "load_options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <optional>

#include "profile.h"

namespace anteroom::tool {
namespace {

using bench::Arrival;
using std::chrono::nanoseconds;

constexpr int kClientsMax = 1'000'000;
constexpr double kRateMax = 1e6;
constexpr int kBurstClients = 2000;
constexpr std::chrono::milliseconds kBurstEvery{500};
/// Time for the first SYN to be sent again, after 1.02 s, and for its answer; beyond the stall, or nobody
/// could be served.
constexpr std::chrono::milliseconds kPatience{1500};
constexpr std::chrono::seconds kPatienceMax{60};  // before the kernel gives up, after 67 s
constexpr std::chrono::milliseconds kStall{100};  // of a rate with no stall named

/// What runs without a word: a bit of everything that fills a queue, in a second of it.
bench::Scenario mixed_load() {
  return {.clients = 4800,
          .arrival = Arrival::kPoisson,
          .rate = 4000,
          .burst = 200,
          .burst_every = std::chrono::milliseconds(250),
          .burst_within = std::chrono::milliseconds(10),
          .stall = kStall,
          .stall_every = std::chrono::milliseconds(500),
          .stall_jitter = 0.5};
}

double in_seconds(nanoseconds duration) { return std::chrono::duration<double>(duration).count(); }

nanoseconds parse_time(const std::string& option, const std::string& text) {
  const auto duration = bench::parse_duration(text);
  if (!duration) refuse(option, text, "a time such as 100ms, 1.5s or 20us");
  return *duration;
}

void understand_bursts(const TypedLoad& typed, bench::Scenario& load) {
  if (!typed.within.empty()) load.burst_within = parse_time("--within", typed.within);
  if (!typed.is_burst) {
    if (!typed.within.empty() && load.burst == 0) refuse("--within", typed.within, "of use without --burst");
    return;
  }
  const std::size_t at = typed.burst.find('@');
  const std::string size = typed.burst.substr(0, at);
  const bool has_size = !size.empty();
  if (typed.rate.empty() && typed.profile.empty()) {
    if (at != std::string::npos)
      refuse("--burst", typed.burst, "of use without --rate, which goes on between bursts");
    if (has_size && !typed.clients.empty())
      refuse("--burst", typed.burst, "needed with --clients: say one of them");
    load.arrival = Arrival::kBurst;
    load.rate = 0;
    if (has_size) load.clients = parse_whole("--burst", size, 1, kClientsMax);
    return;
  }
  if (!has_size)
    refuse("--burst", typed.burst, "a number of clients, such as 500 or 500@1s, which --rate needs");
  load.burst = parse_whole("--burst", size, 1, kClientsMax);
  load.burst_every =
      at == std::string::npos ? nanoseconds(kBurstEvery) : parse_time("--burst", typed.burst.substr(at + 1));
  if (load.burst_every < std::chrono::milliseconds(1) || load.burst_every <= load.burst_within)
    refuse("--burst", typed.burst, "every millisecond at most, and longer than --within");
}

void understand_arrival(const TypedLoad& typed, bench::Scenario& load) {
  if (!typed.rate.empty()) load.rate = parse_count("--rate", typed.rate, 1, kRateMax);
  if (!typed.dispersion.empty()) {
    load.dispersion = parse_count("--dispersion", typed.dispersion, 1, 1e4);
    if (typed.arrival.empty()) load.arrival = Arrival::kPoisson;
  }
  if (!typed.arrival.empty()) {
    const auto arrival = bench::parse_arrival(typed.arrival);
    if (!arrival || *arrival == Arrival::kBurst)
      refuse("--arrival", typed.arrival, "one of steady, poisson, on-off, ramp");
    load.arrival = *arrival;
  }
  if (load.dispersion != 1 && load.arrival != Arrival::kPoisson)
    refuse("--dispersion", typed.dispersion, "of use but with --arrival poisson");
  const bool is_on_off = load.arrival == Arrival::kOnOff;
  load.on = typed.on.empty() ? nanoseconds(std::chrono::milliseconds(is_on_off ? 50 : 0))
                             : parse_time("--on", typed.on);
  load.off = typed.off.empty() ? nanoseconds(std::chrono::milliseconds(is_on_off ? 150 : 0))
                               : parse_time("--off", typed.off);
  if (is_on_off != (load.on > nanoseconds(0)))
    refuse("--on", typed.on, is_on_off ? "longer than nothing" : "of use but with --arrival on-off");
}

void understand_stall(const TypedLoad& typed, bench::Scenario& load) {
  if (!typed.stall.empty()) load.stall = parse_time("--stall", typed.stall);
  if (!typed.stall_every.empty()) load.stall_every = parse_time("--stall-every", typed.stall_every);
  if (load.stall_every > nanoseconds(0) &&
      (load.stall_every <= load.stall || load.stall == load.stall.zero()))
    refuse("--stall-every", bench::print_duration(load.stall_every), "longer than --stall, which it needs");
  if (!typed.stall_jitter.empty()) {
    load.stall_jitter = parse_share("--stall-jitter", typed.stall_jitter, 1);
    if (load.stall_every == load.stall_every.zero())
      refuse("--stall-jitter", typed.stall_jitter, "of use without --stall-every");
  }
}

void understand_road(const TypedLoad& typed, bench::Scenario& load) {
  if (!typed.rtt.empty()) load.rtt = parse_time("--rtt", typed.rtt);
  if (load.rtt > std::chrono::seconds(10)) refuse("--rtt", typed.rtt, "at most 10s");
  if (!typed.loss.empty()) load.loss = parse_share("--loss", typed.loss, 1);
  for (const std::string& text : typed.sysctls) {
    const auto sysctl = bench::parse_sysctl(text);
    if (!sysctl) refuse("--sysctl", text, "a sysctl of the network, such as net.ipv4.tcp_syncookies=0");
    load.sysctls.push_back(*sysctl);
  }
}

/// As many as the load needs to show what the stall does: half a second, or three stalls, or two periods of
/// them or of bursts.
int default_clients(const bench::Scenario& load) {
  if (load.arrival == Arrival::kBurst) return kBurstClients;
  const double seconds = std::max({0.5, 3 * in_seconds(load.stall), 2 * in_seconds(load.stall_every),
                                   2 * in_seconds(load.burst_every), 4 * in_seconds(load.on + load.off)});
  const double bursts = load.burst > 0 ? load.burst / in_seconds(load.burst_every) : 0;
  const double rate = load.arrival == Arrival::kRamp ? load.rate / 2 : load.rate + bursts;
  return static_cast<int>(std::clamp(rate * seconds, 1.0, static_cast<double>(kClientsMax)));
}

}  // namespace

void refuse(const std::string& option, const std::string& text, const std::string& wanted) {
  throw CLI::ValidationError(option, fmt::format("\"{}\" is not {}", text, wanted));
}

double parse_count(const std::string& option, const std::string& text, double least, double most) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  const double factor = unit.empty() ? 1 : unit == "k" || unit == "K" ? 1e3 : unit == "M" ? 1e6 : 0;
  const double value = number * factor;
  if (error == std::errc{} && std::isfinite(value) && factor > 0 && value >= least && value <= most)
    return value;
  refuse(option, text, fmt::format("a number from {} to {}", least, most));
}

int parse_whole(const std::string& option, const std::string& text, int least, int most) {
  const double value = parse_count(option, text, least, most);
  if (value != std::floor(value)) refuse(option, text, "a whole number");
  return static_cast<int>(value);
}

double parse_share(const std::string& option, const std::string& text, double most) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  const double value = unit == "%" ? number / 100 : unit.empty() ? number : -1;
  if (error == std::errc{} && std::isfinite(value) && value >= 0 && value <= most) return value;
  refuse(option, text, fmt::format("a share from 0 to {}, such as 0.001 or 0.1%", most));
}

std::uint64_t parse_seed(const std::string& text) {
  std::uint64_t seed = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seed);
  if (error == std::errc{} && end == text.data() + text.size()) return seed;
  refuse("--seed", text, "a whole number from 0 to 18446744073709551615");
}

std::vector<std::string> split(std::string_view list) {
  std::vector<std::string> items;
  for (bool more = true; more;) {
    const std::size_t comma = list.find(',');
    items.emplace_back(list.substr(0, comma));
    more = comma != std::string_view::npos;
    if (more) list.remove_prefix(comma + 1);
  }
  return items;
}

std::vector<int> parse_backlogs(const std::string& text) {
  constexpr int kBacklogMax = 1'000'000;
  std::vector<int> backlogs;
  for (const std::string& item : split(text)) {
    const std::size_t dots = item.find("..");
    if (dots == std::string::npos) {
      backlogs.push_back(parse_whole("--backlog", item, 0, kBacklogMax));
      continue;
    }
    const int first = parse_whole("--backlog", item.substr(0, dots), 1, kBacklogMax);
    const int last = parse_whole("--backlog", item.substr(dots + 2), first, kBacklogMax);
    for (int backlog = first; backlog < last; backlog *= 2) backlogs.push_back(backlog);
    backlogs.push_back(last);
  }
  std::ranges::sort(backlogs);
  backlogs.erase(std::unique(backlogs.begin(), backlogs.end()), backlogs.end());
  return backlogs;
}

bench::Scenario understand_load(const TypedLoad& typed) {
  bench::Scenario load;
  const bool is_named = typed.is_burst || !typed.rate.empty() || !typed.arrival.empty() ||
                        !typed.dispersion.empty() || !typed.stall.empty() || !typed.stall_every.empty() ||
                        !typed.profile.empty();
  if (!is_named) {
    load = mixed_load();
  } else if (!typed.profile.empty()) {
    load = read_profile(typed.profile);
  } else {
    load.arrival = Arrival::kSteady;
    load.rate = 5000;
    if (typed.rate.empty() && !typed.is_burst) load.stall = kStall;
  }
  if (is_named) understand_arrival(typed, load);
  understand_bursts(typed, load);
  understand_stall(typed, load);
  understand_road(typed, load);

  const auto server = bench::parse_server_kind(typed.server);
  if (!server)
    refuse("--server", typed.server, "one of reactor, accept-one, reactors, blocking, threads, pool");
  load.server = *server;
  load.threads = typed.threads;
  const auto handler = bench::Handler::parse(typed.handler);
  if (!handler)
    refuse("--handler", typed.handler,
           "none, or one of wait:5ms, compute:200us, block:1ms, with :exponential");
  load.handler = *handler;

  load.patience =
      typed.patience.empty() ? load.stall + load.rtt + kPatience : parse_time("--patience", typed.patience);
  if (load.patience <= load.stall || load.patience > kPatienceMax)
    refuse("--patience", bench::print_duration(load.patience), "longer than the stall and at most 60s");
  if (!typed.clients.empty()) {
    load.clients = parse_whole("--clients", typed.clients, 1, kClientsMax);
  } else if (is_named && !(load.arrival == Arrival::kBurst && !typed.burst.empty())) {
    load.clients = default_clients(load);
  }
  return load;
}

void add_load_options(CLI::App& app, TypedLoad& typed) {
  const std::string load = "The load";
  const auto add = [&](const char* option, std::string& into, const char* help) {
    return app.add_option(option, into, help)->group(load);
  };
  add("--clients", typed.clients,
      "How many clients call (default: 2000 in a burst, else half a second of --rate or more)");
  app.add_option_function<std::string>(
         "--burst",
         [&typed](const std::string& text) {
           typed.is_burst = true;
           typed.burst = text;
         },
         "So many call at once; with --rate, 500@1s is 500 about every second")
      ->expected(0, 1)
      ->trigger_on_parse()
      ->type_name("[N[@EVERY]]")
      ->group(load);
  add("--within", typed.within, "The time in which the clients of a burst call (default: as fast as can be)");
  add("--rate", typed.rate, "Clients a second");
  add("--arrival", typed.arrival, "How they come: steady (default), poisson for at random, on-off, ramp");
  add("--dispersion", typed.dispersion,
      "Variance over mean of their number: 1 is Poisson, more comes in clumps");
  add("--on", typed.on, "Of --arrival on-off (default: 50ms)");
  add("--off", typed.off, "Of --arrival on-off (default: 150ms)");
  add("--stall", typed.stall, "How long the server accepts nobody, such as 100ms");
  add("--stall-every", typed.stall_every, "How often that happens (default: once)");
  add("--stall-jitter", typed.stall_jitter,
      "By how much of its period each is shifted at random, such as 50%");
  add("--handler", typed.handler,
      "What each guest costs: wait:5ms, compute:200us (holds the processor), block:1ms (holds the loop); "
      ":exponential draws it at random")
      ->capture_default_str();
  add("--rtt", typed.rtt, "Round-trip time between clients and server, by a delay line");
  add("--loss", typed.loss, "Share of packets that the delay line loses each way, such as 0.5%");
  app.add_option("--sysctl", typed.sysctls,
                 "Set in the trials' own network, such as net.ipv4.tcp_syncookies=0")
      ->group(load)
      ->take_all();
  add("--profile", typed.profile,
      "A file with the rate, dispersion and stalls of a real server (tools/JSON.md)");
  add("--patience", typed.patience, "How long after the last call the others still wait")
      ->default_str("1500ms and the stall");
  app.add_option("--threads", typed.threads, "Threads of the servers pool and reactors")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str()
      ->group(load);
}

}  // namespace anteroom::tool
