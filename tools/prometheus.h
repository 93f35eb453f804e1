#pragma once
#include <anteroom/acceptor.h>
#include <anteroom/reactor.h>

#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "watch.h"

namespace anteroom::tool {

/// What was seen, in the text format of Prometheus 0.0.4.
std::string prometheus_text(const WatchState& state);

/// Answers `GET /metrics`, and nothing else, with what `metrics` says. A client that is silent for 5 s is
/// closed. Of more than 64 the oldest is reset, so that nobody who holds connections keeps a scraper out.
class MetricsServer {
 public:
  MetricsServer(Reactor& reactor, Listener listener, std::function<std::string()> metrics);

 private:
  void open(Connection& connection);
  void read(Connection& connection, std::string_view bytes);

  Reactor& reactor_;
  std::function<std::string()> metrics_;
  std::map<ChannelId, std::string> requests_;  // what has come of each, the oldest first
  Acceptor acceptor_;
};

/// The answer to one request: a status line, headers, and a body. A request whose Host is another DNS name
/// than this machine's is refused (421): a page in a browser may have such a name led here (DNS rebinding) to
/// read what only this machine may.
std::string http_answer(std::string_view request, const std::function<std::string()>& metrics);

}  // namespace anteroom::tool
