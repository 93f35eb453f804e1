#include <anteroom/admission.h>
#include <anteroom/socket.h>
#include <netinet/in.h>
#include <sys/random.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <stdexcept>
#include <vector>

namespace anteroom {
namespace by_source {  // has a name because Admission::Table, which has one, is made of these

// ---- Who is one source: the leading bits of an address, and a hash of them

/// 128 bits; an IPv4 address is the mapped one, ::ffff:a.b.c.d.
struct Source {
  std::uint64_t high;
  std::uint64_t low;
};

constexpr std::uint64_t kMapped = std::uint64_t{0xffff} << 32;
constexpr std::uint64_t kMappedMask = ~std::uint64_t{0} << 32;

/// A word of which the `bits` leading ones are set.
constexpr std::uint64_t leading(int bits) noexcept {
  return bits <= 0 ? 0 : ~std::uint64_t{0} << (64 - std::min(bits, 64));
}

inline std::uint64_t read_big_endian(const std::uint8_t* bytes) noexcept {
  std::uint64_t word = 0;
  for (int i = 0; i < 8; ++i) word = word << 8 | bytes[i];
  return word;
}

inline std::optional<Source> source_of(const sockaddr* peer, int ipv4_bits, int ipv6_bits) noexcept {
  Source source{};
  if (peer->sa_family == AF_INET) {
    sockaddr_in address{};
    std::memcpy(&address, peer, sizeof(address));
    source.low = kMapped | ntohl(address.sin_addr.s_addr);
  } else if (peer->sa_family == AF_INET6) {
    sockaddr_in6 address{};
    std::memcpy(&address, peer, sizeof(address));
    source = {.high = read_big_endian(address.sin6_addr.s6_addr),
              .low = read_big_endian(address.sin6_addr.s6_addr + 8)};
  } else {
    return std::nullopt;
  }
  const bool is_ipv4 = source.high == 0 && (source.low & kMappedMask) == kMapped;
  const int bits = is_ipv4 ? 96 + ipv4_bits : ipv6_bits;
  return Source{source.high & leading(bits), source.low & leading(bits - 64)};
}

/// SipHash-2-4 of a source (Aumasson and Bernstein, 2012). Whoever does not know the key can neither choose
/// addresses that share a place nor two that share a name, which with 64 bits and 2^20 sources happens once
/// in 2^25 tables by chance.
class SourceHash {
 public:
  /// Throws std::system_error.
  SourceHash() {
    if (::getrandom(key_.data(), sizeof(key_), 0) != static_cast<ssize_t>(sizeof(key_)))
      throw setup_error(last_error(), "getrandom", "for the table of sources");
  }

  std::uint64_t operator()(const Source& source) const noexcept {
    constexpr std::uint64_t kLength = std::uint64_t{sizeof(Source)} << 56;
    State state{key_[0] ^ 0x736f6d6570736575, key_[1] ^ 0x646f72616e646f6d, key_[0] ^ 0x6c7967656e657261,
                key_[1] ^ 0x7465646279746573};
    for (const std::uint64_t word : {source.high, source.low, kLength}) {
      state[3] ^= word;
      for (int i = 0; i < 2; ++i) mix(state);
      state[0] ^= word;
    }
    state[2] ^= 0xff;
    for (int i = 0; i < 4; ++i) mix(state);
    return state[0] ^ state[1] ^ state[2] ^ state[3];
  }

 private:
  using State = std::array<std::uint64_t, 4>;

  static void mix(State& v) noexcept {
    v[0] += v[1], v[1] = std::rotl(v[1], 13) ^ v[0], v[0] = std::rotl(v[0], 32);
    v[2] += v[3], v[3] = std::rotl(v[3], 16) ^ v[2];
    v[0] += v[3], v[3] = std::rotl(v[3], 21) ^ v[0];
    v[2] += v[1], v[1] = std::rotl(v[1], 17) ^ v[2], v[2] = std::rotl(v[2], 32);
  }

