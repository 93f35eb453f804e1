#pragma once
#include <anteroom/acceptor.h>
#include <anteroom/reactor.h>
#include <anteroom/timer.h>

#include <chrono>
#include <functional>
#include <map>
#include <string>

#include "watch.h"

namespace anteroom::tool {

/// What was seen, in the text format of Prometheus 0.0.4.
std::string prometheus_text(const WatchState& state);

/// Answers `GET /metrics`, and nothing else, with what `metrics` says. Who says nothing for 5 s is hung up
/// on; at most 16 are heard at a time.
class MetricsServer {
 public:
  MetricsServer(Reactor& reactor, Listener listener, std::function<std::string()> metrics);

 private:
  struct Scraper {
    std::string said;
    Reactor::Clock::time_point since;
  };
  void open(Connection& connection);
  void hear(Connection& connection, std::string_view bytes);
  void hang_up_on_the_silent();

  Reactor& reactor_;
  std::function<std::string()> metrics_;
  std::map<ChannelId, Scraper> scrapers_;
  Timer deadline_;
  Acceptor acceptor_;
};

/// The answer to one request: a status line, headers, and a body.
std::string http_answer(std::string_view request, const std::function<std::string()>& metrics);

}  // namespace anteroom::tool
