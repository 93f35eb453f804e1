#pragma once
#include <anteroom/fd.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

namespace anteroom::test {

/// How many descriptors this process has open.
inline int open_descriptors() {
  DIR* const directory = ::opendir("/proc/self/fd");
  if (directory == nullptr) return -1;
  int count = -3;  // ".", "..", and the directory itself
  while (::readdir(directory) != nullptr) ++count;
  ::closedir(directory);
  return count;
}

/// As long as it lives, this process may open `room` descriptors more, and no more than that.
class DescriptorLimit {
 public:
  explicit DescriptorLimit(int room) {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    std::vector<Fd> taken;  // dup(2) takes the lowest numbers that are free, as accept(2) will
    int highest = -1;
    for (int i = 0; i <= room; ++i) {
      taken.emplace_back(::fcntl(2, F_DUPFD_CLOEXEC, 0));
      highest = std::max(highest, taken.back().get());
    }
    rlimit limit = before_;
    limit.rlim_cur = static_cast<rlim_t>(highest);  // the first number that is too high
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
  ~DescriptorLimit() { lift(); }
  DescriptorLimit(const DescriptorLimit&) = delete;
  DescriptorLimit& operator=(const DescriptorLimit&) = delete;

  void lift() { ::setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_{};
};

}  // namespace anteroom::test
