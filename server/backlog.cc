#include <anteroom/backlog.h>
#include <anteroom/socket.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <system_error>

namespace anteroom {
namespace {

/// How much larger the room becomes than the crowd that was seen.
constexpr std::uint64_t kRoomPerGuest = 4;
constexpr std::uint64_t kLargest = std::uint64_t{1} << 30;  // the largest power of two that listen(2) takes

int room_for(std::uint64_t crowd) noexcept {
  if (crowd > kLargest / kRoomPerGuest) return static_cast<int>(kLargest);
  return static_cast<int>(std::bit_ceil(crowd * kRoomPerGuest));
}

}  // namespace

Backlog Backlog::fixed(int n) noexcept {
  const int initial = std::max(n, -1);
  return {initial, initial, false};
}

Backlog Backlog::system_maximum() noexcept { return fixed(-1); }

Backlog Backlog::self_tuning(SelfTuning settings) {
  if (settings.initial < 1 || settings.max < 0)
    throw setup_error(std::make_error_code(std::errc::invalid_argument), "a self-tuning backlog",
                      fmt::format("from {} to {}", settings.initial, settings.max));
  const int initial = settings.max > 0 ? std::min(settings.initial, settings.max) : settings.initial;
  return {initial, settings.max, true};
}

BacklogTuner::BacklogTuner(const Backlog& policy) noexcept
    : self_tuning_(policy.is_self_tuning()), max_(policy.max()) {}

bool BacklogTuner::is_crowded(std::uint32_t depth, std::uint32_t limit) const noexcept {
  if (!self_tuning_ || depth == 0) return false;
  if (max_ > 0 && limit >= static_cast<std::uint32_t>(max_)) return false;  // it is as large as it may become
  return depth >= limit - limit / 2;
}

std::optional<int> BacklogTuner::grow(std::uint32_t depth, std::uint32_t limit, std::uint64_t turned_away,
                                      int somaxconn) noexcept {
  if (!self_tuning_ || (turned_away == 0 && !is_crowded(depth, limit))) return std::nullopt;
  const std::uint64_t crowd = std::min(turned_away, kLargest) + depth;
  // What could not be had before is asked for again: somaxconn may have been raised meanwhile.
  int wanted = std::max(room_for(crowd), wanted_beyond_);
  if (max_ > 0) wanted = std::min(wanted, max_);
  const int allowed = std::max(somaxconn, 0);
  const auto room = [](int backlog) { return static_cast<std::uint32_t>(backlog); };
  wanted_beyond_ = wanted > allowed && room(wanted) > limit ? wanted : 0;
  const int backlog = std::min(wanted, allowed);
  return room(backlog) > limit ? std::optional(backlog) : std::nullopt;
}

}  // namespace anteroom
