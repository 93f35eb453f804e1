#include <anteroom/metric_catalogue.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "support/exposition.h"

namespace anteroom {
namespace {

TEST(MetricCatalogue, HasEachNameOnce) {
  std::set<std::string_view> names;
  for (const MetricFamily& family : kMetricCatalogue) {
    EXPECT_TRUE(names.insert(family.name).second) << family.name;
    EXPECT_TRUE(family.name.starts_with("anteroom_")) << family.name;
    EXPECT_TRUE(std::ranges::all_of(family.name, [](char c) { return (c >= 'a' && c <= 'z') || c == '_'; }))
        << family.name;
  }
}

TEST(MetricCatalogue, HasNoNameThatIsASampleOfAHistogram) {
  std::set<std::string> names;
  for (const MetricFamily& family : kMetricCatalogue) names.insert(std::string(family.name));
  for (const MetricFamily& family : kMetricCatalogue) {
    if (family.type != MetricType::kHistogram) continue;
    for (const char* suffix : {"_bucket", "_sum", "_count", "_total"})
      EXPECT_FALSE(names.contains(std::string(family.name) + suffix)) << family.name << suffix;
  }
}

/// https://prometheus.io/docs/practices/naming/
TEST(MetricCatalogue, NamesCarryTheirUnitAndTotalIsForCounters) {
  for (const MetricFamily& family : kMetricCatalogue) {
    std::string_view stem = family.name;
    EXPECT_EQ(stem.ends_with("_total"), family.type == MetricType::kCounter) << family.name;
    if (stem.ends_with("_total")) stem.remove_suffix(6);
    for (const std::string_view unit : {"seconds", "bytes", "ratio"})
      EXPECT_EQ(stem.ends_with('_' + std::string(unit)), family.unit == unit) << family.name;
    EXPECT_TRUE(family.unit.empty() || family.unit == "seconds" || family.unit == "bytes" ||
                family.unit == "ratio")
        << family.name;
  }
}

TEST(MetricCatalogue, HelpsAreSentencesOfOneLine) {
  for (const MetricFamily& family : kMetricCatalogue) {
    EXPECT_TRUE(family.help.ends_with('.')) << family.name;
    EXPECT_EQ(family.help.find_first_of("\n\\|"), family.help.npos) << family.name;
  }
}

TEST(MetricCatalogue, HasTheLabelsOfItsExporter) {
  for (const MetricFamily& family : kMetricCatalogue) {
    if (family.name.starts_with("anteroom_netns_")) {
      EXPECT_EQ(family.labels, "") << family.name;
    } else if (family.name.starts_with("anteroom_watch_")) {
      EXPECT_TRUE(family.labels.empty() || family.labels.starts_with("address port")) << family.name;
    } else {
      EXPECT_EQ(family.labels, "thread") << family.name;
    }
  }
}

std::string row_of(const MetricFamily& family) {
  std::string labels;
  std::istringstream names{std::string(family.labels)};
  for (std::string label; names >> label;) labels += (labels.empty() ? "`" : ", `") + label + '`';
  std::ostringstream row;
  row << "| `" << family.name << "` | " << metric_type_name(family.type) << " | " << labels << " | "
      << family.help << " |";
  return row.str();
}

TEST(MetricCatalogue, IsTheTableOfTheGuide) {
  std::ifstream file(SERVICES);
  std::vector<std::string> rows;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("| `anteroom_") && line.find("` | ") != std::string::npos &&
        (line.find(" | counter | ") != std::string::npos || line.find(" | gauge | ") != std::string::npos ||
         line.find(" | histogram | ") != std::string::npos))
      rows.push_back(line);
  }
  std::string expected;
  std::string found;
  for (const MetricFamily& family : kMetricCatalogue) expected += row_of(family) + '\n';
  for (const std::string& row : rows) found += row + '\n';
  EXPECT_EQ(found, expected);
}

/// As a scraper would read it back.
std::string read_back(const std::string& value) {
  const test::Exposition text("# HELP a b\n# TYPE a gauge\na{x=\"" + escaped_label_value(value) + "\"} 1\n");
  return text.families().at("a").samples.begin()->first.second.at("x");
}

TEST(MetricCatalogue, LabelValuesAreReadBackAsTheyWere) {
  for (const std::string& value :
       {std::string(), std::string("plain"), std::string("a\\b\"c\nd"), std::string("\\n"), std::string("\\"),
        std::string("{x=\"1\"} 2"), std::string("\t\x01\x7f"), std::string("ä€😀"), std::string(3, '\0')})
    EXPECT_EQ(read_back(value), value);
}

TEST(MetricCatalogue, LabelValuesAreUtf8WhateverTheyWere) {
  const std::string mark = "\xEF\xBF\xBD";
  EXPECT_EQ(read_back("a\xff"
                      "b"),
            "a" + mark + "b");
  EXPECT_EQ(read_back("\xc3"), mark) << "cut in the middle";
  EXPECT_EQ(read_back("\xc3\""), mark + "\"") << "what follows is not eaten";
  EXPECT_EQ(read_back("\xc0\x80"), mark + mark) << "longer than needed";
  EXPECT_EQ(read_back("\xed\xa0\x80"), mark + mark + mark) << "half a surrogate";
  EXPECT_EQ(read_back("\xf4\x90\x80\x80"), mark + mark + mark + mark) << "beyond U+10FFFF";
  EXPECT_EQ(read_back("\xf0\x9f\x98\x80"), "\xf0\x9f\x98\x80");
}

}  // namespace
}  // namespace anteroom
