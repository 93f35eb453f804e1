#pragma once
#include <anteroom/bench/processes.h>
#include <anteroom/bench/socket_diag.h>
#include <anteroom/endpoint.h>
#include <anteroom/fd.h>
#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace anteroom::bench {

/// Why a server that runs cannot be tuned: one line, which says what to do.
class TargetError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};
/// The server was there, and has ended or closed its listener since.
class ServerGone : public TargetError {
 public:
  using TargetError::TargetError;
};

/// One listening socket of a server that runs.
struct ServerRoom {
  Endpoint address;
  std::uint64_t cookie = 0;
  std::uint32_t inode = 0;
  int backlog = 0;  ///< in force when it was found, or locked
  pid_t pid = 0;    ///< a process that holds it,
  int fd = -1;      ///< as this descriptor
  bool is_v6_only = false;
};

/// Moves the calling process (which must have one thread) to where `pid` has its network. Who owns a
/// container without being root has the right only inside its user namespace (setns(2)). False if it is there
/// already. Throws TargetError.
bool enter_network_of(pid_t pid);

/// Why this user may not look into that process, and what to do about it, in one line.
std::string why_out_of_reach(pid_t pid);

/// The listening sockets by which a server that runs takes in guests on one port: all of the process, of its
/// children, and of whoever shares a SO_REUSEPORT group with them; IPv4 and IPv6. Their backlog can be
/// changed from here, by listen(2) on the very sockets (pidfd_getfd(2)): the server notices nothing, and who
/// waits is kept. That takes the right to trace the process: its own user where Yama allows it, or root.
///
/// Holds no socket of the server between calls, so that the port is free as soon as the server closes it.
class RunningServer {
 public:
  /// Moves the calling process into the network namespace of `pid` if that is another one (it must have one
  /// thread then). Without a port, that of the only one it listens on; without a pid, that of whoever listens
  /// on `port`. Throws TargetError, with nothing changed.
  RunningServer(std::optional<pid_t> pid, std::optional<std::uint16_t> port);

  pid_t pid() const noexcept { return pid_; }
  std::uint16_t port() const noexcept { return port_; }
  const std::string& name() const noexcept { return name_; }  ///< of the process
  const std::vector<ServerRoom>& rooms() const noexcept { return rooms_; }
  /// The largest of the rooms' backlogs when they were found, which are one number as a rule.
  int backlog() const noexcept;
  std::vector<pid_t> processes() const;  ///< which hold one of the rooms, or are children of one that does
  std::vector<std::uint64_t> cookies() const;

  /// Where a client on this machine reaches it: IPv4 if it can be.
  Endpoint address() const;

  /// net.core.somaxconn where the server is, at which listen(2) clips.
  int backlog_max() const noexcept { return backlog_max_; }
  /// What raises it to `backlog`, as root, from where this process was when it began.
  std::string sysctl_command(int backlog) const;

  /// Whether each room is still there.
  bool is_there();

  /// Whether this user may change it. Throws TargetError if not.
  void check_rights() const;
  /// Throws TargetError if a room that is there has neither what it had when it was found nor one of `ours`:
  /// then the server was reloaded, or somebody else was here.
  void check_untouched(std::span<const int> ours) const;
  /// listen(fd, backlog) on every room; a number beyond backlog_max() becomes that. Throws ServerGone, or
  /// TargetError if it is not allowed.
  void set_backlog(int backlog) const;
  /// As long as these are open, no other process of ours changes it; the rooms' backlogs are those of now.
  /// Throws TargetError if one does. They are locks (flock(2)) on /proc/<pid>/fdinfo/<fd> of the sockets: a
  /// file that opens only for those who may trace the process, so nobody else can keep us from it, and on
  /// which no lock is left when its last holder has ended. Two processes see one file if they see one mount
  /// of /proc: one in a container with its own /proc and one outside of it do not exclude each other, and
  /// find by check_untouched() what the other has changed.
  std::vector<Fd> lock();
  /// Every room gets back what it had when it was found; but for those that somebody else has changed
  /// (check_untouched()), unless nobody names what is ours. Throws nothing:
  /// returns one line about what was not put back; empty if all was, or if the server is gone.
  std::string put_back(std::span<const int> ours = {}) const noexcept;

 private:
  void add_room(const ListeningSocket& listener, const SocketHolders& holders);
  static void listen_on(const ServerRoom& room, int backlog);

  pid_t pid_ = 0;
  std::uint16_t port_ = 0;
  std::string name_;
  std::vector<ServerRoom> rooms_;
  int backlog_max_ = 0;
  bool is_elsewhere_ = false;  // in a network namespace that we had to move to
  SocketDiag diag_;
};

}  // namespace anteroom::bench
