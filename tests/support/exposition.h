#pragma once
#include <anteroom/metric_catalogue.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

/// What the exporters write, read back.
namespace anteroom::test {

using Labels = std::map<std::string, std::string>;

/// The text format 0.0.4 read back, by its letter and stricter: every line has to be one that the format
/// knows, a family has one HELP, then one TYPE, then its samples and nobody else's, and no sample comes
/// twice.
class Exposition {
 public:
  struct Family {
    std::string type;
    std::string help;
    std::map<std::pair<std::string, Labels>, double> samples;  // by name, which may have a suffix
  };

  explicit Exposition(std::string_view text) {
    if (!text.ends_with('\n')) fail("the last line has no end", text);
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = text.find('\n', begin);
      read_line(text.substr(begin, end - begin));
      begin = end + 1;
    }
    for (const auto& [name, family] : families_) {
      if (family.type.empty()) fail("no TYPE", name);
      if (family.type == "histogram") check_histograms(name, family);
    }
  }

  const std::map<std::string, Family>& families() const { return families_; }

  double value(const std::string& name, const Labels& labels = {{"thread", "0"}}) const {
    const Family& family = families_.at(family_of(name));
    const auto sample = family.samples.find({name, labels});
    if (sample == family.samples.end()) fail("there is no sample", name);
    return sample->second;
  }

  bool has(const std::string& name, const Labels& labels) const {
    const auto family = families_.find(name);
    return family != families_.end() && family->second.samples.contains({name, labels});
  }

 private:
  [[noreturn]] static void fail(const std::string& what, std::string_view where) {
    throw std::runtime_error(what + ": " + std::string(where));
  }

  static bool is_name(std::string_view name) {
    const auto is_letter = [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
    };
    if (name.empty() || !is_letter(name.front())) return false;
    for (const char c : name) {
      if (!is_letter(c) && !(c >= '0' && c <= '9')) return false;
    }
    return true;
  }

