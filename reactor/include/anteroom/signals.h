#pragma once
#include <anteroom/reactor.h>

#include <signal.h>

#include <functional>
#include <initializer_list>

namespace anteroom {

/// Signals as events of the loop (signalfd(2)): the handler runs from the turn like any other.
///
/// Blocks the signals in the calling thread and in those it starts later, and unblocks them at the end; make
/// it before other threads. A signal that came while it was blocked and was not told is delivered then.
class Signals {
 public:
  /// Throws std::system_error.
  Signals(Reactor& reactor, std::initializer_list<int> signals, std::function<void(int signal)> handler);
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

 private:
  class SignalChannel;
  Reactor& reactor_;
  sigset_t ours_;           // those that were not blocked before
  SignalChannel* channel_;  // the reactor owns it
};

}  // namespace anteroom
