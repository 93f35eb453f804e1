// The words of `anteroom watch`.
#include <anteroom/bench/processes.h>
#include <anteroom/bench/running_server.h>
#include <anteroom/bench/scenario.h>
#include <anteroom/bench/socket_diag.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <limits>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>

#include "load_options.h"
#include "output.h"
#include "verb.h"
#include "watch.h"

namespace anteroom::tool {
namespace {

using bench::TargetError;

constexpr const char* kMetricsPort = "9399";

struct TypedWatch {
  std::string ports;
  std::string pid;
  std::string length;
  std::string interval;
  std::string rows;
  std::string json;
  std::string profile;
  std::string prometheus;
  std::vector<std::string> fail_if;
  CLI::Option* prometheus_option = nullptr;
  std::optional<Endpoint> scrapes_at;
  WatchCommand command;
};

void add_watch_options(CLI::App& app, TypedWatch& typed) {
  app.add_option("--port", typed.ports, "Only listeners on these ports: 443, or 80,443");
  app.add_option("--pid", typed.pid, "Only listeners that this process holds");
  app.add_option("--for", typed.length, "How long: 30s; without it, until Ctrl-C");
  app.add_option(
      "--interval", typed.interval,
      "Time between two looks, from 1ms to 10s (default: as short as 0.6 % of one processor allows)");
  app.add_option("--top", typed.rows, "Show so many rows, the fullest");
  const std::string output = "Output";
  app.add_option("--json", typed.json, "Write all that was seen to this file; - is the standard output")
      ->group(output);
  app.add_option("--profile", typed.profile,
                 "Write the load that was seen to this file, for tune --profile; needs one listener")
      ->group(output);
  typed.prometheus_option =
      app.add_option(
             "--prometheus", typed.prometheus,
             std::string("Serve what is seen at http://127.0.0.1:PORT/metrics, or at another ADDRESS of "
                         "this machine (default: ") +
                 kMetricsPort + ")")
          ->expected(0, 1)
          ->type_name("[[ADDRESS:]PORT]")
          ->group(output);
  app.add_option(
         "--fail-if", typed.fail_if,
         "End, with status 4, as soon as it is so: 'full>80%', 'depth>=100', 'drops>0', 'overflows>0'")
      ->take_all()
      ->allow_extra_args(false)
      ->group(output);
  app.footer(
      "Examples:\n"
      "  anteroom watch                                  everything that listens here, live\n"
      "  anteroom watch --port 443 --for 30s             what backlog it needs, by what came\n"
      "  anteroom watch --for 1m --json watch.json --fail-if 'full>80%'\n"
      "  anteroom watch --pid 812 --for 10m --profile load.json\n"
      "  anteroom watch --prometheus                     metrics for a scraper on this machine");
}

std::chrono::nanoseconds understand_time(const std::string& option, const std::string& text,
                                         std::chrono::nanoseconds least, std::chrono::nanoseconds most,
                                         const std::string& wanted) {
  const auto time = bench::parse_duration(text);
  if (!time || *time < least || *time > most) refuse(option, text, wanted);
  return *time;
}

void understand_outputs(TypedWatch& typed) {
  WatchCommand& command = typed.command;
  if (!typed.json.empty()) command.json = output_name(typed.json);
  if (!typed.profile.empty()) command.profile = output_name(typed.profile);
  if (command.json && command.profile &&
      (*command.json == *command.profile || would_replace(*command.json, *command.profile)))
    throw CLI::ValidationError("--json, --profile", "they cannot be one file");
  for (const auto& path : {command.json, command.profile}) {
    const std::string problem = path ? output_problem(*path) : std::string();
    if (!problem.empty()) throw TargetError(problem);
  }
  for (const std::string& text : typed.fail_if) {
    auto rule = parse_watch_rule(text);
    if (const auto* const problem = std::get_if<std::string>(&rule))
      throw CLI::ValidationError("--fail-if", *problem);
    command.fail_if.push_back(std::get<WatchRule>(std::move(rule)));
  }
}

/// "9399", which is on loopback only, "10.0.0.1:9399" or "[::]:9399".
Endpoint scraped_at(const std::string& text) {
  if (text.find(':') == text.npos) {
    const int port = parse_whole("--prometheus", text, 0, std::numeric_limits<std::uint16_t>::max());
    return {"127.0.0.1", static_cast<std::uint16_t>(port)};
  }
  const auto address = Endpoint::parse(text);
  if (!address || (address->family() != AF_INET && address->family() != AF_INET6))
    refuse("--prometheus", text, "a port, or an address and a port, such as 0.0.0.0:9399 or [::1]:9399");
  return *address;
}

void understand_scrapes(TypedWatch& typed) {
  if (typed.prometheus_option->count() == 0) return;
  typed.scrapes_at.emplace(scraped_at(typed.prometheus.empty() ? kMetricsPort : typed.prometheus));
}

std::optional<Listener> listen_for_scrapes(const std::optional<Endpoint>& at) {
  if (!at) return std::nullopt;
  try {
    return Listener(*at, ListenerOptions{.backlog = 128});
  } catch (const std::system_error& error) {
    throw TargetError(fmt::format("{}; --prometheus takes another port", error.what()));
  }
}

/// The sockets that the process holds, of those that listen.
void find_sockets_of(pid_t pid, WatchCommand& command) {
  const bench::SocketHolders holders = bench::find_socket_holders(pid);
  if (holders.hidden > 0) throw TargetError(bench::why_out_of_reach(pid));
  for (const auto& [inode, who] : holders.by_inode) command.inodes.push_back(inode);
}

/// Who asks for a listener that is not there has mistyped something.
void refuse_what_is_not_there(const WatchCommand& command) {
  if (command.ports.empty() && !command.pid) return;
  bench::SocketDiag diag;
  std::vector<bench::ListeningSocket> sockets;
  diag.listeners(sockets, command.ports);
  for (const std::uint16_t port : command.ports) {
    if (std::ranges::none_of(sockets, [&](const auto& socket) { return socket.address.port() == port; }))
      throw TargetError(
          fmt::format("nobody listens on port {}; watch without --port shows who listens where", port));
  }
  if (command.pid) {
    std::erase_if(sockets,
                  [&](const auto& socket) { return std::ranges::count(command.inodes, socket.inode) == 0; });
    const std::string whose = fmt::format("pid {} ({})", *command.pid, bench::process_name(*command.pid));
    if (sockets.empty() && command.ports.empty())
      throw TargetError(fmt::format("{} listens on no TCP port; watch without --pid shows who does", whose));
    if (sockets.empty())
      throw TargetError(fmt::format("{} does not listen on port {}; watch without --port shows where it does",
                                    whose, fmt::join(command.ports, ", ")));
  }
  if (!command.profile) return;
  const auto other = std::ranges::find_if(
      sockets, [&](const auto& socket) { return socket.address != sockets.front().address; });
  if (other != sockets.end())
    throw TargetError(fmt::format(
        "a profile is of one listener, and both {} and {} are watched: name one with --port or --pid",
        sockets.front().address.to_string(), other->address.to_string()));
}

void understand_watch(TypedWatch& typed) {
  WatchCommand& command = typed.command;
  constexpr std::chrono::hours kDay{24};
  if (!typed.ports.empty()) {
    for (const std::string& port : split(typed.ports))
      command.ports.push_back(static_cast<std::uint16_t>(
          parse_whole("--port", port, 1, std::numeric_limits<std::uint16_t>::max())));
  }
  if (!typed.pid.empty()) command.pid = parse_whole("--pid", typed.pid, 1, std::numeric_limits<int>::max());
  if (!typed.length.empty())
    command.length = understand_time("--for", typed.length, std::chrono::milliseconds(10), kDay,
                                     "a time from 10ms to a day, such as 30s");
  if (!typed.interval.empty())
    command.interval = understand_time("--interval", typed.interval, std::chrono::milliseconds(1),
                                       std::chrono::seconds(10), "a time from 1ms to 10s");
  if (!typed.rows.empty()) command.rows_max = parse_whole("--top", typed.rows, 1, 1'000'000);
  if (!typed.profile.empty() && command.ports.empty() && !command.pid)
    throw CLI::ValidationError("--profile", "is of one listener: name it with --port or --pid");
  understand_outputs(typed);
  understand_scrapes(typed);
}

/// Moves to the network namespace of --pid, and finds what it holds.
void find_what_to_watch(WatchCommand& command) {
  if (command.pid) {
    if (!bench::is_alive(*command.pid)) throw TargetError(bench::why_no_process(*command.pid));
    command.pid = bench::process_of(*command.pid);  // of a thread too
    command.is_elsewhere = bench::enter_network_of(*command.pid);
    find_sockets_of(*command.pid, command);
  }
  refuse_what_is_not_there(command);
}

}  // namespace

Verb add_watch(CLI::App& tool) {
  const auto typed = std::make_shared<TypedWatch>();
  Verb verb;
  verb.app = tool.add_subcommand("watch", "See how full the listen queues of this machine get");
  add_watch_options(*verb.app, *typed);
  verb.understand = [typed] { understand_watch(*typed); };
  verb.run = [typed](const Invocation& invocation) {
    typed->command.command_line = invocation.command_line;
    // In the network namespace in which this was typed: the scraper is there.
    std::optional<Listener> scrapes = listen_for_scrapes(typed->scrapes_at);
    find_what_to_watch(typed->command);
    return watch(typed->command, std::move(scrapes), invocation.interrupted);
  };
  return verb;
}

}  // namespace anteroom::tool
