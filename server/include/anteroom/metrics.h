#pragma once
#include <anteroom/acceptor.h>
#include <anteroom/export.h>
#include <anteroom/reactor.h>
#include <anteroom/reactor_pool.h>

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ANTEROOM_EXPORT anteroom {

/// What a scrape is to be answered with, as its Content-Type.
inline constexpr std::string_view kPrometheusContentType = "text/plain; version=0.0.4; charset=utf-8";

/// A label that every sample of a text shall have, beside its `thread`.
struct MetricLabel {
  std::string name;   ///< [a-zA-Z_][a-zA-Z0-9_]*, neither "thread" nor "le"
  std::string value;  ///< any UTF-8; escaped as the format has it
};

/// The counts of each reactor and acceptor in Prometheus' text exposition format 0.0.4: the families of
/// kMetricCatalogue (metric_catalogue.h) that have the label `thread` or begin with anteroom_netns_. A family
/// has a sample of each thread, thread="0" and so on, whose value is known. A histogram's bound `le` is the
/// power of two above what the bucket holds: what was recorded is whole µs or ms, rounded down.
///
/// The namespace's ListenOverflows and ListenDrops come last, once and without a thread, if they can be read
/// (40 µs).
ANTEROOM_EXPORT std::string prometheus_text(std::span<const ReactorPool::ThreadState> threads,
                                            const std::vector<MetricLabel>& labels = {});

/// Of one reactor with one door, from its own thread.
ANTEROOM_EXPORT std::string prometheus_text(const Reactor& reactor, const Acceptor& acceptor,
                                            const std::vector<MetricLabel>& labels = {});

}  // namespace anteroom
