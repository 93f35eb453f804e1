#include "running_target.h"

#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <span>
#include <sstream>
#include <string>
#include <utility>

#include "probe.h"
#include "verb.h"

namespace anteroom::tool {
namespace {

using bench::RunningServer;

/// The soft limit that a server meets, from /proc/<pid>/limits: "Max open files  1024  4096  files".
std::uint64_t descriptors_of(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/limits", pid));
  constexpr std::string_view kName = "Max open files";
  for (std::string line; std::getline(file, line);) {
    std::uint64_t soft = 0;
    if (line.starts_with(kName) && std::istringstream(line.substr(kName.size())) >> soft) return soft;
  }
  return 0;
}

void refuse_beyond_somaxconn(const ExperimentCommand& command, const RunningServer& server) {
  const int most = server.backlog_max();
  if (command.refine || command.backlogs.back() <= most) return;
  throw UsageError(fmt::format("net.core.somaxconn is {} and would clip a backlog of {} to that. First: {}",
                               most, command.backlogs.back(),
                               server.sysctl_command(command.backlogs.back())));
}

RunningServer find(const ExperimentCommand& command) {
  RunningServer server(command.running->pid, command.running->port);
  refuse_beyond_somaxconn(command, server);
  server.check_rights();
  return server;
}

/// Guests that nobody has accepted yet, in all its rooms.
std::uint32_t waiting_at(const RunningServer& server) {
  std::vector<bench::ListeningSocket> listeners;
  const std::uint16_t port = server.port();
  bench::SocketDiag().listeners(listeners, std::span(&port, 1));
  std::uint32_t waiting = 0;
  for (const bench::ServerRoom& room : server.rooms()) {
    const auto found = std::ranges::find(listeners, room.cookie, &bench::ListeningSocket::cookie);
    if (found != listeners.end()) waiting += found->depth;
  }
  return waiting;
}

/// Talks to it once. Returns why that is no service; empty if it is.
std::string try_once(const RunningServer& server, const bench::Target& target,
                     std::chrono::nanoseconds patience, const std::optional<Endpoint>& source,
                     const std::atomic<bool>& interrupted) {
  const Probe seen = probe(target.address, target.dialogue, patience, source, &interrupted);
  if (seen.was_interrupted) throw Interrupted();
  std::string problem = problem_of(seen, target.address, target.dialogue, patience);
  if (std::string redirection = redirection_of(seen, target.address); problem.empty() && !redirection.empty())
    return fmt::format(
        "{}: {} (pid {}) gets none of these clients. Name the server that does, with --port {}", redirection,
        server.name(), server.pid(), seen.arrival->port());
  if (problem.empty() || !seen.heard.empty() || seen.has_ended) return problem;
  if (const std::uint32_t waiting = waiting_at(server))
    return fmt::format(
        "{} (pid {}) accepts nobody: {} wait{} in its queue of {}. No backlog mends that: find out what it "
        "does instead",
        server.name(), server.pid(), waiting, waiting == 1 ? "s" : "", server.backlog());
  return problem;
}

bench::Target target_of(const RunningServer& server, const ExperimentCommand& command,
                        const std::atomic<bool>& interrupted) {
  bench::Target target{.address = server.address(),
                       .dialogue = command.running->dialogue,
                       .listeners = server.cookies(),
                       .processes = server.processes()};
  const auto patience = command.load.patience;
  const std::string why = try_once(server, target, patience, std::nullopt, interrupted);
  if (!why.empty()) throw bench::TargetError(why);
  // Some only listen to 127.0.0.1 itself.
  if (target.address.family() == AF_INET && target.address.is_loopback())
    target.has_one_source =
        !try_once(server, target, patience, Endpoint("127.0.1.1", 0), interrupted).empty();
  return target;
}

}  // namespace

RunningTarget::RunningTarget(ExperimentCommand& command, const std::atomic<bool>& interrupted)
    : server_(find(command)), target_(target_of(server_, command, interrupted)), keeper_(server_) {
  ::signal(SIGTSTP, SIG_IGN);  // a pause would leave the server with whatever is being tried
  RunningCommand& running = *command.running;
  running.pid = server_.pid();
  running.port = server_.port();
  running.name = server_.name();
  running.address = target_.address.to_string();
  running.backlog = server_.backlog();
  running.backlog_max = server_.backlog_max();
  running.descriptors = descriptors_of(server_.pid());
  running.rooms = static_cast<int>(server_.rooms().size());
  if (!command.refine) return;  // whose backlogs somebody chose
  command.backlogs.push_back(server_.backlog());
  std::erase_if(command.backlogs, [&](int backlog) { return backlog > server_.backlog_max(); });
  std::ranges::sort(command.backlogs);
  // Not std::ranges::unique: clang before 16 compiles no subrange of libstdc++ 12.
  command.backlogs.erase(std::unique(command.backlogs.begin(), command.backlogs.end()), command.backlogs.end());
}

void RunningTarget::attach(bench::ExperimentOptions& options) {
  options.target = &target_;
  options.prepare = [this](const bench::Scenario& next) { return prepare(next); };
}

bool RunningTarget::prepare(const bench::Scenario& next) {
  try {
    keeper_.set_backlog(next.backlog);
    return true;
  } catch (const bench::TargetError& error) {
    why_ended_ = error.what();
    return false;
  }
}

}  // namespace anteroom::tool
