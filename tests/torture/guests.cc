#include "guests.h"

#include <fmt/format.h>

#include <algorithm>

#include "judge.h"

namespace anteroom::torture {

using std::chrono::milliseconds;

bool Guests::step() {
  bool moved = false;
  for (const auto& peer : peers_) moved = peer->step() || moved;
  return moved;
}

bool Guests::are_done() const {
  return std::ranges::all_of(peers_, [](const auto& peer) { return peer->is_done(); });
}

bool Guests::are_all_gone() const { return with(Peer::Fate::kUnderWay) == 0; }

int Guests::with(Peer::Fate fate) const {
  return static_cast<int>(
      std::ranges::count_if(peers_, [&](const auto& peer) { return peer->fate() == fate; }));
}

std::string Guests::describe(Peer::Fate fate) const {
  std::string text;
  for (const auto& peer : peers_) {
    if (peer->fate() == fate) text += "\n    " + peer->to_string();
  }
  return text;
}

void Guests::settle(const std::function<void(milliseconds)>& turn, const std::function<bool()>& is_settled,
                    std::string_view what) {
  const Patience patience;
  int idle_turns = 0;
  while (!(are_done() && is_settled()) && report_.failure.empty()) {
    if (lasts(fault_) && faults::injected() > 0 && patience.elapsed() > kHold.count()) faults::disarm();
    const bool moved = step();
    if (!moved) ++idle_turns;
    turn(milliseconds(moved ? 0 : 1));
    if (patience.is_spinning(fault_, idle_turns))
      fail(report_, fmt::format("spins: {} idle turns in {} ms", idle_turns, patience.elapsed()));
    if (patience.is_at_an_end())
      fail(report_, fmt::format("{} does not come to an end, and some are left hanging:{}", what,
                                describe(Peer::Fate::kUnderWay)));
  }
}

void Guests::expect_served(int count) {
  for (auto peer = peers_.end() - count; peer != peers_.end(); ++peer) {
    if ((*peer)->fate() != Peer::Fate::kServed)
      fail(report_, "the fault is over, and a fresh guest is not served: " + (*peer)->to_string());
  }
}

void Guests::judge(int cost) {
  const int lost = with(Peer::Fate::kClosed);
  if (lost > cost)
    fail(report_, fmt::format("{} guests are lost, {} may be:{}", lost, cost, describe(Peer::Fate::kClosed)));
  const std::string wrong = describe(Peer::Fate::kWrong);
  if (!wrong.empty()) fail(report_, "wrong bytes:" + wrong);
}

}  // namespace anteroom::torture
