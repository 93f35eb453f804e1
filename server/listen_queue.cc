#include <anteroom/fd.h>
#include <anteroom/listen_queue.h>
#include <anteroom/tcp_info.h>
#include <fcntl.h>
#include <linux/sock_diag.h>
#include <sys/socket.h>

#include <charconv>

namespace anteroom {

std::optional<ListenQueue> listen_queue(int listener) noexcept {
  const std::optional<TcpInfo> info = tcp_info(listener);
  if (!info || !info->listening) return std::nullopt;
  ListenQueue queue{.depth = info->queue_depth, .limit = info->queue_limit};
  std::uint32_t memory[SK_MEMINFO_VARS] = {};
  socklen_t size = sizeof(memory);
  if (::getsockopt(listener, SOL_SOCKET, SO_MEMINFO, memory, &size) == 0)
    queue.drops = memory[SK_MEMINFO_DROPS];
  return queue;
}

int system_backlog_max() noexcept {
  constexpr int kKernelDefault = 4096;  // since Linux 5.4
  const Fd file(::open("/proc/sys/net/core/somaxconn", O_RDONLY | O_CLOEXEC));
  char text[16];
  const ssize_t count = file ? ::read(file.get(), text, sizeof(text)) : -1;
  int value = 0;
  if (count <= 0 || std::from_chars(text, text + count, value).ec != std::errc{}) return kKernelDefault;
  return value;
}

}  // namespace anteroom
