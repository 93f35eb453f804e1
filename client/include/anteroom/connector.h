#pragma once
#include <anteroom/connection.h>
#include <anteroom/export.h>
#include <anteroom/reactor.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

namespace ANTEROOM_EXPORT anteroom {

struct ConnectOptions {
  /// How long one attempt may take; 0 leaves it to the kernel, which gives up after about two minutes. A
  /// negative one is an invalid_argument.
  std::chrono::nanoseconds deadline = std::chrono::seconds(10);
  /// The address to call from. With port 0 the port is picked when it is known whom we call
  /// (IP_BIND_ADDRESS_NO_PORT), so one source reaches each destination from all of its ports.
  std::optional<Endpoint> source = std::nullopt;
  bool no_delay = true;  ///< TCP_NODELAY, as on the connections that a Listener lets in
  /// For Connection::context().
  void* context = nullptr;
};

/// What came of asking for a connection.
struct ConnectResult {
  ChannelId id = ChannelId::kNone;  ///< of the Connection whose `open` or `closed` the turn will tell
  /// Why there is none: no descriptor, no memory, the source is not ours, or an option makes no sense.
  std::error_code error;
};

/// Makes non-blocking connections, as many as are asked for, with one set of handlers for all of them.
///
/// Each attempt ends with `open`, or with `closed` that has an error: connection_refused, timed_out,
/// address_not_available (no local port is free), and so on as in connect(2).
/// It may be destroyed in its own handlers. Its destructor closes its connections, which still send what they
/// hold; none of its handlers is called any more.
class Connector {
 public:
  /// Throws std::system_error (invalid_argument) if an option makes no sense.
  explicit Connector(Reactor& reactor, ConnectionHandlers handlers, ConnectionOptions options = {});
  Connector(Connector&&) = delete;
  ~Connector();

  ConnectResult connect(const Endpoint& to, const ConnectOptions& options = {});

 private:
  bool may_meet_itself(const Endpoint& to) const noexcept;

  Reactor& reactor_;
  Connection::Kind* kind_;  // ours until end_all()
  std::pair<std::uint16_t, std::uint16_t> local_ports_;
};

/// A sentence for the user who called `to` and got `error`: what happened, and what to look at.
ANTEROOM_EXPORT std::string describe_connect_error(const std::error_code& error, const Endpoint& to);

}  // namespace anteroom
