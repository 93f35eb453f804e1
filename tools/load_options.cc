#include "load_options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <optional>

#include "profile.h"
#include "run_document.h"

namespace anteroom::tool {
namespace {

using bench::Arrival;
using std::chrono::nanoseconds;

constexpr double kRateMax = 1e6;
constexpr int kBurstClients = 2000;
constexpr std::chrono::milliseconds kBurstEvery{500};
/// Time for the first SYN to be sent again, after 1.02 s, and for its answer; beyond the stall, or nobody
/// could be served.
constexpr std::chrono::milliseconds kPatience{1500};
constexpr std::chrono::seconds kPatienceMax{60};  // before the kernel gives up, after 67 s
constexpr std::chrono::milliseconds kStall{100};  // of a load with no rate, no burst and no stall named
/// The kernel sends a SYN again after 1 s (TCP_TIMEOUT_INIT): with a longer road that happens though nothing
/// was lost.
constexpr std::chrono::milliseconds kRttMax{900};
constexpr double kLossMax = 0.5;
constexpr int kThreads = 8;
constexpr const char* kLoadGroup = "The load";

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

/// What --burst says: "500@1s".
struct TypedBurst {
  std::optional<int> clients;
  std::optional<nanoseconds> every;
};

TypedBurst parse_burst(const std::string& text) {
  const std::size_t at = text.find('@');
  if (at == 0 || text.ends_with('@')) refuse("--burst", text, "a number of clients, such as 500 or 500@1s");
  TypedBurst burst;
  if (!text.empty()) burst.clients = parse_whole("--burst", text.substr(0, at), 1, kClientsMax);
  if (at != std::string::npos) burst.every = parse_time("--burst", text.substr(at + 1));
  return burst;
}

/// A burst and nothing else.
void understand_one_burst(const TypedLoad& typed, const TypedBurst& burst, bench::Scenario& load) {
  if (burst.every) refuse("--burst", typed.burst, "of use without --rate, which goes on between bursts");
  if (burst.clients && !typed.clients.empty())
    refuse("--burst", typed.burst, "needed with --clients: say one of them");
  load.arrival = Arrival::kBurst;
  load.rate = 0;
  if (burst.clients) load.clients = *burst.clients;
}

/// Bursts on top of a rate.
void understand_bursts(const TypedLoad& typed, const TypedBurst& burst, bench::Scenario& load) {
  if (!burst.clients)
    throw CLI::ValidationError("--burst",
                               fmt::format("needs a number of clients with {}, such as 500 or 500@1s",
                                           typed.rate.empty() ? "--profile" : "--rate"));
  load.burst = *burst.clients;
  load.burst_every = burst.every.value_or(kBurstEvery);
  if (load.burst_every < std::chrono::milliseconds(1))
    refuse("--burst", typed.burst, "a burst every millisecond at most");
}

void understand_burst(const TypedLoad& typed, bench::Scenario& load) {
  if (!typed.within.empty()) load.burst_within = parse_time("--within", typed.within);
  if (typed.is_burst) {
    const TypedBurst burst = parse_burst(typed.burst);
    if (typed.arrival == "ramp") refuse("--arrival", typed.arrival, "of use with --burst");
    if (typed.rate.empty() && typed.profile.empty()) {
      understand_one_burst(typed, burst, load);
    } else {
      understand_bursts(typed, burst, load);
    }
  } else if (!typed.within.empty() && load.burst == 0) {
    refuse("--within", typed.within, "of use without --burst");
  }
  // Each is shifted by up to a quarter of the period: beyond half of it they would run into one another.
  if (load.burst > 0 && load.burst_within * 2 > load.burst_every) {
    refuse(
        "--within", typed.within,
        fmt::format("at most half of the {} from burst to burst", bench::print_duration(load.burst_every)));
  }
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
  if (load.dispersion != 1 && load.arrival != Arrival::kPoisson) {
    if (typed.dispersion.empty())
      refuse("--arrival", typed.arrival, "poisson, as the dispersion of the --profile needs");
    refuse("--dispersion", typed.dispersion, "of use but with --arrival poisson");
  }
  const bool is_on_off = load.arrival == Arrival::kOnOff;
  load.on = typed.on.empty() ? nanoseconds(std::chrono::milliseconds(is_on_off ? 50 : 0))
                             : parse_time("--on", typed.on);
  load.off = typed.off.empty() ? nanoseconds(std::chrono::milliseconds(is_on_off ? 150 : 0))
                               : parse_time("--off", typed.off);
  if (is_on_off && load.on == load.on.zero()) refuse("--on", typed.on, "longer than nothing");
  for (const auto& [option, text] : {std::pair("--on", typed.on), std::pair("--off", typed.off)}) {
    if (!is_on_off && !text.empty()) refuse(option, text, "of use but with --arrival on-off");
  }
}

void understand_stall(const TypedLoad& typed, bench::Scenario& load) {
  if (!typed.stall.empty()) load.stall = parse_time("--stall", typed.stall);
  if (!typed.stall_every.empty()) {
    load.stall_every = parse_time("--stall-every", typed.stall_every);
    if (load.stall_every > load.stall_every.zero() && load.stall_every < std::chrono::milliseconds(1))
      refuse("--stall-every", typed.stall_every, "a millisecond or more");
  }
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
  if (load.rtt >= kRttMax)
    refuse("--rtt", typed.rtt, "below 900ms: the SYNs would be sent again with nothing dropped");
  if (!typed.loss.empty()) load.loss = parse_share("--loss", typed.loss, kLossMax);
  for (const std::string& text : typed.sysctls) {
    const auto sysctl = bench::parse_sysctl(text);
    if (!sysctl) refuse("--sysctl", text, "a sysctl of the network, such as net.ipv4.tcp_syncookies=0");
    load.sysctls.push_back(*sysctl);
  }
}

/// How long the clients wait, which has to be longer than a stall.
nanoseconds understand_patience(const TypedLoad& typed, const bench::Scenario& load) {
  if (!typed.patience.empty()) {
    const nanoseconds patience = parse_time("--patience", typed.patience);
    if (patience <= load.stall || patience > kPatienceMax)
      refuse("--patience", typed.patience, "longer than the stall and at most 60s");
    return patience;
  }
  const nanoseconds patience = load.stall + 2 * load.rtt + kPatience;
  if (patience > kPatienceMax) {
    refuse(typed.stall.empty() ? "--profile" : "--stall", bench::print_duration(load.stall),
           "short enough for a stall: the clients' patience, which is longer, would exceed 60s");
  }
  return patience;
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
  throw CLI::ValidationError(option, fmt::format("\"{}\" is not {}", printable(text), wanted));
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

nanoseconds parse_time(const std::string& option, const std::string& text) {
  const auto duration = bench::parse_duration(text);
  if (!duration) refuse(option, text, "a time such as 100ms, 1.5s, 20us or 1h30m");
  return *duration;
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
  std::vector<int> backlogs;
  for (const std::string& item : split(text)) {
    const std::size_t dots = item.find("..");
    if (dots == std::string::npos) {
      backlogs.push_back(parse_whole("--backlog", item, 0, kListenMax));
      continue;
    }
    const int first = parse_whole("--backlog", item.substr(0, dots), 1, kListenMax);
    const int last = parse_whole("--backlog", item.substr(dots + 2), first, kListenMax);
    for (int backlog = first; backlog < last; backlog *= 2) backlogs.push_back(backlog);
    backlogs.push_back(last);
  }
  std::ranges::sort(backlogs);
  backlogs.erase(std::unique(backlogs.begin(), backlogs.end()), backlogs.end());
  return backlogs;
}

void understand_calling(const TypedLoad& typed, bench::Scenario& load) {
  understand_arrival(typed, load);
  understand_burst(typed, load);
}

bench::Scenario understand_load(const TypedLoad& typed) {
  bench::Scenario load;
  const bool is_named = typed.is_burst || !typed.rate.empty() || !typed.arrival.empty() ||
                        !typed.dispersion.empty() || !typed.stall.empty() || !typed.stall_every.empty() ||
                        !typed.profile.empty() || !typed.on.empty() || !typed.off.empty();
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
  understand_burst(typed, load);
  understand_stall(typed, load);
  understand_road(typed, load);

  const auto server = bench::parse_server_kind(typed.server);
  if (!server)
    refuse("--server", typed.server, "one of reactor, accept-one, reactors, blocking, threads, pool");
  load.server = *server;
  load.threads = typed.threads.empty() ? kThreads : parse_whole("--threads", typed.threads, 1, 1000);
  const auto handler = bench::Handler::parse(typed.handler);
  if (!handler)
    refuse("--handler", typed.handler,
           "none, or one of wait:5ms, compute:200us, block:1ms, with :exponential");
  load.handler = *handler;

  load.patience = understand_patience(typed, load);
  if (!typed.clients.empty()) {
    load.clients = parse_whole("--clients", typed.clients, 1, kClientsMax);
  } else if (is_named && !(load.arrival == Arrival::kBurst && !typed.burst.empty())) {
    load.clients = default_clients(load);
  }
  return load;
}

void add_calling_options(CLI::App& app, TypedLoad& typed, const CallingWords& words) {
  const auto add = [&](const char* option, std::string& into, const char* help) {
    app.add_option(option, into, help)->group(kLoadGroup);
  };
  add("--clients", typed.clients, words.clients);
  app.add_option_function<std::string>(
         "--burst",
         [&typed](const std::string& text) {
           typed.is_burst = true;
           typed.burst = text;
         },
         words.burst)
      ->expected(0, 1)
      ->trigger_on_parse()
      ->type_name("[N[@EVERY]]")
      ->group(kLoadGroup);
  add("--within", typed.within,
      "The time in which the clients of a burst call (default: as fast as can be); "
      "at most half of @EVERY");
  add("--rate", typed.rate, words.rate);
  add("--arrival", typed.arrival, words.arrival);
  add("--dispersion", typed.dispersion,
      "Variance over mean of their number: 1 is Poisson, more comes in clumps");
  add("--on", typed.on, "Of --arrival on-off (default: 50ms)");
  add("--off", typed.off, "Of --arrival on-off (default: 150ms)");
}

void add_patience_option(CLI::App& app, TypedLoad& typed, const std::string& otherwise) {
  app.add_option("--patience", typed.patience, "How long after the last call the others still wait")
      ->default_str(otherwise)
      ->group(kLoadGroup);
}

void add_load_options(CLI::App& app, TypedLoad& typed) {
  const auto add = [&](const char* option, std::string& into, const char* help) {
    return app.add_option(option, into, help)->group(kEmbeddedGroup);
  };
  add_calling_options(
      app, typed,
      {.clients =
           "How many clients call (default: 4800 if no load is named; 2000 in a burst; else those of half a "
           "second, of three stalls, of two "
           "periods of stalls or bursts, or of four of on and off, whichever takes longest)",
       .burst =
           "So many call at once; with --rate, 500@1s is 500 about every second (EVERY is 500ms by default)",
       .rate =
           "Clients a second (default: 5000 if --arrival, --dispersion or a stall is named; none in a burst)",
       .arrival = "How they come: steady (default), poisson for at random, on-off, ramp"});
  add("--stall", typed.stall,
      "How long the server accepts nobody, such as 100ms (which is the default if neither --rate nor --burst "
      "nor --profile is named; else none)");
  add("--stall-every", typed.stall_every, "How often that happens (default: once)");
  add("--stall-jitter", typed.stall_jitter,
      "By how much of its period each is shifted at random, such as 50%");
  add("--handler", typed.handler,
      "What each guest costs: wait:5ms, compute:200us (holds the processor), block:1ms (holds the loop); "
      ":exponential draws it at random")
      ->capture_default_str();
  add("--rtt", typed.rtt, "Round-trip time between clients and server, by a delay line; below 900ms");
  add("--loss", typed.loss, "Share of packets that the delay line loses each way, such as 0.5%; 50% at most");
  app.add_option("--sysctl", typed.sysctls,
                 "Set in the trials' own network, such as net.ipv4.tcp_syncookies=0")
      ->group(kEmbeddedGroup)
      ->take_all()
      ->allow_extra_args(false);
  app.add_option("--profile", typed.profile,
                 "A file with the rate, dispersion and stalls of a real server (tools/JSON.md)")
      ->group(kLoadGroup);
  add_patience_option(app, typed, "1500ms, the stall and two round trips");
  add("--threads", typed.threads, "Threads of the servers pool and reactors")
      ->default_str(fmt::to_string(kThreads));
}

}  // namespace anteroom::tool
