#pragma once
#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace anteroom::bench {

/// A process, and which of its descriptors a socket is.
struct SocketHolder {
  pid_t pid = 0;
  int fd = -1;
  friend bool operator==(const SocketHolder&, const SocketHolder&) = default;
};

/// Which processes have which sockets open.
struct SocketHolders {
  std::map<std::uint32_t, std::vector<SocketHolder>> by_inode;  ///< ascending pids
  int hidden = 0;  ///< processes that this user may not look into
};

/// Reads /proc/<pid>/fd of all processes that this user may look into: 10 µs a process and 1 µs a descriptor.
SocketHolders find_socket_holders();
/// Of one process; `hidden` is 1 if it may not be looked into.
SocketHolders find_socket_holders(pid_t pid);

/// Of this machine, or of this container; ascending.
std::vector<pid_t> all_processes();
/// 0 if there is none, or no such process.
pid_t parent_of(pid_t pid);
/// The process that a thread belongs to; 0 if there is no such thread.
pid_t process_of(pid_t thread);
/// Whether there is such a process or thread, and it has not ended. A process goes on when its first thread
/// has ended (pthread_exit(3) in main), as long as another runs; a zombie has none.
bool is_alive(pid_t pid);
/// The thread through which the kernel shows what a process has open and in which namespaces it is: its first
/// one, or another if that has ended. 0 if all have.
pid_t living_thread_of(pid_t pid);

/// Why no process can be seen here at all: no /proc, or one of another PID namespace. Empty if they can.
std::string proc_problem();
/// Why there is nothing to be had of a process that is not alive, in one line: there is none, it is a zombie,
/// or /proc hides it.
std::string why_no_process(pid_t pid);

/// User and system time of all its threads, from /proc/<pid>/task/*/schedstat; 0 where there is none.
std::chrono::nanoseconds processor_time(pid_t pid);

/// What the process calls itself (/proc/<pid>/comm); empty if there is none. It may call itself anything, and
/// this goes to terminals and into JSON: what is not printable ASCII is a question mark.
std::string process_name(pid_t pid);

}  // namespace anteroom::bench
