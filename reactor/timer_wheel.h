#pragma once
#include <anteroom/reactor.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <chrono>
#include <cstdint>
#include <optional>

namespace anteroom {

/// A place in one of the wheel's lists.
struct TimerLink {
  TimerLink* next = this;
  TimerLink* previous = this;

  TimerLink() noexcept = default;
  TimerLink(const TimerLink&) = delete;
  TimerLink& operator=(const TimerLink&) = delete;
  bool is_linked() const noexcept { return next != this; }
  void unlink() noexcept {
    next->previous = previous;
    previous->next = next;
    next = previous = this;
  }
  void append(TimerLink& link) noexcept {  // as the last of the list whose head is *this
    link.previous = previous;
    link.next = this;
    previous->next = &link;
    previous = &link;
  }
};

/// One timer in the wheel. Not owned by it.
struct TimerEntry : TimerLink {
  std::uint64_t tick = 0;
  virtual void expired() noexcept = 0;

 protected:
  ~TimerEntry() = default;
};

/// A hierarchical timing wheel (Varghese and Lauck, 1987): eight levels of 64 slots. A timer lies at the
/// level of the highest 6 bits in which its tick differs from the current one, and moves down a level each
/// time the wheel gets to its slot: at most seven moves in its life, and one of 64 bits for each slot tells
/// where to look next.
class TimerWheel {
 public:
  using Clock = Reactor::Clock;
  static constexpr int kTickBits = 14;  // a tick is 2^14 ns = 16.4 µs; eight levels then reach 146 years

  explicit TimerWheel(Clock::time_point now) noexcept : current_(floor_tick(now)) {}

  bool is_empty() const noexcept { return armed_ == 0; }

  void arm(TimerEntry& entry, Clock::time_point when) noexcept {
    cancel(entry);
    ++armed_;
    entry.tick = ceil_tick(when);
    insert(entry);
  }

  void cancel(TimerEntry& entry) noexcept {
    if (!entry.is_linked()) return;
    --armed_;
    TimerLink* const neighbour = entry.next;
    entry.unlink();
    if (neighbour->is_linked()) return;
    // The list is empty now, and what is left of it is its head. An expired timer's list is no slot.
    const auto head = reinterpret_cast<std::uintptr_t>(neighbour);
    const auto first = reinterpret_cast<std::uintptr_t>(slots_.data());
    if (head >= first && head < first + sizeof(slots_)) clear_bit((head - first) / sizeof(Slot));
  }

  /// When to look again: the earliest timer, or earlier if that one has been cancelled.
  std::optional<Clock::time_point> next() const noexcept {
    if (due_.is_linked()) return Clock::time_point{};
    const std::optional<std::size_t> slot = first_slot();
    if (!slot) return std::nullopt;
    return Clock::time_point(std::chrono::nanoseconds(slots_[*slot].tick_min << kTickBits));
  }

  /// Fires what is due, in the order of deadlines. What handlers arm meanwhile waits for the next call, even
  /// if it is due.
  /// How many fired.
  std::uint64_t fire(Clock::time_point now) noexcept {
    const std::uint64_t until = floor_tick(now);
    if (until < current_) return 0;
    TimerLink expired;
    take(due_, expired);
    for (std::optional<std::size_t> slot = first_slot(); slot; slot = first_slot()) {
      const std::uint64_t start = slot_start(*slot);
      if (start > until) break;
      current_ = start;
      TimerLink moving;
      take(slots_[*slot], moving);
      clear_bit(*slot);
      while (moving.is_linked()) {
        auto& entry = static_cast<TimerEntry&>(*moving.next);
        entry.unlink();
        insert(entry);
      }
      take(due_, expired);
    }
    current_ = until;
    std::uint64_t fired = 0;
    for (is_firing_ = true; is_firing_ && expired.is_linked(); ++fired) {
      auto& entry = static_cast<TimerEntry&>(*expired.next);
      entry.unlink();
      --armed_;
      entry.expired();
    }
    take(expired, due_);
    return fired;
  }

  /// Called while a timer fires: those that are due, too, stay armed.
  void stop_firing() noexcept { is_firing_ = false; }

 private:
  static constexpr int kLevels = 8;
  static constexpr int kSlotBits = 6;
  static constexpr std::size_t kSlots = std::size_t{1} << kSlotBits;
  static constexpr std::uint64_t kTickMax = (std::uint64_t{1} << (kLevels * kSlotBits)) - 1;

  struct Slot : TimerLink {
    std::uint64_t tick_min = 0;
  };

  static std::uint64_t floor_tick(Clock::time_point time) noexcept {
    const std::int64_t ns = time.time_since_epoch().count();
    return ns <= 0 ? 0 : static_cast<std::uint64_t>(ns) >> kTickBits;
  }
  static std::uint64_t ceil_tick(Clock::time_point time) noexcept {
    const std::uint64_t floor = floor_tick(time);
    const bool exact = (floor << kTickBits) == static_cast<std::uint64_t>(time.time_since_epoch().count());
    return std::min(exact ? floor : floor + 1, kTickMax);
  }

  void insert(TimerEntry& entry) noexcept {
    if (entry.tick <= current_) return due_.append(entry);
    const std::size_t level = static_cast<std::size_t>(std::bit_width(entry.tick ^ current_) - 1) / kSlotBits;
    assert(level < kLevels);
    const std::size_t index = (entry.tick >> (level * kSlotBits)) & (kSlots - 1);
    Slot& slot = slots_[level * kSlots + index];
    if (!slot.is_linked() || entry.tick < slot.tick_min) slot.tick_min = entry.tick;
    slot.append(entry);
    used_[level] |= std::uint64_t{1} << index;
  }

  void clear_bit(std::size_t slot) noexcept {
    used_[slot / kSlots] &= ~(std::uint64_t{1} << (slot % kSlots));
  }

  std::optional<std::size_t> first_slot() const noexcept {
    for (std::size_t level = 0; level < kLevels; ++level) {
      if (used_[level] != 0) return level * kSlots + static_cast<std::size_t>(std::countr_zero(used_[level]));
    }
    return std::nullopt;
  }

  std::uint64_t slot_start(std::size_t slot) const noexcept {
    const int shift = static_cast<int>(slot / kSlots) * kSlotBits;
    const std::uint64_t above =
        shift + kSlotBits >= 64 ? 0 : (current_ >> (shift + kSlotBits)) << (shift + kSlotBits);
    return above | static_cast<std::uint64_t>(slot % kSlots) << shift;
  }

  static void take(TimerLink& from, TimerLink& to) noexcept {
    if (!from.is_linked()) return;
    to.previous->next = from.next;
    from.next->previous = to.previous;
    from.previous->next = &to;
    to.previous = from.previous;
    from.next = from.previous = &from;
  }

  std::size_t armed_ = 0;
  bool is_firing_ = false;
  std::uint64_t current_;  // every timer up to this tick has been fired or is in due_
  TimerLink due_;          // armed for a tick that has passed already
  std::array<std::uint64_t, kLevels> used_{};
  std::array<Slot, kLevels * kSlots> slots_;
};

}  // namespace anteroom
