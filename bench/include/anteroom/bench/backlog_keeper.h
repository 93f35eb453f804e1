#pragma once
#include <anteroom/bench/running_server.h>
#include <anteroom/fd.h>

#include <array>
#include <atomic>
#include <string>
#include <vector>

namespace anteroom::bench {

/// Changes a running server's backlog, and sees to it that the server gets back what it had: when it is
/// destroyed, and, by a guardian process that waits for nothing else, when this process ends without that
/// (SIGKILL, a crash). The guardian is in a session of its own, so that what ends ours does not end it, and
/// holds none of the server's sockets, nor our standard output. What ends both at once leaves the server as
/// it is: the end of their container or their service, for example.
class BacklogKeeper {
 public:
  /// The calling process must have one thread (it forks). Throws TargetError if what the server has could not
  /// be put back, because somaxconn has been lowered since, if it is not allowed, or if another process of
  /// ours keeps the same server; std::system_error if there is no process to be had. `server` must outlive
  /// it.
  explicit BacklogKeeper(RunningServer& server);
  BacklogKeeper(const BacklogKeeper&) = delete;
  BacklogKeeper& operator=(const BacklogKeeper&) = delete;
  ~BacklogKeeper();

  /// RunningServer::set_backlog(), unless somebody else has changed it meanwhile: throws TargetError then,
  /// and the server keeps what it has.
  void set_backlog(int backlog);

  /// Puts it back now, and sends the guardian away. Returns one line about what was not put back.
  std::string put_back() noexcept;

 private:
  /// What we have set, in memory shared with the guardian: a call of listen(2) may or may not have come to
  /// pass when we are killed.
  struct Ours {
    std::atomic<int> before{-1};
    std::atomic<int> now{-1};
  };
  [[noreturn]] void guard(pid_t parent, const Fd& tells) const noexcept;
  std::string put_back_ours() const noexcept;
  std::array<int, 2> ours() const noexcept;

  const RunningServer& server_;
  std::vector<Fd> locks_;
  Ours* ours_ = nullptr;
  pid_t guardian_ = -1;
};

}  // namespace anteroom::bench
