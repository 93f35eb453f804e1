#include <anteroom/bench/advice.h>
#include <anteroom/bench/models.h>
#include <anteroom/bench/room_log.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace anteroom::bench {
namespace {

using std::chrono::nanoseconds;

// A stall overflows the room that it is advised once in a thousand times.
constexpr double kStallQuantile = 3.09;
// After which a SYN is sent again (tcp(7), TCP_TIMEOUT_INIT).
constexpr double kSynAgain_s = 1.0;
// Fewer samples say too little of the length of a stall.
constexpr std::uint64_t kStallSamplesMin = 4;
constexpr std::uint64_t kWindowPairsMin = 8;

double in_s(nanoseconds time) { return static_cast<double>(time.count()) * 1e-9; }

double middle_s(const RoomSample& a, const RoomSample& b) { return (in_s(a.at) + in_s(b.at)) / 2; }

bool is_full(const RoomSample& sample) { return sample.depth > sample.limit; }

/// More connections came about than stayed in the queue: so some were accepted, unseen.
bool is_refuted(const RoomStall& stall, const RoomContext& context) {
  return context.is_alone && context.sockets == 1 && static_cast<double>(stall.opened) > stall.grown;
}

/// What came in stalls that are long enough to say it.
std::optional<double> rate_in(const std::vector<RoomStall>& stalls) {
  double came = 0, seconds = 0;
  for (const RoomStall& stall : stalls) {
    if (stall.samples < kStallSamplesMin) continue;
    came += stall.came;
    seconds += stall.length_s;
  }
  if (seconds <= 0) return std::nullopt;
  return came / seconds;
}

/// SYNs that are sent again are among the overflows of the namespace, and make its rate too large.
bool is_inflated(const std::vector<RoomStall>& stalls) {
  return std::ranges::any_of(
      stalls, [](const RoomStall& stall) { return stall.drops > 0 && stall.length_s > kSynAgain_s; });
}

void find_rate(const RoomLog& log, const RoomContext& context, const std::vector<RoomStall>& stalls,
               RoomAdvice& advice) {
  if (context.is_alone && context.arrivals.came() > 0 && !is_inflated(stalls)) {
    advice.rate = context.arrivals.busy_per_second() / context.sockets;
    advice.rate_source = RateSource::kNamespace;
  } else if (const auto rate = rate_in(stalls)) {
    advice.rate = *rate;
    advice.rate_source = RateSource::kStalls;
  } else {
    const double seconds = in_s(log.watched());
    advice.rate = seconds > 0 ? log.came_at_least() / seconds : 0;
    advice.rate_source = RateSource::kGrowth;
    advice.rate_is_lower_bound = true;
    advice.rate_at_most = seconds > 0 ? static_cast<double>(context.arrivals.came()) / seconds : 0;
  }
}

/// What came in a stall beyond what the rate explains, chance included.
double burst_in(const std::vector<RoomStall>& stalls, double rate, double dispersion) {
  double most = 0;
  for (const RoomStall& stall : stalls) {
    // It may have been as long as this.
    const double length_s = stall.length_s + stall.error_s;
    const StallLoad load{.rate = rate, .stall_s = length_s, .dispersion = dispersion};
    if (stall.came > stall_places_quantile(load, kStallQuantile))
      most = std::max(most, stall.came - rate * length_s);
  }
  return most;
}

/// The longest that a stall was, by its samples and, if the rate is known from elsewhere, by what came in it.
void find_stall(const std::vector<RoomStall>& stalls, RoomAdvice& advice) {
  for (const RoomStall& stall : stalls) {
    double length_s = stall.length_s;
    if (advice.rate_source == RateSource::kNamespace && advice.rate > 0) {
      length_s = std::clamp(stall.came / advice.rate, std::max(stall.length_s - stall.error_s, 0.0),
                            stall.length_s + stall.error_s);
    }
    if (length_s < advice.stall_s) continue;
    advice.stall_s = length_s;
    advice.stall_error_s = stall.error_s;
  }
}

/// Of what comes to one of the sockets. Short of the namespace's counters, more than 1 is more of a guess
/// than the Poisson's.
double dispersion_at(const RoomContext& context, RateSource source) {
  if (source != RateSource::kNamespace) return 1;
  return 1 + (std::max(context.arrivals.dispersion(), 1.0) - 1) / context.sockets;
}

}  // namespace

