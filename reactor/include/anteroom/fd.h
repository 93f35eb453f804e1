#pragma once
#include <anteroom/export.h>
#include <unistd.h>

#include <utility>

namespace ANTEROOM_EXPORT anteroom {

/// Owns one descriptor and closes it once.
class Fd {
 public:
  Fd() noexcept = default;
  explicit Fd(int fd) noexcept : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(other.release()) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) reset(other.release());
    return *this;
  }
  ~Fd() { reset(); }

  int get() const noexcept { return fd_; }
  explicit operator bool() const noexcept { return fd_ >= 0; }

  /// Gives the descriptor away; the caller closes it.
  int release() noexcept { return std::exchange(fd_, -1); }

  /// Closes what is held and takes `fd` instead; that one may be what is held, and then stays open. close(2)
  /// is never repeated: on Linux the descriptor is gone even when the call says EINTR, and a second one might
  /// close somebody else's.
  void reset(int fd = -1) noexcept {
    if (fd_ >= 0 && fd_ != fd) ::close(fd_);
    fd_ = fd;
  }

 private:
  int fd_ = -1;
};

}  // namespace anteroom
