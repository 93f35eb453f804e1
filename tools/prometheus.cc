#include "prometheus.h"

#include <anteroom/connection.h>
#include <anteroom/listen_queue.h>
#include <anteroom/metric_catalogue.h>
#include <fmt/format.h>

#include <vector>

namespace anteroom::tool {
namespace {

constexpr std::chrono::seconds kScraperPatience{5};
constexpr std::size_t kScrapersMax = 16;
constexpr std::size_t kRequestBytesMax = 8 * 1024;

/// One family: what it is, and then its values.
class Metrics {
 public:
  void begin(const MetricFamily& family) {
    name_ = family.name;
    text_ += metric_header(family);
  }
  void add(std::string_view labels, double value) { text_ += fmt::format("{}{} {}\n", name_, labels, value); }
  void add(double value) { add({}, value); }
  std::string take() { return std::move(text_); }

 private:
  std::string_view name_;
  std::string text_;
};

/// The address without its port, which is a label of its own.
std::string place_of(const RoomGroup& group) {
  const std::string address = group.address.to_string();
  return fmt::format(R"(address="{}",port="{}")", escaped_label_value(address.substr(0, address.rfind(':'))),
                     group.address.port());
}

/// Workers come and go, so they are labels of this one alone: else each new one would begin a new series.
std::string info_of(const RoomGroup& group) {
  const std::vector<WatchedProcess> processes = group.processes();
  return fmt::format(R"({{{},pid="{}",process="{}"}})", place_of(group),
                     processes.empty() ? "" : fmt::to_string(processes.front().pid),
                     processes.empty() ? "" : escaped_label_value(processes.front().name));
}

double peak_since_scrape(const RoomGroup& group) {
  std::uint32_t most = 0;
  for (const WatchedRoom* room : group.rooms) most = std::max(most, room->peak_since_scrape);
  return most;
}

double most_waiting(const RoomGroup& group) {
  std::uint32_t most = 0;
  for (const WatchedRoom* room : group.rooms) most = std::max(most, room->log.depth());
  return most;
}

std::string answer(std::string_view status, std::string_view type, std::string_view body) {
  return fmt::format("HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}",
                     status, type, body.size(), body);
}

}  // namespace

std::string prometheus_text(const WatchState& state) {
  const std::vector<RoomGroup> groups = state.rooms.groups(false);
  std::vector<std::string> labels;
  for (const RoomGroup& group : groups) labels.push_back(fmt::format("{{{}}}", place_of(group)));
  Metrics metrics;
  const auto of_each = [&](auto value) {
    for (std::size_t i = 0; i < groups.size(); ++i) metrics.add(labels[i], value(groups[i]));
  };
  metrics.begin(metric_family("anteroom_watch_listener_info"));
  for (const RoomGroup& group : groups) metrics.add(info_of(group), 1);
  metrics.begin(metric_family("anteroom_watch_listener_sockets"));
  of_each([](const RoomGroup& group) { return static_cast<double>(group.members()); });
  metrics.begin(metric_family("anteroom_watch_listener_backlog"));
  of_each([](const RoomGroup& group) { return group.fullest().log.limit(); });
  metrics.begin(metric_family("anteroom_watch_accept_queue_depth"));
  of_each(most_waiting);
  metrics.begin(metric_family("anteroom_watch_accept_queue_depth_max_since_scrape"));
  of_each(peak_since_scrape);
  metrics.begin(metric_family("anteroom_watch_listener_drops_total"));
  of_each([](const RoomGroup& group) { return static_cast<double>(group.drops()); });
  metrics.begin(metric_family("anteroom_watch_listener_sk_drops_total"));
  of_each([](const RoomGroup& group) { return static_cast<double>(group.sk_drops()); });
  // As the library does, of the namespace that is watched: what the kernel has counted since it was made.
  if (const std::optional<ListenCounters> counted = listen_counters()) {
    metrics.begin(metric_family("anteroom_netns_listen_overflows_total"));
    metrics.add(static_cast<double>(counted->overflows));
    metrics.begin(metric_family("anteroom_netns_listen_drops_total"));
    metrics.add(static_cast<double>(counted->drops));
  }
  metrics.begin(metric_family("anteroom_watch_interval_seconds"));
  if (state.interval_mean_s > 0) metrics.add(state.interval_mean_s);  // else there was one sample as yet
  metrics.begin(metric_family("anteroom_watch_cpu_ratio"));
  if (state.took.count() > 0) metrics.add(state.cpu_share);
  return metrics.take();
}

std::string http_answer(std::string_view request, const std::function<std::string()>& metrics) {
  constexpr std::string_view kPlain = "text/plain; charset=utf-8";
  const std::string_view line = request.substr(0, request.find("\r\n"));
  const std::size_t space = line.find(' ');
  const std::size_t second = space == line.npos ? line.npos : line.find(' ', space + 1);
  if (second == line.npos || !line.substr(second + 1).starts_with("HTTP/1."))
    return answer("400 Bad Request", kPlain, "this is no HTTP\n");
  const std::string_view target = line.substr(space + 1, second - space - 1);
  const std::string_view path = target.substr(0, target.find('?'));
  if (path != "/metrics") return answer("404 Not Found", kPlain, "there is only /metrics\n");
  if (line.substr(0, space) != "GET")
    return answer("405 Method Not Allowed\r\nAllow: GET", kPlain, "only GET\n");
  return answer("200 OK", "text/plain; version=0.0.4; charset=utf-8", metrics());
}

MetricsServer::MetricsServer(Reactor& reactor, Listener listener, std::function<std::string()> metrics)
    : reactor_(reactor),
      metrics_(std::move(metrics)),
      deadline_(reactor, [this] { hang_up_on_the_silent(); }),
      acceptor_(
          reactor, std::move(listener),
          {.open = [this](Connection& connection) { open(connection); },
           .data = [this](Connection& connection, std::string_view bytes) { hear(connection, bytes); },
           .drained = {},
           .closed = [this](Connection& connection, std::error_code) { scrapers_.erase(connection.id()); }}) {
}

void MetricsServer::open(Connection& connection) {
  if (scrapers_.size() >= kScrapersMax) {
    connection.abort();
    return;
  }
  scrapers_[connection.id()] = {.said = {}, .since = reactor_.now()};
  if (!deadline_.is_armed()) deadline_.arm_every(std::chrono::seconds(1));
}

void MetricsServer::hear(Connection& connection, std::string_view bytes) {
  const auto scraper = scrapers_.find(connection.id());
  if (scraper == scrapers_.end()) return;
  std::string& said = scraper->second.said;
  said += bytes;
  if (said.find("\r\n\r\n") == said.npos) {
    if (said.size() > kRequestBytesMax) connection.abort();
    return;
  }
  // Who is answered stays in the list until it has gone, or is hung up on.
  (void)connection.send(http_answer(said, metrics_));
  connection.close();
}

void MetricsServer::hang_up_on_the_silent() {
  for (const auto& [id, scraper] : scrapers_) {
    if (reactor_.now() - scraper.since < kScraperPatience) continue;
    if (auto* const connection = reactor_.find<Connection>(id)) connection->abort();
  }
  if (scrapers_.empty()) deadline_.cancel();
}

}  // namespace anteroom::tool
