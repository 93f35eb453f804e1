#include <anteroom/bench/random.h>
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

constexpr std::array<std::pair<ServerKind, std::string_view>, 7> kServerNames{
    {{ServerKind::kReactor, "reactor"},
     {ServerKind::kAcceptOne, "accept-one"},
     {ServerKind::kReactors, "reactors"},
     {ServerKind::kBlocking, "blocking"},
     {ServerKind::kThreads, "threads"},
     {ServerKind::kPool, "pool"},
     {ServerKind::kRunning, "running"}}};
constexpr std::array<std::pair<Arrival, std::string_view>, 5> kArrivalNames{{{Arrival::kBurst, "burst"},
                                                                             {Arrival::kSteady, "steady"},
                                                                             {Arrival::kPoisson, "poisson"},
                                                                             {Arrival::kOnOff, "on-off"},
                                                                             {Arrival::kRamp, "ramp"}}};
constexpr std::array<std::pair<Loop, std::string_view>, 2> kLoopNames{
    {{Loop::kOpen, "open"}, {Loop::kClosed, "closed"}}};
constexpr std::array<std::pair<Handling, std::string_view>, 4> kHandlingNames{
    {{Handling::kNone, "none"},
     {Handling::kWait, "wait"},
     {Handling::kCompute, "compute"},
     {Handling::kBlock, "block"}}};

// Fields are parted by spaces, and no sysctl of the network has this.
constexpr char kSpaceInSysctl = '+';

struct Unit {
  std::string_view name;
  double nanoseconds;
};
constexpr std::array<Unit, 7> kUnits{
    {{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"min", 60e9}, {"h", 3600e9}}};

bool is_letter(char c) noexcept { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/// "MS" is "ms".
const Unit* find_unit(std::string_view text) noexcept {
  const auto is_same = [](char a, char b) { return a == (b >= 'A' && b <= 'Z' ? b - 'A' + 'a' : b); };
  for (const Unit& unit : kUnits) {
    if (std::equal(unit.name.begin(), unit.name.end(), text.begin(), text.end(), is_same)) return &unit;
  }
  return nullptr;
}

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
  if (key == "loop") return take(parse_loop(value), scenario.loop);
  if (key == "flows") return parse_number(value, scenario.flows);
  if (key == "length") return take(parse_duration(value), scenario.length);
  if (key == "clients") return parse_number(value, scenario.clients);
  if (key == "arrival") return take(parse_arrival(value), scenario.arrival);
  if (key == "rate") return parse_number(value, scenario.rate);
  if (key == "dispersion") return parse_number(value, scenario.dispersion);
  if (key == "on") return take(parse_duration(value), scenario.on);
  if (key == "off") return take(parse_duration(value), scenario.off);
  if (key == "burst") return parse_number(value, scenario.burst);
  if (key == "burst_every") return take(parse_duration(value), scenario.burst_every);
  if (key == "burst_within") return take(parse_duration(value), scenario.burst_within);
  if (key == "stall") return take(parse_duration(value), scenario.stall);
  if (key == "stall_every") return take(parse_duration(value), scenario.stall_every);
  if (key == "stall_jitter") return parse_number(value, scenario.stall_jitter);
  if (key == "handler") return take(Handler::parse(value), scenario.handler);
  if (key == "rtt") return take(parse_duration(value), scenario.rtt);
  if (key == "loss") return parse_number(value, scenario.loss);
  if (key == "patience") return take(parse_duration(value), scenario.patience);
  if (key == "seed") return parse_number(value, scenario.seed);
  if (key != "sysctl") return false;
  auto sysctl = parse_sysctl(value);
  if (!sysctl) return false;
  std::ranges::replace(sysctl->second, kSpaceInSysctl, ' ');
  scenario.sysctls.push_back(std::move(*sysctl));
  return true;
}

double seconds(nanoseconds duration) noexcept { return std::chrono::duration<double>(duration).count(); }

}  // namespace

std::string_view name(ServerKind kind) noexcept { return find_name(kServerNames, kind); }
std::string_view name(Arrival arrival) noexcept { return find_name(kArrivalNames, arrival); }
std::optional<ServerKind> parse_server_kind(std::string_view text) noexcept {
  return find_value(kServerNames, text);
}
std::optional<Arrival> parse_arrival(std::string_view text) noexcept {
  return find_value(kArrivalNames, text);
}
std::string_view name(Loop loop) noexcept { return find_name(kLoopNames, loop); }
std::optional<Loop> parse_loop(std::string_view text) noexcept { return find_value(kLoopNames, text); }

std::optional<std::pair<std::string, std::string>> parse_sysctl(std::string_view text) {
  const std::size_t equals = text.find('=');
  const std::string_view key = text.substr(0, equals);
  const auto is_of_a_name = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  };
  if (equals == text.npos || equals + 1 == text.size() || !key.starts_with("net.") || key.ends_with('.') ||
      key.find("..") != key.npos || !std::ranges::all_of(key, is_of_a_name))
    return std::nullopt;
  // One line of printable ASCII, as sysctl(8) has them: it goes into a file of /proc/sys and into documents.
  const auto is_of_a_value = [](char c) { return c >= ' ' && c <= '~'; };
  if (!std::ranges::all_of(text.substr(equals + 1), is_of_a_value)) return std::nullopt;
  return std::pair(std::string(key), std::string(text.substr(equals + 1)));
}

