#pragma once
#include <anteroom/bench/running_server.h>

#include <string>

namespace anteroom::bench {

/// Sees to it that a running server gets its backlog back, whatever happens to us: when it is destroyed, and,
/// by a guardian process that waits for nothing else, when this process ends without that (SIGKILL, a crash).
/// The guardian is in a session of its own, so that what ends ours does not end it, and holds none of the
/// server's sockets, nor our standard output.
class BacklogKeeper {
 public:
  /// The calling process must have one thread (it forks). Throws TargetError if what the server has could not
  /// be put back, because somaxconn has been lowered since, or if it is not allowed; std::system_error if
  /// there is no process to be had. `server` must outlive it.
  explicit BacklogKeeper(const RunningServer& server);
  BacklogKeeper(const BacklogKeeper&) = delete;
  BacklogKeeper& operator=(const BacklogKeeper&) = delete;
  ~BacklogKeeper();

  /// Puts it back now, and sends the guardian away. Returns one line about what could not be put back.
  std::string put_back() noexcept;

 private:
  const RunningServer& server_;
  pid_t guardian_ = -1;
};

}  // namespace anteroom::bench
