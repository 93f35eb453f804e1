#include <anteroom/metric_catalogue.h>
#include <anteroom/metrics.h>
#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <optional>
#include <utility>

namespace anteroom {
namespace {

using State = ReactorPool::ThreadState;

[[maybe_unused]] bool is_label_name(std::string_view name) noexcept {
  const auto may_begin = [](char c) { return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  if (name.empty() || !may_begin(name.front()) || name == "thread" || name == "le") return false;
  for (const char c : name) {
    if (!may_begin(c) && !(c >= '0' && c <= '9')) return false;
  }
  return true;
}

/// A family of which each thread has one number, or none.
struct Family {
  const MetricFamily& family;
  std::optional<double> (*value)(const State&);
};

/// A family of which each thread has a histogram.
struct HistogramFamily {
  const MetricFamily& family;
  const Log2Histogram& (*value)(const State&);
  double per_second;    // of the unit that was recorded
  std::size_t buckets;  // so many bounds; what lies beyond is in +Inf. Fixed: a series must not come and go
};

template <class Number>
std::optional<double> number(Number n) noexcept {
  return static_cast<double>(n);
}

/// Of the accept queue, which the kernel does not show of every listener.
std::optional<double> of_queue(const State& state, double (*value)(const ListenQueue&)) noexcept {
  return state.queue ? std::optional(value(*state.queue)) : std::nullopt;
}

constexpr Family kFamilies[] = {
    {metric_family("anteroom_reactor_turns_total"), [](const State& s) { return number(s.loop.turns); }},
    {metric_family("anteroom_reactor_events_total"), [](const State& s) { return number(s.loop.events); }},
    {metric_family("anteroom_reactor_tasks_total"), [](const State& s) { return number(s.loop.tasks); }},
    {metric_family("anteroom_reactor_timers_fired_total"),
     [](const State& s) { return number(s.loop.timers); }},
    {metric_family("anteroom_reactor_channels"), [](const State& s) { return number(s.loop.channels); }},
    {metric_family("anteroom_connections_opened_total"),
     [](const State& s) { return number(s.loop.connections_opened); }},
    {metric_family("anteroom_connections_closed_total"),
     [](const State& s) { return number(s.loop.connections_closed); }},
    {metric_family("anteroom_connections_timed_out_total"),
     [](const State& s) { return number(s.loop.timed_out); }},
    {metric_family("anteroom_connections"), [](const State& s) { return number(s.loop.connections_open); }},
    {metric_family("anteroom_received_bytes_total"),
     [](const State& s) { return number(s.loop.received_bytes); }},
    {metric_family("anteroom_sent_bytes_total"), [](const State& s) { return number(s.loop.sent_bytes); }},
    {metric_family("anteroom_buffered_bytes"), [](const State& s) { return number(s.loop.buffered_bytes); }},
    {metric_family("anteroom_connections_accepted_total"),
     [](const State& s) { return number(s.acceptor.accepted); }},
    {metric_family("anteroom_connections_refused_total"),
     [](const State& s) { return number(s.acceptor.refused); }},
    {metric_family("anteroom_connections_shed_total"),
     [](const State& s) { return number(s.acceptor.shed); }},
    {metric_family("anteroom_accepted_connections"),
     [](const State& s) { return number(s.open_connections); }},
    {metric_family("anteroom_accept_wakeups_total"), [](const State& s) { return number(s.acceptor.looks); }},
    {metric_family("anteroom_accept_budget_exhausted_total"),
     [](const State& s) { return number(s.acceptor.carried_over); }},
    {metric_family("anteroom_accept_aborted_total"),
     [](const State& s) { return number(s.acceptor.aborted); }},
    {metric_family("anteroom_accept_backoffs_total"),
     [](const State& s) { return number(s.acceptor.rests); }},
    {metric_family("anteroom_accept_queue_wait_max_seconds"),
     [](const State& s) {
       const bool is_measured = s.acceptor.wait_ms.count() > 0 || s.acceptor.longest_wait.count() > 0;
       return is_measured ? number(std::chrono::duration<double>(s.acceptor.longest_wait).count())
                          : std::nullopt;
     }},
    {metric_family("anteroom_accept_queue_depth"),
     [](const State& s) {
       return of_queue(s, [](const ListenQueue& queue) -> double { return queue.depth; });
     }},
    {metric_family("anteroom_accept_queue_depth_max"),
     [](const State& s) {
       return of_queue(s, [](const ListenQueue& queue) -> double { return queue.peak; });
     }},
    {metric_family("anteroom_listener_backlog"),
     [](const State& s) {
       return of_queue(s, [](const ListenQueue& queue) -> double { return queue.limit; });
     }},
    {metric_family("anteroom_backlog_increases_total"),
     [](const State& s) { return number(s.acceptor.tunings); }},
    {metric_family("anteroom_backlog_wanted"),
     [](const State& s) {
       const bool is_self_tuning = s.acceptor.tuned_backlog > 0;
       return is_self_tuning ? number(s.acceptor.wanted_beyond_somaxconn) : std::nullopt;
     }},
    {metric_family("anteroom_listener_sk_drops_total"),
     [](const State& s) {
       return of_queue(s, [](const ListenQueue& queue) { return static_cast<double>(queue.drops); });
     }},
};

constexpr HistogramFamily kHistograms[] = {
    {metric_family("anteroom_reactor_turn_duration_seconds"),
     [](const State& s) -> const Log2Histogram& { return s.loop.turn_us; }, 1e6, 25},  // to 17 s
    {metric_family("anteroom_accept_queue_wait_seconds"),
     [](const State& s) -> const Log2Histogram& { return s.acceptor.wait_ms; }, 1e3, 18},  // to 131 s
};

/// The text as it grows.
class Writer {
 public:
  explicit Writer(const std::vector<MetricLabel>& labels) {
    for (const MetricLabel& label : labels) {
      assert(is_label_name(label.name));
      labels_ += fmt::format("{}=\"{}\",", label.name, escaped_label_value(label.value));
    }
  }

  void write(const Family& each, std::span<const State> threads) {
    text_ += metric_header(each.family);
    for (std::size_t thread = 0; thread < threads.size(); ++thread) {
      if (const std::optional<double> value = each.value(threads[thread]))
        add("{}{{{}thread=\"{}\"}} {}\n", each.family.name, labels_, thread, *value);
    }
  }

  void write(const HistogramFamily& each, std::span<const State> threads) {
    text_ += metric_header(each.family);
    const std::string_view name = each.family.name;
    for (std::size_t thread = 0; thread < threads.size(); ++thread) {
      const Log2Histogram& histogram = each.value(threads[thread]);
      const auto bucket = [&](double bound, std::uint64_t count) {
        add("{}_bucket{{{}thread=\"{}\",le=\"{}\"}} {}\n", name, labels_, thread,
            bound == std::numeric_limits<double>::infinity() ? "+Inf" : fmt::to_string(bound), count);
      };
      std::uint64_t seen = 0;
      for (std::size_t i = 0; i < each.buckets; ++i) {
        seen += histogram.buckets()[i];
        bucket(static_cast<double>(std::uint64_t{1} << i) / each.per_second, seen);
      }
      bucket(std::numeric_limits<double>::infinity(), histogram.count());
      add("{}_sum{{{}thread=\"{}\"}} {}\n", name, labels_, thread,
          static_cast<double>(histogram.sum()) / each.per_second);
      add("{}_count{{{}thread=\"{}\"}} {}\n", name, labels_, thread, histogram.count());
    }
  }

  /// Of the whole network namespace.
  void write(const MetricFamily& family, std::uint64_t value) {
    text_ += metric_header(family);
    if (labels_.empty()) return add("{} {}\n", family.name, value);
    add("{}{{{}}} {}\n", family.name, std::string_view(labels_).substr(0, labels_.size() - 1), value);
  }

  std::string take() { return std::move(text_); }

 private:
  template <class... Arguments>
  void add(fmt::format_string<const Arguments&...> format, const Arguments&... arguments) {
    fmt::format_to(std::back_inserter(text_), format, arguments...);
  }

  std::string labels_;  // each with a comma behind it
  std::string text_;
};

}  // namespace

std::string prometheus_text(std::span<const State> threads, const std::vector<MetricLabel>& labels) {
  Writer writer(labels);
  for (const Family& each : kFamilies) writer.write(each, threads);
  for (const HistogramFamily& each : kHistograms) writer.write(each, threads);
  if (const std::optional<ListenCounters> counted = listen_counters()) {
    writer.write(metric_family("anteroom_netns_listen_overflows_total"), counted->overflows);
    writer.write(metric_family("anteroom_netns_listen_drops_total"), counted->drops);
  }
  return writer.take();
}

std::string prometheus_text(const Reactor& reactor, const Acceptor& acceptor,
                            const std::vector<MetricLabel>& labels) {
  const State state{.loop = reactor.metrics(),
                    .acceptor = acceptor.stats(),
                    .queue = acceptor.queue(),
                    .open_connections = acceptor.open_connections()};
  return prometheus_text(std::span(&state, 1), labels);
}

}  // namespace anteroom
