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

/// A label's value: a backslash, a quote and a newline are escaped, as the format has it.
std::string escaped_label(std::string_view value) {
  std::string escaped;
  for (const char c : value) {
    if (c == '\\' || c == '"') escaped += '\\';
    escaped += c == '\n' ? std::string_view("\\n") : std::string_view(&c, 1);
  }
  return escaped;
}

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
  std::string_view name;
  std::string_view type;
  std::string_view help;
  std::optional<double> (*value)(const State&);
};

/// A family of which each thread has a histogram.
struct HistogramFamily {
  std::string_view name;
  std::string_view help;
  const Log2Histogram& (*value)(const State&);
  double per_second;    // of the unit that was recorded
  std::size_t buckets;  // so many bounds; what lies beyond is in +Inf. Fixed: a series must not come and go
};

template <class Number>
double number(Number n) noexcept {
  return static_cast<double>(n);
}

constexpr std::string_view kCounter = "counter";
constexpr std::string_view kGauge = "gauge";

constexpr Family kFamilies[] = {
    // The loop.
    {"anteroom_turns_total", kCounter, "Turns of the loop.",
     [](const State& s) { return std::optional(number(s.loop.turns)); }},
    {"anteroom_events_total", kCounter, "Events that epoll told.",
     [](const State& s) { return std::optional(number(s.loop.events)); }},
    {"anteroom_tasks_total", kCounter, "Posted tasks that were run.",
     [](const State& s) { return std::optional(number(s.loop.tasks)); }},
    {"anteroom_timers_total", kCounter, "Timers that fired.",
     [](const State& s) { return std::optional(number(s.loop.timers)); }},
    {"anteroom_connections_opened_total", kCounter, "Connections that were opened, in and out.",
     [](const State& s) { return std::optional(number(s.loop.connections_opened)); }},
    {"anteroom_connections_closed_total", kCounter, "Of those, connections that have ended.",
     [](const State& s) { return std::optional(number(s.loop.connections_closed)); }},
    {"anteroom_connections_timed_out_total", kCounter, "Connections that ended at a deadline of theirs.",
     [](const State& s) { return std::optional(number(s.loop.timed_out)); }},
    {"anteroom_connections", kGauge, "Connections that are open.",
     [](const State& s) { return std::optional(number(s.loop.connections_open)); }},
    {"anteroom_channels", kGauge, "Descriptors of the loop: connections in any state, listeners, signals.",
     [](const State& s) { return std::optional(number(s.loop.channels)); }},
    {"anteroom_received_bytes_total", kCounter, "Bytes that connections have received.",
     [](const State& s) { return std::optional(number(s.loop.received_bytes)); }},
    {"anteroom_sent_bytes_total", kCounter, "Bytes that connections have given to the kernel.",
     [](const State& s) { return std::optional(number(s.loop.sent_bytes)); }},
    {"anteroom_buffered_bytes", kGauge, "Memory that holds output which waits.",
     [](const State& s) { return std::optional(number(s.loop.buffered_bytes)); }},
    // The door.
    {"anteroom_accepted_total", kCounter, "Guests accepted, admitted or not.",
     [](const State& s) { return std::optional(number(s.acceptor.accepted)); }},
    {"anteroom_aborted_total", kCounter, "Guests whose connection was dead when they were to be accepted.",
     [](const State& s) { return std::optional(number(s.acceptor.aborted)); }},
    {"anteroom_refused_total", kCounter, "Guests turned away by the admission.",
     [](const State& s) { return std::optional(number(s.acceptor.refused)); }},
    {"anteroom_shed_total", kCounter, "Guests turned away because the queue was overloaded.",
     [](const State& s) { return std::optional(number(s.acceptor.shed)); }},
    {"anteroom_rests_total", kCounter, "Times that accepting stopped for want of descriptors or memory.",
     [](const State& s) { return std::optional(number(s.acceptor.rests)); }},
    {"anteroom_looks_total", kCounter, "Times that the acceptor came to the door.",
     [](const State& s) { return std::optional(number(s.acceptor.looks)); }},
    {"anteroom_carried_over_total", kCounter, "Looks that ended at the budget, with guests still waiting.",
     [](const State& s) { return std::optional(number(s.acceptor.carried_over)); }},
    {"anteroom_guests", kGauge, "Connections that came in by the door and are open.",
     [](const State& s) { return std::optional(number(s.open_connections)); }},
    {"anteroom_queue_wait_longest_seconds", kGauge, "The longest seen wait in the listen queue.",
     [](const State& s) {
       return std::optional(std::chrono::duration<double>(s.acceptor.longest_wait).count());
     }},
    {"anteroom_backlog_tunings_total", kCounter, "Times that self-tuning made the backlog larger.",
     [](const State& s) { return std::optional(number(s.acceptor.tunings)); }},
    {"anteroom_backlog_wanted", kGauge,
     "The backlog that self-tuning would take but that net.core.somaxconn does not allow; 0 if it does.",
     [](const State& s) { return std::optional(number(s.acceptor.wanted_beyond_somaxconn)); }},
    // The waiting room, where the kernel tells of it.
    {"anteroom_listener_waiting", kGauge, "Guests that wait to be accepted.",
     [](const State& s) { return s.queue ? std::optional(number(s.queue->depth)) : std::nullopt; }},
    {"anteroom_listener_waiting_peak", kGauge, "The most seen waiting since the listener was made.",
     [](const State& s) { return s.queue ? std::optional(number(s.queue->peak)) : std::nullopt; }},
    {"anteroom_listener_backlog", kGauge, "The backlog in force; one more is admitted.",
     [](const State& s) { return s.queue ? std::optional(number(s.queue->limit)) : std::nullopt; }},
    {"anteroom_listener_drops_total", kCounter, "Handshakes of this listener that were thrown away.",
     [](const State& s) { return s.queue ? std::optional(number(s.queue->drops)) : std::nullopt; }},
};

