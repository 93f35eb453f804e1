#pragma once
#include <anteroom/export.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace ANTEROOM_EXPORT anteroom {

enum class MetricType : std::uint8_t { kCounter, kGauge, kHistogram };

/// A metric family: what a name means, wherever it is exported.
struct MetricFamily {
  std::string_view name;  ///< ends in its unit, if it has one; a counter's ends in _total behind that
  MetricType type;
  std::string_view unit;  ///< a base unit of Prometheus (seconds, bytes, ratio); empty for a number of things
  std::string_view
      labels;  ///< their names, with a space in between; prometheus_text() adds those of its caller
  std::string_view help;  ///< one line for # HELP, without a backslash
};

/// Every family that the library (prometheus_text()) and `anteroom watch --prometheus` write. The library's
/// are about its own process, by thread. Those of the watch begin with anteroom_watch_: they are about any
/// server, seen from outside. Both write those that begin with anteroom_netns_. A value that is not known is
/// left out. server/SERVICES.md has the same table.
inline constexpr MetricFamily kMetricCatalogue[] = {
    // ---- The reactor
    {"anteroom_reactor_turns_total", MetricType::kCounter, "", "thread", "Turns: passes of the event loop."},
    {"anteroom_reactor_events_total", MetricType::kCounter, "", "thread",
     "Events that epoll_wait(2) returned."},
    {"anteroom_reactor_tasks_total", MetricType::kCounter, "", "thread", "Posted tasks that were run."},
    {"anteroom_reactor_timers_fired_total", MetricType::kCounter, "", "thread", "Timers that fired."},
    {"anteroom_reactor_channels", MetricType::kGauge, "", "thread",
     "Open channels: connections in any state, listeners, signals."},
    {"anteroom_reactor_turn_duration_seconds", MetricType::kHistogram, "seconds", "thread",
     "Time from the return of epoll_wait(2) to the end of the turn, in one turn of 64."},
    // ---- Its connections
    {"anteroom_connections_opened_total", MetricType::kCounter, "", "thread",
     "Connections that were opened, accepted and outgoing."},
    {"anteroom_connections_closed_total", MetricType::kCounter, "", "thread",
     "Connections that were opened and have ended."},
    {"anteroom_connections_timed_out_total", MetricType::kCounter, "", "thread",
     "Connections that ended at one of their deadlines, the deadline of a connect included."},
    {"anteroom_connections", MetricType::kGauge, "", "thread", "Open connections, accepted and outgoing."},
    {"anteroom_received_bytes_total", MetricType::kCounter, "bytes", "thread",
     "Bytes that connections received."},
    {"anteroom_sent_bytes_total", MetricType::kCounter, "bytes", "thread",
     "Bytes of connections that the kernel took to send."},
    {"anteroom_buffered_bytes", MetricType::kGauge, "bytes", "thread",
     "Memory that holds output until the kernel takes it."},
    // ---- The accept loop
    {"anteroom_connections_accepted_total", MetricType::kCounter, "", "thread",
     "Connections that accept4(2) returned, refused and shed ones included."},
    {"anteroom_connections_refused_total", MetricType::kCounter, "", "thread",
     "Accepted connections that the admission limits refused."},
    {"anteroom_connections_shed_total", MetricType::kCounter, "", "thread",
     "Accepted connections that were closed because they had waited too long in an overloaded accept queue."},
    {"anteroom_accepted_connections", MetricType::kGauge, "", "thread",
     "Connections that were accepted here and have not ended."},
    {"anteroom_accept_wakeups_total", MetricType::kCounter, "", "thread", "Runs of the accept loop."},
    {"anteroom_accept_budget_exhausted_total", MetricType::kCounter, "", "thread",
     "Runs of the accept loop that ended at its budget, with connections left in the accept queue."},
    {"anteroom_accept_aborted_total", MetricType::kCounter, "", "thread",
     "Calls of accept4(2) that failed with an error of the connection, not of the listener: ECONNABORTED, "
     "EPROTO, EPERM, and those of the network."},
    {"anteroom_accept_backoffs_total", MetricType::kCounter, "", "thread",
     "Times that accepting paused after an error: no descriptors or memory, a listener that another holder "
     "has "
     "shut down, or a whole run in which accept4(2) failed for every connection (reported as ECONNABORTED)."},
    {"anteroom_accept_queue_wait_seconds", MetricType::kHistogram, "seconds", "thread",
     "Time that a connection waited in the accept queue, of one in AcceptorOptions::sample_wait_every, in "
     "steps of a kernel tick."},
    {"anteroom_accept_queue_wait_max_seconds", MetricType::kGauge, "seconds", "thread",
     "The longest wait in the accept queue that was measured, in steps of a kernel tick."},
    // ---- Its listener, where the kernel shows the accept queue
    {"anteroom_accept_queue_depth", MetricType::kGauge, "", "thread",
     "Connections that wait to be accepted."},
    {"anteroom_accept_queue_depth_max", MetricType::kGauge, "", "thread",
     "The most connections that the accept loop has found waiting since the acceptor was made."},
    {"anteroom_listener_backlog", MetricType::kGauge, "", "thread",
     "The backlog in force; the kernel queues one connection more."},
    {"anteroom_backlog_increases_total", MetricType::kCounter, "", "thread",
     "Times that self-tuning raised the backlog."},
    {"anteroom_backlog_wanted", MetricType::kGauge, "", "thread",
     "The backlog that self-tuning would set if net.core.somaxconn allowed it; 0 while somaxconn is enough."},
    {"anteroom_listener_sk_drops_total", MetricType::kCounter, "", "thread",
     "sk_drops of the listening socket since it was made (modulo 2^32): SYNs and last ACKs that were "
     "dropped, "
     "mostly because the accept queue was full; but also bare ACKs under TCP_DEFER_ACCEPT, resets of "
     "half-open connections, and SYNs that the filter of a drain drops."},
    // ---- The network namespace
    {"anteroom_netns_listen_overflows_total", MetricType::kCounter, "", "",
     "ListenOverflows of the network namespace since it was made: SYNs and last ACKs that met a full accept "
     "queue at any listener; each one that is sent again counts again."},
    {"anteroom_netns_listen_drops_total", MetricType::kCounter, "", "",
     "ListenDrops of the network namespace since it was made: ListenOverflows, and SYNs and last ACKs that "
     "were dropped for other reasons, such as a full SYN queue without SYN cookies."},
    // ---- What `anteroom watch` sees of any server
    {"anteroom_watch_listener_info", MetricType::kGauge, "", "address port pid process",
     "Always 1. pid and process are the holder's with the lowest pid, and empty if it is not known."},
    {"anteroom_watch_listener_sockets", MetricType::kGauge, "", "address port",
     "Listening sockets that share the address (SO_REUSEPORT)."},
    {"anteroom_watch_listener_backlog", MetricType::kGauge, "", "address port",
     "The backlog in force, of several sockets that of the fullest; the kernel queues one connection more."},
    {"anteroom_watch_accept_queue_depth", MetricType::kGauge, "", "address port",
     "Connections that wait to be accepted, of several sockets at the fullest, in the last sample."},
    {"anteroom_watch_accept_queue_depth_max_since_scrape", MetricType::kGauge, "", "address port",
     "The most connections that any sample since the previous scrape found waiting, of several sockets at "
     "one; what is shorter than the time between two samples may be missed."},
    {"anteroom_watch_listener_drops_total", MetricType::kCounter, "", "address port",
     "SYNs and last ACKs dropped at the address since the watch began, by all sockets that it has had: of "
     "sk_drops those that ListenDrops has counted, too."},
    {"anteroom_watch_listener_sk_drops_total", MetricType::kCounter, "", "address port",
     "sk_drops of the address since the watch began, by all sockets that it has had: those drops, and also "
     "bare ACKs under TCP_DEFER_ACCEPT, resets of half-open connections, and what a socket filter drops."},
    {"anteroom_watch_interval_seconds", MetricType::kGauge, "seconds", "",
     "Mean time between two samples since the watch began."},
    {"anteroom_watch_cpu_ratio", MetricType::kGauge, "ratio", "",
     "CPU time that the watch takes, as a share of one processor, since it began."},
};

/// Has no definition: a constant expression that comes to it does not compile.
ANTEROOM_EXPORT void metric_is_not_in_the_catalogue();

/// The family of that name. A name that the catalogue does not have does not compile.
consteval const MetricFamily& metric_family(std::string_view name) {
  for (const MetricFamily& family : kMetricCatalogue) {
    if (family.name == name) return family;
  }
  metric_is_not_in_the_catalogue();
  return kMetricCatalogue[0];
}

/// counter, gauge or histogram.
ANTEROOM_EXPORT std::string_view metric_type_name(MetricType type) noexcept;

/// The two lines before the samples of a family: # HELP and # TYPE.
ANTEROOM_EXPORT std::string metric_header(const MetricFamily& family);

/// A label's value as the text format has it: a backslash, a quote and a line break are escaped, and what is
/// no UTF-8, for which Prometheus refuses the whole scrape, becomes U+FFFD.
ANTEROOM_EXPORT std::string escaped_label_value(std::string_view value);

}  // namespace anteroom
