#include <anteroom/bench/dialogue.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstddef>

namespace anteroom::bench {
namespace {

/// "HTTP/1.1 200", as status-line begins (RFC 9112, section 4); # is a digit.
constexpr std::string_view kStatusLine = "HTTP/1.# ###";
constexpr std::size_t kStatusAt = 9;

bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }

/// Whether this may become a status line, or is one.
bool begins_status_line(std::string_view heard) noexcept {
  const std::string_view start = heard.substr(0, kStatusLine.size());
  const auto fits = [](char c, char wanted) { return wanted == '#' ? is_digit(c) : c == wanted; };
  return std::equal(start.begin(), start.end(), kStatusLine.begin(), fits);
}

/// 100 Continue, 103 Early Hints and the like: the answer follows (RFC 9110, 15.2). 101 is final for us, as
/// what follows it is another protocol.
bool is_interim(std::string_view heard) noexcept {
  if (heard.size() < kStatusLine.size() || !begins_status_line(heard)) return false;
  const std::string_view status = heard.substr(kStatusAt, 3);
  return status.front() == '1' && status != "101";
}

/// Where a message's head ends: behind its first empty line. A line may end with a bare LF (RFC 9112, 2.2).
std::size_t end_of_head(std::string_view heard) noexcept {
  for (std::size_t at = heard.find('\n'); at != heard.npos; at = heard.find('\n', at + 1)) {
    const std::string_view rest = heard.substr(at + 1);
    if (rest.starts_with('\n')) return at + 2;
    if (rest.starts_with("\r\n")) return at + 3;
  }
  return heard.npos;
}

Dialogue::Verdict judge_status(std::string_view heard) noexcept {
  const std::string_view start = heard.substr(0, kStatusLine.size());
  if (!begins_status_line(start)) return Dialogue::Verdict::kAnsweredOtherwise;
  if (start.size() < kStatusLine.size()) return Dialogue::Verdict::kGoOn;
  const bool is_good = start[kStatusAt] == '2' || start[kStatusAt] == '3';
  return is_good ? Dialogue::Verdict::kServed : Dialogue::Verdict::kAnsweredOtherwise;
}

/// "[fe80::1%lo]:8080" is "[fe80::1]:8080" to the server: the zone is of this machine alone (RFC 6874, 4).
std::string without_zone(std::string_view host) {
  const std::size_t end = host.find(']');
  const std::size_t zone = host.find('%');
  if (!host.starts_with('[') || end == host.npos || zone > end) return std::string(host);
  return std::string(host.substr(0, zone)) + std::string(host.substr(end));
}

/// What stands behind a backslash, each with what it means.
constexpr std::string_view kLetters = "rnt0\\";
constexpr std::string_view kMeanings("\r\n\t\0\\", 5);

std::optional<char> parse_hex(std::string_view two) {
  unsigned char value = 0;
  const auto [rest, error] = std::from_chars(two.data(), two.data() + two.size(), value, 16);
  const bool is_whole = two.size() == 2 && error == std::errc() && rest == two.data() + two.size();
  return is_whole ? std::optional(static_cast<char>(value)) : std::nullopt;
}

}  // namespace

std::string_view final_response(std::string_view heard) noexcept {
  while (is_interim(heard)) heard.remove_prefix(std::min(end_of_head(heard), heard.size()));
  return heard;
}

Dialogue::Verdict Dialogue::judge(std::string_view heard) const noexcept {
  if (is_http) heard = final_response(heard);
  if (heard.empty()) return Verdict::kGoOn;
  const Verdict status = is_http ? judge_status(heard) : Verdict::kServed;
  if (status != Verdict::kServed || heard.find(expect) != heard.npos) return status;
  return Verdict::kGoOn;
}

Dialogue http_dialogue(std::string_view path, std::string_view host) {
  return {.request = fmt::format("GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: anteroom\r\nAccept: */*\r\n"
                                 "Connection: close\r\n\r\n",
                                 path, without_zone(host)),
          .is_http = true};
}

std::optional<std::string> unescape(std::string_view typed) {
  std::string bytes;
  while (!typed.empty()) {
    if (typed[0] != '\\') {
      bytes += typed[0];
      typed.remove_prefix(1);
      continue;
    }
    const std::size_t letter = typed.size() > 1 ? kLetters.find(typed[1]) : kLetters.npos;
    if (letter != kLetters.npos) {
      bytes += kMeanings[letter];
      typed.remove_prefix(2);
    } else if (typed.substr(1, 1) == "x") {
      const std::optional<char> byte = parse_hex(typed.substr(2, 2));
      if (!byte) return std::nullopt;
      bytes += *byte;
      typed.remove_prefix(4);
    } else {
      return std::nullopt;
    }
  }
  return bytes;
}

std::string escape(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) {
    const std::size_t letter = kMeanings.find(byte);
    if (letter != kMeanings.npos) {
      text += '\\';
      text += kLetters[letter];
    } else if (byte >= ' ' && byte <= '~') {
      text += byte;
    } else {
      text += fmt::format("\\x{:02x}", static_cast<unsigned char>(byte));
    }
  }
  return text;
}

}  // namespace anteroom::bench
