#include "output.h"

#include <anteroom/fd.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include "run_document.h"

namespace anteroom::tool {
namespace {

constexpr int kLinksMax = 40;  // as the kernel has it (path_resolution(7))
constexpr int kNamesMax = 100;

std::string why(const std::string& path, std::string_view reason) {
  return fmt::format("cannot write {}: {}", printable(path), reason);
}
std::string last_words(const std::string& path) { return why(path, std::system_category().message(errno)); }

bool write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = ::write(fd, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    text.remove_prefix(static_cast<std::size_t>(count));
  }
  return true;
}

bool is_regular_or_new(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) != 0 || S_ISREG(status.st_mode);
}

/// Where a symbolic link leads.
std::string target_of(const std::string& path) {
  std::error_code error;
  const std::filesystem::path target =
      std::filesystem::weakly_canonical(std::filesystem::absolute(path), error);
  return error ? path : target.string();
}

/// Where an output goes: a name in an open directory, which stays the same one if its path is renamed.
struct Place {
  Fd directory;
  std::string name;
  std::optional<struct stat> file;  ///< what has the name; a symbolic link only in /proc
  int descriptor = -1;              ///< our own descriptor that it stands for, as /dev/stdout does
  std::string problem;              ///< why nothing can be written there

  bool is_replaced() const { return !file || S_ISREG(file->st_mode); }
};

/// The owner of a symbolic link decides which file we write to. Links of root belong to the system; in a user
/// namespace that does not map root, its files seem to belong to the owner of /.
bool is_trusted(const struct stat& link) {
  struct stat top {};
  return link.st_uid == ::geteuid() || link.st_uid == 0 ||
         (::stat("/", &top) == 0 && link.st_uid == top.st_uid);
}

/// Whether another user may have put it there for us to write to: the directory is sticky and others may
/// write to it. The kernel has the same rule for open(2) if fs.protected_regular and fs.protected_fifos are
/// set (proc(5)).
bool is_planted(const struct stat& directory, const struct stat& file) {
  const bool is_shared = (directory.st_mode & S_ISVTX) != 0 && (directory.st_mode & (S_IWOTH | S_IWGRP)) != 0;
  return is_shared && file.st_uid != ::geteuid() && file.st_uid != directory.st_uid;
}

/// Whether a sticky directory (inode(7)) lets us put another file into the place of this one.
bool may_replace(const struct stat& directory, const struct stat& file) {
  const uid_t us = ::geteuid();
  return (directory.st_mode & S_ISVTX) == 0 || us == 0 || us == file.st_uid || us == directory.st_uid;
}

/// The N of /proc/self/fd/N, where `directory` is that; -1 if it is not.
int own_descriptor(const Fd& directory, const std::string& name) {
  struct stat here {};
  struct stat own {};
  if (::fstat(directory.get(), &here) != 0 || ::stat("/proc/self/fd", &own) != 0) return -1;
  int number = -1;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  const bool is_number = error == std::errc{} && end == name.data() + name.size();
  return is_number && here.st_dev == own.st_dev && here.st_ino == own.st_ino ? number : -1;
}

bool is_in_proc(const Fd& directory) {
  struct statfs system {};
  return ::fstatfs(directory.get(), &system) == 0 && system.f_type == PROC_SUPER_MAGIC;
}

