#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace anteroom::bench {

/// What became of one client. Each has exactly one.
enum class Fate : std::uint8_t {
  kNotStarted,             ///< its time never came, or the trial ended first
  kServedAtOnce,           ///< got a byte from the server, and no SYN of it was lost
  kServedAfterRetransmit,  ///< got a byte, after one or more SYNs had been sent again
  kGhost,     ///< connected as far as it knows, while the server has no such connection, and so never served
  kRefused,   ///< ECONNREFUSED: nobody listened
  kReset,     ///< the connection ended before a byte came
  kDeadline,  ///< its patience ended in SYN_SENT, in the queue, or accepted and not served
  kTimedOut,  ///< ETIMEDOUT: the kernel gave up
  kNoLocalPort,   ///< EADDRNOTAVAIL: the generator's own limit
  kNoDescriptor,  ///< EMFILE, ENFILE and the like: the generator's own limit
};

constexpr std::array kFates{Fate::kNotStarted,  Fate::kServedAtOnce, Fate::kServedAfterRetransmit,
                            Fate::kGhost,       Fate::kRefused,      Fate::kReset,
                            Fate::kDeadline,    Fate::kTimedOut,     Fate::kNoLocalPort,
                            Fate::kNoDescriptor};

constexpr std::string_view name(Fate fate) noexcept {
  switch (fate) {
    case Fate::kNotStarted:
      return "not_started";
    case Fate::kServedAtOnce:
      return "served_at_once";
    case Fate::kServedAfterRetransmit:
      return "served_after_retransmit";
    case Fate::kGhost:
      return "ghost";
    case Fate::kRefused:
      return "refused";
    case Fate::kReset:
      return "reset";
    case Fate::kDeadline:
      return "deadline";
    case Fate::kTimedOut:
      return "timed_out";
    case Fate::kNoLocalPort:
      return "no_local_port";
    case Fate::kNoDescriptor:
      return "no_descriptor";
  }
  return "?";
}

/// How many clients had each fate.
class Fates {
 public:
  std::uint32_t& operator[](Fate fate) noexcept { return counts_[static_cast<std::size_t>(fate)]; }
  std::uint32_t operator[](Fate fate) const noexcept { return counts_[static_cast<std::size_t>(fate)]; }
  std::uint32_t total() const noexcept {
    std::uint32_t sum = 0;
    for (const std::uint32_t count : counts_) sum += count;
    return sum;
  }
  std::uint32_t served() const noexcept {
    return (*this)[Fate::kServedAtOnce] + (*this)[Fate::kServedAfterRetransmit];
  }

 private:
  std::array<std::uint32_t, kFates.size()> counts_{};
};

/// One client's life. Times are in ns from the start of the trial; -1 is never.
struct ClientRecord {
  std::int64_t intended_ns = 0;
  std::int64_t called_ns = -1;      ///< connect(2) was called
  std::int64_t first_byte_ns = -1;  ///< the greeting began: only this is service
  Fate fate = Fate::kNotStarted;
  bool in_syn_sent = false;      ///< at the end of its patience
  std::uint8_t retransmits = 0;  ///< SYNs sent again (tcpi_total_retrans; the client sends nothing else)
};

}  // namespace anteroom::bench
