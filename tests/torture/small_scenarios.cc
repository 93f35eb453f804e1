// The textbook's server, and setting up what the others do not.
#include <anteroom/acceptor.h>
#include <anteroom/activation.h>
#include <anteroom/blocking_server.h>
#include <anteroom/connector.h>
#include <anteroom/listen_queue.h>
#include <anteroom/reactor.h>
#include <anteroom/signals.h>
#include <anteroom/timer.h>
#include <fmt/format.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "judge.h"
#include "peers.h"
#include "scenarios.h"

namespace anteroom::torture {
namespace {

using faults::Call;
using faults::Fault;
using faults::Tortured;
using std::chrono::milliseconds;

BlockingServer* blocking_server = nullptr;
const RawSocket* blocking_door = nullptr;
int visits = 0;

/// Called before the server may block: when nobody waits any more it is to stop, and what lasts for ever is
/// lifted after a while.
void visit_blocking_server() {
  if (++visits > 10) faults::disarm();
  if (!blocking_door->is_readable()) blocking_server->stop();
}

}  // namespace

void textbook_server(const Fault* fault, Report& report) {
  // shutdown(2) of a listener cannot fail, or else stop() could not stop; send(2) on a blocking socket knows
  // no EAGAIN.
  if (fault != nullptr &&
      (fault->call == Call::kShutdown || (fault->call == Call::kSend && fault->error == EAGAIN)))
    return;
  static const std::string_view greeting = "Hello World!";
  std::optional<BlockingServer> server;
  Endpoint endpoint;
  RawSocket door;
  const bool refused = refuses(fault, report, [&] {
    Listener listener(Endpoint("127.0.0.1", 0), {.blocking = true});
    door = RawSocket(static_cast<int>(::syscall(SYS_dup, listener.fd())));
    // A stall that is far away: so it polls before it accepts.
    server.emplace(std::move(listener),
                   BlockingServerOptions{.greeting = std::string(greeting),
                                         .stall = AcceptStall({{.begin = Clock::now() + std::chrono::hours(1),
                                                                .length = std::chrono::seconds(1)}}),
                                         .observe_queue = true});
  });
  if (!refused) {
    std::vector<std::unique_ptr<Peer>> peers;
    for (int i = 0; i < 3; ++i) {
      peers.push_back(
          std::make_unique<Peer>(door.local(), Script{.answer = greeting, .end = Script::End::kHearOut}));
    }
    visits = 0;
    blocking_server = &*server;
    blocking_door = &door;
    faults::allow_blocking(true);
    faults::set_visitor(visit_blocking_server);
    {
      const Tortured tortured;
      server->run();
    }
    faults::set_visitor(nullptr);
    faults::allow_blocking(false);
    door.close();
    int lost = 0;
    for (const auto& peer : peers) {
      for (const Patience patience; !peer->is_done() && !patience.is_at_an_end();) peer->step();
      if (!peer->is_done() || peer->fate() == Peer::Fate::kWrong) report.failure = peer->to_string();
      if (peer->fate() == Peer::Fate::kClosed) ++lost;
    }
    const int cost = cost_max(fault, Side::kServer);
    if (lost > cost) report.failure = fmt::format("{} guests are lost, {} may be", lost, cost);
  }
  const Tortured tortured;
  server.reset();
}

namespace {

/// It was told, or we know why not.
void notify(const Fault* fault, Report& report) {
  const std::string path = "@" + unix_path() + "-manager";
  const RawSocket manager = RawSocket::bound_for_datagrams(Endpoint::unix_path(path));
  ::setenv("NOTIFY_SOCKET", path.c_str(), 1);
  faults::allow_blocking(true);
  std::error_code error;
  {
    const Tortured tortured;
    error = notify_ready();
  }
  faults::allow_blocking(false);
  ::unsetenv("NOTIFY_SOCKET");
  if (error && fault == nullptr) fail(report, "the service manager is not told: " + error.message());
  std::array<char, 16> heard{};
  const bool was_told = manager.recv(heard.data(), heard.size()) == 7;
  if (was_told == static_cast<bool>(error))
    fail(report, "the service manager hears, or does not, what is not so");
}

}  // namespace

void setting_up(const Fault* fault, Report& report) {
  notify(fault, report);
  int backlog_max = 0;
  refuses(fault, report, [&] { backlog_max = system_backlog_max(); });
  if (backlog_max < 1) report.failure = "system_backlog_max() knows no number";

  refuses(fault, report, [&] {
    Listener listener(Endpoint("127.0.0.1", 0), {.backlog = 5, .reuse_port = true, .blocking = true});
    listener.set_backlog(6);
    const std::optional<ListenQueue> queue = listener.queue();
    const bool may_not_know = fault != nullptr && fault->call == Call::kGetsockopt;
    if (!may_not_know && (!queue || queue->limit != 6)) report.failure = "the listen queue is not known";
  });
  if (!report.failure.empty()) return;

  const auto open_before = open_descriptors().count();
  std::optional<Reactor> reactor;
  refuses(fault, report, [&] {
    reactor.emplace();
    Acceptor acceptor(*reactor, Endpoint("127.0.0.1", 0), {});
    acceptor.set_backlog(7);
    const Connector connector(*reactor, {});
    Timer timer(*reactor, [] {});
    timer.arm(milliseconds(1));
    const Signals signals(*reactor, {SIGUSR2}, [](int) {});
  });
  if (reactor && report.failure.empty()) {
    faults::disarm();
    refuses(nullptr, report, [&] { reactor->turn(milliseconds(0)); });
    // epoll and its eventfd: what did not come about, or has ended, leaves nothing in the reactor's hands.
    if (open_descriptors().count() != open_before + 2) report.failure = "a descriptor stays with the reactor";
    faults::rearm();
  }
  const Tortured tortured;
  reactor.reset();
}

}  // namespace anteroom::torture