  /// Of escapes it has those of a backslash and of a line break.
  static bool is_help(std::string_view text) {
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (text[i] == '\\' && (++i == text.size() || (text[i] != '\\' && text[i] != 'n'))) return false;
    }
    return true;
  }

  /// Prometheus refuses a scrape for anything else.
  static bool is_utf8(std::string_view text) {
    while (!text.empty()) {
      const auto lead = static_cast<unsigned char>(text.front());
      const std::size_t length = lead < 0x80   ? 1
                                 : lead < 0xC2 ? 0
                                 : lead < 0xE0 ? 2
                                 : lead < 0xF0 ? 3
                                 : lead < 0xF5 ? 4
                                               : 0;
      if (length == 0 || length > text.size()) return false;
      std::uint32_t code = length == 1 ? lead : lead & (0x7FU >> length);
      for (std::size_t i = 1; i < length; ++i) {
        const auto byte = static_cast<unsigned char>(text[i]);
        if (byte >> 6 != 2) return false;
        code = code << 6 | (byte & 0x3FU);
      }
      constexpr std::uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
      if (code < kLeast[length] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return false;
      text.remove_prefix(length);
    }
    return true;
  }

  static std::string take_until(std::string_view& line, char end) {
    const std::size_t at = line.find(end);
    if (at == line.npos) fail(std::string("no '") + end + '\'', line);
    const std::string word(line.substr(0, at));
    line.remove_prefix(at + 1);
    return word;
  }

  void read_line(std::string_view line) {
    if (line.starts_with("# HELP ")) {
      line.remove_prefix(7);
      current_ = take_until(line, ' ');
      if (!is_name(current_) || line.empty()) fail("HELP", line);
      if (!families_.emplace(current_, Family{.type = {}, .help = std::string(line), .samples = {}}).second)
        fail("a family twice", current_);
      if (!is_help(line)) fail("an escape that there is not", line);
    } else if (line.starts_with("# TYPE ")) {
      line.remove_prefix(7);
      if (take_until(line, ' ') != current_) fail("TYPE of another", line);
      Family& family = families_.at(current_);
      if (!family.type.empty() || !family.samples.empty()) fail("TYPE late, or twice", current_);
      if (line != "counter" && line != "gauge" && line != "histogram") fail("no type", line);
      if ((line == "counter") != current_.ends_with("_total"))
        fail("a counter's name, or no counter's", current_);
      family.type = line;
    } else {
      read_sample(line);
    }
  }

  void read_sample(std::string_view line) {
    const std::size_t end = line.find_first_of("{ ");
    if (end == line.npos) fail("no sample", line);
    const std::string name(line.substr(0, end));
    if (!is_name(name) || family_of(name) != current_) fail("a sample out of its family", line);
    line.remove_prefix(end);
    const Labels labels = read_labels(line);
    if (!line.starts_with(' ')) fail("no space before the value", line);
    line.remove_prefix(1);
    Family& family = families_.at(current_);
    const double value = read_number(line);
    if (family.type.empty()) fail("a sample before its TYPE", name);
    if (family.type == "counter" && value < 0) fail("a counter below 0", name);
    if (!family.samples.emplace(std::pair(name, labels), value).second) fail("a sample twice", name);
  }

  static Labels read_labels(std::string_view& line) {
    Labels labels;
    if (!line.starts_with('{')) return labels;
    do {
      line.remove_prefix(1);
      const std::string name = take_until(line, '=');
      if (!is_name(name) || !line.starts_with('"')) fail("a label", line);
      line.remove_prefix(1);
      if (!labels.emplace(name, read_quoted(line)).second) fail("a label twice", name);
    } while (line.starts_with(','));
    if (!line.starts_with('}')) fail("no end of the labels", line);
    line.remove_prefix(1);
    return labels;
  }

  static std::string read_quoted(std::string_view& line) {
    std::string value;
    for (; !line.empty() && line.front() != '"'; line.remove_prefix(1)) {
      char c = line.front();
      if (c == '\\') {
        line.remove_prefix(1);
        c = line.empty() ? '\0' : line.front();
        if (c != '\\' && c != '"' && c != 'n') fail("an escape that there is not", line);
        if (c == 'n') c = '\n';
      }
      value += c;
    }
    if (line.empty()) fail("no closing quote", line);
    if (!is_utf8(value)) fail("no UTF-8", value);
    line.remove_prefix(1);
    return value;
  }

  static double read_number(std::string_view text) {
    if (text == "+Inf") return HUGE_VAL;
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value))
      fail("no number", text);
    return value;
  }

  /// The family that a sample belongs to: a histogram's have suffixes.
  std::string family_of(const std::string& name) const {
    if (families_.contains(name)) return name;
    for (const std::string_view suffix : {"_bucket", "_sum", "_count"}) {
      if (!name.ends_with(suffix)) continue;
      const std::string stem = name.substr(0, name.size() - suffix.size());
      const auto family = families_.find(stem);
      if (family != families_.end() && family->second.type == "histogram") return stem;
    }
    fail("a sample of no family", name);
  }

  /// Cumulative, in ascending order, up to +Inf, which is the count.
  static void check_histograms(const std::string& name, const Family& family) {
    std::map<Labels, std::map<double, double>> buckets;
    for (const auto& [key, value] : family.samples) {
      if (key.first != name + "_bucket") continue;
      Labels labels = key.second;
      const auto bound = labels.extract("le");
      if (bound.empty()) fail("a bucket without le", name);
      if (!buckets[labels].emplace(read_number(bound.mapped()), value).second) fail("a bucket twice", name);
    }
    for (const auto& [labels, counts] : buckets) {
      double before = 0;
      for (const auto& [bound, count] : counts) {
        if (count < before) fail("buckets are not cumulative", name);
        before = count;
      }
      if (!counts.contains(HUGE_VAL)) fail("no bucket +Inf", name);
      if (family.samples.at({name + "_count", labels}) != counts.at(HUGE_VAL)) fail("count", name);
      if (!family.samples.contains({name + "_sum", labels})) fail("no sum", name);
    }
    if (3 * buckets.size() > family.samples.size()) fail("samples are missing", name);
  }

  std::map<std::string, Family> families_;
  std::string current_;
};

/// Every family is in the catalogue, with that type, that text, and those labels, beside `more` of the user.
inline void expect_as_in_catalogue(const Exposition& text, const std::set<std::string>& more = {}) {
  for (const auto& [name, family] : text.families()) {
    const auto* const found = std::ranges::find(kMetricCatalogue, name, &MetricFamily::name);
    if (found == std::end(kMetricCatalogue)) {
      ADD_FAILURE() << name << " is not in the catalogue";
      continue;
    }
    EXPECT_EQ(family.type, metric_type_name(found->type)) << name;
    EXPECT_EQ(family.help, found->help) << name;
    std::set<std::string> expected = more;
    std::istringstream names{std::string(found->labels)};
    for (std::string label; names >> label;) expected.insert(label);
    for (const auto& [key, value] : family.samples) {
      std::set<std::string> labels;
      for (const auto& [label, ignored] : key.second) labels.insert(label);
      if (key.first.ends_with("_bucket")) labels.erase("le");
      EXPECT_EQ(labels, expected) << key.first;
    }
  }
}

}  // namespace anteroom::test
