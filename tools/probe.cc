#include "probe.h"

#include <anteroom/bench/processes.h>
#include <anteroom/bench/scenario.h>
#include <anteroom/bench/socket_diag.h>
#include <anteroom/connector.h>
#include <anteroom/socket.h>
#include <anteroom/timer.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string_view>

namespace anteroom::tool {
namespace {

using bench::Dialogue;

constexpr std::size_t kProbeBytesMax = 64 * 1024;
constexpr std::size_t kShownMax = 100;  // bytes of an answer in a message
constexpr std::chrono::milliseconds kInterruptLook{50};
// For the rest of an answer that is not the one expected. The first segment need not tell what it is.
constexpr std::chrono::milliseconds kMoreLimit{100};
constexpr std::chrono::seconds kTlsLimit{1};

/// A ClientHello of TLS 1.2 without extensions (RFC 5246, 7.4.1.2): a server that speaks TLS answers with a
/// handshake record or an alert, whether or not it takes the one cipher suite.
constexpr std::string_view kClientHello(
    "\x16\x03\x01\x00\x2d"              // record: handshake, 45 bytes
    "\x01\x00\x00\x29\x03\x03"          // ClientHello, 41 bytes, TLS 1.2
    "anteroom looks for the protocol!"  // random, 32 bytes
    "\x00\x00\x02\x00\x2f\x01\x00",     // no session, one cipher suite, no compression
    50);

/// A record of TLS begins with its type and the major version (RFC 8446, 5.1).
bool is_tls(std::string_view heard) {
  constexpr char kAlert = 0x15;
  constexpr char kHandshake = 0x16;
  return heard.size() >= 2 && (heard[0] == kAlert || heard[0] == kHandshake) && heard[1] == 0x03;
}

/// A frame of HTTP/2 (RFC 9113, 4.1): a length of 24 bits, a type, flags, and a stream of 32 bits. A server
/// begins with SETTINGS of stream 0, which have 6 bytes each, or ends at once with GOAWAY.
bool is_http2(std::string_view heard) {
  constexpr std::size_t kFrameHead = 9;
  constexpr char kSettings = 0x04;
  constexpr char kGoaway = 0x07;
  if (heard.size() < kFrameHead || heard.substr(5, 4) != std::string_view("\0\0\0\0", 4)) return false;
  const auto length = static_cast<unsigned char>(heard[2]);
  return heard[0] == 0 && ((heard[3] == kSettings && length % 6 == 0) || heard[3] == kGoaway);
}

/// What nginx, Go and Apache say, over plain HTTP, on a port for TLS.
bool asks_for_https(std::string_view heard) {
  static constexpr std::array<std::string_view, 3> kComplaints{
      "plain http request was sent to https port", "http request to an https server",
      "speaking plain http to an ssl-enabled server port"};
  std::string lower(heard);
  std::ranges::transform(lower, lower.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return std::ranges::any_of(
      kComplaints, [&](std::string_view complaint) { return lower.find(complaint) != std::string::npos; });
}

constexpr std::string_view kSpeaksTls =
    "this port speaks TLS, which is not supported yet: a port without TLS is needed";

/// What speaks there, if it is something else than what was asked for; empty if that is not known.
std::string_view other_protocol(const Dialogue& dialogue, std::string_view heard) {
  if (is_tls(heard) || (dialogue.is_http && asks_for_https(heard))) return kSpeaksTls;
  if (is_http2(heard))
    return "this port speaks HTTP/2 without TLS (h2c) only, which is not supported yet: --http speaks "
           "HTTP/1.1";
  if (dialogue.request.empty()) return {};
  if (heard.starts_with("SSH-")) return "this is an SSH server, which speaks first: --greeting";
  if (heard.starts_with("220 ") || heard.starts_with("220-"))
    return "it speaks first, as mail (SMTP) and FTP servers do: --greeting";
  return {};
}

/// What came after interim responses, if it was no final one.
std::string why_not_final(const Probe& probe, std::chrono::nanoseconds patience) {
  if (probe.has_ended) return "and closed without a final response";
  if (probe.heard.size() >= kProbeBytesMax)
    return fmt::format("and no final response within {} KiB", kProbeBytesMax / 1024);
  return fmt::format("and no final response within {}", bench::print_duration(patience));
}

/// The status of an HTTP answer: "404"; empty if it is none.
std::string_view status_of(std::string_view answer) {
  constexpr std::size_t kStatusAt = std::string_view("HTTP/1.1 ").size();
  return answer.starts_with("HTTP/1.") && answer.size() >= kStatusAt + 3 ? answer.substr(kStatusAt, 3)
                                                                         : std::string_view();
}

/// What to try after an answer that was not the one expected; empty if there is nothing.
std::string_view cure_of_answer(const Dialogue& dialogue, std::string_view answer) {
  const std::string_view status = dialogue.is_http ? status_of(answer) : std::string_view();
  if (status == "400" || status == "404" || status == "421")
    return ": it may know this host by another name, or the path may be another: --host NAME, --http PATH";
  if (status == "101") return ": it switched to another protocol";
  return {};
}

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
  if (dialogue.is_http)
    return "it may speak TLS, which is not supported yet, or something else than HTTP: --greeting or --send "
           "TEXT";
  if (!dialogue.request.ends_with('\n'))
    return R"(it may wait for the end of the line: end --send with \r\n)";
  return "it may want to hear something else, or accept nobody";
}

/// Of a server beyond this machine there is nothing to be seen, and where sock_diag is missing neither.
std::optional<Endpoint> arrival_of(const Connection& connection, const Endpoint& server) {
  try {
    return bench::SocketDiag().arrival_of(local_endpoint(connection.fd()), server);
  } catch (const std::system_error&) {
    return std::nullopt;
  }
}

Probe probe_once(const Endpoint& server, const Dialogue& dialogue, std::chrono::nanoseconds patience,
                 const std::optional<Endpoint>& source, const std::atomic<bool>* interrupted) {
  Probe seen;
  Reactor reactor;
  Timer more(reactor, [&] { reactor.stop(); });
  const auto open = [&](Connection& connection) {
    seen.was_open = true;
    seen.arrival = arrival_of(connection, server);
    if (!dialogue.request.empty()) connection.send(dialogue.request);
  };
  const auto data = [&](Connection& connection, std::string_view bytes) {
    // Under TCP_DEFER_ACCEPT the other end has no socket before the first data.
    if (!seen.arrival) seen.arrival = arrival_of(connection, server);
    seen.heard += bytes.substr(0, kProbeBytesMax - std::min(kProbeBytesMax, seen.heard.size()));
    const Dialogue::Verdict verdict = dialogue.judge(seen.heard);
    seen.is_served = verdict == Dialogue::Verdict::kServed;
    if (seen.is_served || seen.heard.size() >= kProbeBytesMax) return reactor.stop();
    if (verdict == Dialogue::Verdict::kAnsweredOtherwise && !more.is_armed()) more.arm(kMoreLimit);
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

}  // namespace

/// A filter of system calls (seccomp(2)) refuses the call also where the kernel would not. What came of a
/// connect(2) and how often a SYN was sent again is known by it alone.
void refuse_without_getsockopt(int family) {
  const Fd socket(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  int error = 0;
  socklen_t size = sizeof(error);
  if (!socket || ::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &size) == 0) return;
  throw std::runtime_error(fmt::format(
      "getsockopt(2) is not allowed here ({}): a filter of system calls (seccomp(2)) forbids it, and "
      "without it nothing is known of any socket",
      last_error().message()));
}

std::string counters_problem() {
  for (const char* path : {"/proc/thread-self/net/netstat", "/proc/thread-self/net/snmp"}) {
    if (::access(path, R_OK) == 0) continue;
    const std::string why = last_error().message();
    const std::string problem = bench::proc_problem();
    return problem.empty() ? fmt::format("cannot read {}: {}", path, why) : problem;
  }
  return {};
}

void refuse_unmeasurable() {
  refuse_without_getsockopt(AF_INET);
  if (const std::string problem = counters_problem(); !problem.empty())
    throw std::runtime_error("the kernel's counters, by which every trial is checked, are not to be had: " +
                             problem);
}

std::string redirection_of(const Probe& probe, const Endpoint& server) {
  if (!probe.arrival || *probe.arrival == bench::unmapped(server)) return {};
  return fmt::format("a packet filter (iptables, nftables) redirects {} to {}", server.to_string(),
                     probe.arrival->to_string());
}

Probe probe(const Endpoint& server, const Dialogue& dialogue, std::chrono::nanoseconds patience,
            const std::optional<Endpoint>& source, const std::atomic<bool>* interrupted) {
  refuse_without_getsockopt(server.family());
  Probe seen = probe_once(server, dialogue, patience, source, interrupted);
  const bool was_silent = seen.was_open && seen.heard.empty() && !seen.was_interrupted;
  if (!was_silent || !dialogue.is_http || source) return seen;
  const Dialogue handshake{.request = std::string(kClientHello)};
  const Probe second = probe_once(server, handshake, std::min<std::chrono::nanoseconds>(patience, kTlsLimit),
                                  std::nullopt, interrupted);
  seen.speaks_tls = is_tls(second.heard);
  seen.was_interrupted = second.was_interrupted;
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
  if (probe.speaks_tls) return fmt::format("{} answered only a TLS handshake: {}", address, kSpeaksTls);
  if (!probe.heard.empty()) {
    const std::string_view rest = dialogue.is_http ? bench::final_response(probe.heard) : probe.heard;
    const std::string_view answer = rest.empty() ? std::string_view(probe.heard) : rest;
    const std::string_view other = other_protocol(dialogue, answer);
    if (!other.empty()) return fmt::format("{} answered \"{}\": {}", address, first_line(answer), other);
    if (rest.empty())
      return fmt::format("{} answered \"{}\", {}", address, first_line(answer),
                         why_not_final(probe, patience));
    return fmt::format("{} answered \"{}\", and expected was {}{}", address, first_line(answer),
                       expected(dialogue), cure_of_answer(dialogue, answer));
  }
  if (probe.has_ended)
    return fmt::format("{} closed without a word{}{}: {}", address, probe.error ? ", " : "",
                       probe.error ? probe.error.message() : "", cure_of_silence(dialogue));
  return fmt::format("{} did not answer within {}: {}", address, bench::print_duration(patience),
                     cure_of_silence(dialogue));
}

}  // namespace anteroom::tool