/// Follows the symbolic links of the last name of `path` one by one, and none of another user.
Place find_place(const std::string& path) {
  Place place;
  const auto fail = [&](int error) {
    errno = error;
    place.problem = last_words(path);
    return std::move(place);
  };
  std::string rest = path;
  for (int links = 0; links <= kLinksMax; ++links) {
    const std::size_t slash = rest.rfind('/');
    place.name = slash == rest.npos ? rest : rest.substr(slash + 1);
    const std::string folder = slash == rest.npos ? "." : slash == 0 ? "/" : rest.substr(0, slash);
    const int from = place.directory ? place.directory.get() : AT_FDCWD;
    Fd directory(::openat(from, folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!directory) return fail(errno);
    place.directory = std::move(directory);
    if (place.name.empty() || place.name == "." || place.name == "..") return fail(EISDIR);
    struct stat file {};
    if (::fstatat(place.directory.get(), place.name.c_str(), &file, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno != ENOENT) return fail(errno);
      return place;
    }
    if (S_ISDIR(file.st_mode)) return fail(EISDIR);
    if (!S_ISLNK(file.st_mode)) {
      struct stat around {};
      if (::fstat(place.directory.get(), &around) != 0) return fail(errno);
      place.file = file;
      if (is_planted(around, file))
        place.problem = why(path, "another user has made it, in a directory that others may write to");
      else if (S_ISREG(file.st_mode) && !may_replace(around, file))
        return fail(EPERM);
      return place;
    }
    if (is_in_proc(place.directory)) {  // what such a link says is no path
      place.file = file;
      place.descriptor = own_descriptor(place.directory, place.name);
      return place;
    }
    if (!is_trusted(file)) {
      place.problem =
          why(path, fmt::format("it is a symbolic link of another user (uid {}); name the file that "
                                "it leads to",
                                file.st_uid));
      return place;
    }
    std::array<char, PATH_MAX> target{};
    const ssize_t size =
        ::readlinkat(place.directory.get(), place.name.c_str(), target.data(), target.size());
    if (size < 0) return fail(errno);
    rest.assign(target.data(), static_cast<std::size_t>(size));
  }
  return fail(ELOOP);
}

/// As long as it lives, signals that would end us wait: a file has a name that is still to be removed.
class SignalsHeld {
 public:
  SignalsHeld() {
    sigset_t held;
    sigemptyset(&held);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) sigaddset(&held, signal);
    ::sigprocmask(SIG_BLOCK, &held, &before_);
  }
  SignalsHeld(const SignalsHeld&) = delete;
  SignalsHeld& operator=(const SignalsHeld&) = delete;
  ~SignalsHeld() { ::sigprocmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_{};
};

/// A new file in the place's directory, which is renamed to the place when it is complete. Until then it has
/// no name (O_TMPFILE) if the file system can do that, so that nothing is left of it if we are killed; else
/// it has a random one.
class Part {
 public:
  explicit Part(const Place& place) : place_(place) {
    // What it replaces may be private.
    const mode_t mode = place.file ? 0600 : 0666;
    file_.reset(::openat(place.directory.get(), ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, mode));
    if (file_ && ::access(path_in_proc().c_str(), F_OK) != 0) file_.reset();
    const bool has_no_such_thing =
        errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL || errno == ENOENT;
    if (file_ || !has_no_such_thing) return;
    held_.emplace();
    with_a_new_name([&](const char* name) {
      file_.reset(
          ::openat(place.directory.get(), name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode));
      return static_cast<bool>(file_);
    });
  }
  Part(const Part&) = delete;
  Part& operator=(const Part&) = delete;
  ~Part() {
    if (!name_.empty()) ::unlinkat(place_.directory.get(), name_.c_str(), 0);
  }

  explicit operator bool() const { return static_cast<bool>(file_); }
  int fd() const { return file_.get(); }
  bool has_name() const { return !name_.empty(); }

  /// Gives it the owner and the permissions of what it replaces, as far as we may. It gets no set-user-ID
  /// bit.
  bool take_over(const struct stat& before) const {
    struct stat now {};
    if (::fstat(fd(), &now) != 0) return false;
    mode_t mode = before.st_mode & 0777;
    if (before.st_gid != now.st_gid && ::fchown(fd(), static_cast<uid_t>(-1), before.st_gid) != 0)
      mode &= ~mode_t{0070};  // it is of another group
    if (::fchmod(fd(), mode) != 0) return false;
    // Last, since only an owner may change the mode. Only root may give files away: ours then stays ours.
    if (before.st_uid != now.st_uid) (void)!::fchown(fd(), before.st_uid, static_cast<gid_t>(-1));
    return true;
  }

  bool rename() {
    if (!held_) held_.emplace();
    const bool has_name = !name_.empty() || with_a_new_name([&](const char* name) {
      return ::linkat(AT_FDCWD, path_in_proc().c_str(), place_.directory.get(), name, AT_SYMLINK_FOLLOW) == 0;
    });
    if (!has_name ||
        ::renameat(place_.directory.get(), name_.c_str(), place_.directory.get(), place_.name.c_str()) != 0)
      return false;
    name_.clear();
    return true;
  }

  /// It is left where it is, under the name that is returned.
  std::string keep() { return std::exchange(name_, {}); }

 private:
  std::string path_in_proc() const { return fmt::format("/proc/self/fd/{}", fd()); }

  /// Calls `make` with random names until there is no file of that name.
  template <class Make>
  bool with_a_new_name(Make make) {
    for (int i = 0; i < kNamesMax; ++i) {
      std::uint64_t number = 0;
      if (::getrandom(&number, sizeof(number), 0) != sizeof(number)) return false;
      std::string name = fmt::format(".anteroom-{:016x}", number);
      if (make(name.c_str())) {
        name_ = std::move(name);
        return true;
      }
      if (errno != EEXIST) return false;
    }
    return false;
  }

  const Place& place_;
  std::optional<SignalsHeld> held_;
  std::string name_;
  Fd file_;
};

/// Some file systems report only here that the disk is full.
bool is_on_disk(int fd) { return ::fsync(fd) == 0 || (errno != EIO && errno != ENOSPC && errno != EDQUOT); }

/// A pipe or a device, or a file that nothing can be renamed to.
bool write_in_place(const Place& place, std::string_view text) {
  if (place.descriptor >= 0) return write_all(place.descriptor, text);
  const bool is_link = S_ISLNK(place.file->st_mode);  // in /proc
  const Fd file(::openat(place.directory.get(), place.name.c_str(),
                         O_WRONLY | O_CLOEXEC | O_NOCTTY | (is_link ? 0 : O_NOFOLLOW)));
  if (!file) return false;
  struct stat now {};
  if (::fstat(file.get(), &now) != 0) return false;
  if (S_ISREG(now.st_mode) && ::ftruncate(file.get(), 0) != 0) return false;
  return write_all(file.get(), text);
}

/// Of the names that lead to /proc/<pid>/fd/1. A device such as /dev/null is known by its name only: another
/// descriptor of it is no other file.
bool leads_to_descriptor_1(std::filesystem::path path) {
  std::error_code error;
  const std::filesystem::path descriptors = std::filesystem::canonical("/proc/self/fd", error);
  if (error) return false;
  for (int links = 0; links < 8; ++links) {  // of which /dev/stdout has one
    const std::filesystem::path folder = std::filesystem::canonical(
        path.has_parent_path() ? path.parent_path() : std::filesystem::path("."), error);
    if (error) return false;
    if (folder == descriptors) return path.filename() == std::to_string(STDOUT_FILENO);
    const std::filesystem::path target = std::filesystem::read_symlink(path, error);
    if (error) return false;
    path = target.is_absolute() ? target : folder / target;
  }
  return false;
}

bool is_file_of_stdout(const std::string& path) {
  struct stat file {};
  struct stat output {};
  if (::stat(path.c_str(), &file) != 0 || ::fstat(STDOUT_FILENO, &output) != 0) return false;
  if (file.st_dev != output.st_dev || file.st_ino != output.st_ino) return false;
  return !S_ISCHR(file.st_mode) || ::isatty(STDOUT_FILENO) == 1;
}

}  // namespace