std::string Handler::to_string() const {
  if (kind == Handling::kNone) return "none";
  return fmt::format("{}:{}{}", find_name(kHandlingNames, kind), print_duration(time),
                     is_exponential ? ":exponential" : "");
}

std::optional<Handler> Handler::parse(std::string_view text) {
  constexpr std::string_view kExponential = ":exponential";
  Handler handler;
  if (text == "none") return handler;
  handler.is_exponential = text.ends_with(kExponential);
  if (handler.is_exponential) text.remove_suffix(kExponential.size());
  const std::size_t colon = text.find(':');
  const auto kind = find_value(kHandlingNames, text.substr(0, colon));
  if (!kind || *kind == Handling::kNone || colon == text.npos) return std::nullopt;
  const auto time = parse_duration(text.substr(colon + 1));
  if (!time || *time > std::chrono::minutes(1)) return std::nullopt;
  handler.kind = *kind;
  handler.time = *time;
  return handler;
}

std::optional<nanoseconds> parse_duration(std::string_view text) noexcept {
  constexpr double kDayNs = 86400e9;
  if (text.empty()) return std::nullopt;
  double sum_ns = 0;
  double previous_unit = 0;
  while (!text.empty()) {
    double number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc{} || !std::isfinite(number) || number < 0) return std::nullopt;
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    const auto letters = std::find_if_not(text.begin(), text.end(), is_letter) - text.begin();
    const Unit* const unit = find_unit(text.substr(0, static_cast<std::size_t>(letters)));
    // 1h30m: each unit is smaller than the one before.
    if (unit == nullptr || (previous_unit > 0 && unit->nanoseconds >= previous_unit)) return std::nullopt;
    previous_unit = unit->nanoseconds;
    sum_ns += number * unit->nanoseconds;
    text.remove_prefix(static_cast<std::size_t>(letters));
  }
  if (sum_ns > kDayNs) return std::nullopt;
  return nanoseconds(std::llround(sum_ns));
}

std::string print_duration(nanoseconds duration) {
  const auto ns = duration.count();
  if (ns % 1'000'000'000 == 0) return fmt::format("{}s", ns / 1'000'000'000);
  if (ns % 1'000'000 == 0) return fmt::format("{}ms", ns / 1'000'000);
  if (ns % 1'000 == 0) return fmt::format("{}us", ns / 1'000);
  return fmt::format("{}ns", ns);
}

nanoseconds Scenario::load_length() const noexcept {
  if (loop == Loop::kClosed) return length;
  if (arrival == Arrival::kBurst || rate <= 0) return burst_within;
  const double bursts = burst > 0 ? burst / seconds(burst_every) : 0;
  const double length_s = arrival == Arrival::kRamp ? 2 * clients / rate : clients / (rate + bursts);
  return nanoseconds(std::llround(length_s * 1e9));
}

std::vector<Stall> Scenario::stalls() const {
  if (stall <= nanoseconds(0)) return {};
  if (stall_every <= nanoseconds(0)) {
    // In a burst so early that it holds when the first one calls.
    const bool is_burst = arrival == Arrival::kBurst;
    return {{.begin = is_burst ? -std::chrono::milliseconds(2) : load_length() / 4, .length = stall}};
  }
  std::vector<Stall> all;
  Random random(seed ^ 0x57a11);
  const nanoseconds end = load_length() + patience;
  const double spare = seconds(stall_every - stall);
  for (nanoseconds period{0}; period < end; period += stall_every) {
    const double into = spare / 2 * (1 + stall_jitter * (2 * random.unit() - 1));
    all.push_back({.begin = period + nanoseconds(std::llround(into * 1e9)), .length = stall});
  }
  return all;
}

int Scenario::cycles() const noexcept {
  if (stall <= nanoseconds(0)) return 0;
  if (stall_every <= nanoseconds(0)) return 1;
  return static_cast<int>(std::max<std::int64_t>((load_length() + stall_every / 2) / stall_every, 1));
}

std::optional<double> Scenario::stall_loss() const noexcept {
  constexpr std::chrono::milliseconds kFirstRetransmit{900};
  const bool has_one_rate = (arrival == Arrival::kSteady || arrival == Arrival::kPoisson) && burst == 0;
  if (stall <= nanoseconds(0) || stall > kFirstRetransmit || !has_one_rate || backlog < 0 ||
      loop != Loop::kOpen || server == ServerKind::kReactors)
    return std::nullopt;
  const nanoseconds within_load = std::min(stall, load_length() - stalls().front().begin);
  return std::max(rate * seconds(within_load) - (backlog + 1), 0.0);
}

std::string Scenario::to_string() const {
  const auto print = [](nanoseconds duration) { return print_duration(duration); };
  std::string text = fmt::format(
      "server={} backlog={} threads={} loop={} flows={} length={} clients={} arrival={} rate={} "
      "dispersion={} on={} "
      "off={} burst={} burst_every={} burst_within={} stall={} stall_every={} stall_jitter={} handler={} "
      "rtt={} loss={} patience={} seed={}",
      name(server), backlog, threads, name(loop), flows, print(length), clients, name(arrival), rate,
      dispersion, print(on), print(off), burst, print(burst_every), print(burst_within), print(stall),
      print(stall_every), stall_jitter, handler.to_string(), print(rtt), loss, print(patience), seed);
  for (auto [key, value] : sysctls) {
    std::ranges::replace(value, ' ', kSpaceInSysctl);
    text += fmt::format(" sysctl={}={}", key, value);
  }
  return text;
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
