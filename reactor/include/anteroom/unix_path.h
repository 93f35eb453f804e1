#pragma once
#include <anteroom/endpoint.h>
#include <anteroom/export.h>
#include <anteroom/fd.h>
#include <sys/types.h>

#include <string>

/// The path of a Unix socket, which bind(2) makes and close(2) leaves behind.
namespace ANTEROOM_EXPORT anteroom {

/// The right to replace what is at a path: one process or thread has it at a time, until bind(2) and
/// listen(2) are done. Without it, two that start at the same moment remove each other's new socket, which
/// refuses connections until its listen(2) as a dead one does.
///
/// It is a flock(2) on a file beside it, PATH.anteroom-lock, which is removed at the end; one that a crash
/// has left is used again. Only its owner and root may open it. Not for abstract names, of which bind(2)
/// gives each to one alone.
class UnixPathLock {
 public:
  /// Waits for others who have it. Throws std::system_error; permission_denied if the file is another user's.
  /// Where the folder takes no file there is nothing to lock, and bind(2) will say so.
  explicit UnixPathLock(const Endpoint& endpoint);
  UnixPathLock(const UnixPathLock&) = delete;
  UnixPathLock& operator=(const UnixPathLock&) = delete;
  ~UnixPathLock();

  /// Removes the socket at the path if nobody has it open: bind(2) would say EADDRINUSE for ever. `type` is
  /// that of socket(2). A file that is no socket stays.
  void remove_dead(int type) const noexcept;

 private:
  const Endpoint endpoint_;
  const std::string path_;  // of the lock
  Fd file_;
};

/// Which file is at the path; 0 if there is none to be seen.
ANTEROOM_EXPORT ino_t inode_at(const Endpoint& endpoint) noexcept;
/// Removes the path if it is that file, or if one of the two is not known.
ANTEROOM_EXPORT void remove_path_if(const Endpoint& endpoint, ino_t inode) noexcept;

}  // namespace anteroom
