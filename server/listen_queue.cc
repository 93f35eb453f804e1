#include <anteroom/fd.h>
#include <anteroom/listen_queue.h>
#include <anteroom/tcp_info.h>
#include <fcntl.h>
#include <linux/sock_diag.h>
#include <sys/socket.h>

#include <algorithm>
#include <charconv>
#include <string_view>

namespace anteroom {
namespace {

/// Takes the first word off `line`.
std::string_view take_word(std::string_view& line) noexcept {
  line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
  const std::string_view word = line.substr(0, line.find(' '));
  line.remove_prefix(word.size());
  return word;
}

/// Takes the first line off `text`. One without an end is none: it may have been cut.
std::optional<std::string_view> take_line(std::string_view& text) noexcept {
  const std::size_t end = text.find('\n');
  if (end == text.npos) return std::nullopt;
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end + 1);
  return line;
}

/// "TcpExt: name name ..." and, in the next line, "TcpExt: 1 2 ..."; proc_pid_net(5).
std::optional<ListenCounters> find_listen_counters(std::string_view text) noexcept {
  constexpr std::string_view kGroup = "TcpExt:";
  std::optional<std::string_view> names = take_line(text);
  while (names && !names->starts_with(kGroup)) names = take_line(text);
  std::optional<std::string_view> numbers = take_line(text);
  if (!names || !numbers || !numbers->starts_with(kGroup)) return std::nullopt;
  ListenCounters counters;
  int found = 0;
  while (!names->empty()) {
    const std::string_view name = take_word(*names);
    const std::string_view number = take_word(*numbers);
    std::uint64_t* const counter = name == "ListenOverflows" ? &counters.overflows
                                   : name == "ListenDrops"   ? &counters.drops
                                                             : nullptr;
    if (counter == nullptr) continue;
    if (std::from_chars(number.data(), number.data() + number.size(), *counter).ec != std::errc{}) break;
    ++found;
  }
  return found == 2 ? std::optional(counters) : std::nullopt;
}

}  // namespace

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

std::optional<ListenCounters> listen_counters() noexcept {
  // TcpExt comes first; 130 names take 2.2 KB today, and as many numbers 2.7 KB if each has 20 digits.
  char text[8192];
  const Fd file(::open("/proc/thread-self/net/netstat", O_RDONLY | O_CLOEXEC));
  std::size_t size = 0;
  for (ssize_t count = 1; file && count > 0 && size < sizeof(text); size += static_cast<std::size_t>(count)) {
    count = ::read(file.get(), text + size, sizeof(text) - size);
    if (count < 0) return std::nullopt;
  }
  return find_listen_counters({text, size});
}

}  // namespace anteroom
