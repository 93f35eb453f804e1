#include <anteroom/bench/scenario.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <utility>

namespace anteroom::bench {
namespace {

using std::chrono::nanoseconds;

constexpr std::array<std::pair<ServerKind, std::string_view>, 4> kServerNames{
    {{ServerKind::kReactor, "reactor"},
     {ServerKind::kBlocking, "blocking"},
     {ServerKind::kThreads, "threads"},
     {ServerKind::kPool, "pool"}}};
constexpr std::array<std::pair<Arrival, std::string_view>, 3> kArrivalNames{
    {{Arrival::kBurst, "burst"}, {Arrival::kSteady, "steady"}, {Arrival::kPoisson, "poisson"}}};

struct Unit {
  std::string_view name;
  double nanoseconds;
};
constexpr std::array<Unit, 5> kUnits{{{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"m", 60e9}}};

template <class Names>
auto find_value(const Names& names, std::string_view text) noexcept
    -> std::optional<decltype(names[0].first)> {
  for (const auto& [value, value_name] : names) {
    if (value_name == text) return value;
  }
  return std::nullopt;
}

template <class Names, class Value>
std::string_view find_name(const Names& names, Value wanted) noexcept {
  for (const auto& [value, value_name] : names) {
    if (value == wanted) return value_name;
  }
  return "?";
}

template <class Number>
bool parse_number(std::string_view text, Number& number) noexcept {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc{} && end == text.data() + text.size();
}

template <class T>
bool take(const std::optional<T>& parsed, T& value) {
  if (parsed) value = *parsed;
  return parsed.has_value();
}

bool parse_field(Scenario& scenario, std::string_view key, std::string_view value) {
  if (key == "server") return take(parse_server_kind(value), scenario.server);
  if (key == "backlog") return parse_number(value, scenario.backlog);
  if (key == "threads") return parse_number(value, scenario.threads);
  if (key == "clients") return parse_number(value, scenario.clients);
  if (key == "arrival") return take(parse_arrival(value), scenario.arrival);
  if (key == "rate") return parse_number(value, scenario.rate);
  if (key == "stall") return take(parse_duration(value), scenario.stall);
  if (key == "stall_every") return take(parse_duration(value), scenario.stall_every);
  if (key == "patience") return take(parse_duration(value), scenario.patience);
  if (key == "seed") return parse_number(value, scenario.seed);
  return false;
}

}  // namespace

std::string_view name(ServerKind kind) noexcept { return find_name(kServerNames, kind); }
std::string_view name(Arrival arrival) noexcept { return find_name(kArrivalNames, arrival); }
std::optional<ServerKind> parse_server_kind(std::string_view text) noexcept {
  return find_value(kServerNames, text);
}
std::optional<Arrival> parse_arrival(std::string_view text) noexcept {
  return find_value(kArrivalNames, text);
}

std::optional<nanoseconds> parse_duration(std::string_view text) noexcept {
  constexpr double kDayNs = 86400e9;
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || !std::isfinite(number)) return std::nullopt;
  const std::string_view unit_name(end, static_cast<std::size_t>(text.data() + text.size() - end));
  for (const Unit& unit : kUnits) {
    if (unit.name != unit_name) continue;
    const double ns = number * unit.nanoseconds;
    if (ns < 0 || ns > kDayNs) return std::nullopt;
    return nanoseconds(std::llround(ns));
  }
  return std::nullopt;
}

std::string print_duration(nanoseconds duration) {
  const auto ns = duration.count();
  if (ns % 1'000'000'000 == 0) return fmt::format("{}s", ns / 1'000'000'000);
  if (ns % 1'000'000 == 0) return fmt::format("{}ms", ns / 1'000'000);
  if (ns % 1'000 == 0) return fmt::format("{}us", ns / 1'000);
  return fmt::format("{}ns", ns);
}

nanoseconds Scenario::load_length() const noexcept {
  if (arrival == Arrival::kBurst || rate <= 0) return nanoseconds(0);
  return nanoseconds(std::llround(clients / rate * 1e9));
}

nanoseconds Scenario::first_stall() const noexcept {
  if (arrival == Arrival::kBurst)
    return -std::chrono::milliseconds(2);  // so that it holds when the first one calls
  const nanoseconds quarter = load_length() / 4;
  return stall_every > nanoseconds(0) ? std::min(quarter, stall_every / 2) : quarter;
}

std::optional<double> Scenario::stall_loss() const noexcept {
  constexpr std::chrono::milliseconds kFirstRetransmit{900};
  if (stall <= nanoseconds(0) || stall > kFirstRetransmit || arrival == Arrival::kBurst || backlog < 0)
    return std::nullopt;
  const nanoseconds within_load = std::min(stall, load_length() - first_stall());
  return std::max(rate * std::chrono::duration<double>(within_load).count() - (backlog + 1), 0.0);
}

std::string Scenario::to_string() const {
  return fmt::format(
      "server={} backlog={} threads={} clients={} arrival={} rate={} stall={} stall_every={} patience={} "
      "seed={}",
      name(server), backlog, threads, clients, name(arrival), rate, print_duration(stall),
      print_duration(stall_every), print_duration(patience), seed);
}

std::optional<Scenario> Scenario::parse(std::string_view text) {
  Scenario scenario;
  while (!text.empty()) {
    const std::size_t space = std::min(text.find(' '), text.size());
    const std::string_view field = text.substr(0, space);
    text.remove_prefix(std::min(space + 1, text.size()));
    const std::size_t equals = field.find('=');
    if (equals == std::string_view::npos) return std::nullopt;
    if (!parse_field(scenario, field.substr(0, equals), field.substr(equals + 1))) return std::nullopt;
  }
  return scenario;
}

}  // namespace anteroom::bench
