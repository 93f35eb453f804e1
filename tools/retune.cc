// anteroom retune: another backlog for a server that runs.
#include <anteroom/bench/backlog_keeper.h>
#include <anteroom/bench/running_server.h>
#include <anteroom/version.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <standard_streams.h>
#include <sys/socket.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "load_options.h"
#include "output.h"
#include "probe.h"
#include "run_document.h"
#include "server_options.h"
#include "tune.h"
#include "verb.h"

namespace anteroom::tool {
namespace {

using bench::RunningServer;
using bench::ServerRoom;
using bench::TargetError;

constexpr int kLookEveryMs = 200;  // whether the server is still there

struct Retune {
  TypedServer server;
  std::string backlog;
  std::string json;
  bool dry_run = false;
  bool until_exit = false;
  bool allow_clamp = false;

  int wanted = 0;
};

/// A room, and what it has now.
struct RoomNow {
  const ServerRoom* room = nullptr;
  int now = 0;
};

std::vector<RoomNow> look(const RunningServer& server) {
  bench::SocketDiag diag;
  std::vector<bench::ListeningSocket> listeners;
  const std::uint16_t port = server.port();
  diag.listeners(listeners, std::span(&port, 1));
  std::vector<RoomNow> rooms;
  for (const ServerRoom& room : server.rooms()) {
    const auto found = std::ranges::find(listeners, room.cookie, &bench::ListeningSocket::cookie);
    if (found != listeners.end()) rooms.push_back({.room = &room, .now = static_cast<int>(found->limit)});
  }
  return rooms;
}

Json document(const Retune& retune, const RunningServer& server, const std::vector<RoomNow>& rooms) {
  Json json{{"schema", "anteroom.retune/1"}, {"version", ANTEROOM_VERSION_STRING},
            {"pid", server.pid()},           {"name", server.name()},
            {"port", server.port()},         {"backlog", retune.wanted},
            {"dry_run", retune.dry_run},     {"somaxconn", server.backlog_max()},
            {"rooms", Json::array()}};
  for (const auto& [room, now] : rooms) {
    json["rooms"].push_back(
        {{"address", room->address.to_string()}, {"pid", room->pid}, {"was", room->backlog}, {"now", now}});
  }
  return json;
}

void print(const Retune& retune, const RunningServer& server, const std::vector<RoomNow>& rooms) {
  for (const auto& [room, now] : rooms) {
    fmt::print("{}  {} (pid {})  {} -> {}{}\n", room->address.to_string(), server.name(), room->pid,
               room->backlog, retune.dry_run ? std::min(retune.wanted, server.backlog_max()) : now,
               retune.dry_run ? ", if this were no dry run" : "");
  }
}

/// To whom it was asked to be told. Returns why that was not possible; empty if it was.
std::string tell(const Retune& retune, const RunningServer& server, const std::vector<RoomNow>& rooms) {
  if (!retune.json.empty()) {
    std::string problem = write_output(retune.json, document(retune, server, rooms).dump(1) + '\n');
    if (!problem.empty() || retune.json == "-") return problem;
  }
  print_output([&] { print(retune, server, rooms); });
  return output_is_written() ? "" : std::string(kOutputNotWritten);
}

/// Beyond somaxconn listen(2) clips without a word.
void look_at_limit(const Retune& retune, const RunningServer& server) {
  const int most = server.backlog_max();
  if (retune.wanted <= most) return;
  const std::string cure = server.sysctl_command(retune.wanted);
  if (!retune.allow_clamp)
    throw TargetError(
        fmt::format("net.core.somaxconn is {} and would clip a backlog of {} to that; nothing was "
                    "changed. First: {} (or take the {}: --allow-clamp)",
                    most, retune.wanted, cure, most));
  print_error("anteroom: net.core.somaxconn is {} and clips the backlog of {} to that. For more: {}\n", most,
              retune.wanted, cure);
}

/// Returns when somebody wants it to end, or the server has.
ExitStatus wait_for_the_end(const Retune& retune, RunningServer& server, bench::BacklogKeeper& keeper,
                            const std::atomic<bool>& interrupted) {
  while (!interrupted.load()) {
    if (!server.is_there()) {
      print_error(
          "anteroom: {} (pid {}) has closed its listener on port {}, or has ended; when it listens again, it "
          "has what its configuration says\n",
          server.name(), server.pid(), server.port());
      if (const std::string problem = keeper.put_back(); !problem.empty())
        print_error("anteroom: {}\n", problem);
      return kCouldNotRun;
    }
    ::poll(nullptr, 0, kLookEveryMs);
  }
  if (const std::string problem = keeper.put_back(); !problem.empty()) {
    print_error("anteroom: {}\n", problem);
    return kCouldNotRun;
  }
  if (retune.json != "-") print_output([&] { fmt::print("put back to {}\n", server.backlog()); });
  return kDone;
}

/// All of its rooms, or none.
void change(const RunningServer& server, int backlog) {
  try {
    server.set_backlog(backlog);
  } catch (const TargetError&) {
    (void)server.put_back();
    throw;
  }
}

int run(const Retune& retune, const Invocation& invocation) {
  refuse_without_getsockopt(AF_INET);  // or the server would be blamed for it
  RunningServer server(retune.server.pid, retune.server.port);
  look_at_limit(retune, server);
  server.check_rights();
  std::optional<bench::BacklogKeeper> keeper;
  if (retune.until_exit && !retune.dry_run) {
    keeper.emplace(server).set_backlog(retune.wanted);
  } else if (!retune.dry_run) {
    const std::vector<Fd> locks = server.lock();
    change(server, retune.wanted);
  }
  const std::vector<RoomNow> rooms = look(server);
  if (const std::string problem = tell(retune, server, rooms); !problem.empty()) {
    if (!retune.dry_run) (void)server.put_back();  // nobody would know what it had
    print_error("anteroom: {}; nothing was changed\n", problem);
    return kCouldNotRun;
  }
  if (!keeper) return kDone;
  print_output([&] {
    if (retune.json != "-") fmt::print("until Ctrl-C\n");
    std::fflush(stdout);
  });
  return wait_for_the_end(retune, server, *keeper, invocation.interrupted);
}

}  // namespace

Verb add_retune(CLI::App& tool) {
  const auto retune = std::make_shared<Retune>();
  CLI::App* const app =
      tool.add_subcommand("retune", "Give a server that runs another backlog, without a restart");
  add_server_options(*app, retune->server);
  app->add_option("--backlog", retune->backlog, "What it is to have, such as 1024")->required();
  app->add_flag("--dry-run", retune->dry_run, "Say what would be changed, and change nothing");
  app->add_flag("--until-exit", retune->until_exit,
                "Wait for Ctrl-C and put back what there was; also if this is killed");
  app->add_flag("--allow-clamp", retune->allow_clamp, "Take what net.core.somaxconn allows, if that is less");
  app->add_option("--json", retune->json, "Write what was changed to this file; - is the standard output");
  app->footer(
      "All listeners of that port are changed: of every worker and SO_REUSEPORT group, IPv4 and IPv6. It "
      "takes root, "
      "or the\nserver's own user. It does not outlive the server, and is nothing that its configuration "
      "knows of: "
      "tools/RUNNING-SERVERS.md\nhas the line that makes it permanent, for nginx, redis, HAProxy, node and "
      "others.\n\n"
      "Examples:\n"
      "  anteroom retune --pid 4711 --port 8080 --backlog 1024\n"
      "  sudo anteroom retune --port 443 --backlog 4096 --dry-run\n"
      "  sudo anteroom retune --pid $(cat /run/nginx.pid) --port 80 --backlog 2048 --until-exit");
  return {.app = app,
          .understand =
              [retune] {
                understand_server(retune->server);
                retune->wanted = parse_whole("--backlog", retune->backlog, 0, kListenMax);
                if (retune->until_exit && retune->dry_run)
                  throw CLI::ArgumentMismatch("--dry-run changes nothing that --until-exit could put back");
                retune->json = output_name(retune->json);
                if (!retune->json.empty()) {
                  const std::string problem = output_problem(retune->json);
                  if (!problem.empty()) throw UsageError(problem);
                }
              },
          .run = [retune](const Invocation& invocation) { return run(*retune, invocation); }};
}

}  // namespace anteroom::tool
