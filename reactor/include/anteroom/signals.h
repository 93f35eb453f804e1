#pragma once
#include <anteroom/export.h>
#include <anteroom/reactor.h>

#include <functional>
#include <initializer_list>

namespace ANTEROOM_EXPORT anteroom {

/// Signals as events of the loop: the handler runs from the turn like any other.
///
/// The signals are caught (sigaction(2), SA_RESTART), not blocked, so programs that the process starts inherit
/// nothing. It does not matter which thread the kernel interrupts. If the calling thread has blocked one of the
/// signals, it is unblocked. Several Signals, of one reactor or of several, may name the same signal: each of
/// them is called. A signal that arrives several times between two turns is reported once.
///
/// The last Signals for a signal puts back the action (and the mask) that was there before the first, and
/// delivers a signal that arrived and was not reported yet to that action. In a forked child that action is in
/// force, too, until Reactor::continue_after_fork().
class Signals {
 public:
  /// Throws std::system_error: invalid_argument for a null handler, no signal, a signal that is named twice,
  /// that does not exist, that cannot be caught (SIGKILL, SIGSTOP), or that a fault raises again as soon as its
  /// handler returns (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS); and when the system gives no descriptor.
  Signals(Reactor& reactor, std::initializer_list<int> signals, std::function<void(int signal)> handler);
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

 private:
  class SignalChannel;
  SignalChannel* channel_;  // the reactor owns it
};

}  // namespace anteroom
