#pragma once
#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace anteroom::bench {

/// One look at a listener.
struct RoomSample {
  std::chrono::nanoseconds at{0};  ///< since the watch began
  std::uint32_t depth = 0;
  std::uint32_t limit = 0;
  std::uint32_t drops = 0;  ///< as the kernel has it: it wraps
};

/// A time in which somebody waited, and nobody was seen to be accepted: in no sample were there fewer than in
/// the one before. Who is accepted between two samples while another one comes is not seen.
struct RoomStall {
  double at_s = 0;      ///< since the watch began
  double length_s = 0;  ///< from the middle of the gap in which it began to that of the gap in which it ended
  double error_s = 0;   ///< half of these two gaps together: so much longer or shorter it may have been
  double came = 0;      ///< by how many the queue grew in it, and the drops: each drop is one SYN
  std::uint32_t depth = 0;  ///< at its end
  std::uint64_t drops = 0;
  std::uint64_t samples = 0;
  /// Connections that came about in the whole namespace, in those windows of RoomLog::take_window() that lie
  /// within it. If all came to this listener and are more than it has grown by, somebody was accepted after
  /// all.
  std::uint64_t opened = 0;
  double grown = 0;           ///< by how many the queue grew in it
  bool began_before = false;  ///< the watch began in the middle of it
  bool goes_on = false;       ///< the watch ended in the middle of it
};

/// How full a room was over time: the fullest of each step, as a share of its places. A step gets twice as
/// long whenever there are too many.
class RoomHistory {
 public:
  explicit RoomHistory(std::size_t slots_max = kSlotsMax) : slots_max_(slots_max) {}
  void take(std::chrono::nanoseconds at, double fullness);
  std::chrono::nanoseconds step() const noexcept { return step_; }
  /// From the beginning of the watch; negative where nobody looked.
  const std::vector<float>& slots() const noexcept { return slots_; }

  static constexpr std::size_t kSlotsMax = 120;

 private:
  std::size_t slots_max_;
  std::chrono::nanoseconds step_{std::chrono::milliseconds(250)};
  std::vector<float> slots_;
};

/// What is known of one listener from a series of samples. Drops are the kernel's own count and miss nothing;
/// all else may miss what happens between two samples.
class RoomLog {
 public:
  /// `made_since`: it was made after the watch began, so that all its drops are ours.
  explicit RoomLog(const RoomSample& first, bool made_since = false);

  void take(const RoomSample& sample);
  /// From `from` to the last sample so many connections came about in the whole namespace (PassiveOpens).
  void take_window(std::chrono::nanoseconds from, std::uint64_t opened);

  std::uint64_t samples() const noexcept { return samples_; }
  std::chrono::nanoseconds watched() const noexcept { return last_.at - first_.at; }
  std::uint32_t depth() const noexcept { return last_.depth; }
  std::uint32_t limit() const noexcept { return last_.limit; }
  /// How many it holds: the kernel admits one more than the backlog.
  double places() const noexcept { return last_.limit + 1.0; }
  std::uint32_t peak() const noexcept { return peak_; }
  std::uint64_t drops() const noexcept { return drops_; }  ///< since the watch began, exact
  /// Since the socket was made; it wraps at 2^32 before the watch and no more after.
  std::uint64_t drops_total() const noexcept { return drops_before_ + drops_; }
  std::chrono::nanoseconds last_active() const noexcept {
    return last_active_;
  }  ///< somebody waited, or a drop
  bool was_active() const noexcept { return peak_ > 0 || drops_ > 0; }

  /// From the first drop that was seen to the last one: in more than a second some are of SYNs sent again.
  double drops_span_s() const noexcept {
    return std::chrono::duration<double>(last_drop_ - first_drop_).count();
  }

  double full_s() const noexcept { return full_s_; }  ///< with no place left, or more
  /// The longest that more than half of its places were taken although somebody was accepted all along: from
  /// the first accept of such a time that was seen to its end.
  double overloaded_s() const noexcept;
  /// At least so many came: what the queue grew by from sample to sample, and the drops.
  double came_at_least() const noexcept { return grown_ + static_cast<double>(drops_); }
  /// The most who would have been in the queue at once, had there been room: the depth at the end of a stall
  /// and the drops in it; or a full room, and the drops between two samples.
  double deepest_wanted() const noexcept;

  /// The longest first; at most kStallsMax of them, and the one that goes on.
  std::vector<RoomStall> stalls() const;
  std::optional<RoomStall> current_stall() const;
  std::uint64_t stalls_seen() const noexcept { return stalls_seen_; }

  const RoomHistory& history() const noexcept { return history_; }

  static constexpr std::size_t kStallsMax = 1000;

 private:
  void begin_stall(const RoomSample& before, const RoomSample& now);
  void end_stall(const RoomSample& now);
  void take_load(const RoomSample& now);
  RoomStall stall_until(const RoomSample& end, double gap_s) const;

