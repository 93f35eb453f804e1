#pragma once
#include <anteroom/export.h>
#include <sys/socket.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace ANTEROOM_EXPORT anteroom {

/// What becomes of a guest who is not admitted.
enum class Refusal : std::uint8_t {
  kClose,  ///< an orderly end without a word
  kReset,  ///< a reset: nothing is left of it, on either side
  kReply,  ///< `reply`, and an orderly end
};

struct AdmissionOptions {
  /// How many connections may be open at a time, in all. 0: no limit.
  std::size_t connections_max = 0;
  /// How many of one source may be open at a time. 0: no limit.
  std::uint32_t per_source_max = 0;
  /// How many connections a second of one source, on average, and how many at once (a token bucket). 0: no
  /// limit.
  double per_source_rate = 0;
  double per_source_burst = 10;
  /// What counts as one source: these leading bits of its address. Whoever has IPv6 has a /64 at least (RFC
  /// 6177).
  int ipv4_prefix_bits = 32;
  int ipv6_prefix_bits = 64;
  /// Sources that are remembered at a time, in eights; 24 bytes each. When the table is full of sources with
  /// open connections or tokens to regain, a new source is admitted uncounted: the table protects the server,
  /// and must not become the attack. Of those who fill it to nine tenths, one in 10,000 finds no place.
  std::size_t sources_max = 16384;
  Refusal refusal = Refusal::kClose;
  /// For Refusal::kReply; at most 4,096 bytes, for it has to fit into an empty send buffer.
  std::string reply{};

  bool is_by_source() const noexcept { return per_source_max > 0 || per_source_rate > 0; }
  bool is_set() const noexcept { return connections_max > 0 || is_by_source(); }
};

/// Why a guest was not admitted.
enum class AdmissionVerdict : std::uint8_t { kAdmitted, kFull, kSourceHasTooMany, kSourceIsTooFast };

/// Who may come in: asked between accept4 and any allocation. A table of fixed size, O(1) a guest (at most 32
/// places are looked at), no memory after construction. Where a source lies depends on a random key, so
/// nobody can choose addresses that get into each other's way.
class Admission {
 public:
  using Clock = std::chrono::steady_clock;
  /// Names the source that an admitted guest was counted for. 0: none.
  using Ticket = std::uint32_t;

  /// Throws std::invalid_argument for a rate below 0, a burst of less than one guest, prefixes that there are
  /// not, more sources than 2^31, and a reply that is too long; std::bad_alloc; std::system_error without
  /// random numbers (getrandom(2)).
  explicit Admission(const AdmissionOptions& options);
  ~Admission();
  /// One that was moved from admits nobody, and has nobody.
  Admission(Admission&&) noexcept;

  /// Counts the guest if it is admitted, and gives its ticket. `peer` may be null if !options.is_by_source(),
  /// and is counted as no source if it is neither IPv4 nor IPv6 (mapped IPv4 addresses count as IPv4). Who is
  /// refused costs his source no token.
  AdmissionVerdict arrive(const sockaddr* peer, Clock::time_point now, Ticket& ticket) noexcept;
  /// A guest that was admitted has left.
  void leave(Ticket ticket) noexcept;

  std::size_t open() const noexcept;     ///< guests that were admitted and have not left
  std::size_t sources() const noexcept;  ///< in the table

 private:
  struct Table;
  std::unique_ptr<Table> table_;
};

}  // namespace anteroom
