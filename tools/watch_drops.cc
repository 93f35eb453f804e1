#include "watch_drops.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <numeric>
#include <string_view>
#include <system_error>

namespace anteroom::tool {
namespace {

constexpr const char* kNetstat = "/proc/thread-self/net/netstat";

[[noreturn]] void cannot_read(int error) {
  throw std::system_error(error, std::generic_category(), std::string("cannot read ") + kNetstat);
}

/// Of the claims for which this is so; returns what is left.
std::uint64_t share_among(std::span<DropClaim> claims, bool were_full, std::uint64_t left) {
  std::uint64_t claimed = 0;
  for (const DropClaim& claim : claims) claimed += claim.was_full == were_full ? claim.sk_drops : 0;
  std::uint64_t here = std::min(left, claimed);
  left -= here;
  for (DropClaim& claim : claims) {
    if (claim.was_full != were_full || claimed == 0) continue;
    // In proportion to what is still there, so that the parts add up.
    claim.drops = here * claim.sk_drops / claimed;
    here -= claim.drops;
    claimed -= claim.sk_drops;
  }
  return left;
}

std::string_view cut(std::string_view& text, char end) {
  const std::string_view part = text.substr(0, text.find(end));
  text.remove_prefix(std::min(part.size() + 1, text.size()));
  return part;
}

}  // namespace

void DropShares::share(std::span<DropClaim> claims, std::uint64_t listen_drops, bool is_whole) {
  std::uint64_t left = listen_drops - settled_;
  left = share_among(claims, true, left);
  left = share_among(claims, false, left);
  // What came about after the look will be claimed in the next one.
  if (is_whole) left = std::min(left, listen_drops - read_);
  settled_ = listen_drops - left;
  read_ = listen_drops;
}

ListenDropsFile::ListenDropsFile() : file_(::open(kNetstat, O_RDONLY | O_CLOEXEC)) {
  if (!file_) cannot_read(errno);
}

/// Two lines: "TcpExt: name name ...", and "TcpExt: 1 2 ...".
std::uint64_t ListenDropsFile::read() const {
  std::array<char, 16 * 1024> bytes;  // 4 KiB on Linux 6.18
  const ssize_t size = ::pread(file_.get(), bytes.data(), bytes.size(), 0);
  if (size < 0) cannot_read(errno);
  std::string_view text(bytes.data(), static_cast<std::size_t>(size));
  std::string_view names = cut(text, '\n');
  std::string_view numbers = cut(text, '\n');
  while (!names.empty() && !numbers.empty()) {
    const std::string_view number = cut(numbers, ' ');
    if (cut(names, ' ') != "ListenDrops") continue;
    std::uint64_t value = 0;
    std::from_chars(number.data(), number.data() + number.size(), value);
    return value;
  }
  cannot_read(EPROTO);
}

}  // namespace anteroom::tool