void DropsInASecond::take(nanoseconds from, nanoseconds to, std::uint64_t dropped) {
  if (dropped == 0) return;
  recent_.push_back({.from = from, .count = dropped});
  sum_ += dropped;
  auto first = recent_.begin();
  for (; first + 1 != recent_.end() && to - first->from > std::chrono::seconds(1); ++first)
    sum_ -= first->count;
  recent_.erase(recent_.begin(), first);
  most_ = std::max(most_, static_cast<double>(sum_) / std::max(in_s(to - recent_.front().from), 1.0));
}

void RoomHistory::take(nanoseconds at, double fullness) {
  auto slot = static_cast<std::size_t>(std::max(at, nanoseconds(0)) / step_);
  while (slot >= slots_max_) {
    for (std::size_t i = 0; i < slots_.size(); i += 2) {
      const float second = i + 1 < slots_.size() ? slots_[i + 1] : -1.0F;
      slots_[i / 2] = std::max(slots_[i], second);
    }
    slots_.resize((slots_.size() + 1) / 2);
    step_ *= 2;
    slot /= 2;
  }
  if (slot >= slots_.size()) slots_.resize(slot + 1, -1.0F);
  slots_[slot] = std::max(slots_[slot], static_cast<float>(fullness));
}

RoomLog::RoomLog(const RoomSample& first, bool made_since)
    : first_(first),
      last_(first),
      peak_(first.depth),
      drops_(made_since ? first.drops : 0),
      sk_drops_before_(made_since ? 0 : first.sk_drops),
      sk_drops_(made_since ? first.sk_drops : 0) {
  if (drops_ > 0) first_drop_ = last_drop_ = first.at;
  in_a_second_.take(first.at, first.at, drops_);
  history_.take(first.at, first.depth / (first.limit + 1.0));
  if (was_active()) last_active_ = first.at;
  deepest_wanted_ = first.depth + static_cast<double>(drops_);
  if (first.depth == 0) return;
  begin_stall(first, first);
  stall_.began_before = !made_since;
  stall_.samples = 1;
  if (!made_since) return;
  stall_.base_depth = 0;
  stall_.base_drops = 0;
  stall_.in_a_second = in_a_second_;
}

void RoomLog::take(const RoomSample& now) {
  const std::uint64_t dropped = now.drops - last_.drops;
  drops_ += dropped;
  sk_drops_ += static_cast<std::uint32_t>(now.sk_drops - last_.sk_drops);  // whatever it wraps at
  if (dropped > 0) {
    if (first_drop_.count() < 0) first_drop_ = now.at;
    last_drop_ = now.at;
  }
  ++samples_;
  history_.take(now.at, now.depth / (now.limit + 1.0));
  if (now.depth == 0 && last_.depth == 0 && dropped == 0) {  // as most do most of the time
    last_ = now;
    return;
  }
  if (now.depth > 0 || dropped > 0) last_active_ = now.at;
  peak_ = std::max(peak_, now.depth);
  if (now.depth > last_.depth) grown_ += now.depth - last_.depth;
  const double gap_s = in_s(now.at - last_.at);
  full_s_ += gap_s * (is_full(last_) + is_full(now)) / 2;
  deepest_wanted_ = std::max(deepest_wanted_, static_cast<double>(now.depth));
  DropsInASecond between;
  between.take(last_.at, now.at, dropped);
  if (dropped > 0) deepest_wanted_ = std::max(deepest_wanted_, last_.limit + 1.0 + between.most());
  in_a_second_.take(last_.at, now.at, dropped);
  take_load(now);
  if (stall_.is) stall_.in_a_second.take(last_.at, now.at, dropped);
  if (stall_.is && now.depth < last_.depth) end_stall(now);
  if (!stall_.is && now.depth > 0) begin_stall(last_, now);
  if (stall_.is) {
    ++stall_.samples;
    stall_.opened += std::exchange(stall_.opened_since, 0);
  }
  last_ = now;
}

