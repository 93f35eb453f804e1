#pragma once
#include <anteroom/bench/dialogue.h>
#include <anteroom/endpoint.h>

#include <atomic>
#include <chrono>
#include <optional>
#include <string>
#include <system_error>

namespace anteroom::tool {

/// Why the kernel's counters of this network namespace cannot be read; empty if they can.
std::string counters_problem();

/// Before trials: throws std::runtime_error where they could not be measured, since getsockopt(2) is
/// forbidden or the kernel's counters cannot be read. What is missing would look like a fault of the server.
void refuse_unmeasurable();
/// Throws std::runtime_error where getsockopt(2) is forbidden on sockets of that family.
void refuse_without_getsockopt(int family);

/// What one conversation with a server came to.
struct Probe {
  bool was_open = false;         ///< connected, as far as one can tell
  bool is_served = false;        ///< the answer was what was expected
  bool has_ended = false;        ///< by the server, or it never began
  bool was_interrupted = false;  ///< by the user, before anything else was known
  bool speaks_tls = false;       ///< it said nothing to an HTTP request, and answered a TLS handshake
  std::error_code error;         ///< with which it ended
  std::string heard;             ///< 64 KiB of it at most
  /// Where it arrived (SocketDiag::arrival_of()), if that is on this machine and was seen.
  std::optional<Endpoint> arrival;
};

/// Talks to the server once, before thousands do, for so long at most; from `source` if there is one, and
/// until `interrupted`, if there is that, at which it looks every 50 ms. A server that answers otherwise has
/// another 0.1 s to say more, for the message. One that says nothing to an HTTP request is asked a second
/// time, in TLS and for 1 s at most, but not if there is a `source`. Throws
/// std::runtime_error where getsockopt(2) is forbidden: then nothing can be learned about any connection.
Probe probe(const Endpoint& server, const bench::Dialogue& dialogue, std::chrono::nanoseconds patience,
            const std::optional<Endpoint>& source = std::nullopt,
            const std::atomic<bool>* interrupted = nullptr);

/// "a packet filter sends ...", of a connection that arrived elsewhere than it was made to; empty if it did
/// not.
std::string redirection_of(const Probe& probe, const Endpoint& server);

/// Why that was no service, and what to try, in one line; empty if it was, or was interrupted.
std::string problem_of(const Probe& probe, const Endpoint& server, const bench::Dialogue& dialogue,
                       std::chrono::nanoseconds patience);

}  // namespace anteroom::tool
