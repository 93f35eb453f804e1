#include <anteroom/socket.h>
#include <anteroom/unix_path.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace anteroom {
namespace {

constexpr int kTriesMax = 1000;  // so many others were faster

/// Not Endpoint::path(), which needs memory.
const char* path_of(const Endpoint& endpoint) noexcept {
  return reinterpret_cast<const sockaddr_un*>(endpoint.data())->sun_path;
}

/// No file can be made there, which bind(2) will say, too. EACCES may also be that of another user's file.
bool is_trouble_of_the_folder(int error, const std::string& path) noexcept {
  if (error == ENOENT || error == ENOTDIR || error == EROFS) return true;
  struct stat file {};
  return error == EACCES && ::lstat(path.c_str(), &file) != 0;
}

void lock(int fd, const std::string& path) {
  while (::flock(fd, LOCK_EX) != 0) {
    if (errno != EINTR) throw setup_error(last_error(), "flock", path);
  }
}

}  // namespace

UnixPathLock::UnixPathLock(const Endpoint& endpoint)
    : endpoint_(endpoint), path_(endpoint.path() + ".anteroom-lock") {
  std::error_code error = std::make_error_code(std::errc::device_or_resource_busy);
  for (int tries = 0; tries < kTriesMax; ++tries) {
    file_.reset(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR));
    if (!file_) {
      error = last_error();
      if (error == std::errc::interrupted) continue;
      if (is_trouble_of_the_folder(error.value(), path_)) return;
      throw setup_error(error, "open", path_);
    }
    struct stat ours {};
    if (::fstat(file_.get(), &ours) != 0) throw setup_error(last_error(), "fstat", path_);
    // Somebody else could hold the lock for ever.
    if (!S_ISREG(ours.st_mode) || (ours.st_uid != ::geteuid() && ours.st_uid != 0))
      throw setup_error(std::make_error_code(std::errc::permission_denied), "open", path_);
    lock(file_.get(), path_);
    struct stat now {};
    const bool is_there = ::lstat(path_.c_str(), &now) == 0;
    if (!is_there) error = last_error();
    if (!is_there && errno != ENOENT) break;
    if (is_there && now.st_ino == ours.st_ino && now.st_dev == ours.st_dev) return;
    // Its last holder has removed the file, and another process may have made one since: that counts.
  }
  throw setup_error(error, "lock", path_);
}

UnixPathLock::~UnixPathLock() {
  if (file_) ::unlink(path_.c_str());  // before the lock goes with the descriptor
}

void UnixPathLock::remove_dead(int type) const noexcept {
  const char* const path = path_of(endpoint_);
  struct stat file {};
  if (::lstat(path, &file) != 0 || !S_ISSOCK(file.st_mode)) return;
  const Fd probe(::socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!probe) return;
  while (::connect(probe.get(), endpoint_.data(), endpoint_.size()) != 0) {
    if (errno == EINTR) continue;
    if (errno == ECONNREFUSED) ::unlink(path);
    return;
  }
}

ino_t inode_at(const Endpoint& endpoint) noexcept {
  struct stat file {};
  return ::lstat(path_of(endpoint), &file) == 0 ? file.st_ino : 0;
}

void remove_path_if(const Endpoint& endpoint, ino_t inode) noexcept {
  const ino_t now = inode_at(endpoint);
  if (now == inode || now == 0 || inode == 0) ::unlink(path_of(endpoint));
}

}  // namespace anteroom
