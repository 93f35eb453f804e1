#include <anteroom/metric_catalogue.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace anteroom {
namespace {

/// How many bytes at the beginning of `text`, which is not empty, are one character of UTF-8 (RFC 3629, 4);
/// 0 if they are none.
std::size_t utf8_length(std::string_view text) noexcept {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  const std::size_t length = lead >= 0xC2 && lead < 0xE0   ? 2
                             : lead >= 0xE0 && lead < 0xF0 ? 3
                             : lead >= 0xF0 && lead < 0xF5 ? 4
                                                           : 0;
  if (length == 0 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  // Neither longer than needed, nor a surrogate, nor beyond U+10FFFF.
  const unsigned char second = byte(1);
  const bool is_none = (lead == 0xE0 && second < 0xA0) || (lead == 0xED && second >= 0xA0) ||
                       (lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second >= 0x90);
  return is_none ? 0 : length;
}

}  // namespace

std::string_view metric_type_name(MetricType type) noexcept {
  switch (type) {
    case MetricType::kCounter:
      return "counter";
    case MetricType::kGauge:
      return "gauge";
    case MetricType::kHistogram:
      return "histogram";
  }
  return "untyped";
}

std::string metric_header(const MetricFamily& family) {
  return fmt::format("# HELP {} {}\n# TYPE {} {}\n", family.name, family.help, family.name,
                     metric_type_name(family.type));
}

std::string escaped_label_value(std::string_view value) {
  std::string escaped;
  while (!value.empty()) {
    const std::size_t length = utf8_length(value);
    const std::string_view character = value.substr(0, std::max<std::size_t>(length, 1));
    if (character == "\n") {
      escaped += "\\n";
    } else if (length == 0) {
      escaped += "\xEF\xBF\xBD";
    } else {
      if (character == "\\" || character == "\"") escaped += '\\';
      escaped += character;
    }
    value.remove_prefix(character.size());
  }
  return escaped;
}

}  // namespace anteroom
