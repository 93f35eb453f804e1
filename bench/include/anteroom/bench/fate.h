#pragma once
#include <anteroom/endpoint.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

namespace anteroom::bench {

/// What became of one client. Each has exactly one.
enum class Fate : std::uint8_t {
  kNotStarted,             ///< its time never came, or the trial ended first
  kServedAtOnce,           ///< got the answer from the server (any byte, or the one expected), no SYN lost
  kServedAfterRetransmit,  ///< got it, after one or more SYNs had been sent again
  /// Connected as far as it knows, and never served, because its last ACK was thrown away: the server has
  /// only a request for it, and repeats its SYN-ACK,
  kGhostHalfOpen,
  kGhostUnknown,       ///< or, as it had answered with a cookie, nothing at all
  kRefused,            ///< ECONNREFUSED: nobody listened
  kResetBeforeAccept,  ///< the connection ended before a byte came, and the server had never accepted it
  kResetAfterAccept,   ///< the same, but the server had
  kDeadline,           ///< its patience ended in SYN_SENT, in the queue, or accepted and not served
  kTimedOut,           ///< ETIMEDOUT: the kernel gave up
  kNoLocalPort,        ///< EADDRNOTAVAIL: the generator's own limit
  kNoDescriptor,       ///< EMFILE, ENFILE and the like: the generator's own limit
  /// The server has accepted it and spoken to it, but not said what was expected: something else, or the end
  /// came before it was whole. Neither served nor turned away.
  kAnsweredOtherwise,
};

constexpr std::array<std::pair<Fate, std::string_view>, 13> kFates{{
    {Fate::kNotStarted, "not_started"},
    {Fate::kServedAtOnce, "served_at_once"},
    {Fate::kServedAfterRetransmit, "served_after_retransmit"},
    {Fate::kGhostHalfOpen, "ghost_half_open"},
    {Fate::kGhostUnknown, "ghost_unknown"},
    {Fate::kRefused, "refused"},
    {Fate::kResetBeforeAccept, "reset_before_accept"},
    {Fate::kResetAfterAccept, "reset_after_accept"},
    {Fate::kDeadline, "deadline"},
    {Fate::kTimedOut, "timed_out"},
    {Fate::kNoLocalPort, "no_local_port"},
    {Fate::kNoDescriptor, "no_descriptor"},
    {Fate::kAnsweredOtherwise, "answered_otherwise"},
}};

constexpr std::string_view name(Fate fate) noexcept { return kFates[static_cast<std::size_t>(fate)].second; }

/// How many clients had each fate.
class Fates {
 public:
  std::uint32_t& operator[](Fate fate) noexcept { return counts_[static_cast<std::size_t>(fate)]; }
  std::uint32_t operator[](Fate fate) const noexcept { return counts_[static_cast<std::size_t>(fate)]; }
  Fates& operator+=(const Fates& other) noexcept {
    for (std::size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
    return *this;
  }
  std::uint32_t total() const noexcept {
    std::uint32_t sum = 0;
    for (const std::uint32_t count : counts_) sum += count;
    return sum;
  }
  std::uint32_t served() const noexcept {
    return (*this)[Fate::kServedAtOnce] + (*this)[Fate::kServedAfterRetransmit];
  }
  std::uint32_t ghosts() const noexcept {
    return (*this)[Fate::kGhostHalfOpen] + (*this)[Fate::kGhostUnknown];
  }
  std::uint32_t reset() const noexcept {
    return (*this)[Fate::kResetBeforeAccept] + (*this)[Fate::kResetAfterAccept];
  }

 private:
  std::array<std::uint32_t, kFates.size()> counts_{};
};

/// One client's life and its four clocks. Times are in ns from the start of the trial; -1 is never.
struct ClientRecord {
  std::int64_t intended_ns = 0;
  std::int64_t called_ns = -1;    ///< connect(2) was called
  std::int64_t writable_ns = -1;  ///< connected, as far as it knows
  /// The greeting began, or where an answer is expected, it was there: only this is service.
  std::int64_t first_byte_ns = -1;
  std::int64_t ended_ns = -1;  ///< its fate was known
  std::uint64_t local = 0;     ///< its address and port (peer_key), once it is connected
  Fate fate = Fate::kNotStarted;
  bool in_syn_sent = false;      ///< at its end
  std::uint8_t retransmits = 0;  ///< SYNs sent again: tcpi_total_retrans before anything else is sent
  /// Segments of its request sent again: the rest of tcpi_total_retrans when it last heard something, or at
  /// the end of its patience. A server that has no room drops each of them, too. 0 for whom the server ended
  /// without a word: its descriptor, and the kernel's count with it, is gone by then.
  std::uint8_t request_retransmits = 0;
};

/// Address and port in one number, which tells clients apart: the same for an IPv4 client and for its
/// IPv4-mapped address. IPv4 is exact. Of an IPv6 address only 47 bits of a hash fit beside the port, so that
/// two clients may have one key: once in 10^9 runs of 500 addresses, as sources of ours differ in little else
/// than the port. Then the fate of one may be told as that of the other. 0 for any other address.
std::uint64_t peer_key(const Endpoint& client) noexcept;

}  // namespace anteroom::bench