  RoomSample first_;
  RoomSample last_;
  std::uint64_t samples_ = 1;
  std::uint32_t peak_ = 0;
  std::uint64_t drops_before_ = 0;
  std::uint64_t drops_ = 0;
  double grown_ = 0;
  double full_s_ = 0;
  double deepest_wanted_ = 0;
  std::chrono::nanoseconds last_active_{-1};
  std::chrono::nanoseconds first_drop_{-1};
  std::chrono::nanoseconds last_drop_{-1};

  struct Under {  // the stall that goes on
    bool is = false;
    bool began_before = false;
    double began_s = 0;
    double gap_s = 0;  // in which it began
    std::uint32_t base_depth = 0;
    std::uint64_t base_drops = 0;
    std::uint64_t samples = 0;
    std::uint64_t opened = 0;
  } stall_;
  std::vector<RoomStall> stalls_;
  std::uint64_t stalls_seen_ = 0;

  double accepting_since_s_ = -1;  // more than half full, and somebody was accepted
  bool more_than_half_ = false;
  double overloaded_s_ = 0;
  RoomHistory history_;
};

/// How connections come to a whole network namespace, from its counters, read every now and then: exact
/// sums, and how they are spread.
class ArrivalLog {
 public:
  /// `came` since the watch began: connections that came about and SYNs that found no place (PassiveOpens +
  /// ListenOverflows). A SYN that is sent again counts again.
  void take(std::chrono::nanoseconds at, std::uint64_t came);

  std::uint64_t came() const noexcept { return last_came_; }
  double per_second() const noexcept;
  /// In those windows in which anybody came.
  double busy_per_second() const noexcept;
  /// Variance over mean of the number in a window, of windows in which somebody came. The variance is half
  /// the mean square of the difference between neighbours (von Neumann, 1941), which a load that changes
  /// slowly does not make larger. 1, as for Poisson, with fewer than 8 pairs.
  double dispersion() const noexcept;

 private:
  std::chrono::nanoseconds last_at_{0};
  std::uint64_t last_came_ = 0;
  double busy_s_ = 0;
  double window_came_ = 0;  // in the window before, 0 if there is none
  std::uint64_t pairs_ = 0;
  double squares_ = 0;
  double sum_ = 0;
};

/// From what the arrival rate of one listener is known.
enum class RateSource : std::uint8_t {
  kNamespace,  ///< the kernel's counters of the namespace, in which nobody else was seen to have guests
  kStalls,     ///< what came in its own stalls
  kGrowth,     ///< what the queue was seen to grow by: a lower bound
};
std::string_view name(RateSource source) noexcept;  // "namespace", "stalls", "growth"

/// What was not seen at the listener itself.
struct RoomContext {
  /// No other listener in the namespace was seen to have guests.
  bool is_only_one = false;
  int sockets = 1;  ///< that share its address (SO_REUSEPORT), and so what comes
  const ArrivalLog& arrivals;
};

/// What backlog would have held it.
struct RoomAdvice {
  enum class Verdict : std::uint8_t {
    kNeverNeeded,   ///< nobody was seen to wait
    kEnough,        ///< the backlog in force has room to spare
    kTooSmall,      ///< `backlog` is larger
    kTooSlow,       ///< it was full while it accepted: no backlog mends that
    kNotAccepting,  ///< nobody has been accepted for a second or more, and still is not
  };
  Verdict verdict = Verdict::kNeverNeeded;
  std::optional<int> backlog;  ///< to use, as people write it; nothing if none was needed or none helps

  double rate = 0;  ///< clients a second, while they came
  RateSource rate_source = RateSource::kGrowth;
  bool rate_is_lower_bound = false;
  std::optional<RoomStall> longest;  ///< without an accept
  /// The length the law is asked about, in seconds. With the rate of the namespace, what came in a stall says
  /// how long it was, between the bounds that the samples set; else it is that of the longest one.
  double stall_s = 0;
  double burst = 0;         ///< came in a stall beyond rate x stall, and beyond what chance explains
  double needed = 0;        ///< places, by the law; 0 if it says nothing
  double error_places = 0;  ///< of `needed`: rate x the error of the stall's length, at least
  /// SYNs are sent again after a second, and there were drops for longer: they count some clients more than
  /// once, and so does what was needed.
  bool is_at_most = false;
};
std::string_view name(RoomAdvice::Verdict verdict) noexcept;  // "never needed", "enough", ...

/// The law checked in the laboratory: while nobody accepts, the queue grows by rate x stall. So it needs
/// rate x stall + z sqrt(rate x stall x dispersion) places (stall_places_quantile, z = 3.09), and those who
/// came in a burst. Never less than the deepest queue seen, drops in it included, and kHeadroomMin beyond.
RoomAdvice advise(const RoomLog& log, const RoomContext& context);

}  // namespace anteroom::bench
