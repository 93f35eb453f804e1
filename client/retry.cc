#include <anteroom/retry.h>
#include <anteroom/socket.h>
#include <anteroom/timer.h>
#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <random>
#include <string>
#include <utility>

namespace anteroom {
namespace {

using std::chrono::nanoseconds;

constexpr std::chrono::nanoseconds kDelayMin = std::chrono::milliseconds(1);
constexpr std::chrono::nanoseconds kDelayMax = std::chrono::hours(24 * 365 * 100);

constexpr double kFactorMax = 1000;

double to_ns(std::chrono::nanoseconds delay) noexcept { return static_cast<double>(delay.count()); }

void check(const RetryOptions& options) {
  const auto refuse = [](const std::string& on) { throw argument_error("set", on); };
  if (options.first_delay < nanoseconds::zero())
    refuse(fmt::format("first_delay of a retry to {} ns", options.first_delay.count()));
  if (options.delay_max < options.first_delay)
    refuse(fmt::format("delay_max of a retry to {} ns, less than its first_delay of {} ns",
                       options.delay_max.count(), options.first_delay.count()));
  if (!(options.factor >= 1)) refuse(fmt::format("factor of a retry to {}, less than 1", options.factor));
  if (options.attempts_max < 0) refuse(fmt::format("attempts_max of a retry to {}", options.attempts_max));
}

void check(const ReconnectorOptions& options) {
  const auto check_time = [](const char* name, nanoseconds time) {
    if (time < nanoseconds::zero())
      throw argument_error("set", fmt::format("{} of a reconnector to {} ns", name, time.count()));
  };
  check_time("connect.deadline", options.connect.deadline);
  check_time("success_after", options.success_after);
}

std::uint64_t seed_of_the_system() {
  std::random_device random;
  return static_cast<std::uint64_t>(random()) << 32 | random();
}

}  // namespace

// ---- Retry

Retry::Retry(const RetryOptions& options, std::uint64_t seed) : options_(options), random_state_(seed) {
  check(options);
  options_.first_delay = std::clamp(options.first_delay, kDelayMin, kDelayMax);
  options_.delay_max = std::clamp(options.delay_max, options_.first_delay, kDelayMax);
  options_.factor = std::min(options.factor, kFactorMax);
  reset();
}

void Retry::reset() noexcept {
  failures_ = 0;
  base_ns_ = to_ns(options_.first_delay);
}

std::optional<std::chrono::nanoseconds> Retry::next_delay() noexcept {
  if (options_.attempts_max > 0 && failures_ + 1 >= options_.attempts_max) return std::nullopt;
  ++failures_;
  const double max = to_ns(options_.delay_max);
  double delay = base_ns_;
  if (options_.jitter == Jitter::kDecorrelated) {
    delay = std::min(max, random(to_ns(options_.first_delay), options_.factor * base_ns_));
    base_ns_ = delay;
  } else {
    if (options_.jitter == Jitter::kFull) delay = random(0, base_ns_);
    base_ns_ = std::min(max, options_.factor * base_ns_);
  }
  return std::chrono::nanoseconds(static_cast<std::int64_t>(delay));
}

/// SplitMix64: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014; of its
/// 64 bits the upper 53, which a double holds.
double Retry::random(double from, double to) noexcept {
  random_state_ += 0x9e3779b97f4a7c15;
  std::uint64_t bits = random_state_;
  bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9;
  bits = (bits ^ bits >> 27) * 0x94d049bb133111eb;
  bits ^= bits >> 31;
  return from + (to - from) * static_cast<double>(bits >> 11) * 0x1p-53;
}

bool is_worth_a_retry(const std::error_code& error) noexcept {
  switch (error.value()) {
    case EACCES:
    case EPERM:
    case EAFNOSUPPORT:
    case EPFNOSUPPORT:
    case EPROTONOSUPPORT:
    case ESOCKTNOSUPPORT:
    case EPROTOTYPE:  // a Unix socket of another kind
    case EOPNOTSUPP:
    case EINVAL:
    case EDESTADDRREQ:
    case ENOTDIR:
    case ENAMETOOLONG:
    case ELOOP:
    case ENOTSOCK:
    case EBADF:
    case EFAULT:
      return false;
    default:
      return true;
  }
}

// ---- Reconnector

/// Outlives the Reconnector that is destroyed in a handler, until the end of the turn.
class Reconnector::Line final : public Reapable {
 public:
  Line(Reactor& reactor, const Endpoint& to, ConnectionHandlers handlers, ReconnectorOptions options)
      : reactor_(reactor),
        to_(to),
        open_(std::exchange(handlers.open, [this](Connection& connection) { opened(connection); })),
        closed_(std::exchange(handlers.closed, [this](Connection& connection,
                                                      std::error_code why) { closed(connection, why); })),
        options_(std::move(options)),
        retry_(options_.retry, options_.seed ? *options_.seed : seed_of_the_system()),
        alarm_(reactor, [this] { call(); }) {
    check(options_);
    connector_.emplace(reactor, std::move(handlers), options_.connection);
    alarm_.arm({});
  }

  void end() noexcept {
    alarm_.cancel();
    connector_.reset();
  }

  ChannelId id() const noexcept { return id_; }

 private:
  void call() noexcept {
    const ConnectResult result = connector_->connect(to_, options_.connect);
    id_ = result.id;
    if (result.error) failed(result.error);
  }

  void opened(Connection& connection) noexcept {
    open_since_ = reactor_.now();
    if (open_) open_(connection);
  }

  void closed(Connection& connection, std::error_code why) noexcept {
    if (connection.was_open() && reactor_.now() - open_since_ >= options_.success_after) retry_.reset();
    if (closed_) closed_(connection, why);
    if (connector_) failed(why);  // or the handler has destroyed us
  }

  void failed(std::error_code why) noexcept {
    const auto delay = is_worth_a_retry(why) ? retry_.next_delay() : std::nullopt;
    if (delay) {
      alarm_.arm(*delay);
      if (options_.waiting) options_.waiting(why, *delay);
    } else if (options_.gave_up) {
      options_.gave_up(why);
    }
  }

  Reactor& reactor_;
  const Endpoint to_;
  const std::function<void(Connection&)> open_;
  const std::function<void(Connection&, std::error_code)> closed_;
  const ReconnectorOptions options_;
  Retry retry_;
  Timer alarm_;
  std::optional<Connector> connector_;  // until end()
  ChannelId id_ = ChannelId::kNone;
  Reactor::Clock::time_point open_since_;
};

Reconnector::Reconnector(Reactor& reactor, const Endpoint& to, ConnectionHandlers handlers,
                         ReconnectorOptions options)
    : reactor_(reactor),
      line_(std::make_unique<Line>(reactor, to, std::move(handlers), std::move(options))) {}

Reconnector::~Reconnector() {
  assert(is_thread_of(reactor_));
  line_->end();
  reactor_.retire(std::unique_ptr<Reapable>(std::move(line_)));
}

Connection* Reconnector::connection() const noexcept {
  assert(is_thread_of(reactor_));
  auto* const connection = reactor_.find<Connection>(line_->id());
  return connection != nullptr && connection->is_open() ? connection : nullptr;
}

}  // namespace anteroom
