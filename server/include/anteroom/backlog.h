#pragma once
#include <anteroom/export.h>

#include <cstdint>
#include <optional>

namespace ANTEROOM_EXPORT anteroom {

/// How large the waiting room shall be: a number, what the system allows, or what the load turns out to need.
class Backlog {
 public:
  struct SelfTuning {
    int initial = 128;  ///< to begin with
    int max = 0;        ///< never beyond it; 0 means net.core.somaxconn alone bounds it
  };

  /// listen(fd, n). The kernel clips it to net.core.somaxconn, and queues one connection more than that. A
  /// negative number is the system's maximum, as for listen(2).
  static Backlog fixed(int n) noexcept;
  /// As many as net.core.somaxconn allows: the default. A room costs nothing as long as it is empty.
  static Backlog system_maximum() noexcept;
  /// Begins small and grows before it overflows: when the acceptor finds it half full, it becomes four times
  /// as large as the demand: the connections that wait, and what sk_drops has grown by. Throws std::system_error
  /// (invalid_argument) for an `initial` below 1 and a `max` below 0.
  static Backlog self_tuning(SelfTuning settings);
  static Backlog self_tuning() { return self_tuning(SelfTuning{}); }

  bool is_self_tuning() const noexcept { return self_tuning_; }
  /// The number for the first listen(2); negative for what somaxconn allows.
  int initial() const noexcept { return initial_; }
  int max() const noexcept { return max_; }

 private:
  Backlog(int initial, int max, bool self_tuning) noexcept
      : initial_(initial), max_(max), self_tuning_(self_tuning) {}
  int initial_;
  int max_;
  bool self_tuning_;
};

/// The arithmetic of Backlog::self_tuning(): what was seen at the door, to what the backlog should be now.
class BacklogTuner {
 public:
  explicit BacklogTuner(const Backlog& policy) noexcept;

  /// Whether `depth` of `limit` is reason to look closer: to read the drops and somaxconn, and to call
  /// grow(). False at once, and for ever, if the policy is not self-tuning.
  bool is_crowded(std::uint32_t depth, std::uint32_t limit) const noexcept;

  /// The backlog to ask for now, if that is more than `limit`. `turned_away` is what sk_drops has grown by
  /// since the last call: SYNs sent again count again, so this errs to the larger side.
  std::optional<int> grow(std::uint32_t depth, std::uint32_t limit, std::uint64_t turned_away,
                          int somaxconn) noexcept;

  /// The room should be larger than net.core.somaxconn allows; the number it should have. 0: it does not
  /// bind.
  int wanted_beyond_somaxconn() const noexcept { return wanted_beyond_; }

 private:
  bool self_tuning_;
  int max_;
  int wanted_beyond_ = 0;
};

}  // namespace anteroom
