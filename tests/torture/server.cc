#include "server.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <system_error>
#include <thread>
#include <utility>

#include "peers.h"

namespace anteroom::torture {

using faults::Call;
using faults::Tortured;
using std::chrono::milliseconds;

Endpoint local_with_small_buffer(int listener) {
  const RawSocket borrowed(static_cast<int>(::syscall(SYS_dup, listener)));
  borrowed.set_option(SOL_SOCKET, SO_SNDBUF, kSendBuffer);
  return borrowed.local();
}

void Server::run() {
  if (start()) {
    for (const std::vector<Script>& wave : plan_.waves) {
      admit(wave);
      if (&wave == &plan_.waves.front()) std::this_thread::sleep_for(plan_.opens_after);
      settle();
    }
    faults::disarm();
    admit(plan_.last);
    settle();
    guests_.expect_served(static_cast<int>(plan_.last.size()));
    guests_.judge(cost());
    faults::rearm();
  }
  finish();
}

bool Server::start() {
  ConnectionHandlers handlers = plan_.half_closes ? house_.handlers_of_half_closed() : house_.handlers();
  AcceptorOptions options = plan_.options;
  options.resting = [this](std::error_code, std::optional<std::uint32_t>) { told_of_rest_ = true; };
  return !refuses(fault_, report_, [&] {
    reactor_.emplace();
    Listener listener(plan_.at, {.backlog = options.backlog.initial()});
    door_ = local_with_small_buffer(listener.fd());
    acceptor_.emplace(*reactor_, std::move(listener), std::move(handlers), std::move(options));
  });
}

void Server::admit(const std::vector<Script>& wave) {
  for (const Script& script : wave) guests_.admit(door_, script);
  (void)guests_.step();
}

void Server::settle() {
  guests_.settle([&](milliseconds wait) { turn(*reactor_, fault_, report_, wait); },
                 [&] { return house_.living() <= guests_.staying(); },
                 fmt::format("the house, with {} guests,", house_.living()));
  check_knocking();
}

int Server::cost() const {
  const bool costs = fault_ != nullptr && plan_.costs && plan_.costs(*fault_);
  return costs ? faults::injected() : cost_max(fault_, Side::kServer);
}

/// The doorman comes to the door for an edge, for a descriptor that has closed, and every 20 ms.
void Server::check_knocking() {
  const int looks = faults::count(Call::kClose) + milliseconds_since(begin_) / 20 + guests_.count() + 3;
  const bool each_may_be_dead = fault_ != nullptr && is_the_guests_trouble(fault_->error);
  const bool each_may_repeat = fault_ != nullptr && is_transient(*fault_);
  const int tries = each_may_be_dead ? plan_.options.accepts_per_turn_max : 1;
  const int accepts_max = guests_.count() + looks * tries + (each_may_repeat ? faults::injected() : 0);
  if (faults::count(Call::kAccept4) > accepts_max) {
    fail(report_, fmt::format("accept4 is called {} times where {} would do", faults::count(Call::kAccept4),
                              accepts_max));
  }
}

void Server::check_books() {
  if (house_.trouble() != nullptr) fail(report_, house_.trouble());
  if (!acceptor_) return;
  const AcceptorStats& stats = acceptor_->stats();
  const bool may_lose_the_accepted = fault_ != nullptr && fault_->call == Call::kNew;
  const std::uint64_t let_in = stats.accepted - stats.refused - stats.shed;
  const int told = house_.guests() + house_.never_opened();
  if (!may_lose_the_accepted && let_in != static_cast<std::uint64_t>(told))
    fail(report_, fmt::format("{} guests are let in, {} told of", let_in, told));
  if (told_of_rest_ != (stats.rests > 0)) fail(report_, "the doorman rests, and does not say so");
  // Guests wait 20 ms for each rest: nothing that a second try would have got over is worth that.
  const bool second_try_helps = fault_ == nullptr || is_transient(*fault_) ||
                                (fault_->times == 1 && is_the_guests_trouble(fault_->error));
  if (stats.rests > 0 && second_try_helps) fail(report_, "the doorman rests for nothing");
  if (plan_.judge) {
    const std::string wrong = plan_.judge(*acceptor_, fault_ != nullptr);
    if (!wrong.empty()) fail(report_, wrong);
  }
}

void Server::finish() {
  check_books();
  const int living = house_.living();
  {
    const Tortured tortured;
    acceptor_.reset();
  }
  for (const Patience patience; reactor_ && report_.failure.empty();) {
    turn(*reactor_, fault_, report_, milliseconds(0));
    (void)guests_.step();
    if (guests_.are_all_gone()) break;
    if (patience.is_at_an_end()) fail(report_, "the door is closed, but its guests are not");
  }
  if (house_.living() != living) fail(report_, "a handler of an acceptor that has ended is called");
  const Tortured tortured;
  reactor_.reset();
}

}  // namespace anteroom::torture
