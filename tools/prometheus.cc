#include "prometheus.h"

#include <anteroom/connection.h>
#include <anteroom/endpoint.h>
#include <anteroom/listen_queue.h>
#include <anteroom/metric_catalogue.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <exception>
#include <vector>

namespace anteroom::tool {
namespace {

// For the first byte, and between two: a scraper on the same machine takes a millisecond.
constexpr std::chrono::seconds kSilenceMax{5};
// Beyond so many the oldest is reset. One client that holds connections cannot keep a scraper out: it would
// have to open as many between the connect and the request of that one.
constexpr std::size_t kScrapersMax = 64;
// Of all together, with those that have been reset or answered and whose descriptors are still open.
constexpr std::size_t kConnectionsMax = 256;
constexpr std::size_t kRequestBytesMax = 8 * 1024;
constexpr std::string_view kPlain = "text/plain; charset=utf-8";

AcceptorOptions acceptor_options() {
  AcceptorOptions options;
  options.connection.first_byte_deadline = kSilenceMax;
  options.connection.idle_deadline = kSilenceMax;
  options.admission.connections_max = kConnectionsMax;
  options.admission.refusal = Refusal::kReset;
  return options;
}

bool is_equal_without_case(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  return std::ranges::equal(a, b, {}, lower, lower);
}

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t");
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

/// The values of the fields of that name in a request's head (RFC 9112, 5).
std::vector<std::string_view> fields_in(std::string_view request, std::string_view name) {
  std::vector<std::string_view> values;
  request = request.substr(0, request.find("\r\n\r\n"));
  for (std::size_t end = request.find("\r\n"); end != request.npos; end = request.find("\r\n")) {
    request.remove_prefix(end + 2);
    const std::string_view line = request.substr(0, request.find("\r\n"));
    const std::size_t colon = line.find(':');
    if (colon != line.npos && is_equal_without_case(line.substr(0, colon), name))
      values.push_back(trimmed(line.substr(colon + 1)));
  }
  return values;
}

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? std::string(name.data()) : std::string();
}

/// Whether a browser that was led here by somebody else's DNS name would not have sent this: an address, this
/// machine's own name, or localhost.
bool is_our_host(std::string_view host) {
  const bool is_bracketed = host.starts_with('[');
  const std::size_t colon =
      is_bracketed ? host.find(':', host.find(']') == host.npos ? 0 : host.find(']')) : host.rfind(':');
  const std::string_view port = colon == host.npos ? std::string_view("0") : host.substr(colon + 1);
  if (port.empty() || port.find_first_not_of("0123456789") != port.npos) return false;
  const std::string_view name = host.substr(0, colon);
  if (Endpoint::parse(fmt::format("{}:0", name)).has_value() && !name.starts_with("unix:")) return true;
  const std::string own = host_name();
  return is_equal_without_case(name, "localhost") || (!own.empty() && is_equal_without_case(name, own));
}

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
  const std::string_view line = request.substr(0, request.find("\r\n"));
  const std::size_t space = line.find(' ');
  const std::size_t second = space == line.npos ? line.npos : line.find(' ', space + 1);
  if (second == line.npos || !line.substr(second + 1).starts_with("HTTP/1."))
    return answer("400 Bad Request", kPlain, "this is no HTTP\n");
  const std::vector<std::string_view> hosts = fields_in(request, "Host");
  if (hosts.size() > 1) return answer("400 Bad Request", kPlain, "there is more than one Host\n");
  if (hosts.size() == 1 && !is_our_host(hosts.front()))
    return answer("421 Misdirected Request", kPlain,
                  "the Host is to be an address, localhost, or the name of this machine\n");
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
      acceptor_(
          reactor, std::move(listener),
          {.open = [this](Connection& connection) { open(connection); },
           .data = [this](Connection& connection, std::string_view bytes) { read(connection, bytes); },
           .drained = {},
           .closed = [this](Connection& connection, std::error_code) { requests_.erase(connection.id()); }},
          acceptor_options()) {}

void MetricsServer::open(Connection& connection) {
  try {
    requests_[connection.id()];
  } catch (const std::exception&) {
    connection.abort();
    return;
  }
  // Ids ascend (their upper half is the reactor's count of channels), so the first is the oldest.
  while (requests_.size() > kScrapersMax) {
    auto* const oldest = reactor_.find<Connection>(requests_.begin()->first);
    requests_.erase(requests_.begin());
    if (oldest != nullptr) oldest->abort();
  }
}

void MetricsServer::read(Connection& connection, std::string_view bytes) {
  const auto found = requests_.find(connection.id());
  if (found == requests_.end()) return;
  std::string& request = found->second;
  try {
    request += bytes.substr(0, kRequestBytesMax + 1);
    if (request.find("\r\n\r\n") == request.npos) {
      if (request.size() > kRequestBytesMax) connection.abort();
      return;
    }
    // It stays in the list until its end, so that a client that asks and reads nothing is reset in its turn.
    (void)connection.send(http_answer(request, metrics_));
    connection.close();
  } catch (const std::exception&) {
    connection.abort();
  }
}

}  // namespace anteroom::tool
