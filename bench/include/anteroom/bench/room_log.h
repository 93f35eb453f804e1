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
  /// Handshakes thrown away here since the watch began. Not what the kernel counts at the socket (sk_drops),
  /// which has more in it.
  std::uint64_t drops = 0;
  std::uint32_t sk_drops = 0;  ///< as the kernel has it: it wraps
};

/// The most drops in any one second. A SYN that found no place is sent again after a second and no sooner
/// (tcp(7)), so each of these is of another client. Since Linux 6.5 it is sent again each second at first
/// (tcp_syn_linear_timeouts), and these are all who wait outside; before, it may be fewer than those.
class DropsInASecond {
 public:
  /// So many between these two times. If that is more than a second, a part of them.
  void take(std::chrono::nanoseconds from, std::chrono::nanoseconds to, std::uint64_t dropped);
  double most() const noexcept { return most_; }

 private:
  struct Dropped {
    std::chrono::nanoseconds from;
    std::uint64_t count;
  };
  std::vector<Dropped> recent_;
  std::uint64_t sum_ = 0;
  double most_ = 0;
};

/// A time in which somebody waited, and nobody was seen to be accepted: in no sample were there fewer than in
/// the one before. Who is accepted between two samples while another one comes is not seen.
struct RoomStall {
  double at_s = 0;      ///< since the watch began
  double length_s = 0;  ///< from the middle of the gap in which it began to that of the gap in which it ended
  double error_s = 0;   ///< half of these two gaps together: so much longer or shorter it may have been
  double came = 0;      ///< by how many the queue grew in it, and those who were turned away
  std::uint32_t depth = 0;  ///< at its end
  std::uint64_t drops = 0;  ///< SYNs: who is turned away sends another one each second
  double turned_away = 0;   ///< the most drops in any one second of it, each of another client
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

/// What is known of one listener from a series of samples. Drops are the kernel's own counts and miss
/// nothing; all else may miss what happens between two samples.
class RoomLog {
 public:
  /// `made_since`: it was made after the watch began, so that all its drops are ours.
  explicit RoomLog(const RoomSample& first, bool made_since = false);

  void take(const RoomSample& sample);
  /// From `from` until now so many connections came about in the whole namespace (PassiveOpens). They are
  /// those of a stall only if the next sample is still in it.
  void take_window(std::chrono::nanoseconds from, std::uint64_t opened);

  std::uint64_t samples() const noexcept { return samples_; }
  std::chrono::nanoseconds watched() const noexcept { return last_.at - first_.at; }
  std::uint32_t depth() const noexcept { return last_.depth; }
  std::uint32_t limit() const noexcept { return last_.limit; }
  /// How many it holds: the kernel admits one more than the backlog.
  double places() const noexcept { return last_.limit + 1.0; }
  std::uint32_t peak() const noexcept { return peak_; }
  std::uint64_t drops() const noexcept { return drops_; }  ///< handshakes thrown away since the watch began
  /// Whatever else the kernel counts with them too: bare ACKs under TCP_DEFER_ACCEPT, resets of half-open
  /// connections, and the last ACK of a handshake that found no place, a second time. Since the watch began.
  std::uint64_t sk_drops() const noexcept { return sk_drops_; }
  /// Since the socket was made; it wraps at 2^32 before the watch and no more after.
  std::uint64_t sk_drops_total() const noexcept { return sk_drops_before_ + sk_drops_; }
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
  /// At least so many came: what the queue grew by from sample to sample, and the most drops in a second.
  double came_at_least() const noexcept { return grown_ + in_a_second_.most(); }
  /// The most who would have been in the queue at once, had there been room: the depth at the end of a stall
  /// and who was turned away in it; or a full room, and the drops between two samples.
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
  std::uint64_t drops_ = 0;
  std::uint64_t sk_drops_before_ = 0;
  std::uint64_t sk_drops_ = 0;
  DropsInASecond in_a_second_;
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
    std::uint64_t opened_since = 0;  // the last sample
    DropsInASecond in_a_second;
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
  bool knows_dispersion() const noexcept;                           ///< else it is 1 for want of a better one
  bool has_begun() const noexcept { return last_at_.count() > 0; }  ///< the counters were read again

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
  kNamespace,  ///< the kernel's counters of the namespace, in which nobody else listens
  kStalls,     ///< what came in its own stalls
  kGrowth,     ///< what the queue was seen to grow by: a lower bound
};
std::string_view name(RateSource source) noexcept;  // "namespace", "stalls", "growth"

/// What was not seen at the listener itself.
struct RoomContext {
  /// Nothing else in the namespace listens, nor did since the watch began, but on its address. That others
  /// were not seen to have guests says nothing: who accepts at once never is.
  bool is_alone = false;
  int sockets = 1;  ///< that share its address now (SO_REUSEPORT), and so what comes
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
  /// Then: all that came in the namespace while this was watched, to whomever; 0 if that is not known.
  double rate_at_most = 0;
  std::optional<RoomStall> longest;  ///< without an accept
  /// The length the law is asked about, in seconds. With the rate of the namespace, what came in a stall says
  /// how long it was, between the bounds that the samples set; else it is that of the longest one.
  double stall_s = 0;
  double stall_error_s = 0;  ///< of that stall: so much longer or shorter it may have been
  double burst = 0;          ///< came in a stall beyond rate x stall, and beyond what chance explains
  double needed = 0;         ///< places, by the law; 0 if it says nothing
  double error_places = 0;   ///< of `needed`, at least: rate x stall_error_s
  /// Of the drops: SYNs are sent again after a second, and there were drops for longer, so they count some
  /// clients more than once. What came, and is needed, does not.
  bool is_at_most = false;
};
std::string_view name(RoomAdvice::Verdict verdict) noexcept;  // "never needed", "enough", ...

/// The law checked in the laboratory: while nobody accepts, the queue grows by rate x stall. So it needs
/// rate x stall + z sqrt(rate x stall x dispersion) places (stall_places_quantile, z = 3.09), and those who
/// came in a burst. Never less than the deepest queue seen, who was turned away included, and kHeadroomMin
/// beyond. Of k sockets that share an address each gets a k-th of what comes, at random: a stream of which
/// each is kept with the chance p has the dispersion 1 + p (D - 1) (Cox and Isham, Point Processes, 1980).
RoomAdvice advise(const RoomLog& log, const RoomContext& context);

}  // namespace anteroom::bench