  std::array<std::uint64_t, 2> key_{};
};

// ---- The token bucket, kept as one number: the time at which it will be full again

/// The Generic Cell Rate Algorithm (ITU-T I.371, virtual scheduling), which admits exactly whom a token
/// bucket admits: a guest takes one token, so the bucket is full one `token` later, and there is one to take
/// as long as it will be full within burst - 1 tokens. Times are nanoseconds of the clock.
class TokenRate {
 public:
  TokenRate(double per_second, double burst) noexcept {
    if (per_second <= 0) return;
    // A full bucket takes 73 years at most to become full again: added to a clock that goes for as long, that
    // fits into 63 bits. A slower rate is taken for the slowest that there is.
    constexpr double kFullMax = static_cast<double>(std::int64_t{1} << 61);
    constexpr double kBurstMax = 1e9;
    burst = std::min(burst, kBurstMax);
    token_ = std::llround(std::min(1e9 / per_second, kFullMax / burst));
    const double whole = std::floor(burst - 1);
    window_ = std::llround(whole) * token_ + std::llround((burst - 1 - whole) * static_cast<double>(token_));
  }

  bool is_set() const noexcept { return token_ > 0; }

  /// When the bucket will be full that was to be so at `full_at`, if a token is taken `now`; nothing if there
  /// is none.
  std::optional<std::int64_t> take(std::int64_t full_at, std::int64_t now) const noexcept {
    if (full_at - now > window_) return std::nullopt;
    return std::max(full_at, now) + token_;
  }

 private:
  std::int64_t token_ = 0;   // the time in which one comes; 0: there is no limit
  std::int64_t window_ = 0;  // the time in which all but one come
};

}  // namespace by_source

namespace {

constexpr std::size_t kReplyBytesMax = 4096;  // an empty send buffer takes that at once, whatever its size

void check_admission(const AdmissionOptions& options) {
  const auto require = [](bool holds, const char* what) {
    if (!holds) throw std::invalid_argument(what);
  };
  require(options.per_source_rate >= 0, "AdmissionOptions::per_source_rate is negative, or no number");
  require(options.per_source_rate == 0 || options.per_source_burst >= 1,
          "AdmissionOptions::per_source_burst is less than one guest");
  require(options.ipv4_prefix_bits >= 0 && options.ipv4_prefix_bits <= 32,
          "AdmissionOptions::ipv4_prefix_bits is not in 0 to 32");
  require(options.ipv6_prefix_bits >= 0 && options.ipv6_prefix_bits <= 128,
          "AdmissionOptions::ipv6_prefix_bits is not in 0 to 128");
  require(options.sources_max <= std::numeric_limits<Admission::Ticket>::max() / 2,
          "AdmissionOptions::sources_max is more than there are tickets");
  require(options.reply.size() <= kReplyBytesMax, "AdmissionOptions::reply is longer than 4,096 bytes");
}

}  // namespace

/// Sources lie in shelves of eight, and each has four shelves in which it may lie: 32 places to look at, and
/// no more. The emptiest is taken, so that all fill evenly (Azar et al., Balanced Allocations, 1994); with
/// two shelves one in 150 of those who fill the table to nine tenths would find no place, with four one in
/// 10,000. A source never moves, so its place is its ticket.
struct Admission::Table {
  explicit Table(const AdmissionOptions& options)
      : connections_max(options.connections_max),
        per_source_max(options.per_source_max),
        ipv4_bits(options.ipv4_prefix_bits),
        ipv6_bits(options.ipv6_prefix_bits),
        rate(options.per_source_rate, options.per_source_burst) {
    if (!options.is_by_source()) return;
    hash.emplace();
    shelves = std::max<std::size_t>((options.sources_max + kShelf - 1) / kShelf, 1);
    places.resize(shelves * kShelf);
  }

  struct Place {
    std::uint64_t name = 0;    // the hash of the source; 0: nobody's
    std::int64_t full_at = 0;  // when its bucket of tokens will be full
    std::uint32_t open = 0;    // its connections, if their number is limited

    bool is_free(std::int64_t now) const noexcept { return name == 0 || (open == 0 && full_at <= now); }
  };
  static_assert(sizeof(Place) == 24);
  static constexpr std::size_t kShelf = 8;
  static constexpr int kShelvesOfSource = 4;

  AdmissionVerdict arrive(const sockaddr* peer, std::int64_t now, Ticket& ticket) noexcept;
  AdmissionVerdict arrive_from(const by_source::Source& source, std::int64_t now, Ticket& ticket) noexcept;
  void leave(Ticket ticket) noexcept;
  Place* find(std::uint64_t name, std::int64_t now) noexcept;

