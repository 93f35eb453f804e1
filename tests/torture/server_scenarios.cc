// Raw guests at doors of every kind.
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <string>
#include <string_view>
#include <utility>

#include "scenarios.h"
#include "server.h"

namespace anteroom::torture {
namespace {

using End = Script::End;
using faults::Call;
using faults::Fault;
using std::chrono::milliseconds;

/// First many who want everything that there is; then, to a house that was empty, one who says all at once,
/// and one who says nothing at all.
ServerPlan everything(const Endpoint& at, int accepts_per_turn_max) {
  static const std::string_view greeting = "Echo this, in pieces";
  static const std::string_view waiting = "Wait a moment, and then go on";
  ServerPlan plan{.at = at};
  plan.options.connection = {.high_watermark_bytes = 32 * 1024,
                             .low_watermark_bytes = 8 * 1024,
                             .read_bytes_per_turn_max = 32 * 1024};
  plan.options.accepts_per_turn_max = accepts_per_turn_max;
  plan.waves = {{{.request = greeting, .answer = greeting, .bytes_per_step = 7},
                 {.request = kLongRequest,
                  .answer = kLongRequest,
                  .bytes_per_step = 80 * 1024,
                  .bytes_read_per_step = 24 * 1024,
                  .receive_buffer = kReceiveBuffer},
                 {.request = "L",
                  .answer = kLongAnswer,
                  .end = End::kHearOut,
                  .bytes_read_per_step = 32 * 1024,
                  .receive_buffer = kReceiveBuffer},
                 {.request = kChatter, .answer = "bye", .bytes_per_step = 1000},
                 {.request = "Echo this to nobody", .answer = "Echo this to nobody", .end = End::kReset},
                 {.request = "Abort", .end = End::kExpectReset},
                 {.request = waiting, .answer = waiting, .end = End::kClose, .bytes_per_step = 13}},
                {{.request = "Echo and FIN", .answer = "Echo and FIN"}, {.end = End::kStay}}};
  return plan;
}

/// Whoever is turned away is read from once, and sent to once: who is told there that it does not go, for no
/// reason, leaves it at that.
bool hits_the_refused(const Fault& fault) {
  return (fault.call == Call::kRecv || fault.call == Call::kSend) &&
         (fault.error == EAGAIN || fault.bytes_max > 0);
}

}  // namespace

void tcp_server(const Fault* fault, Report& report) {
  Server(fault, report, everything(Endpoint("127.0.0.1", 0), 2)).run();
}

/// Over a path that a dead server has left behind.
void unix_server(const Fault* fault, Report& report) {
  const Endpoint path = Endpoint::unix_path(unix_path());
  (void)RawSocket::bound(path);
  Server(fault, report, everything(path, 64)).run();
  const bool is_gone = ::access(unix_path().c_str(), F_OK) != 0;
  const bool was_taken = faults::count(Call::kListen) > 0;
  const bool may_stay = !was_taken || (fault != nullptr && fault->call == Call::kUnlink);
  if (!is_gone && !may_stay) fail(report, "the path of the Unix socket is left behind");
  remove_path_and_lock(unix_path());
}

/// A small room that grows, and a door at which only some are let in: whoever is not hears the same word as
/// whoever is. In the end as many are let in as ever, or somebody was counted who has left.
void crowded_server(const Fault* fault, Report& report) {
  constexpr int kPerSource = 5;
  static const std::string_view greeting = "Echo this";
  const Script quits{.request = "Q", .answer = "bye", .end = End::kHearOut};
  const Script stays{.end = End::kStay};
  ServerPlan plan{.at = Endpoint("127.0.0.1", 0)};
  plan.options.backlog = Backlog::self_tuning({.initial = 4});
  plan.options.admission = {.connections_max = 100,
                            .per_source_max = kPerSource,
                            .per_source_rate = 1e6,
                            .per_source_burst = 1000,
                            .refusal = Refusal::kReply,
                            .reply = "bye"};
  plan.options.queue_delay = {.target = std::chrono::hours(1)};
  plan.options.sample_wait_every = 2;
  plan.waves = {
      {{.request = greeting, .answer = greeting}, quits, quits, {.request = greeting, .answer = greeting}},
      {stays, stays, stays, {.request = greeting, .answer = greeting}},
      {quits, quits, quits, quits}};
  plan.last.assign(kPerSource - 3, {.request = "Echo to a fresh guest", .answer = "Echo to a fresh guest"});
  plan.costs = hits_the_refused;
  plan.judge = [](const Acceptor& acceptor, bool has_fault) -> std::string {
    if (has_fault) return {};
    if (acceptor.stats().refused != 2) return "two should have been refused";
    return acceptor.stats().tunings == 0 ? "the room should have grown" : "";
  };
  Server(fault, report, std::move(plan)).run();
}

/// Nobody is let in before a while has passed, by when all have waited for too long.
void overloaded_server(const Fault* fault, Report& report) {
  ServerPlan plan{.at = Endpoint("127.0.0.1", 0)};
  plan.opens_after = milliseconds(10);  // the kernel counts in steps of 4 ms at HZ 250
  plan.options.queue_delay = {.target = milliseconds(1), .interval = milliseconds(0)};
  plan.options.admission = {.refusal = Refusal::kReply, .reply = "bye"};
  plan.waves = {{{.request = "Q", .answer = "bye", .end = End::kHearOut},
                 {.request = "Q", .answer = "bye", .end = End::kHearOut}}};
  plan.last = {{.request = "Q", .answer = "bye", .end = End::kHearOut}};
  plan.costs = hits_the_refused;
  plan.judge = [](const Acceptor& acceptor, bool has_fault) -> std::string {
    return has_fault || acceptor.stats().shed > 0 ? "" : "somebody should have been shed";
  };
  Server(fault, report, std::move(plan)).run();
}

/// Guests who end their side and wait for the answer; a file; an end of ours before theirs; several pieces at
/// once.
void talking_server(const Fault* fault, Report& report) {
  static const std::string_view words_of_end =
      "Our side ends before theirs, and each byte of theirs is still read";
  ServerPlan plan{.at = Endpoint("127.0.0.1", 0), .half_closes = true};
  plan.options.connection = {.high_watermark_bytes = 32 * 1024, .low_watermark_bytes = 8 * 1024};
  plan.waves = {{{.request = "Half",
                  .answer = kLongAnswer,
                  .bytes_read_per_step = 64 * 1024,
                  .receive_buffer = kReceiveBuffer},
                 {.request = "File",
                  .answer = House::file_answer(),
                  .end = End::kHearOut,
                  .bytes_read_per_step = 64 * 1024,
                  .receive_buffer = kReceiveBuffer},
                 {.request = words_of_end, .answer = House::kLastWords, .bytes_per_step = 20},
                 {.request = "Various", .answer = House::kPiecesInOne, .end = End::kHearOut},
                 {.request = "Echo this", .answer = "Echo this"}}};
  plan.last = {{.request = "Half", .answer = kLongAnswer},
               {.request = "File", .answer = House::file_answer(), .end = End::kHearOut}};
  Server(fault, report, std::move(plan)).run();
}

/// Guests who say nothing, who say no more, and who neither read nor write: each is cut.
void patient_server(const Fault* fault, Report& report) {
  ServerPlan plan{.at = Endpoint("127.0.0.1", 0)};
  plan.options.connection = {
      .output_bytes_max = 1 << 20, .first_byte_deadline = milliseconds(4), .idle_deadline = milliseconds(6)};
  plan.waves = {{{.end = End::kExpectReset}, {.request = "Echo", .answer = "Echo", .end = End::kHearOut}}};
  Server(fault, report, std::move(plan)).run();
}

}  // namespace anteroom::torture