std::string output_name(const std::string& path) {
  return !path.empty() && (leads_to_descriptor_1(path) || is_file_of_stdout(path)) ? "-" : path;
}

std::string output_problem(const std::string& path) {
  if (path == "-") {
    const int flags = ::fcntl(STDOUT_FILENO, F_GETFL);
    if (flags >= 0 && (flags & O_ACCMODE) != O_RDONLY) return {};
    errno = EBADF;
    return last_words("the standard output");
  }
  const Place place = find_place(path);
  if (!place.problem.empty()) return place.problem;
  if (place.descriptor >= 0) {
    const int flags = ::fcntl(place.descriptor, F_GETFL);
    if (flags >= 0 && (flags & O_ACCMODE) == O_RDONLY) errno = EBADF;
    return flags >= 0 && (flags & O_ACCMODE) != O_RDONLY ? std::string() : last_words(path);
  }
  if (!place.is_replaced()) {
    // Not opened: a pipe would block, or its reader would take the close for the end.
    const bool is_writable = ::faccessat(place.directory.get(), place.name.c_str(), W_OK, AT_EACCESS) == 0;
    return is_writable ? std::string() : last_words(path);
  }
  const Part part(place);
  return part ? std::string() : last_words(path);
}

bool would_replace(const std::string& output, const std::string& other) {
  if (output == "-" || !is_regular_or_new(output)) return false;
  std::error_code error;
  if (std::filesystem::equivalent(output, other == "-" ? "/dev/stdin" : other, error)) return true;
  return other != "-" && target_of(output) == target_of(other);
}

std::string write_output(const std::string& path, const std::string& text) {
  if (path == "-") return write_all(STDOUT_FILENO, text) ? "" : last_words("the standard output");
  const Place place = find_place(path);
  if (!place.problem.empty()) return place.problem;
  if (!place.is_replaced()) return write_in_place(place, text) ? "" : last_words(path);
  Part part(place);
  if (!part || (place.file && !part.take_over(*place.file)) || !write_all(part.fd(), text) ||
      !is_on_disk(part.fd()))
    return last_words(path);
  if (part.rename()) return {};
  if (!part.has_name()) return last_words(path);
  // Such a file is a mount of its own, as containers have them.
  if (errno == EBUSY && place.file && write_in_place(place, text)) return {};
  return fmt::format("{}; it is in {} beside it", last_words(path), part.keep());
}

}  // namespace anteroom::tool
