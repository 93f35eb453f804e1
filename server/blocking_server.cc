#include <anteroom/blocking_server.h>
#include <anteroom/socket.h>
#include <anteroom/tcp_info.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace anteroom {
namespace {

std::uint32_t waiting_now(int listener) noexcept {
  const std::optional<TcpInfo> info = tcp_info(listener);
  return info ? info->queue_depth : 0;
}

}  // namespace

BlockingServer::BlockingServer(Listener listener, BlockingServerOptions options)
    : listener_(std::move(listener)), options_(std::move(options)) {
  if (options_.style == BlockingStyle::kThreadPool && options_.threads < 1)
    throw setup_error(std::make_error_code(std::errc::invalid_argument), "a blocking server",
                      "with a pool of no threads");
  if (::fcntl(listener_.fd(), F_SETFL, 0) != 0)
    throw setup_error(last_error(), "fcntl", "a blocking server's listener");
}

void BlockingServer::run() {
  switch (options_.style) {
    case BlockingStyle::kOneAtATime:
      return serve_one_by_one();
    case BlockingStyle::kThreadPerConnection:
      return serve_with_a_thread_each();
    case BlockingStyle::kThreadPool:
      return serve_with_pool();
  }
}

/// shutdown(2) on the listener ends the accept(2) that is under way in any thread, and is safe in a signal
/// handler.
void BlockingServer::stop() noexcept {
  stopping_.store(true);
  ::shutdown(listener_.fd(), SHUT_RDWR);
}

BlockingServer::Stats BlockingServer::stats() const {
  const std::lock_guard lock(stats_mutex_);
  return stats_;
}

void BlockingServer::serve_one_by_one() {
  while (const Fd guest = next_guest()) greet(guest);
}

void BlockingServer::serve_with_a_thread_each() {
  std::mutex mutex;
  std::condition_variable gone;
  int living = 0;
  const auto serve = [&](int fd) {
    greet(Fd(fd));
    const std::lock_guard lock(mutex);
    --living;
    gone.notify_one();  // with the lock held: run() must not return before this is done
  };
  while (Fd guest = next_guest()) {
    {
      const std::lock_guard lock(mutex);
      ++living;
    }
    const int fd = guest.release();
    try {
      std::thread([&serve, fd] { serve(fd); }).detach();
    } catch (const std::system_error&) {
      serve(fd);  // no more threads: this one has to do it
    }
  }
  std::unique_lock lock(mutex);
  gone.wait(lock, [&] { return living == 0; });
}

void BlockingServer::serve_with_pool() {
  const auto serve = [this] {
    for (;;) {
      std::unique_lock lock(door_);
      const Fd guest = next_guest();
      lock.unlock();
      if (!guest) return;
      greet(guest);
    }
  };
  std::vector<std::jthread> threads;
  for (int i = 1; i < options_.threads; ++i) {
    try {
      threads.emplace_back(serve);
    } catch (const std::system_error&) {
      break;  // those that there are will do
    }
  }
  serve();
}

/// Blocks until somebody comes; an empty Fd means stop.
Fd BlockingServer::next_guest() {
  while (!stopping_.load()) {
    if (options_.stall.is_set()) {
      sit_out_stall();
      if (!wait_for_guest()) continue;
    }
    const std::uint32_t waiting = options_.observe_queue ? waiting_now(listener_.fd()) : 0;
    Fd guest(::accept4(listener_.fd(), nullptr, nullptr, SOCK_CLOEXEC));
    if (guest) {
      const std::lock_guard lock(stats_mutex_);
      ++stats_.accepted;
      stats_.queue_peak = std::max(stats_.queue_peak, waiting);
      if (waiting > 1) {
        const std::optional<TcpInfo> info = tcp_info(guest.get());
        if (info) stats_.longest_wait = std::max(stats_.longest_wait, info->since_last_sent);
      }
      if (options_.accepted) options_.accepted(guest.get());
      return guest;
    }
    const bool exhausted = errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
    if (!exhausted) continue;
    {
      const std::lock_guard lock(stats_mutex_);
      ++stats_.rests;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return Fd();
}

void BlockingServer::sit_out_stall() const {
  while (const auto end = options_.stall.end_of_current(AcceptStall::Clock::now())) {
    if (stopping_.load()) return;
    std::this_thread::sleep_until(*end);
  }
}

/// False when it is time for the next stall, or to look whether to stop.
bool BlockingServer::wait_for_guest() const {
  const auto now = AcceptStall::Clock::now();
  const auto until = options_.stall.next_after(now).value_or(now + std::chrono::hours(1));
  const auto left = until - now;
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(left);
  const timespec timeout{.tv_sec = seconds.count(), .tv_nsec = (left - seconds).count()};
  pollfd door{.fd = listener_.fd(), .events = POLLIN, .revents = 0};
  return ::ppoll(&door, 1, &timeout, nullptr) > 0;
}

void BlockingServer::greet(const Fd& guest) const {
  if (options_.before_greeting) options_.before_greeting();
  const std::string& text = options_.greeting;
  for (std::size_t sent = 0; sent < text.size();) {
    const ssize_t count = ::send(guest.get(), text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
    if (count > 0) {
      sent += static_cast<std::size_t>(count);
    } else if (count == 0 || errno != EINTR) {
      return;  // the guest is gone
    }
  }
}

}  // namespace anteroom