void RoomLog::take_load(const RoomSample& now) {
  const double now_s = in_s(now.at);
  if (now.depth < last_.depth && more_than_half_ && accepting_since_s_ < 0) accepting_since_s_ = now_s;
  more_than_half_ = now.depth > (now.limit + 1.0) / 2;
  if (!more_than_half_) {
    overloaded_s_ = overloaded_s();
    accepting_since_s_ = -1;
  }
}

double RoomLog::overloaded_s() const noexcept {
  if (accepting_since_s_ < 0) return overloaded_s_;
  return std::max(overloaded_s_, in_s(last_.at) - accepting_since_s_);
}

void RoomLog::take_window(nanoseconds from, std::uint64_t opened) {
  if (stall_.is && stall_.began_s <= in_s(from)) stall_.opened_since += opened;
}

void RoomLog::begin_stall(const RoomSample& before, const RoomSample& now) {
  // After an accept those who were left are no new ones.
  const bool is_rest = now.depth < before.depth;
  const std::uint64_t dropped = is_rest ? 0 : now.drops - before.drops;
  stall_ = {.is = true,
            .began_before = false,
            .began_s = middle_s(before, now),
            .gap_s = in_s(now.at - before.at),
            .base_depth = is_rest ? now.depth : before.depth,
            .base_drops = drops_ - dropped,
            .samples = 0,
            .opened = 0,
            .opened_since = 0,
            .in_a_second = {}};
  stall_.in_a_second.take(before.at, now.at, dropped);
}

RoomStall RoomLog::stall_until(const RoomSample& end, double gap_s) const {
  const std::uint64_t dropped = drops_ - stall_.base_drops;
  const double grown = static_cast<double>(last_.depth) - stall_.base_depth;
  const double length_s = middle_s(last_, end) - stall_.began_s;
  return {.at_s = stall_.began_s,
          .length_s = std::max(length_s, 0.0),
          .error_s = (stall_.gap_s + gap_s) / 2,
          .came = grown + stall_.in_a_second.most(),
          .depth = last_.depth,
          .drops = dropped,
          .turned_away = stall_.in_a_second.most(),
          .samples = stall_.samples,
          .opened = stall_.opened,
          .grown = grown,
          .began_before = stall_.began_before,
          .goes_on = false};
}

void RoomLog::end_stall(const RoomSample& now) {
  const RoomStall stall = stall_until(now, in_s(now.at - last_.at));
  deepest_wanted_ = std::max(deepest_wanted_, stall.depth + stall.turned_away);
  stalls_.push_back(stall);
  ++stalls_seen_;
  stall_ = {};
  if (stalls_.size() < 2 * kStallsMax) return;
  std::ranges::nth_element(stalls_, stalls_.begin() + kStallsMax, std::greater<>(), &RoomStall::length_s);
  stalls_.resize(kStallsMax);
}

std::optional<RoomStall> RoomLog::current_stall() const {
  if (!stall_.is) return std::nullopt;
  RoomStall stall = stall_until(last_, 0);
  stall.goes_on = true;
  return stall;
}

double RoomLog::deepest_wanted() const noexcept {
  if (!stall_.is) return deepest_wanted_;
  return std::max(deepest_wanted_, last_.depth + stall_.in_a_second.most());
}

std::vector<RoomStall> RoomLog::stalls() const {
  std::vector<RoomStall> all = stalls_;
  std::ranges::sort(all, std::greater<>(), &RoomStall::length_s);
  if (all.size() > kStallsMax) all.resize(kStallsMax);
  if (const auto current = current_stall()) {
    const auto place =
        std::ranges::upper_bound(all, current->length_s, std::greater<>(), &RoomStall::length_s);
    all.insert(place, *current);
  }
  return all;
}

