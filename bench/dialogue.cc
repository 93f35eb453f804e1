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

Dialogue::Verdict judge_status(std::string_view heard) noexcept {
  const std::string_view start = heard.substr(0, kStatusLine.size());
  const auto fits = [](char c, char wanted) { return wanted == '#' ? is_digit(c) : c == wanted; };
  if (!std::equal(start.begin(), start.end(), kStatusLine.begin(), fits))
    return Dialogue::Verdict::kAnsweredOtherwise;
  if (start.size() < kStatusLine.size()) return Dialogue::Verdict::kGoOn;
  const bool is_good = start[kStatusAt] == '2' || start[kStatusAt] == '3';
  return is_good ? Dialogue::Verdict::kServed : Dialogue::Verdict::kAnsweredOtherwise;
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

Dialogue::Verdict Dialogue::judge(std::string_view heard) const noexcept {
  if (heard.empty()) return Verdict::kGoOn;
  const Verdict status = is_http ? judge_status(heard) : Verdict::kServed;
  if (status != Verdict::kServed || heard.find(expect) != heard.npos) return status;
  return Verdict::kGoOn;
}

Dialogue http_dialogue(std::string_view path, std::string_view host) {
  return {.request = fmt::format("GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: anteroom\r\nAccept: */*\r\n"
                                 "Connection: close\r\n\r\n",
                                 path, host),
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
