#pragma once
#include <anteroom/reactor.h>

#include <chrono>

/// Waiting for an event with a deadline, never for a time.
namespace anteroom::test {

/// Long enough for a machine that is busy with other things; nothing that works comes near it.
inline constexpr std::chrono::seconds kPatience{10};

/// Turns until `done()`. False if that takes longer than `patience`. Asks at least every millisecond, for
/// what is waited for may be no event of the reactor's.
template <class Predicate>
bool turn_until(Reactor& reactor, Predicate done, Reactor::Clock::duration patience = kPatience) {
  const Reactor::Clock::time_point end = Reactor::Clock::now() + patience;
  while (!done()) {
    if (Reactor::Clock::now() >= end) return false;
    reactor.turn(std::chrono::milliseconds(1));
  }
  return true;
}

/// Turns without waiting: for what must not happen, and what happens at once if it does.
inline void turn_times(Reactor& reactor, int times) {
  for (int i = 0; i < times; ++i) reactor.turn(Reactor::Clock::duration::zero());
}

}  // namespace anteroom::test
