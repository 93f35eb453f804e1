#pragma once
#include <sched.h>
#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>

namespace anteroom::bench {

/// The processors for the server and for the swarm, disjoint where there are two or more.
struct Processors {
  std::optional<cpu_set_t> server;
  std::optional<cpu_set_t> swarm;
};
Processors divide_processors();

/// The one in `set` with the lowest number, alone.
cpu_set_t first_of(const cpu_set_t& set) noexcept;

/// Told in a child, before it ends, why its work could not be done.
using Failed = std::function<void(std::string_view why)>;

/// A process that does `work` and ends, at the latest with this one. Throws std::system_error.
pid_t fork_process(const Failed& failed, const std::optional<cpu_set_t>& processors,
                   const std::function<void()>& work);

/// In a child just forked by `parent`: ends with it, however it dies, and leaves Ctrl-C and SIGHUP to
/// that parent.
void tie_to_parent(pid_t parent) noexcept;

/// A child, until it has been waited for.
struct Child {
  pid_t pid = -1;
  bool ended = false;
  std::int64_t cpu = 0;  ///< ns of user and system time, once it has ended

  bool has_ended(int options) noexcept;
  bool has_ended() noexcept;
  void kill_and_wait() noexcept;
};

}  // namespace anteroom::bench
