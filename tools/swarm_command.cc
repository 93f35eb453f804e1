// anteroom swarm: the load by itself, on a server that runs.
#include <anteroom/bench/socket_diag.h>
#include <anteroom/bench/trial.h>
#include <fmt/format.h>
#include <netdb.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <chrono>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dialogue_options.h"
#include "load_options.h"
#include "output_options.h"
#include "swarm_run.h"
#include "verb.h"

namespace anteroom::tool {
namespace {

using bench::Arrival;
using bench::Scenario;
using std::chrono::nanoseconds;

// Kind to a server that nobody has called in such numbers before.
constexpr double kSwarmRate = 500;
constexpr int kSwarmBurst = 500;
constexpr std::chrono::seconds kSwarmLength{5};
constexpr std::chrono::hours kSwarmLengthMax{1};
// Time for a SYN to be sent again after 1 s, and once more.
constexpr std::chrono::seconds kSwarmPatience{3};
constexpr std::chrono::seconds kSwarmPatienceMax{60};
// Between bursts with no rate named there has to be somebody (schedule()).
constexpr const char* kTrickle = "1";
// Of a closed loop: more than one processor has ever connected (some 30,000).
constexpr double kFlowCallsPerSecondMax = 50'000;
constexpr int kFlowsAtOnceMax = 100'000;

struct TypedSwarm {
  std::string server;
  std::string owned;
  TypedLoad load;
  TypedDialogue dialogue;
  TypedOutput output;
  std::string length;
  std::string flows;
  std::string seed;
  bool is_ramp = false;

  SwarmCommand command;
};

/// "HOST:PORT" in two.
struct HostAndPort {
  std::string host;
  std::uint16_t port = 0;
  bool is_port_alone = false;  // ":8080" and "*:8080", as servers write it: this machine
};

/// However it is written: schemes are (RFC 3986, 3.1).
bool is_https_url(std::string_view text) {
  constexpr std::string_view kScheme = "https://";
  return std::ranges::equal(text.substr(0, kScheme.size()), kScheme, [](char c, char wanted) {
    return (c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c) == wanted;
  });
}

HostAndPort split_server(const std::string& text) {
  if (is_https_url(text))
    refuse("HOST:PORT", text,
           "a host and a port: TLS, which https:// asks for, is not supported yet. A port without TLS may be "
           "called, localhost:8080 --http /path");
  if (text.find('/') != std::string::npos)
    refuse("HOST:PORT", text,
           "a host and a port: of a URL the rest is for --http, localhost:8080 --http /path");
  const std::size_t colon = text.rfind(':');
  const std::string port = colon == std::string::npos ? "" : text.substr(colon + 1);
  std::string host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string::npos) {
    refuse("HOST:PORT", text, "an address with a port: IPv6 goes into brackets, [::1]:8080");
  }
  const bool is_port_alone = colon != std::string::npos && (host.empty() || host == "*");
  HostAndPort server{.host = is_port_alone ? "localhost" : host, .is_port_alone = is_port_alone};
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), server.port);
  if (server.host.empty() || error != std::errc{} || end != port.data() + port.size() || server.port == 0)
    refuse("HOST:PORT", text, "a host and a port from 1 to 65535, such as 127.0.0.1:8080 or localhost:8080");
  return server;
}

/// What a server calls "all addresses of this machine" is none that a client could name: it is this machine's
/// loopback. An IPv4 address in an IPv6 one is that IPv4 address.
Endpoint callable(const Endpoint& address) {
  const Endpoint plain = bench::unmapped(address);
  if (plain == Endpoint("0.0.0.0", plain.port())) return {"127.0.0.1", plain.port()};
  if (plain == Endpoint("::", plain.port())) return {"::1", plain.port()};
  return plain;
}

bool is_any_address(const HostAndPort& server) {
  if (server.is_port_alone) return true;
  const auto address = server.host.find(':') == std::string::npos
                           ? Endpoint::parse(fmt::format("{}:{}", server.host, server.port))
                           : Endpoint::parse(fmt::format("[{}]:{}", server.host, server.port));
  return address && callable(*address) != bench::unmapped(*address);
}

