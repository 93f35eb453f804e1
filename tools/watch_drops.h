#pragma once
#include <anteroom/fd.h>

#include <cstdint>
#include <span>

namespace anteroom::tool {

/// What the kernel counted at one listener (sk_drops) since the look before, and how many of these were
/// handshakes thrown away.
struct DropClaim {
  std::uint32_t sk_drops = 0;
  bool was_full = false;    ///< in this look, or the one before
  std::uint64_t drops = 0;  ///< what DropShares makes of it: at most sk_drops
};

/// Tells handshakes that were thrown away from whatever else is in sk_drops: each bare ACK under
/// TCP_DEFER_ACCEPT, resets of half-open connections, and the last ACK of a handshake that found no place a
/// second time. Each handshake thrown away is one in ListenDrops of the namespace too, at the same moment
/// (tcp_listendrop() in the kernel), and nothing else is. So listeners get no more between two looks than
/// ListenDrops has: those that were full first, and then each in proportion to its sk_drops.
class DropShares {
 public:
  /// `listen_drops` of the namespace since the watch began, read after the look. `is_whole`: the look was at
  /// all listeners, so what none of them claims is nobody's.
  void share(std::span<DropClaim> claims, std::uint64_t listen_drops, bool is_whole);
  /// A look at all in which nobody claimed any.
  void nobody_claims() noexcept { settled_ = read_; }
  /// ListenDrops was read again.
  void read(std::uint64_t listen_drops) noexcept { read_ = listen_drops; }

 private:
  std::uint64_t settled_ = 0;  // of ListenDrops, which are attributed, or nobody's
  std::uint64_t read_ = 0;     // ListenDrops, when last read
};

/// ListenDrops of the network namespace in which it was made: 30 µs a reading, nearly all of which is the
/// kernel's.
class ListenDropsFile {
 public:
  /// Throws std::system_error.
  ListenDropsFile();
  /// Throws std::system_error.
  std::uint64_t read() const;

 private:
  Fd file_;
};

}  // namespace anteroom::tool
