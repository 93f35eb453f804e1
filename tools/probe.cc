#include "probe.h"

#include <anteroom/bench/scenario.h>
#include <anteroom/connector.h>
#include <anteroom/timer.h>
#include <fmt/format.h>

#include <algorithm>
#include <string_view>

namespace anteroom::tool {
namespace {

using bench::Dialogue;

constexpr std::size_t kProbeBytesMax = 64 * 1024;
constexpr std::size_t kShownMax = 100;  // bytes of an answer in a message
constexpr std::chrono::milliseconds kInterruptLook{50};

/// The first line of it, as much as is shown.
std::string first_line(std::string_view heard) {
  const std::string_view line = heard.substr(0, heard.find_first_of("\r\n"));
  return bench::escape(line.substr(0, kShownMax)) + (line.size() > kShownMax ? "..." : "");
}

std::string expected(const Dialogue& dialogue) {
  if (dialogue.is_http && dialogue.expect.empty()) return "HTTP with a status from 200 to 399";
  return (dialogue.is_http ? "HTTP with a status from 200 to 399 and " : "") + bench::escape(dialogue.expect);
}

/// What to try with a server that says nothing.
std::string_view cure_of_silence(const Dialogue& dialogue) {
  if (dialogue.request.empty()) return "it may wait for the client to speak: --http / or --send TEXT";
  if (dialogue.is_http) return "it may speak something else than HTTP: --greeting or --send TEXT";
  if (!dialogue.request.ends_with('\n'))
    return R"(it may wait for the end of the line: end --send with \r\n)";
  return "it may want to hear something else, or accept nobody";
}

}  // namespace

Probe probe(const Endpoint& server, const Dialogue& dialogue, std::chrono::nanoseconds patience,
            const std::optional<Endpoint>& source, const std::atomic<bool>* interrupted) {
  Probe seen;
  Reactor reactor;
  const auto open = [&](Connection& connection) {
    seen.was_open = true;
    if (!dialogue.request.empty()) connection.send(dialogue.request);
  };
  const auto data = [&](Connection&, std::string_view bytes) {
    seen.heard += bytes.substr(0, kProbeBytesMax - std::min(kProbeBytesMax, seen.heard.size()));
    const Dialogue::Verdict verdict = dialogue.judge(seen.heard);
    seen.is_served = verdict == Dialogue::Verdict::kServed;
    if (verdict != Dialogue::Verdict::kGoOn || seen.heard.size() >= kProbeBytesMax) reactor.stop();
  };
  const auto closed = [&](Connection&, std::error_code error) {
    seen.error = error;
    seen.has_ended = true;
    reactor.stop();
  };
  Connector connector(reactor, {.open = open, .data = data, .closed = closed});
  Timer limit(reactor, [&] { reactor.stop(); });
  limit.arm(patience);
  const auto look = [&] {
    seen.was_interrupted = interrupted->load();
    if (seen.was_interrupted) reactor.stop();
  };
  Timer interrupt_timer(reactor, look);
  if (interrupted != nullptr) interrupt_timer.arm_every(kInterruptLook);
  const ConnectResult result =
      connector.connect(server, {.deadline = std::chrono::nanoseconds(0), .source = source});
  if (result.error) {
    seen.error = result.error;
    return seen;
  }
  reactor.run();
  return seen;
}

std::string problem_of(const Probe& probe, const Endpoint& server, const Dialogue& dialogue,
                       std::chrono::nanoseconds patience) {
  if (probe.is_served || probe.was_interrupted) return {};
  const std::string address = server.to_string();
  if (!probe.was_open) {
    if (probe.error == std::errc::connection_refused)
      return fmt::format(
          "nobody listens on {}: is the server up, and is that its port? ss -lnt shows who listens", address);
    if (probe.error) return describe_connect_error(probe.error, server);
    return fmt::format(
        "{} did not let us connect within {}: a firewall may drop what we send, or its queue is full, which "
        "anteroom watch shows where it runs",
        address, bench::print_duration(patience));
  }
  if (!probe.heard.empty())
    return fmt::format("{} answered \"{}\", and expected was {}", address, first_line(probe.heard),
                       expected(dialogue));
  if (probe.has_ended)
    return fmt::format("{} closed without a word{}{}: {}", address, probe.error ? ", " : "",
                       probe.error ? probe.error.message() : "", cure_of_silence(dialogue));
  return fmt::format("{} did not answer within {}: {}", address, bench::print_duration(patience),
                     cure_of_silence(dialogue));
}

}  // namespace anteroom::tool