void ArrivalLog::take(nanoseconds at, std::uint64_t came) {
  const auto window = static_cast<double>(came - last_came_);
  if (window > 0) {
    busy_s_ += in_s(at - last_at_);
    if (window_came_ > 0) {
      ++pairs_;
      squares_ += (window - window_came_) * (window - window_came_) / 2;
      sum_ += (window + window_came_) / 2;
    }
  }
  window_came_ = window;
  last_at_ = at;
  last_came_ = came;
}

double ArrivalLog::per_second() const noexcept {
  return last_at_.count() > 0 ? static_cast<double>(last_came_) / in_s(last_at_) : 0;
}

double ArrivalLog::busy_per_second() const noexcept {
  return busy_s_ > 0 ? static_cast<double>(last_came_) / busy_s_ : 0;
}

bool ArrivalLog::knows_dispersion() const noexcept { return pairs_ >= kWindowPairsMin && sum_ > 0; }

double ArrivalLog::dispersion() const noexcept { return knows_dispersion() ? squares_ / sum_ : 1; }

std::string_view name(RateSource source) noexcept {
  switch (source) {
    case RateSource::kNamespace:
      return "namespace";
    case RateSource::kStalls:
      return "stalls";
    case RateSource::kGrowth:
      break;
  }
  return "growth";
}

std::string_view name(RoomAdvice::Verdict verdict) noexcept {
  switch (verdict) {
    case RoomAdvice::Verdict::kNeverNeeded:
      return "never needed";
    case RoomAdvice::Verdict::kEnough:
      return "enough";
    case RoomAdvice::Verdict::kTooSmall:
      return "too small";
    case RoomAdvice::Verdict::kTooSlow:
      return "too slow";
    case RoomAdvice::Verdict::kNotAccepting:
      break;
  }
  return "not accepting";
}

RoomAdvice advise(const RoomLog& log, const RoomContext& context) {
  using Verdict = RoomAdvice::Verdict;
  RoomAdvice advice;
  std::vector<RoomStall> stalls = log.stalls();
  const auto accepted_unseen = [&](const RoomStall& stall) { return is_refuted(stall, context); };
  const bool accepted_while_full = std::ranges::any_of(
      stalls, [&](const RoomStall& s) { return accepted_unseen(s) && s.depth > log.limit(); });
  std::erase_if(stalls, accepted_unseen);
  find_rate(log, context, stalls, advice);
  if (!log.was_active()) return advice;

  if (!stalls.empty()) advice.longest = stalls.front();
  const double dispersion = dispersion_at(context, advice.rate_source);
  advice.burst = burst_in(stalls, advice.rate, dispersion);
  advice.is_at_most = log.drops_span_s() > kSynAgain_s;
  if (advice.longest) {
    find_stall(stalls, advice);
    const StallLoad load{.rate = advice.rate, .stall_s = advice.stall_s, .dispersion = dispersion};
    advice.needed = stall_places_quantile(load, kStallQuantile) + advice.burst;
    advice.error_places = advice.rate * advice.stall_error_s;
  }
  const auto current = log.current_stall();
  // Of one that was full all along nothing is known but that.
  const bool was_full_all_along = current && current->began_before && log.depth() > log.limit();
  if (current && !accepted_unseen(*current) && (current->length_s > kSynAgain_s || was_full_all_along)) {
    advice.verdict = Verdict::kNotAccepting;
    return advice;
  }
  if (log.drops() > 0 && log.full_s() > kSynAgain_s &&
      (log.overloaded_s() > kSynAgain_s || accepted_while_full)) {
    advice.verdict = Verdict::kTooSlow;
    return advice;
  }
  const double wanted = std::max(advice.needed, log.deepest_wanted() * (1 + kHeadroomMin));
  advice.backlog = round_up_backlog(wanted);
  advice.verdict = wanted > log.places() ? Verdict::kTooSmall : Verdict::kEnough;
  return advice;
}

}  // namespace anteroom::bench