constexpr HistogramFamily kHistograms[] = {
    {"anteroom_turn_seconds", "How long a turn took, from its events to its end; one turn in 64 is timed.",
     [](const State& s) -> const Log2Histogram& { return s.loop.turn_us; }, 1e6, 25},  // to 17 s
    {"anteroom_queue_wait_seconds", "How long guests waited in the listen queue; of a sample of them.",
     [](const State& s) -> const Log2Histogram& { return s.acceptor.wait_ms; }, 1e3, 18},  // to 131 s
};

/// The text as it grows.
class Writer {
 public:
  explicit Writer(const std::vector<MetricLabel>& labels) {
    for (const MetricLabel& label : labels) {
      assert(is_label_name(label.name));
      labels_ += fmt::format("{}=\"{}\",", label.name, escaped_label(label.value));
    }
  }

  void begin(std::string_view name, std::string_view type, std::string_view help) {
    add("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
  }

  void write(const Family& family, std::span<const State> threads) {
    begin(family.name, family.type, family.help);
    for (std::size_t thread = 0; thread < threads.size(); ++thread) {
      if (const std::optional<double> value = family.value(threads[thread]))
        add("{}{{{}thread=\"{}\"}} {}\n", family.name, labels_, thread, *value);
    }
  }

  void write(const HistogramFamily& family, std::span<const State> threads) {
    begin(family.name, "histogram", family.help);
    for (std::size_t thread = 0; thread < threads.size(); ++thread) {
      const Log2Histogram& histogram = family.value(threads[thread]);
      const auto bucket = [&](double bound, std::uint64_t count) {
        add("{}_bucket{{{}thread=\"{}\",le=\"{}\"}} {}\n", family.name, labels_, thread,
            bound == std::numeric_limits<double>::infinity() ? "+Inf" : fmt::to_string(bound), count);
      };
      std::uint64_t seen = 0;
      for (std::size_t i = 0; i < family.buckets; ++i) {
        seen += histogram.buckets()[i];
        bucket(number(std::uint64_t{1} << i) / family.per_second, seen);
      }
      bucket(std::numeric_limits<double>::infinity(), histogram.count());
      add("{}_sum{{{}thread=\"{}\"}} {}\n", family.name, labels_, thread,
          number(histogram.sum()) / family.per_second);
      add("{}_count{{{}thread=\"{}\"}} {}\n", family.name, labels_, thread, histogram.count());
    }
  }

  /// Of the whole network namespace.
  void write(std::string_view name, std::string_view help, std::uint64_t value) {
    begin(name, kCounter, help);
    if (labels_.empty()) return add("{} {}\n", name, value);
    add("{}{{{}}} {}\n", name, std::string_view(labels_).substr(0, labels_.size() - 1), value);
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
  for (const Family& family : kFamilies) writer.write(family, threads);
  for (const HistogramFamily& family : kHistograms) writer.write(family, threads);
  if (const std::optional<ListenCounters> counted = listen_counters()) {
    writer.write("anteroom_listen_overflows_total",
                 "ListenOverflows of the network namespace: handshakes that met a full queue.",
                 counted->overflows);
    writer.write("anteroom_listen_drops_total",
                 "ListenDrops of the network namespace: those, and what was thrown away for other reasons.",
                 counted->drops);
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