  const std::size_t connections_max;
  const std::uint32_t per_source_max;
  const int ipv4_bits;
  const int ipv6_bits;
  const by_source::TokenRate rate;
  std::optional<by_source::SourceHash> hash;  // if there are limits by source
  std::size_t shelves = 0;
  std::vector<Place> places;
  std::size_t open = 0;
  std::size_t sources = 0;
};

/// Where the source of that name lies, else a place that it may have; null if there is none.
Admission::Table::Place* Admission::Table::find(std::uint64_t name, std::int64_t now) noexcept {
  Place* best = nullptr;
  std::size_t most_free = 0;
  for (int choice = 0; choice < kShelvesOfSource; ++choice) {
    const std::uint64_t random = std::rotl(name, choice * (64 / kShelvesOfSource)) >> 32;
    Place* const shelf = &places[(random * shelves >> 32) * kShelf];
    Place* candidate = nullptr;
    std::size_t free_places = 0;
    for (Place* place = shelf; place != shelf + kShelf; ++place) {
      if (place->name == name) return place;
      if (!place->is_free(now)) continue;
      ++free_places;
      if (candidate == nullptr || place->name == 0) candidate = place;  // rather than forget somebody
    }
    if (free_places > most_free) {
      most_free = free_places;
      best = candidate;
    }
  }
  return best;
}

AdmissionVerdict Admission::Table::arrive(const sockaddr* peer, std::int64_t now, Ticket& ticket) noexcept {
  ticket = 0;
  if (connections_max > 0 && open >= connections_max) return AdmissionVerdict::kFull;
  if (hash && peer != nullptr) {
    if (const auto source = by_source::source_of(peer, ipv4_bits, ipv6_bits)) {
      const AdmissionVerdict verdict = arrive_from(*source, now, ticket);
      if (verdict != AdmissionVerdict::kAdmitted) return verdict;
    }
  }
  ++open;
  return AdmissionVerdict::kAdmitted;
}

AdmissionVerdict Admission::Table::arrive_from(const by_source::Source& source, std::int64_t now,
                                               Ticket& ticket) noexcept {
  const std::uint64_t name = std::max<std::uint64_t>((*hash)(source), 1);
  Place* const place = find(name, now);
  if (place == nullptr) return AdmissionVerdict::kAdmitted;
  Place counted = place->name == name ? *place : Place{.name = name};
  if (per_source_max > 0) {
    if (counted.open >= per_source_max) return AdmissionVerdict::kSourceHasTooMany;
    ++counted.open;
    ticket = static_cast<Ticket>(place - places.data()) + 1;
  }
  if (rate.is_set()) {
    const std::optional<std::int64_t> full_at = rate.take(counted.full_at, now);
    if (!full_at) {
      ticket = 0;
      return AdmissionVerdict::kSourceIsTooFast;
    }
    counted.full_at = *full_at;
  }
  if (place->name == 0) ++sources;
  *place = counted;
  return AdmissionVerdict::kAdmitted;
}

void Admission::Table::leave(Ticket ticket) noexcept {
  assert(open > 0 && "more guests have left than were admitted");
  --open;
  if (ticket == 0) return;
  Place& place = places[ticket - 1];
  assert(place.open > 0 && "a ticket was given back twice");
  --place.open;
  if (place.open > 0 || rate.is_set()) return;  // a rate remembers its guests until the bucket is full
  place = Place{};
  --sources;
}

Admission::Admission(const AdmissionOptions& options)
    : table_((check_admission(options), std::make_unique<Table>(options))) {}
Admission::~Admission() = default;
Admission::Admission(Admission&&) noexcept = default;

AdmissionVerdict Admission::arrive(const sockaddr* peer, Clock::time_point now, Ticket& ticket) noexcept {
  if (!table_) return AdmissionVerdict::kFull;  // moved from
  return table_->arrive(peer, std::chrono::nanoseconds(now.time_since_epoch()).count(), ticket);
}
void Admission::leave(Ticket ticket) noexcept {
  if (table_) table_->leave(ticket);
}
std::size_t Admission::open() const noexcept { return table_ ? table_->open : 0; }
std::size_t Admission::sources() const noexcept { return table_ ? table_->sources : 0; }

}  // namespace anteroom
