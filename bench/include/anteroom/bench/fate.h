#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

namespace anteroom::bench {

/// What became of one client. Each has exactly one.
enum class Fate : std::uint8_t {
  kNotStarted,             ///< its time never came, or the trial ended first
  kServedAtOnce,           ///< got a byte from the server, and no SYN of it was lost
  kServedAfterRetransmit,  ///< got a byte, after one or more SYNs had been sent again
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
};

constexpr std::array<std::pair<Fate, std::string_view>, 12> kFates{{
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
  std::int64_t called_ns = -1;      ///< connect(2) was called
  std::int64_t writable_ns = -1;    ///< connected, as far as it knows
  std::int64_t first_byte_ns = -1;  ///< the greeting began: only this is service
  std::int64_t ended_ns = -1;       ///< its fate was known
  std::uint64_t local = 0;          ///< its address and port (peer_key), once it is connected
  Fate fate = Fate::kNotStarted;
  bool in_syn_sent = false;      ///< at its end
  std::uint8_t retransmits = 0;  ///< SYNs sent again (tcpi_total_retrans; the client sends nothing else)
};

/// An IPv4 address, as in sockaddr_in, and a port, in one number.
constexpr std::uint64_t peer_key(std::uint32_t address, std::uint16_t port) noexcept {
  return std::uint64_t{address} << 16 | port;
}

}  // namespace anteroom::bench
