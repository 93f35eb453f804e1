#include "progress.h"

#include <fmt/format.h>
#include <standard_streams.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "table.h"

namespace anteroom::tool {
namespace {

constexpr std::chrono::milliseconds kRedraw{100};

std::string_view environment(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

bool locale_is_utf8() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const std::string_view value = environment(name);
    if (value.empty()) continue;
    return value.find("UTF-8") != value.npos || value.find("utf8") != value.npos;
  }
  return false;
}

int columns_of(int descriptor, int otherwise) {
  int columns = 0;
  const std::string_view wanted = environment("COLUMNS");
  if (std::from_chars(wanted.data(), wanted.data() + wanted.size(), columns).ec == std::errc{} && columns > 0)
    return columns;
  winsize size{};
  if (::ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return otherwise;
}

}  // namespace

Terminal Terminal::of(int descriptor) {
  Terminal terminal;
  terminal.is_terminal = ::isatty(descriptor) == 1;
  terminal.colours = terminal.is_terminal && environment("NO_COLOR").empty() && environment("TERM") != "dumb";
  terminal.utf8 = locale_is_utf8();
  if (terminal.is_terminal) terminal.columns = columns_of(descriptor, 80);
  return terminal;
}

std::string Terminal::wrap(std::string_view code, std::string_view text) const {
  return colours ? fmt::format("\x1b[{}m{}\x1b[0m", code, text) : std::string(text);
}

ProgressLine::ProgressLine(bool quiet)
    : terminal_(Terminal::of(STDERR_FILENO)),
      enabled_(terminal_.is_terminal && !quiet && environment("TERM") != "dumb") {}

ProgressLine::~ProgressLine() {
  if (shown_) print_error("\r\x1b[K");
}

void ProgressLine::show(const bench::ExperimentProgress& progress) {
  const bench::Scenario& scenario = *progress.scenario;
  show(fmt::format("trial {} of {}: {}, backlog {}, {} of {} clients, at most {} s left", progress.trial + 1,
                   progress.trials, bench::name(scenario.server), print_backlog(scenario.backlog),
                   with_commas(progress.clients_ended),
                   with_commas(static_cast<std::uint64_t>(scenario.clients)),
                   std::chrono::ceil<std::chrono::seconds>(progress.left).count()));
}

void ProgressLine::show(const std::string& line) {
  const auto now = std::chrono::steady_clock::now();
  if (!enabled_ || (shown_ && now - last_ < kRedraw)) return;
  last_ = now;
  shown_ = true;
  print_error("\r{:.{}}\x1b[K", line, terminal_.columns - 1);
}

}  // namespace anteroom::tool
