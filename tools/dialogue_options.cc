#include "dialogue_options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <optional>

#include "load_options.h"

namespace anteroom::tool {
namespace {

using bench::Dialogue;

std::string read_text(const std::string& option, const std::string& typed) {
  const std::optional<std::string> bytes = bench::unescape(typed);
  if (!bytes) refuse(option, typed, R"(text: behind a backslash are only r, n, t, 0, \ and xHH understood)");
  return *bytes;
}

/// "/", "/health?full=1": what may stand in a request line (RFC 9112, section 3.2).
bool is_path(std::string_view path) {
  return path.starts_with('/') && std::ranges::all_of(path, [](char c) { return c > ' ' && c <= '~'; });
}

/// "example.com:8080", "[::1]": what may stand in Host (RFC 9110, 7.2; the characters are those of RFC 3986,
/// 3.2.2). A zone may not (RFC 6874, 4).
bool is_host(std::string_view host) {
  constexpr std::string_view kOfAName = "-._~!$&'()*+,;=%";
  constexpr std::string_view kOfAnAddress = ":.";
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  const auto consists_of = [&](std::string_view text, std::string_view marks) {
    return std::ranges::all_of(text, [&](char c) {
      return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || marks.find(c) != marks.npos;
    });
  };
  const bool has_address = host.starts_with('[');
  const std::size_t end = has_address ? host.find(']') : host.find(':');
  if (has_address && end == host.npos) return false;
  const std::string_view name = host.substr(0, end).substr(has_address ? 1 : 0);
  const std::string_view port = end == host.npos ? "" : host.substr(end + (has_address ? 1 : 0));
  if (name.empty() || !consists_of(name, has_address ? kOfAnAddress : kOfAName)) return false;
  return port.empty() || (port.starts_with(':') && std::ranges::all_of(port.substr(1), is_digit));
}

void refuse_contradictions(const TypedDialogue& typed) {
  if (typed.is_greeting && !typed.send.empty())
    throw CLI::ArgumentMismatch(
        "--greeting is for a server that speaks first, and --send for one that does not");
  if (!typed.http.empty() && (typed.is_greeting || !typed.send.empty()))
    throw CLI::ArgumentMismatch("--http says what is sent: it goes with neither --send nor --greeting");
  if (typed.has_host && typed.http.empty())
    throw CLI::ArgumentMismatch("--host is a field of an HTTP request: --http says which");
}

}  // namespace

void add_dialogue_options(CLI::App& app, TypedDialogue& typed) {
  const std::string group = "The conversation";
  app.add_option("--send", typed.send, R"(What each client says first, such as 'PING\r\n')")->group(group);
  app.add_option("--expect", typed.expect,
                 "What the answer has to contain, such as +PONG; then it was served (default: any byte)")
      ->group(group);
  app.add_flag("--greeting", typed.is_greeting, "The server speaks first, and the client says nothing")
      ->group(group);
  app.add_option("--http", typed.http, "GET this path over HTTP/1.1; served by a status from 200 to 399")
      ->group(group);
  app.add_option("--host", typed.host, "With --http: the name in Host (default: where it is called)")
      ->type_name("NAME")
      ->each([&typed](const std::string&) { typed.has_host = true; })
      ->group(group);
}

Dialogue understand_dialogue(const TypedDialogue& typed, std::string_view host) {
  if (!typed.is_given()) {
    throw CLI::ArgumentMismatch(
        "how does one talk to it? --http / for a web server, --greeting for one that speaks first, or "
        R"(--send 'PING\r\n' --expect +PONG)");
  }
  refuse_contradictions(typed);
  const std::string expect = read_text("--expect", typed.expect);
  if (!typed.http.empty()) {
    if (!is_path(typed.http)) refuse("--http", typed.http, "a path, such as / or /health");
    if (typed.has_host && !is_host(typed.host))
      refuse("--host", typed.host, "a host, and perhaps a port: example.com, example.com:8080, [::1]:8080");
    Dialogue dialogue =
        bench::http_dialogue(typed.http, typed.has_host ? std::string_view(typed.host) : host);
    dialogue.expect = expect;
    return dialogue;
  }
  // Who is only greeted lets the server close, as the textbook's does; a conversation is ended by who began
  // it.
  return {.request = read_text("--send", typed.send),
          .expect = expect,
          .server_closes = typed.send.empty() && expect.empty()};
}

}  // namespace anteroom::tool
