#include "watch_document.h"

#include <anteroom/version.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/utsname.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "watch_view.h"

namespace anteroom::tool {
namespace {

using bench::Counter;
using bench::RoomAdvice;

constexpr std::size_t kProfileStallsMax = 1000;

double as_seconds(std::chrono::nanoseconds time) { return std::chrono::duration<double>(time).count(); }

Json watch_machine() {
  utsname name{};
  ::uname(&name);
  return {{"kernel", fmt::format("{} {}", name.sysname, name.release)}, {"architecture", name.machine}};
}

Json null_unless(bool is_known, double value) { return is_known ? Json(value) : Json(nullptr); }

/// "TcpExt.ListenOverflows" is listen_overflows here. null is what this kernel does not count.
Json kernel_json(const bench::KernelCounters& counted) {
  const auto count = [&](Counter counter) {
    return counted.is_known(counter) ? Json(counted[counter]) : Json(nullptr);
  };
  return {{"listen_overflows", count(Counter::kListenOverflows)},
          {"listen_drops", count(Counter::kListenDrops)},
          {"passive_opens", count(Counter::kPassiveOpens)},
          {"syncookies_sent", count(Counter::kSyncookiesSent)},
          {"syncookies_failed", count(Counter::kSyncookiesFailed)},
          {"syn_queue_full_drops", count(Counter::kReqQFullDrop)},
          {"embryonic_resets", count(Counter::kEmbryonicRsts)}};
}

/// From the counters, if they are there. Of the half seconds in which anybody came nothing is known if there
/// was none.
Json arrivals_json(const WatchState& state) {
  const bench::ArrivalLog& arrivals = state.arrivals;
  const bool is_known = arrivals.has_begun() && state.counted.is_known(Counter::kPassiveOpens) &&
                        state.counted.is_known(Counter::kListenOverflows);
  return {{"per_second", null_unless(is_known, arrivals.per_second())},
          {"busy_per_second", null_unless(is_known && arrivals.came() > 0, arrivals.busy_per_second())},
          {"dispersion", null_unless(is_known && arrivals.knows_dispersion(), arrivals.dispersion())}};
}

Json processes_json(const WatchedRoom& room) {
  Json processes = Json::array();
  for (const WatchedProcess& process : room.processes)
    processes.push_back({{"pid", process.pid}, {"name", printable(process.name)}});
  return processes;
}

Json history_json(const bench::RoomHistory& history) {
  Json full = Json::array();
  for (const float slot : history.slots())
    full.push_back(slot < 0 ? Json(nullptr) : Json(std::round(static_cast<double>(slot) * 1e4) / 1e4));
  return {{"step_s", as_seconds(history.step())}, {"full", std::move(full)}};
}

Json stall_json(const std::optional<bench::RoomStall>& stall) {
  if (!stall) return nullptr;
  return {{"at_s", stall->at_s},       {"length_s", stall->length_s}, {"error_s", stall->error_s},
          {"came", stall->came},       {"drops", stall->drops},       {"turned_away", stall->turned_away},
          {"samples", stall->samples}, {"goes_on", stall->goes_on},   {"began_before", stall->began_before}};
}

/// What a queue grew by from sample to sample needs two of them.
bool is_rate_known(const WatchedRoom& room, const RoomAdvice& advice) {
  return advice.rate_source != bench::RateSource::kGrowth || room.log.watched().count() > 0;
}

Json advice_json(const WatchState& state, const RoomGroup& group, const WatchedRoom& room,
                 const RoomAdvice& advice) {
  return {{"verdict", bench::name(advice.verdict)},
          {"backlog", advice.backlog ? Json(*advice.backlog) : Json(nullptr)},
          {"text", advice_in_words(state, group, {.room = &room, .advice = advice})},
          {"law",
           {{"rate", null_unless(is_rate_known(room, advice), advice.rate)},
            {"stall_s", advice.longest ? Json(advice.stall_s) : Json(nullptr)},
            {"stall_error_s", advice.longest ? Json(advice.stall_error_s) : Json(nullptr)},
            {"burst", advice.burst},
            {"needed", advice.longest ? Json(advice.needed) : Json(nullptr)}}},
          {"error_places", null_unless(advice.longest.has_value(), advice.error_places)},
          {"drops_are_at_most", advice.is_at_most}};
}

Json listener_json(const WatchState& state, const RoomGroup& group, const WatchedRoom& room,
                   const RoomAdvice& advice) {
  const bench::ListeningSocket& socket = room.socket;
  const bench::RoomLog& log = room.log;
  const double seconds = as_seconds(log.watched());
  const bool has_time = seconds > 0;  // between two samples
  return {{"address", socket.address.to_string()},
          {"port", socket.address.port()},
          {"family", socket.address.family() == AF_INET6 ? "IPv6" : "IPv4"},
          {"v6_only", socket.is_v6_only},
          {"cookie", fmt::to_string(socket.cookie)},
          {"uid", socket.uid},
          {"processes", processes_json(room)},
          {"sockets_at_address", group.members()},
          {"gone", room.is_gone},
          {"samples", log.samples()},
          {"watched_s", seconds},
          {"depth", log.depth()},
          {"limit", log.limit()},
          {"bound_by", bound_by(log.limit(), state.backlog_max)},
          {"peak", log.peak()},
          {"drops", log.drops()},
          {"drops_per_s", has_time ? Json(static_cast<double>(log.drops()) / seconds) : Json(nullptr)},
          {"sk_drops", log.sk_drops()},
          {"sk_drops_total", log.sk_drops_total()},
          {"full_s", null_unless(has_time, log.full_s())},
          {"longest_without_accept_s", null_unless(has_time, advice.longest ? advice.longest->length_s : 0)},
          {"longest_stall", stall_json(advice.longest)},
          {"stalls", log.stalls_seen()},
          {"rate",
           {{"per_second", null_unless(is_rate_known(room, advice), advice.rate)},
            {"from", bench::name(advice.rate_source)},
            {"is_lower_bound", advice.rate_is_lower_bound},
            {"at_most", advice.rate_at_most > 0 ? Json(advice.rate_at_most) : Json(nullptr)}}},
          {"history", history_json(log.history())},
          {"advice", advice_json(state, group, room, advice)}};
}

}  // namespace

Json watch_document(const WatchState& state) {
  Json listeners = Json::array();
  for (const RoomGroup& group : state.rooms.groups(true)) {
    for (const WatchedRoom* room : group.rooms)
      listeners.push_back(listener_json(state, group, *room, advise(state, group, *room)));
  }
  Json broken = state.broken_rules;
  return {
      {"schema", "anteroom.watch/1"},
      {"version", ANTEROOM_VERSION_STRING},
      {"started", fmt::format("{:%FT%TZ}", fmt::gmtime(std::chrono::system_clock::to_time_t(state.started)))},
      {"took_s", as_seconds(state.took)},
      {"command", printable(state.command.command_line, 4096)},
      {"interrupted", state.interrupted},
      {"interval",
       {{"mean_s", null_unless(state.interval_mean_s > 0, state.interval_mean_s)},
        {"max_s", null_unless(state.interval_max_s > 0, state.interval_max_s)}}},
      {"samples", state.rooms.looks()},
      {"cpu_share", state.cpu_share},
      {"machine", watch_machine()},
      {"somaxconn", state.backlog_max},
      {"kernel", kernel_json(state.counted)},
      {"arrivals", arrivals_json(state)},
      {"exact", {"kernel", "sk_drops", "sk_drops_total"}},
      {"hidden_processes", state.hidden},
      {"broken_rules", std::move(broken)},
      {"notes", state.notes},
      {"listeners", std::move(listeners)}};
}

Json watch_profile(const WatchState& state, const RoomGroup& group) {
  const RoomAdvice advice = advise(state, group).advice;
  const double for_s = as_seconds(state.took);
  const double rate = advice.rate * group.members();
  if (rate <= 0 || for_s <= 0) return nullptr;
  std::vector<bench::RoomStall> all;
  for (const WatchedRoom* room : group.rooms) {
    // One sample says that somebody waited, not that nobody was accepted.
    for (const bench::RoomStall& stall : room->log.stalls()) {
      if (stall.samples > 1) all.push_back(stall);
    }
  }
  std::ranges::sort(all, std::greater<>(), &bench::RoomStall::length_s);
  if (all.size() > kProfileStallsMax) all.resize(kProfileStallsMax);
  std::ranges::sort(all, {}, &bench::RoomStall::at_s);
  Json stalls = Json::array();
  for (const bench::RoomStall& stall : all)
    stalls.push_back({{"at_s", std::max(stall.at_s, 0.0)}, {"length_s", std::min(stall.length_s, 60.0)}});
  return {
      {"schema", "anteroom.profile/1"},
      {"rate", std::max(rate, 1.0)},
      {"dispersion", advice.rate_source == bench::RateSource::kNamespace ? state.arrivals.dispersion() : 1.0},
      {"for_s", for_s},
      {"stalls", std::move(stalls)}};
}

}  // namespace anteroom::tool
