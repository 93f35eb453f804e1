#pragma once
#include <anteroom/connector.h>
#include <anteroom/export.h>
#include <anteroom/reactor.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <system_error>

namespace ANTEROOM_EXPORT anteroom {

/// How much chance there is in a delay. Those who failed together must not come back together.
enum class Jitter : std::uint8_t {
  kNone,
  kFull,          ///< anything from 0 to the delay without jitter
  kDecorrelated,  ///< anything from the first delay to `factor` times the last one
};

struct RetryOptions {
  std::chrono::nanoseconds first_delay = std::chrono::milliseconds(100);  ///< 1 ms at least
  /// How much longer each delay may be than the one before. Brooker's article has 2 for full jitter, and 3
  /// for decorrelated.
  double factor = 2;
  std::chrono::nanoseconds delay_max = std::chrono::seconds(30);  ///< before and after the jitter
  /// Calls at most, the first among them; 0: as many as it takes.
  int attempts_max = 0;
  Jitter jitter = Jitter::kFull;
};

/// When to call again: exponential backoff with jitter, as a value. No clock and no timer: the same seed and
/// the same calls give the same delays. Clients of one server need different seeds.
///
/// Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015, after n failures:
///   full: random(0, min(delay_max, first_delay * factor^(n - 1)))
///   decorrelated: min(delay_max, random(first_delay, factor * last delay)), which was first_delay at first
class Retry {
 public:
  /// Throws std::system_error (invalid_argument) if a time or attempts_max is negative, delay_max less than
  /// first_delay, or factor less than 1.
  Retry(const RetryOptions& options, std::uint64_t seed);

  /// A call has failed: how long to wait before the next. Nothing once it was the last.
  std::optional<std::chrono::nanoseconds> next_delay() noexcept;

  /// A call was a success: the next failure counts as the first.
  void reset() noexcept;

  int failures() const noexcept { return failures_; }  ///< since reset()

 private:
  double random(double from, double to) noexcept;

  RetryOptions options_;
  std::uint64_t random_state_;
  int failures_ = 0;
  double base_ns_ = 0;  // the next delay without jitter; decorrelated: the last one
};

/// Whether what a connection ended with may be otherwise the next time, with nobody changing a setting: true
/// for connection_refused, timed_out, connection_reset, address_not_available (the ports have run out),
/// too_many_files_open, resource_unavailable_try_again (a Unix socket's full queue),
/// no_such_file_or_directory (its server may be late), an end in order, and whatever is not known; false for
/// permission_denied, address_family_not_supported, invalid_argument and the like.
ANTEROOM_EXPORT bool is_worth_a_retry(const std::error_code& error) noexcept;

struct ReconnectorOptions {
  ConnectOptions connect{};
  ConnectionOptions connection{};
  RetryOptions retry{};
  /// Of the jitter. Without one it is the system's (std::random_device), so that no two clients call in step.
  std::optional<std::uint64_t> seed = std::nullopt;
  /// A connection that was open for so long was a success. A server that lets us in and hangs up is not
  /// called again without rest.
  std::chrono::milliseconds success_after{1000};
  /// A connection or an attempt has ended, and the next call is in `delay`. Told after `closed`.
  std::function<void(std::error_code why, std::chrono::nanoseconds delay)> waiting = nullptr;
  /// The last attempt that was allowed has failed, or one with an error that is not worth a retry. There will
  /// be no more calls.
  std::function<void(std::error_code why)> gave_up = nullptr;
};

/// Keeps one connection to an endpoint: calls, and calls again when it has failed or ended.
///
/// It owns its connection, and may be destroyed in its own handlers: the connection is closed, still sends
/// what it holds, and none of the handlers is called any more.
class Reconnector {
 public:
  /// The first call is made in the next turn. `handlers` are told of each connection, and of each attempt
  /// that made a socket: `closed`, without `open` before.
  /// Throws std::system_error (invalid_argument) if an option makes no sense.
  Reconnector(Reactor& reactor, const Endpoint& to, ConnectionHandlers handlers,
              ReconnectorOptions options = {});
  Reconnector(Reconnector&&) = delete;
  ~Reconnector();

  /// The connection, while it is open; null else.
  Connection* connection() const noexcept;

 private:
  class Line;
  Reactor& reactor_;
  std::unique_ptr<Line> line_;
};

}  // namespace anteroom