/// All addresses of that name, those of IPv4 first: of 127/8 there are many to call from.
std::vector<Endpoint> resolve(const HostAndPort& server) {
  if (server.is_port_alone) return {{"127.0.0.1", server.port}, {"::1", server.port}};
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(server.host.c_str(), std::to_string(server.port).c_str(), &hints, &found);
  if (error != 0)
    throw UsageError(fmt::format("cannot find the address of {}: {}", server.host, ::gai_strerror(error)));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);
  std::vector<Endpoint> addresses;
  for (const addrinfo* each = found; each != nullptr; each = each->ai_next) {
    const Endpoint address = Endpoint::from(each->ai_addr, each->ai_addrlen);
    if (address.family() != AF_UNSPEC) addresses.push_back(callable(address));
  }
  std::ranges::stable_sort(addresses, {},
                           [](const Endpoint& address) { return address.family() != AF_INET; });
  if (addresses.empty()) throw UsageError(fmt::format("{} has no address of IPv4 or IPv6", server.host));
  // [::] takes IPv4 too, also where this machine has no IPv6.
  if (is_any_address(server) && addresses.front().family() == AF_INET6)
    addresses.emplace_back("127.0.0.1", server.port);
  return addresses;
}

/// Who may be called: everybody on this machine's loopback, and else whom the user says to own.
void check_ownership(const TypedSwarm& typed, const HostAndPort& server,
                     const std::vector<Endpoint>& addresses) {
  if (!typed.owned.empty() && typed.owned != server.host)
    throw UsageError(
        fmt::format("--i-own-this-server names {}, and the load would go to {}", typed.owned, server.host));
  if (!typed.owned.empty() || std::ranges::all_of(addresses, &Endpoint::is_loopback)) return;
  throw UsageError(fmt::format(
      "{} is beyond this machine's loopback. If it is yours to load, say so: --i-own-this-server {}",
      server.host, server.host));
}

nanoseconds understand_length(const TypedSwarm& typed) {
  if (typed.length.empty()) return kSwarmLength;
  const nanoseconds length = parse_time("--for", typed.length);
  if (length < std::chrono::milliseconds(1) || length > kSwarmLengthMax)
    refuse("--for", typed.length, "from 1ms to an hour");
  return length;
}

/// As many as come in that time.
int clients_within(const Scenario& load, const TypedSwarm& typed) {
  const double seconds = std::chrono::duration<double>(understand_length(typed)).count();
  const double bursts =
      load.burst > 0 ? load.burst / std::chrono::duration<double>(load.burst_every).count() : 0;
  const double rate = load.arrival == Arrival::kRamp ? load.rate / 2 : load.rate + bursts;
  const double clients = std::max(rate * seconds, 1.0);
  if (clients > kClientsMax)
    refuse(
        typed.length.empty() ? "--rate" : "--for", typed.length.empty() ? typed.load.rate : typed.length,
        fmt::format("possible: in that time {:.0f} clients would call, more than {}", clients, kClientsMax));
  return static_cast<int>(clients);
}

void understand_flows(const TypedSwarm& typed, Scenario& load) {
  const TypedLoad& words = typed.load;
  if (words.is_burst || typed.is_ramp ||
      !(words.rate.empty() && words.arrival.empty() && words.clients.empty() && words.dispersion.empty() &&
        words.patience.empty()))
    throw CLI::ArgumentMismatch(
        "--flows is a closed loop, in which the server sets the pace until --for is over: it goes with no "
        "other "
        "load");
  load.loop = bench::Loop::kClosed;
  load.flows = parse_whole("--flows", typed.flows, 1, kFlowsAtOnceMax);
  load.length = understand_length(typed);
  const double calls = std::chrono::duration<double>(load.length).count() * kFlowCallsPerSecondMax;
  load.clients = static_cast<int>(std::clamp<double>(calls, load.flows, kClientsMax));
}

void understand_open_loop(const TypedSwarm& typed, Scenario& load) {
  TypedLoad words = typed.load;
  if (typed.is_ramp) {
    if (!words.arrival.empty()) throw CLI::ArgumentMismatch("--ramp is --arrival ramp: say one of them");
    words.arrival = "ramp";
  }
  if (words.is_burst && words.burst.find('@') != std::string::npos && words.rate.empty())
    words.rate = kTrickle;
  load.arrival = Arrival::kPoisson;
  load.rate = kSwarmRate;
  understand_calling(words, load);
  if (!words.patience.empty()) {
    load.patience = parse_time("--patience", words.patience);
    if (load.patience <= nanoseconds(0) || load.patience > kSwarmPatienceMax)
      refuse("--patience", words.patience, "more than nothing and at most 60s");
  }
  const bool is_one_burst = load.arrival == Arrival::kBurst;
  if (!typed.length.empty() && (is_one_burst || !words.clients.empty()))
    refuse("--for", typed.length,
           is_one_burst ? "of use with one burst: 500@1s is one every second"
                        : "needed with --clients: say one of them");
  if (!words.clients.empty()) {
    load.clients = parse_whole("--clients", words.clients, 1, kClientsMax);
  } else if (!is_one_burst) {
    load.clients = clients_within(load, typed);
  } else if (words.burst.empty()) {
    load.clients = kSwarmBurst;
  }
}

