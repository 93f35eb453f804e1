#pragma once
#include <anteroom/socket.h>
#include <fmt/format.h>
#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <vector>

/// What a pool needs for its threads: processors, signals, and waiting for all of them.
namespace anteroom {

/// Which processors a thread may use: a cpu_set_t of any size, for large machines have more than its 1,024.
class Processors {
 public:
  static constexpr std::size_t kWordBits = sizeof(unsigned long) * CHAR_BIT;

  /// Those of the calling thread.
  Processors() : words_(1024 / kWordBits) {
    while (::sched_getaffinity(0, bytes(), set()) != 0) {
      if (errno != EINVAL || words_.size() > (1U << 20))
        throw setup_error(last_error(), "sched_getaffinity", "for a pool");
      words_.resize(2 * words_.size());
    }
  }

  std::vector<std::size_t> numbers() const {
    std::vector<std::size_t> numbers;
    for (std::size_t i = 0; i < words_.size() * kWordBits; ++i) {
      if ((words_[i / kWordBits] >> (i % kWordBits) & 1) != 0) numbers.push_back(i);
    }
    return numbers;
  }

  /// Throws std::system_error.
  void pin(pthread_t thread, std::size_t number) {
    std::ranges::fill(words_, 0);
    words_[number / kWordBits] = 1UL << (number % kWordBits);
    const int error = ::pthread_setaffinity_np(thread, bytes(), set());
    if (error != 0)
      throw setup_error({error, std::system_category()}, "pthread_setaffinity_np",
                        fmt::format("processor {}", number));
  }

 private:
  std::size_t bytes() const noexcept { return words_.size() * sizeof(unsigned long); }
  cpu_set_t* set() noexcept { return reinterpret_cast<cpu_set_t*>(words_.data()); }
  std::vector<unsigned long> words_;
};

/// Waits for other threads. Unlike a std::latch it may be destroyed as soon as wait() has returned.
class Countdown {
 public:
  void one_more() {
    const std::lock_guard lock(mutex_);
    ++left_;
  }
  void one_less() {
    const std::lock_guard lock(mutex_);
    if (--left_ == 0) all_.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    all_.wait(lock, [this] { return left_ == 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable all_;
  int left_ = 0;
};

}  // namespace anteroom
