// What the swarm can do as a generator of load: a closed loop of it against an HTTP or hello server that runs
// already, in one line. bench/peers/generators sets it beside wrk, ab and hey.
#include <anteroom/bench/histogram.h>
#include <anteroom/bench/swarm.h>
#include <fmt/format.h>
#include <standard_streams.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace anteroom;
using namespace anteroom::bench;

constexpr const char* kUsage =
    "generator_benchmark: usage: generator_benchmark <ip:port> <flows> <seconds> [request]; "
    "the server is one on 127.0.0.0/8, and \\r \\n \\t \\0 \\\\ \\xHH in the request are escapes\n";
// Records for more than one processor has ever connected on the loopback device (some 30,000 a second); a run
// that uses up all of them ends early, and its rate is of the time that it took.
constexpr std::size_t kClientsPerSecond = 100'000;
constexpr unsigned kSecondsMax = 60;
constexpr std::size_t kFlowsMax = 500'000;  // which call from 125 addresses

template <class Number>
std::optional<Number> parse(std::string_view text, Number max) {
  Number value{};
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool is_whole = error == std::errc() && rest == text.data() + text.size();
  return is_whole && value > 0 && value <= max ? std::optional(value) : std::nullopt;
}

double seconds_of(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
}

/// User and system time of the whole process from its first instruction, as who measures a foreign program
/// sees it.
double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime);
}

/// One address has ports enough, as long as the server closes first, and for few flows the kernel picks it,
/// as for wrk, ab and hey. Of so many that they take a good part of the ports, each 4,000 or so have one
/// address.
std::vector<Endpoint> sources(std::size_t clients, std::size_t flows) {
  std::vector<Endpoint> addresses;
  const std::size_t most = sources_for(flows);
  if (most == 1) return addresses;
  for (std::size_t i = 0; i < sources_for(clients); ++i)
    addresses.emplace_back(fmt::format("127.0.{}.1", i % most), std::uint16_t{0});
  return addresses;
}

/// Nothing is left out: whoever called and was not served at once stands here under its own name.
std::string other_fates(Fates fates) {
  fates[Fate::kServedAtOnce] = 0;
  fates[Fate::kNotStarted] = 0;  // the spare records
  std::string text;
  for (const auto& [fate, name] : kFates) {
    if (fates[fate] > 0) text += fmt::format("{}{} {}", text.empty() ? "" : " ", name, fates[fate]);
  }
  return text.empty() ? "none" : text;
}

/// Whether anybody was served.
bool print(const std::vector<ClientRecord>& records) {
  Fates fates;
  Histogram first_byte;
  std::uint64_t again = 0;
  std::int64_t end_ns = 0;
  for (const ClientRecord& record : records) {
    ++fates[record.fate];
    again += record.retransmits;
    end_ns = std::max(end_ns, record.ended_ns);
    if (record.first_byte_ns >= 0)
      first_byte.record(std::chrono::nanoseconds(record.first_byte_ns - record.called_ns));
  }
  const double seconds = static_cast<double>(end_ns) / 1e9;
  const double cpu = cpu_seconds();
  const auto microseconds = [](std::chrono::duration<double, std::micro> time) { return time.count(); };
  fmt::print(
      "connections {}, per second {:.0f}, client CPU {:.3f} s, per CPU second {:.0f}, "
      "first byte p50 {:.0f} us p99 {:.0f} us max {:.0f} us, SYNs sent again {}, other fates: {}\n",
      fates.served(), fates.served() / seconds, cpu, fates.served() / cpu,
      microseconds(first_byte.percentile(0.5)), microseconds(first_byte.percentile(0.99)),
      microseconds(first_byte.max()), again, other_fates(fates));
  return fates.served() > 0;
}

int fail(std::string_view why) {
  print_error("generator_benchmark: {}\n", why);
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  prepare_standard_streams();
  const bool has_request = argc == 5;
  if (argc != 4 && !has_request) return print_error("{}", kUsage), 2;
  const std::optional<Endpoint> server = Endpoint::parse(argv[1]);
  const std::size_t flows_max = std::min(swarm_clients_max(), kFlowsMax);
  const auto flows = parse<std::size_t>(argv[2], flows_max);
  const auto seconds = parse<unsigned>(argv[3], kSecondsMax);
  const std::optional<std::string> request = unescape(has_request ? argv[4] : "");
  if (!server) return fail(fmt::format("'{}' is no address; it has to be as 127.0.0.1:8080", argv[1]));
  if (server->family() != AF_INET || !server->is_loopback())
    return fail(fmt::format("'{}' is not on 127.0.0.0/8: load is for servers of this machine", argv[1]));
  if (!flows) return fail(fmt::format("'{}': flows are 1 to {}", argv[2], flows_max));
  if (!seconds) return fail(fmt::format("'{}': seconds are whole, 1 to {}", argv[3], kSecondsMax));
  if (!request)
    return fail(fmt::format("'{}': of the escapes only \\r \\n \\t \\0 \\\\ \\xHH are known", argv[4]));
  try {
    std::vector<ClientRecord> records(kClientsPerSecond * *seconds);
    SocketDiag diag;
    run_swarm({.server = *server,
               .sources = sources(records.size(), *flows),
               .records = records,
               .flows = *flows,
               .dialogue = {.request = *request},
               .start = std::chrono::steady_clock::now(),
               .end = std::chrono::seconds(*seconds),
               .server_sockets = [&] { return diag.connections(server->port()); }});
    return print(records) ? 0 : 1;
  } catch (const std::exception& error) {
    return fail(error.what());
  }
}