Scenario understand_swarm_load(const TypedSwarm& typed) {
  Scenario load{.server = bench::ServerKind::kRunning,
                .backlog = bench::kUnlimitedBacklog,  // as long as it is not known
                .patience = kSwarmPatience};
  if (typed.flows.empty()) {
    understand_open_loop(typed, load);
  } else {
    understand_flows(typed, load);
  }
  const bool is_closed = load.loop == bench::Loop::kClosed;
  const std::string problem = bench::clients_limit_problem(is_closed ? load.flows : load.clients);
  if (!problem.empty()) throw UsageError(problem);
  return load;
}

void understand(TypedSwarm& typed) {
  SwarmCommand& command = typed.command;
  const HostAndPort server = split_server(typed.server);
  if (is_any_address(server)) typed.server = fmt::format("localhost:{}", server.port);  // a name for Host
  command.server = typed.server;
  command.addresses = resolve(server);
  check_ownership(typed, server, command.addresses);
  command.dialogue = understand_dialogue(typed.dialogue, typed.server);
  ExperimentCommand& run = command.run;
  run.load = understand_swarm_load(typed);
  run.load.seed = run.seed = typed.seed.empty() ? std::random_device{}() : parse_seed(typed.seed);
  run.loops = {run.load.loop};
  run.repeat = 1;
  run.fail_if = understand_rules(typed.output.fail_if);
  for (const Rule& rule : run.fail_if) {
    if (rule.name == "recommended" || rule.backlog)
      throw CLI::ValidationError("--fail-if",
                                 fmt::format("\"{}\" is for a tune: a swarm tries no backlogs", rule.text));
  }
  understand_outputs(typed.output);
  run.quiet = typed.output.quiet;
  if (!typed.output.json.empty()) run.json = typed.output.json;
  if (!typed.output.csv.empty()) run.csv = typed.output.csv;
  if (!typed.output.report.empty()) run.report = typed.output.report;
}

void add_words(CLI::App& app, TypedSwarm& typed) {
  app.add_option(kHostAndPort, typed.server, "Whom to call: 127.0.0.1:8080, [::1]:8080, localhost:8080")
      ->required();
  app.add_option("--i-own-this-server", typed.owned,
                 "Beyond this machine's loopback: the same host once more, as a promise")
      ->type_name("HOST");
  add_dialogue_options(app, typed.dialogue);
  add_calling_options(
      app, typed.load,
      {.clients = "How many clients call (default: as many as come in the time of --for)",
       .burst =
           "So many call at once, and nobody else (500 by default); 500@1s is 500 about every second, and "
           "in between those of --rate: without it one a second, by whom a dead server is noticed",
       .rate = "Clients a second (default: 500)",
       .arrival = "How they come: poisson for at random (default), steady, on-off, ramp"});
  app.add_flag("--ramp", typed.is_ramp, "Ever more of them, up to --rate: the same as --arrival ramp")
      ->group("The load");
  app.add_option("-c,--flows", typed.flows,
                 "A closed loop instead: so many clients, each of whom calls again when it was served")
      ->type_name("N")
      ->group("The load");
  app.add_option("--for", typed.length, "How long clients call")->default_str("5s")->group("The load");
  add_patience_option(app, typed.load, "3s");
  app.add_option("--seed", typed.seed, "Of the schedule (default: a new one, which is printed)")
      ->group("The load");
  add_output_options(app, typed.output);
  app.footer(
      "Examples:\n"
      "  anteroom swarm localhost:8080 --http /\n"
      "  anteroom swarm 127.0.0.1:6379 --send 'PING\\r\\n' --expect +PONG --burst 1000\n"
      "  anteroom swarm '[::1]:25' --greeting --rate 2000 --for 30s\n"
      "  anteroom swarm localhost:8080 --http /health --rate 1k --fail-if 'p99>50ms' --fail-if 'lost>0'\n\n"
      "Without --flows it is an open loop: clients call when they would, however slow the server is.");
}

}  // namespace

Verb add_swarm(CLI::App& tool) {
  CLI::App* const app = tool.add_subcommand("swarm", "Let a swarm of clients loose on a server that runs");
  const auto typed = std::make_shared<TypedSwarm>();
  add_words(*app, *typed);
  return {.app = app,
          .understand = [typed] { understand(*typed); },
          .run =
              [typed](const Invocation& invocation) {
                ExperimentCommand& run = typed->command.run;
                run.command_line = invocation.command_line;
                if (typed->seed.empty()) run.command_line += fmt::format(" --seed {}", run.seed);
                return swarm(typed->command, invocation.interrupted);
              }};
}

}  // namespace anteroom::tool
