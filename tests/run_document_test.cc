// What is done with a finished run: read, as CSV, compared with another, held against rules, drawn.
#include "run_document.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <variant>
#include <vector>

#include "csv.h"
#include "curve.h"
#include "diff.h"
#include "rules.h"
#include "support/sanitized.h"

namespace anteroom::tool {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::Ge;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

// Documents, small and made up.

Json estimate(double median, double worst) {
  return {{"median", median}, {"low", median}, {"high", worst}, {"best", median}, {"worst", worst}};
}

Json latencies(double p99_s, double unserved = 0, Json lower_bounds = Json::array()) {
  return {{"p50", 0.0001},
          {"p90", 0.001},
          {"p99", p99_s},
          {"p99_9", 2 * p99_s},
          {"max", 3 * p99_s},
          {"unserved", unserved},
          {"lower_bounds", std::move(lower_bounds)}};
}

Json fates(double at_once, double deadline) {
  Json json = Json::object();
  for (const std::string_view name : kFateNames) json[std::string(name)] = 0;
  json["served_at_once"] = at_once;
  json["deadline"] = deadline;
  return json;
}

/// A row of which `lost` is the share of clients in the median run.
Json row(const std::string& server, Json backlog, double lost, double p99_s = 0.002) {
  return {{"server", server},
          {"loop", "open"},
          {"backlog", std::move(backlog)},
          {"runs", 3},
          {"void_runs", 0},
          {"clients", 3000},
          {"connections_per_second", estimate(4900.5, 4800)},
          {"lost_first_syn", estimate(lost, lost * 1.5)},
          {"model_loss", lost},
          {"fates", fates(2990, 10)},
          {"ghosts", estimate(lost * 100, lost * 200)},
          {"listen_overflows", estimate(0, 0)},
          {"listen_drops", estimate(0, 0)},
          {"syn_retransmits", estimate(0, 0)},
          {"first_stall_drops", nullptr},
          {"law", nullptr},
          {"deepest_queue", estimate(60, 65)},
          {"server_cpu_s_per_connection", estimate(2.1e-5, 2.2e-5)},
          {"first_byte_s", latencies(p99_s)},
          {"connect_s", latencies(0.001)},
          {"queue_wait_s", {{"p50", 0}, {"p99", 0.09}, {"max", 0.1}}},
          {"histograms",
           {{"first_byte", {100, 2800, 90}}, {"connect", {3000, 0, 0}}, {"unfinished", {0, 0, 10}}}}};
}

/// The numbers of one trial, each a run's.
struct Measurement {
  double lost = 0;
  double p99_s = 0.002;
  double rate = 4900;
  double cpu_s = 0.02;
};

Json trial(const std::string& server, Json backlog, const Measurement& of) {
  return {{"server", server},
          {"loop", "open"},
          {"backlog", std::move(backlog)},
          {"backlog_in_force", 64},
          {"clients", 1000},
          {"seed", 11},
          {"void", false},
          {"problems", Json::array()},
          {"network", "pair"},
          {"fates", fates(1000, 0)},
          {"lost_first_syn", of.lost},
          {"first_byte_s", latencies(of.p99_s)},
          {"connections_per_second", of.rate},
          {"deepest_queue", 65},
          {"server_cpu_s", of.cpu_s}};
}

Json document(const char* schema) {
  return {{"schema", schema},
          {"version", "0.2.0"},
          {"machine", {{"kernel", "Linux 6.1"}, {"processors", 2}, {"memory_bytes", 25769803776}}},
          {"network",
           {{"kind", "pair"}, {"why", ""}, {"rtt_s", 0}, {"sysctls", {{"net.ipv4.tcp_syncookies", "1"}}}}},
          {"load", {{"in_words", "1,000 clients"}, {"clients", 1000}, {"rate", 5000}, {"flows", nullptr}}},
          {"rows", Json::array()},
          {"edges_s", {1e-5, 1e-4, 1e-2, 10.0}},
          {"trials", Json::array()}};
}

Json tune() {
  Json run = document("anteroom.tune/2");
  run["target_loss"] = 0.001;
  run["recommended"] = 512;
  run["rows"] = {row("reactor", 64, 0.26, 1.02), row("reactor", 128, 0.001, 0.9), row("reactor", 512, 0),
                 row("reactor", nullptr, 0)};
  run["trials"] = {trial("reactor", 64, {.lost = 260}), trial("reactor", 512, {})};
  return run;
}

Json compare() {
  Json run = document("anteroom.compare/2");
  run["target_loss"] = nullptr;
  run["rows"] = {row("reactor", 64, 0.1), row("blocking", 64, 0.2, 1.02)};
  run["trials"] = {trial("reactor", 64, {.lost = 100}), trial("blocking", 64, {.lost = 200})};
  return run;
}

Json& row_with(Json& run, const Json& backlog) {
  return *std::ranges::find_if(run["rows"], [&](const Json& row) { return row["backlog"] == backlog; });
}

Terminal terminal(int columns, bool utf8 = true) {
  Terminal terminal;
  terminal.columns = columns;
  terminal.utf8 = utf8;
  return terminal;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::string without_colours(const std::string& text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\x1b') {
      i = text.find('m', i);
    } else {
      plain += text[i];
    }
  }
  return plain;
}

std::size_t widest_line(const std::string& text) {
  std::size_t widest = 0;
  for (const std::string& line : lines_of(without_colours(text)))
    widest = std::max(widest, display_width(line));
  return widest;
}

/// What is said of it; empty if nothing is wrong.
std::string complaint(const std::function<void()>& about) {
  try {
    about();
  } catch (const RunDocumentError& error) {
    return error.what();
  }
  return {};
}

std::string complaint(const Json& run) {
  return complaint([&] { understand(run); });
}

/// A directory of the test's own.
class RunDocumentFile : public testing::Test {
 protected:
  RunDocumentFile()
      : directory_(std::filesystem::temp_directory_path() / ("anteroom-runs-" + std::to_string(::getpid()))) {
    std::filesystem::create_directory(directory_);
  }
  ~RunDocumentFile() override { std::filesystem::remove_all(directory_); }

  std::string path() const { return (directory_ / "run.json").string(); }
  std::string directory() const { return directory_.string(); }
  std::string write(const std::string& text) const {
    std::ofstream(path(), std::ios::binary) << text;
    return path();
  }
  std::string complaint_about(const std::string& text) const {
    const std::string path = write(text);
    return complaint([&] { read_run(path); });
  }

 private:
  std::filesystem::path directory_;
};

TEST_F(RunDocumentFile, IsReadAsItWasWritten) {
  EXPECT_EQ(read_run(write(tune().dump())), tune());
  EXPECT_EQ(read_run(write(compare().dump(2))), compare());
}

TEST_F(RunDocumentFile, MayBeTheStandardInput) {
  const int kept = ::dup(STDIN_FILENO);
  const int file = ::open(write(tune().dump()).c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_EQ(::dup2(file, STDIN_FILENO), STDIN_FILENO);
  const Json run = read_run("-");
  const std::string of_nothing = complaint([] { read_run("-"); });  // it is at its end
  ::dup2(kept, STDIN_FILENO);
  ::close(kept);
  ::close(file);
  EXPECT_EQ(run, tune());
  EXPECT_EQ(of_nothing, "the standard input is empty");
}

TEST_F(RunDocumentFile, RefusesInOneLineThatNamesItAndTheCause) {
  EXPECT_EQ(complaint([] { read_run("/nowhere/run.json"); }),
            "cannot read /nowhere/run.json: No such file or directory");
  EXPECT_EQ(complaint([&] { read_run(directory()); }), "cannot read " + directory() + ": Is a directory");
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", " is empty"},
      {"hello", " is no JSON: line 1, column 1"},
      {"{\n  \"schema\": nan\n}", " is no JSON: line 2, column 14"},
      {"{\n \"a\": \"\xff\"}", " is no JSON: line 2, column 8"},
      {"{\"schema\": \"anteroom.tune/2\",\n", " is no JSON: it ends too early, at line 2, column 1"},
      {"{\"a\": 1e999}", " is no JSON: it has a number that is too large to be one"},
      {"[]", " is not a run of anteroom: no schema"},
      {"null", " is not a run of anteroom: no schema"},
      {"{\"schema\": 2}", " is not a run of anteroom: no schema"},
      {"{\"rows\": []}", " is not a run of anteroom: no schema"},
      {"{\"schema\": \"anteroom.tune/1\"}",
       " has schema anteroom.tune/1; this anteroom reads anteroom.tune/2, anteroom.compare/2 and "
       "anteroom.swarm/1"},
      {"{\"schema\": \"a\\n\\u001b[31mb\"}",
       " has schema a??[31mb; this anteroom reads anteroom.tune/2, anteroom.compare/2 and anteroom.swarm/1"},
      {"{\"schema\": \"anteroom.tune/2\"}", ": recommended is missing"},
      {std::string(100'000, '['), " is not a run of anteroom: nested deeper than 64"},
  };
  for (const auto& [text, wanted] : cases) EXPECT_EQ(complaint_about(text), path() + wanted);
}

/// A sanitizer takes ten times as long.
constexpr int kShare = test::kIsSanitized ? 10 : 1;

/// `count` times `element`, with commas between.
std::string many(const std::string& element, std::size_t count) {
  std::string text;
  text.reserve((element.size() + 1) * count);
  for (std::size_t i = 0; i < count; ++i) {
    if (i > 0) text += ',';
    text += element;
  }
  return text;
}

TEST_F(RunDocumentFile, IsCountedBeforeItIsParsed) {
  const std::string schema = R"({"schema": "anteroom.tune/2", )";
  std::string fields;
  for (int i = 0; i < 60'000; ++i) fields += (i == 0 ? "\"" : ",\"") + std::to_string(i) + "\": 1";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {schema + R"("rows": [)" + many(R"({"server": {}})", 60'000) + "]}",
       ": rows has 60000 elements, more than the 10000 that we read"},
      {schema + R"("trials": [)" + many("{}", 60'000) + "]}",
       ": trials has 60000 elements, more than the 20000 that we read"},
      {schema + R"("machine": {)" + fields + "}}",
       ": an object has 60000 fields, more than the 200 that we read"},
      {schema + R"("notes": [)" + many("1", 10'000'100) + "]}",
       ": the document has 10000001 values or more, more than the 10000000 that we read"},
      {schema + R"("rows": [[)" + std::string(5'000'000, '['),
       " is not a run of anteroom: nested deeper than 64"},
      {many(R"({"a":)", 1'000'000), " is not a run of anteroom: nested deeper than 64"},
  };
  for (const auto& [text, wanted] : cases) {
    const auto began = std::chrono::steady_clock::now();
    EXPECT_EQ(complaint_about(text), path() + wanted);
    EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(test::kIsSanitized ? 60 : 5))
        << "it took 23 s";
  }
}

TEST_F(RunDocumentFile, IsNotCountedByWhatItsTextsHave) {
  Json run = tune();
  run["notes"] = {std::string(1000, '['), "\"rows\": [" + std::string(100'000, ','),
                  "\\\"" + std::string(300, '{')};
  EXPECT_EQ(complaint_about(run.dump()), "");
}

TEST_F(RunDocumentFile, IsReadInTimeThoughItHasAsMuchAsItMay) {
  Json run = tune();
  const Json row{{"server", "reactor"}, {"loop", "open"}, {"backlog", 8}, {"runs", 0}, {"void_runs", 3}};
  const Json trial = run["trials"][0];
  run["rows"] = Json::array();
  for (int i = 0; i < 10'000 / kShare; ++i) {
    run["rows"].push_back(row);
    run["rows"].back()["backlog"] = i;
  }
  run["trials"] = std::vector<Json>(20'000 / kShare, trial);
  const auto began = std::chrono::steady_clock::now();
  EXPECT_EQ(complaint_about(run.dump()), "");
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(20));
}

TEST_F(RunDocumentFile, IsRefusedWhereverItWasCutOff) {
  const std::string text = tune().dump();
  for (std::size_t length = 1; length < text.size(); length += 97) {
    EXPECT_THAT(complaint_about(text.substr(0, length)),
                HasSubstr(" is no JSON: it ends too early, at line 1, "))
        << length;
  }
}

TEST(RunDocument, NamesTheFieldThatIsWrong) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<std::tuple<std::string, Json, std::string>> cases = {
      {"/rows/0/clients", -1, "rows[0].clients is -1, not a whole number from 0 to 9007199254740992"},
      {"/rows/0/clients", 1.5, "rows[0].clients is 1.5, not a whole number from 0 to 9007199254740992"},
      {"/rows/0/backlog", 1e300, "rows[0].backlog is 1e+300, not a whole number from 0 to 2147483647"},
      {"/rows/1/first_byte_s/p99", "fast", "rows[1].first_byte_s.p99 is \"fast\", not a number"},
      {"/rows/1/first_byte_s/p99", nan, "rows[1].first_byte_s.p99 is no finite number, not a number"},
      {"/rows/1/lost_first_syn/worst", 1.5, "rows[1].lost_first_syn.worst is 1.5, not a share from 0 to 1"},
      {"/rows/1/ghosts/low", nullptr, "rows[1].ghosts.low is null, not a number"},
      {"/rows/2/fates", Json::array(), "rows[2].fates is an array, not an object"},
      {"/rows/2/server", "a\nb", "rows[2].server is \"a\\nb\", not a name of 1 to 64 printable bytes"},
      {"/rows/2/histograms/unfinished", Json::array({1}),
       "rows[2].histograms.unfinished has 1 bins, where edges_s has 3"},
      {"/edges_s", {1, 1}, "edges_s[1] is 1, not above the one before it"},
      {"/edges_s", Json::array({1}), "edges_s has no bin"},
      {"/trials/0/void", 0, "trials[0].void is 0, not true or false"},
      {"/trials/0/lost_first_syn", 1001,
       "trials[0].lost_first_syn is 1001, not at most the trial's 1000 clients"},
      {"/load", "much", "load is \"much\", not an object"},
      {"/network/sysctls", 5, "network.sysctls is 5, not an object"},
      {"/rows", Json::object(), "rows is an object, not an array"},
      {"/notes", "a note", "notes is \"a note\", not an array"},
      {"/notes", Json::array({5}), "notes[0] is 5, not a text"},
      {"/theory", Json::object(), "theory is an object, not an array"},
      {"/theory", Json::array({Json::object()}), "theory[0].server is missing"},
      {"/comparisons", 5, "comparisons is 5, not an array"},
      {"/comparisons", Json::array({{{"server", 5}}}), "comparisons[0].server is 5, not a text"},
      {"/rows/0/queue_over_time",
       {{"step_s", 0.01}, {"depth", 5}},
       "rows[0].queue_over_time.depth is 5, not an array"},
      {"/rows/0/queue_over_time",
       {{"step_s", 0.01}, {"depth", {1, "two"}}},
       "rows[0].queue_over_time.depth[1] is \"two\", not a whole number from 0 to 9007199254740992"},
      {"/rows/0/turned_away", 0.5, "rows[0].turned_away is 0.5, not an object"},
      {"/trials/0/turned_away", 1001, "trials[0].turned_away is 1001, not at most the trial's 1000 clients"},
      {"/advice", {{"reason", 5}}, "advice.reason is 5, not a text"},
      {"/advice", {{"limits", 5}}, "advice.limits is 5, not an array"},
      {"/trials/0/problems", "all", "trials[0].problems is \"all\", not an array"},
  };
  for (const auto& [pointer, value, wanted] : cases) {
    Json run = tune();
    run[Json::json_pointer(pointer)] = value;
    EXPECT_EQ(complaint(run), wanted);
  }
  Json run = tune();
  run["rows"][1].erase("fates");
  EXPECT_EQ(complaint(run), "rows[1].fates is missing");
}

TEST(RunDocument, NeedsNoMoreOfARowWithoutRunsThatCountThanWhoseItIs) {
  Json run = tune();
  run["rows"].push_back(
      {{"server", "reactor"}, {"loop", "open"}, {"backlog", 8}, {"runs", 0}, {"void_runs", 3}});
  const RunDocument document = understand(run);
  EXPECT_FALSE(document.rows.back().measured);
  EXPECT_THAT(curve(run, terminal(80)), HasSubstr("void"));
}

TEST(RunDocument, NeedsNoMoreOfATrialThatWasCutShortThanWhoseItIs) {
  Json run = tune();
  Json& cut = run["trials"][0];
  for (const char* field : {"fates", "lost_first_syn", "first_byte_s", "connections_per_second",
                            "deepest_queue", "server_cpu_s"}) {
    cut.erase(field);
  }
  EXPECT_FALSE(understand(run).trials.front().lost_first_syn);
}

TEST(RunDocument, CannotCommandTheTerminal) {
  EXPECT_EQ(printable("a\x1b[31m\nb\x7f"), "a?[31m?b?");
  EXPECT_EQ(printable("a\xc2\x9b"
                      "31m"),
            "a?31m");  // U+009B is ESC [ in one
  EXPECT_EQ(printable("µ ▶"), "µ ▶");
  EXPECT_EQ(printable("a\xff\xc2"
                      "b\xe2\x82"),
            "a??b??");  // no UTF-8
  EXPECT_EQ(printable("12345678", 7), "1234...");
  EXPECT_EQ(printable("123µ5678", 7), "123...");  // not half of a character
}

// Whatever a document holds.

/// Everything that is done with a run. Throws only RunDocumentError.
void use(const Json& run, const Json& other) {
  static const std::vector<Rule> rules = [] {
    std::vector<Rule> parsed;
    for (const char* text :
         {"lost>0", "p99>5ms", "connect_p99.9<1s", "ghosts@64>0", "max@unlimited!=1s", "cpu>30", "depth>1",
          "void>0", "recommended<64", "refused>0", "conn/s<1", "resets>0"}) {
      parsed.push_back(std::get<Rule>(parse_rule(text)));
    }
    return parsed;
  }();
  const std::size_t columns = 100;
  EXPECT_THAT(lines_of(csv(run)), SizeIs(run["rows"].size() + 1));
  for (const int width : {1, 40, 1000}) {
    EXPECT_LE(widest_line(curve(run, terminal(width, width > 40))),
              std::min<std::size_t>(columns, static_cast<std::size_t>(width)));
  }
  for (const auto& [before, after] : {std::pair(&run, &other), std::pair(&other, &run)}) {
    const Diff changes = diff(*before, *after);
    EXPECT_LE(widest_line(print_diff(changes, terminal(60))), 60U);
    EXPECT_FALSE(diff_json(changes).dump().empty());
  }
  for (const std::string& sentence : broken_rules(run, rules)) EXPECT_THAT(lines_of(sentence), SizeIs(1));
}

/// The name that a complaint has for the field at /rows/0/clients: rows[0].clients
std::string name_at(const Json::json_pointer& pointer) {
  std::string name;
  for (Json::json_pointer rest = pointer; !rest.empty(); rest = rest.parent_pointer()) {
    const bool is_index = rest.back().find_first_not_of("0123456789") == std::string::npos;
    const std::string step = is_index ? "[" + rest.back() + "]" : rest.back();
    const bool needs_point = !name.empty() && name.front() != '[';
    name = step + (needs_point ? "." : "") + name;
  }
  return name;
}

/// Calls back with each way to each field and element.
void each_pointer(const Json& json, const Json::json_pointer& at,
                  const std::function<void(const Json::json_pointer&)>& call) {
  if (!at.empty()) call(at);
  if (json.is_object()) {
    for (const auto& [key, value] : json.items()) each_pointer(value, at / key, call);
  } else if (json.is_array()) {
    for (std::size_t i = 0; i < json.size(); ++i) each_pointer(json[i], at / i, call);
  }
}

/// Takes each field out of the document, and puts what does not belong there in its place.
void attack(const Json& whole) {
  // With a sanitizer that takes a minute and more; 9 has no factor in common with the number of the values.
  constexpr int kOneIn = test::kIsSanitized ? 9 : 1;
  int attempts = 0;
  const Json other = tune();

  int understood = 0;
  int refused = 0;
  const std::vector<std::optional<Json>> values = {std::nullopt,  // that is, without the field
                                                   nullptr,
                                                   "text",
                                                   "",
                                                   "\x1b]0;\n\xff",
                                                   -1,
                                                   0,
                                                   1e300,
                                                   std::nan(""),
                                                   0.5,
                                                   true,
                                                   Json::array(),
                                                   Json::object(),
                                                   Json::array({nullptr})};
  each_pointer(whole, Json::json_pointer(), [&](const Json::json_pointer& pointer) {
    for (const auto& value : values) {
      if (++attempts % kOneIn != 0) continue;
      Json run = whole;
      if (value) {
        run[pointer] = *value;
      } else if (Json& parent = run[pointer.parent_pointer()]; parent.is_object()) {
        parent.erase(pointer.back());
      } else {
        parent.erase(parent.begin() + std::stoi(pointer.back()));
      }
      SCOPED_TRACE(pointer.to_string() + " is " +
                   (value ? value->dump(-1, ' ', false, Json::error_handler_t::replace) : "not there"));
      const std::string what = complaint(run);
      EXPECT_EQ(printable(what, 1000), what);
      if (what.empty()) {
        ++understood;
        use(run, other);
        continue;
      }
      ++refused;
      EXPECT_EQ(complaint([&] { csv(run); }), what);
      EXPECT_EQ(complaint([&] { curve(run, terminal(80)); }), what);
      EXPECT_EQ(complaint([&] { broken_rules(run, {}); }), what);
      EXPECT_EQ(complaint([&] { diff(run, other); }), "the old run: " + what);
      EXPECT_EQ(complaint([&] { diff(other, run); }), "the new run: " + what);
      // An edge is held against the one after it, too.
      const bool is_about_another = !value || *value == 1e300 || pointer.back() == "schema" ||
                                    pointer.to_string().starts_with("/edges_s/");
      if (!is_about_another) {
        EXPECT_THAT(what, HasSubstr(name_at(pointer)));
      }
    }
  });
  EXPECT_GT(understood, 500 / kOneIn);
  EXPECT_GT(refused, 500 / kOneIn);
}

TEST(RunDocument, IsUnderstoodOrRefusedByNameWhateverATuneHolds) {
  Json run = tune();
  run["rows"].erase(3);
  run["rows"].erase(1);
  attack(run);
}
TEST(RunDocument, IsUnderstoodOrRefusedByNameWhateverACompareHolds) { attack(compare()); }

// Comma-separated values.

std::vector<std::string> fields_of(const std::string& line) {
  std::vector<std::string> fields(1);
  bool is_quoted = false;
  for (const char c : line) {
    if (c == '"') is_quoted = !is_quoted;
    if (c == ',' && !is_quoted) {
      fields.emplace_back();
    } else {
      fields.back() += c;
    }
  }
  return fields;
}

std::map<std::string, std::string> csv_row(const Json& run, std::size_t index) {
  const auto lines = lines_of(csv(run));
  const auto names = fields_of(lines.at(0));
  const auto values = fields_of(lines.at(index + 1));
  EXPECT_EQ(names.size(), values.size());
  std::map<std::string, std::string> row;
  for (std::size_t i = 0; i < names.size() && i < values.size(); ++i) row[names[i]] = values[i];
  EXPECT_EQ(row.size(), names.size()) << "a name is there twice";
  return row;
}

TEST(Csv, HasALineForEachRow) {
  EXPECT_THAT(lines_of(csv(tune())), SizeIs(5));
  Json empty = tune();
  empty["rows"] = Json::array();
  EXPECT_THAT(lines_of(csv(empty)), SizeIs(1));
}

TEST(Csv, HasEachNumberInFullPrecision) {
  Json run = tune();
  run["rows"][0]["lost_first_syn"]["median"] = 0.1 + 0.2;
  run["rows"][0]["first_byte_s"]["lower_bounds"] = {"p99_9", "max"};
  auto row = csv_row(run, 0);
  EXPECT_EQ(row["backlog"], "64");
  EXPECT_EQ(row["recommended"], "no");
  EXPECT_EQ(row["clients"], "3000");
  EXPECT_EQ(row["connections_per_second"], "4900.5");
  EXPECT_EQ(row["lost_first_syn"], "0.30000000000000004");
  EXPECT_EQ(row["lost_first_syn_low"], "0.26");
  EXPECT_EQ(row["lost_first_syn_high"], "0.39");
  EXPECT_EQ(row["server_cpu_s_per_connection"], "2.1e-05");
  EXPECT_EQ(row["served_at_once"], "2990");
  EXPECT_EQ(row["deadline"], "10");
  EXPECT_EQ(row["first_byte_p99_s"], "1.02");
  EXPECT_EQ(row["first_byte_lower_bounds"], "p99_9 max");
  EXPECT_EQ(row["connect_p99_s"], "0.001");
  EXPECT_EQ(row["queue_wait_max_s"], "0.1");
  EXPECT_EQ(row["law"], "");
  EXPECT_EQ(row["first_stall_drops_low"], "");
}

TEST(Csv, HasWhoWasTurnedAwayWhereThatIsKnown) {
  Json run = tune();
  run["rows"][0]["turned_away"] = estimate(0.3, 0.4);
  run["rows"][0]["turned_away"]["upper"] = 0.45;
  auto row = csv_row(run, 0);
  EXPECT_EQ(row["lost_first_syn"], "0.26");
  EXPECT_EQ(row["turned_away"], "0.3");
  EXPECT_EQ(row["turned_away_high"], "0.4");
  EXPECT_EQ(row["turned_away_upper"], "0.45");
  EXPECT_EQ(row.count("lost_first_syn_upper"), 0U);
  EXPECT_EQ(csv_row(run, 1)["turned_away"], "");
}

TEST(Csv, TellsTheUnlimitedBacklogAndTheRecommendedOne) {
  EXPECT_EQ(csv_row(tune(), 3)["backlog"], "unlimited");
  EXPECT_EQ(csv_row(tune(), 2)["recommended"], "yes");
  EXPECT_EQ(csv_row(compare(), 0)["recommended"], "");
}

TEST(Csv, LeavesEmptyWhatWasNotMeasured) {
  Json run = tune();
  run["rows"][0] = {{"server", "reactor"}, {"loop", "open"}, {"backlog", 8}, {"runs", 0}, {"void_runs", 3}};
  auto row = csv_row(run, 0);
  EXPECT_EQ(row["void_runs"], "3");
  EXPECT_EQ(row["clients"], "");
  EXPECT_EQ(row["refused"], "");
  EXPECT_EQ(row["first_byte_unserved"], "");
}

TEST(Csv, QuotesWhatWouldBreakALine) {
  Json run = compare();
  run["rows"][0]["server"] = "mine, the \"fast\" one";
  EXPECT_THAT(csv(run), HasSubstr("\n\"mine, the \"\"fast\"\" one\",open,64,"));
}

TEST(Csv, HasNothingThatASpreadsheetWouldRun) {
  for (const std::string name :
       {"=HYPERLINK(\"http://evil.example\")", "+1", "-1", "@SUM(1)", "\uff1d1", "=1"}) {
    Json run = compare();
    run["rows"][0]["server"] = name;
    const std::string text = csv(run);
    EXPECT_THAT(text, testing::AnyOf(HasSubstr("\n'" + name), HasSubstr("\n\"'" + name.substr(0, 8))))
        << text;
  }
  Json run = compare();
  run["rows"][0]["server"] = "a=b";
  EXPECT_THAT(csv(run), HasSubstr("\na=b,")) << "only what begins so is a formula";
  EXPECT_THAT(csv(compare()), testing::Not(HasSubstr("'"))) << "and numbers stay numbers";
}

// What changed.

/// A compare with one row, and a trial for each of these.
Json with_runs(const std::vector<Measurement>& runs) {
  Json run = document("anteroom.compare/2");
  run["rows"] = Json::array({row("reactor", 64, 0)});
  for (const Measurement& of : runs) run["trials"].push_back(trial("reactor", 64, of));
  return run;
}

/// Runs that differ a little, as runs do.
std::vector<Measurement> runs_like(const Measurement& typical, int count) {
  std::vector<Measurement> runs;
  for (int i = 0; i < count; ++i) {
    Measurement& of = runs.emplace_back(typical);
    of.lost += i;
    of.p99_s *= 1 + 0.01 * i;
    of.rate *= 1 + 0.01 * i;
    of.cpu_s *= 1 + 0.01 * i;
  }
  return runs;
}

const Change& change(const Diff& diff, const std::string& metric, std::size_t row = 0) {
  return *std::ranges::find(diff.rows.at(row).changes, metric, &Change::metric);
}

void set_medians(Json& run, double lost, double p99_s, double rate, double cpu_s) {
  Json& row = run["rows"][0];
  row["lost_first_syn"] = estimate(lost, lost);
  row["first_byte_s"]["p99"] = p99_s;
  row["connections_per_second"] = estimate(rate, rate);
  row["server_cpu_s_per_connection"] = estimate(cpu_s, cpu_s);
}

TEST(Diff, TellsBetterFromWorse) {
  Json before = with_runs(runs_like({.lost = 200, .p99_s = 1, .rate = 4000, .cpu_s = 0.02}, 7));
  Json after = with_runs(runs_like({.lost = 10, .p99_s = 0.002, .rate = 5000, .cpu_s = 0.03}, 7));
  set_medians(before, 0.2, 1, 4000, 2e-5);
  set_medians(after, 0.01, 0.002, 5000, 3e-5);
  const Diff changes = diff(before, after);
  EXPECT_EQ(change(changes, "lost_first_syn").verdict, Verdict::kBetter);
  EXPECT_EQ(change(changes, "first_byte_p99_s").verdict, Verdict::kBetter);
  EXPECT_EQ(change(changes, "connections_per_second").verdict, Verdict::kBetter);
  EXPECT_EQ(change(changes, "server_cpu_s_per_connection").verdict, Verdict::kWorse);
  EXPECT_EQ(change(changes, "deepest_queue").verdict, Verdict::kNoChangeSeen);
  EXPECT_DOUBLE_EQ(change(changes, "server_cpu_s_per_connection").ratio().value(), 1.5);
  // 2 of the 3432 ways to part 14 values; four metrics vary, so that the first is held against four tests.
  EXPECT_NEAR(change(changes, "lost_first_syn").p.value(), 2.0 / 3432, 1e-9);
  EXPECT_NEAR(change(changes, "lost_first_syn").p_holm.value(), 4 * 2.0 / 3432, 1e-9);
  EXPECT_FALSE(change(changes, "deepest_queue").p_holm) << "all were 65: nothing was tested";
  EXPECT_EQ(changes.runs_needed, 0U);

  const Diff back = diff(after, before);
  EXPECT_EQ(change(back, "connections_per_second").verdict, Verdict::kWorse);
  EXPECT_EQ(change(back, "server_cpu_s_per_connection").verdict, Verdict::kBetter);
  EXPECT_THAT(print_diff(back, terminal(100)), HasSubstr("5,000 → 4,000       x0.8    worse"));
}

TEST(Diff, AsksWhoWasTurnedAwayIfBothRunsKnow) {
  Json old = with_runs(runs_like({.lost = 10}, 7));
  Json now = old;
  for (Json& row : now["rows"]) row["turned_away"] = estimate(0.5, 0.5);
  for (Json& trial : now["trials"]) trial["turned_away"] = 500;
  const auto has = [](const Diff& changes, const std::string& metric) {
    return std::ranges::count(changes.rows.at(0).changes, metric, &Change::metric) == 1;
  };
  EXPECT_TRUE(has(diff(old, now), "lost_first_syn"));
  EXPECT_FALSE(has(diff(old, now), "turned_away"));
  EXPECT_TRUE(has(diff(now, now), "turned_away"));
  EXPECT_FALSE(has(diff(now, now), "lost_first_syn"));
  EXPECT_EQ(change(diff(now, now), "turned_away").runs_before, 7U);
}

TEST(Diff, SeesNoChangeInRunsThatOverlap) {
  const Json run = with_runs(runs_like({.lost = 10}, 8));
  const Diff changes = diff(run, run);
  for (const Change& change : changes.rows.at(0).changes) {
    EXPECT_EQ(change.verdict, Verdict::kNoChangeSeen) << change.metric;
  }
  EXPECT_TRUE(changes.is_comparable());
}

TEST(Diff, SaysWhenThereAreTooFewRunsToSay) {
  Json before = with_runs(runs_like({.lost = 200, .rate = 4000}, 3));
  Json after = with_runs(runs_like({.lost = 10, .rate = 5000}, 3));
  set_medians(before, 0.2, 0.002, 4000, 2e-5);
  set_medians(after, 0.01, 0.002, 5000, 2e-5);
  const Diff changes = diff(before, after);
  EXPECT_EQ(change(changes, "lost_first_syn").verdict, Verdict::kTooFewRuns);
  EXPECT_DOUBLE_EQ(change(changes, "lost_first_syn").p.value(),
                   0.1);  // the least that three against three have
  EXPECT_EQ(changes.runs_needed,
            5U);  // 4 metrics vary: 4 * 2 / C(10, 5) is below 5 %, 4 * 2 / C(8, 4) is not
  EXPECT_THAT(print_diff(changes, terminal(100)),
              AllOf(HasSubstr("20.0 % → 1.0 %      x0.05   too few runs to say"), HasSubstr("--repeat 5")));
}

TEST(Diff, AsksForAsManyRunsAsItThenTakes) {
  for (const auto& [runs, verdict] : {std::pair(5, Verdict::kBetter), std::pair(4, Verdict::kTooFewRuns)}) {
    Json before = with_runs(runs_like({.lost = 200}, runs));
    Json after = with_runs(runs_like({.lost = 10}, runs));
    set_medians(before, 0.2, 0.002, 4900, 2e-5);
    set_medians(after, 0.01, 0.002, 4900, 2e-5);
    EXPECT_EQ(change(diff(before, after), "lost_first_syn").verdict, verdict) << runs;
  }
}

TEST(Diff, HasNothingToSayWithoutTrials) {
  const Diff changes = diff(with_runs({}), with_runs({}));
  EXPECT_EQ(change(changes, "lost_first_syn").verdict, Verdict::kTooFewRuns);
  EXPECT_FALSE(change(changes, "lost_first_syn").p);
}

TEST(Diff, LeavesVoidTrialsOut) {
  Json run = with_runs(runs_like({}, 4));
  run["trials"][1]["void"] = true;
  EXPECT_EQ(change(diff(run, run), "lost_first_syn").runs_before, 3U);
}

TEST(Diff, ConcludesNothingWhereTheRowContradictsItsRuns) {
  Json before = with_runs(runs_like({.p99_s = 1}, 7));
  Json after = with_runs(runs_like({.p99_s = 0.002}, 7));
  set_medians(before, 0, 0.5, 4900, 2e-5);
  set_medians(after, 0, 0.6, 4900, 2e-5);
  const Change p99 = change(diff(before, after), "first_byte_p99_s");
  EXPECT_LT(p99.p_holm.value(), 0.05);
  EXPECT_EQ(p99.verdict, Verdict::kNoChangeSeen);
}

/// Of two runs of the same, at most one in twenty may be told to differ in anything.
TEST(Diff, IsSeldomWrongAboutRunsThatDoNotDiffer) {
  constexpr int kDiffs = 100;
  constexpr int kRows = 5;
  constexpr int kRuns = 7;
  std::mt19937_64 random(7);
  const auto some = [&](double about) {  // not by a distribution of the library's, which differ
    return about * (1 + 0.1 * static_cast<double>(random() >> 11) * 0x1p-53);
  };
  Json typical = document("anteroom.compare/2");
  for (int backlog = 0; backlog < kRows; ++backlog) {
    Json& in_row = typical["rows"].emplace_back(row("reactor", backlog, 0));
    in_row["connections_per_second"] = nullptr;  // so that no row contradicts its runs
    in_row["first_byte_s"]["p99"] = nullptr;
    in_row["server_cpu_s_per_connection"] = nullptr;
    for (int i = 0; i < kRuns; ++i) typical["trials"].push_back(trial("reactor", backlog, {}));
  }
  const auto another_run = [&] {
    Json run = typical;
    for (Json& of : run["trials"]) {
      of["first_byte_s"]["p99"] = some(0.002);
      of["connections_per_second"] = some(5000);
      of["server_cpu_s"] = some(0.02);
    }
    return run;
  };
  const auto is_told = [](const Change& change) {
    return change.verdict == Verdict::kBetter || change.verdict == Verdict::kWorse;
  };
  int wrong = 0;
  for (int i = 0; i < kDiffs; ++i) {
    const Diff changes = diff(another_run(), another_run());
    EXPECT_EQ(changes.runs_needed, 0U) << "so many runs are able to tell";
    wrong += std::ranges::any_of(
        changes.rows, [&](const RowDiff& in_row) { return std::ranges::any_of(in_row.changes, is_told); });
  }
  EXPECT_LE(wrong, 13);  // of 100 at 5 % each, more are as rare as 1 in 2,000
}

TEST(Diff, SaysWhyTheRunsMayNotBeCompared) {
  const Json before = tune();
  Json after = tune();
  EXPECT_TRUE(diff(before, after).is_comparable());
  after["version"] = "0.3.0";
  after["load"]["in_words"] = "something else";
  after["load"]["rate"] = 5000.0;
  after["network"]["why"] = "no permission";
  after["machine"]["memory_bytes"] = 25769803776 - 4096;
  EXPECT_TRUE(diff(before, after).is_comparable()) << "these are no other conditions";

  after["load"]["rate"] = 8000;
  after["network"]["sysctls"]["net.ipv4.tcp_syncookies"] = "0";
  after["network"]["sysctls"]["net.core.somaxconn"] = "4096";
  after["machine"].erase("processors");
  after["machine"]["memory_bytes"] = 8589934592;
  const Diff changes = diff(before, after);
  std::vector<std::string> fields;
  for (const ConditionDiff& condition : changes.conditions) fields.push_back(condition.field);
  EXPECT_THAT(fields, ElementsAre("load.rate", "machine.processors", "machine.memory_bytes",
                                  "net.ipv4.tcp_syncookies", "net.core.somaxconn"));
  const std::string text = print_diff(changes, terminal(100));
  EXPECT_THAT(text, HasSubstr("may not be compared"));
  EXPECT_THAT(text, HasSubstr("5000 → 8000"));
  EXPECT_THAT(text, HasSubstr("2 → not there"));
  EXPECT_THAT(text, HasSubstr("anteroom 0.2.0 → 0.3.0"));
}

TEST(Diff, TellsTheRecommendedBacklogsAndTheRowsOfOnlyOne) {
  Json after = tune();
  after["recommended"] = nullptr;
  after["target_loss"] = 0.01;
  after["rows"].erase(1);
  after["rows"].push_back(row("pool", 64, 0));
  const std::string text = print_diff(diff(tune(), after), terminal(100, false));
  EXPECT_THAT(text, HasSubstr("recommended backlog: 512 -> none"));
  EXPECT_THAT(text, HasSubstr("0.1 % -> 1 % may lose"));
  EXPECT_THAT(text, HasSubstr("only in the old run: reactor, open loop, backlog 128\n"));
  EXPECT_THAT(text, HasSubstr("only in the new run: pool, open loop, backlog 64\n"));
  EXPECT_TRUE(std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x80; }));
  EXPECT_THAT(print_diff(diff(tune(), tune()), terminal(100)),
              HasSubstr("recommended backlog: 512, as before"));
}

TEST(Diff, MarksWhatIsOnlyKnownToBeLarger) {
  Json after = tune();
  after["rows"][0]["first_byte_s"]["lower_bounds"] = {"p99", "p99_9", "max"};
  const Diff changes = diff(tune(), after);
  EXPECT_FALSE(change(changes, "first_byte_p99_s").ratio());
  EXPECT_THAT(print_diff(changes, terminal(100)), HasSubstr("1.02 s → >1.02 s"));
}

TEST(Diff, IsMadeInTimeThoughRowsAndTrialsAreAsManyAsTheyMayBe) {
  Json many = tune();
  const Json row{{"server", "reactor"}, {"loop", "open"}, {"backlog", 8}, {"runs", 0}, {"void_runs", 3}};
  many["rows"] = std::vector<Json>(10'000 / kShare, row);
  for (int i = 0; i < 5'000 / kShare; ++i) many["rows"][static_cast<std::size_t>(i)]["backlog"] = i;
  many["trials"] = std::vector<Json>(20'000 / kShare, trial("reactor", 8, {}));
  const auto began = std::chrono::steady_clock::now();
  const Diff changes = diff(many, many);
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(40)) << "it took minutes";
  EXPECT_EQ(changes.rows.size(), 5'000U / kShare) << "each name once";
  EXPECT_EQ(changes.rows[8].changes.at(0).runs_before, 20'000U / kShare);
}

TEST(Diff, FitsEveryTerminal) {
  Json after = tune();
  after["load"]["rate"] = 8000;
  for (Json& row : after["rows"]) row["first_byte_s"]["p99"] = 0.5;
  for (int columns = 1; columns <= 120; ++columns) {
    Terminal narrow = terminal(columns);
    narrow.colours = true;
    EXPECT_LE(widest_line(print_diff(diff(tune(), after), narrow)), static_cast<std::size_t>(columns));
  }
}

TEST(Diff, HasAFormForPrograms) {
  Json after = tune();
  after["recommended"] = 768;
  after["load"]["rate"] = 8000;
  const Json json = diff_json(diff(tune(), after));
  EXPECT_EQ(json["schema"], "anteroom.diff/1");
  EXPECT_EQ(json["comparable"], false);
  EXPECT_EQ(json["conditions"][0], (Json{{"field", "load.rate"}, {"before", "5000"}, {"after", "8000"}}));
  EXPECT_EQ(json["recommended"], (Json{{"before", 512}, {"after", 768}}));
  EXPECT_EQ(json["rows"].size(), 4U);
  EXPECT_EQ(json["rows"][3]["backlog"], nullptr);
  const Json& lost = json["rows"][0]["changes"][0];
  EXPECT_EQ(lost["metric"], "lost_first_syn");
  EXPECT_EQ(lost["before"], 0.26);
  EXPECT_EQ(lost["ratio"], 1.0);
  EXPECT_EQ(lost["verdict"], "too few runs to say");
  EXPECT_FALSE(diff_json(diff(tune(), compare())).contains("recommended"));
}

// Rules.

std::string refusal(const std::string& text) {
  const auto rule = parse_rule(text);
  const auto* const why = std::get_if<std::string>(&rule);
  return why == nullptr ? "" : *why;
}

std::vector<std::string> broken(const Json& run, const std::string& text) {
  const auto rule = parse_rule(text);
  if (const auto* const why = std::get_if<std::string>(&rule)) return {*why};
  return broken_rules(run, {std::get<Rule>(rule)});
}

TEST(Rule, IsReadAsItIsWritten) {
  const struct {
    const char* text;
    const char* name;
    Comparison comparison;
    double limit;
    std::optional<int> backlog;
  } cases[] = {
      {"p99>5ms", "p99", Comparison::kMore, 0.005, std::nullopt},
      {" p99 @ 512 >= 5 ms ", "p99", Comparison::kAtLeast, 0.005, 512},
      {"p99.9<1.5s", "p99.9", Comparison::kLess, 1.5, std::nullopt},
      {"connect_max<=200us", "connect_max", Comparison::kAtMost, 200e-6, std::nullopt},
      {"max@unlimited>0", "max", Comparison::kMore, 0, -1},
      {"lost>0.1%", "lost", Comparison::kMore, 0.001, std::nullopt},
      {"lost@1k!=0.001", "lost", Comparison::kNotEqual, 0.001, 1000},
      {"rate<4.5k", "conn/s", Comparison::kLess, 4500, std::nullopt},
      {"conn/s<4500", "conn/s", Comparison::kLess, 4500, std::nullopt},
      {"cpu>30", "cpu", Comparison::kMore, 30e-6, std::nullopt},
      {"cpu>30us", "cpu", Comparison::kMore, 30e-6, std::nullopt},
      {"max>1m", "max", Comparison::kMore, 60, std::nullopt},
      {"max>2Min", "max", Comparison::kMore, 120, std::nullopt},
      {"max>1h", "max", Comparison::kMore, 3600, std::nullopt},
      {"p50>5MS", "p50", Comparison::kMore, 0.005, std::nullopt},
      {"recommended==512", "recommended", Comparison::kEqual, 512, std::nullopt},
  };
  for (const auto& wanted : cases) {
    ASSERT_EQ(refusal(wanted.text), "");
    const Rule rule = std::get<Rule>(parse_rule(wanted.text));
    EXPECT_EQ(rule.name, wanted.name);
    EXPECT_EQ(rule.comparison, wanted.comparison) << wanted.text;
    EXPECT_DOUBLE_EQ(rule.limit, wanted.limit) << wanted.text;
    EXPECT_EQ(rule.backlog, wanted.backlog) << wanted.text;
  }
}

TEST(Rule, IsRefusedWithTheReasonAndAnExample) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "it compares nothing"},
      {"p99", "it compares nothing"},
      {"p99=5ms", "it compares with none of"},
      {"p99=>5ms", "it compares with none of"},
      {"p99><5ms", "\"<5ms\" is not a time"},
      {"p98>5ms", "\"p98\" is none of lost ghosts "},
      {">5", "\"\" is none of"},
      {"p99>", "\"\" is not a time with its unit"},
      {"p99>5", "\"5\" is not a time with its unit"},
      {"p99>5%", "\"5%\" is not a time"},
      {"p99>nan", "is not a time"},
      {"p99>infs", "is not a time"},
      {"p99>1e999s", "is not a time"},
      {"p99>-5ms", "is not a time"},
      {"p99>5msx", "is not a time"},
      {"lost>5", "more than all"},
      {"lost>101%", "more than all"},
      {"lost>1ms", "is not a share"},
      {"ghosts>1ms", "is not a number"},
      {"ghosts>-1", "is not a number"},
      {"depth@>5", "is no backlog"},
      {"depth@-1>5", "is no backlog"},
      {"depth@1.5>5", "is no backlog"},
      {"depth@1e10>5", "is no backlog"},
      {"depth@5@6>5", "is no backlog"},
      {"recommended@5>5", "is of the whole run"},
      {"ghosts<0", "no run can break that"},
      {"ghosts>=0", "every run breaks that"},
      {"lost>100%", "no run can break that"},
      {"lost<=1", "every run breaks that"},
      {"p99\n\x1b[31m>5ms", "is none of"},
  };
  for (const auto& [text, wanted] : cases) {
    const std::string why = refusal(text);
    EXPECT_THAT(why, HasSubstr(wanted)) << text;
    EXPECT_THAT(why, HasSubstr("such as p99>5ms")) << text;
    EXPECT_EQ(printable(why, 1000), why) << "one line, and no commands";
  }
}

TEST(Rule, LooksAtTheRecommendedBacklogUnlessItNamesAnother) {
  EXPECT_THAT(broken(tune(), "p99>5ms"), IsEmpty());
  EXPECT_THAT(broken(tune(), "p99@64>5ms"), ElementsAre("p99 is 1.02 s at backlog 64, more than 5 ms"));
  EXPECT_THAT(broken(tune(), "p99>1ms"), ElementsAre("p99 is 2.00 ms at backlog 512, more than 1 ms"));
  EXPECT_THAT(broken(tune(), "p99@unlimited>1ms"),
              ElementsAre("p99 is 2.00 ms at an unlimited backlog, more than 1 ms"));
}

TEST(Rule, LooksAtEveryRowWhereNothingIsRecommended) {
  Json run = tune();
  run["recommended"] = nullptr;
  EXPECT_THAT(broken(run, "p99>5ms"), ElementsAre("p99 is 1.02 s at backlog 64, more than 5 ms",
                                                  "p99 is 900 ms at backlog 128, more than 5 ms"));
  EXPECT_THAT(broken(compare(), "p99>5ms"),
              ElementsAre("p99 of blocking is 1.02 s at backlog 64, more than 5 ms"));
}

TEST(Rule, OnTheLossLooksAtWhoWasTurnedAway) {
  Json run = tune();
  row_with(run, 512)["turned_away"] = estimate(0.01, 0.02);
  EXPECT_THAT(broken(run, "lost>0"), ElementsAre("lost is 2 % in the worst run at backlog 512, more than 0"));
}

TEST(Rule, IsAProblemIfItLooksAtWhatIsNotTried) {
  const auto problem = [](const char* text, bool is_tune) {
    return rule_problem(std::get<Rule>(parse_rule(text)), {64, 512}, is_tune);
  };
  EXPECT_EQ(problem("lost@512>0", false), "");
  EXPECT_EQ(problem("lost>0", false), "");
  EXPECT_EQ(problem("lost@65>0", true), "\"lost@65>0\": backlog 65 is none of those that are tried");
  EXPECT_EQ(problem("recommended>5", true), "");
  EXPECT_EQ(problem("recommended>5", false), "\"recommended>5\": a compare recommends nothing");
}

TEST(Rule, ThatFindsNothingToLookAtIsBroken) {
  EXPECT_THAT(broken(tune(), "p99@65>5ms"), ElementsAre("p99@65>5ms: backlog 65 was not measured"));
  Json run = tune();
  run["recommended"] = 700;
  EXPECT_THAT(broken(run, "p99>5ms"), ElementsAre("p99>5ms: the recommended backlog 700 was not measured"));
  run["rows"] = Json::array();
  run["recommended"] = nullptr;
  EXPECT_THAT(broken(run, "p99>5ms"), ElementsAre("p99>5ms: nothing was measured"));
  EXPECT_THAT(broken(run, "void>0"), ElementsAre("void>0: nothing was measured"));
  EXPECT_THAT(broken(run, "recommended>1"), ElementsAre("recommended>1: nothing is recommended"));
  EXPECT_THAT(broken(compare(), "recommended>1"), ElementsAre("recommended>1: a compare recommends nothing"));
}

TEST(Rule, OnWhatCouldNotBeMeasuredIsBroken) {
  Json run = tune();
  row_with(run, 512)["server_cpu_s_per_connection"] = nullptr;
  row_with(run, 512)["first_byte_s"]["p99"] = nullptr;
  EXPECT_THAT(broken(run, "cpu>30"), ElementsAre("cpu>30: cpu is not known at backlog 512"));
  EXPECT_THAT(broken(run, "p99>5ms"), ElementsAre("p99>5ms: p99 is not known at backlog 512"));
  row_with(run, 512)["runs"] = 0;
  EXPECT_THAT(broken(run, "lost>5%"), ElementsAre("lost>5%: lost is not known at backlog 512"));
}

TEST(Rule, KnowsThatALowerBoundIsNoValue) {
  Json run = tune();
  row_with(run, 512)["first_byte_s"]["lower_bounds"] = Json::array({"p99"});  // of 2 ms
  EXPECT_THAT(broken(run, "p99>1ms"), ElementsAre("p99 is more than 2.00 ms at backlog 512, more than 1 ms"));
  EXPECT_THAT(
      broken(run, "p99>5ms"),
      ElementsAre("p99 is only known to be more than 2.00 ms at backlog 512, so it may be more than 5 ms"));
  EXPECT_THAT(broken(run, "p99<5ms"), SizeIs(1));
  EXPECT_THAT(broken(run, "p99<1ms"), IsEmpty()) << "whatever it is, it is not less";
  EXPECT_THAT(broken(run, "p99==1ms"), IsEmpty());
  EXPECT_THAT(broken(run, "p99!=1ms"), SizeIs(1));
  EXPECT_THAT(broken(run, "p90>5ms"), IsEmpty()) << "that one is known";
}

TEST(Rule, LooksAtTheWorstRunForLossesAndTheMedianOneForRates) {
  EXPECT_THAT(broken(tune(), "lost@64>0.3"),
              ElementsAre("lost is 39 % in the worst run at backlog 64, more than 0.3"));
  EXPECT_THAT(broken(tune(), "lost@64>40%"), IsEmpty());
  EXPECT_THAT(broken(tune(), "ghosts@64>51"),
              ElementsAre("ghosts is 52 in the worst run at backlog 64, more than 51"));
  EXPECT_THAT(broken(tune(), "conn/s<4900"), IsEmpty());
  EXPECT_THAT(broken(tune(), "rate<5k"), ElementsAre("conn/s is 4900.5 at backlog 512, less than 5k"));
  EXPECT_THAT(broken(tune(), "depth>64"), ElementsAre("depth is 65 at backlog 512, more than 64"));
  EXPECT_THAT(broken(tune(), "cpu>20"),
              ElementsAre("cpu is 21.0 us a connection at backlog 512, more than 20 us"));
}

TEST(Rule, HasEveryOperator) {
  for (const auto& [rule, count] :
       std::vector<std::pair<std::string, std::size_t>>{{"recommended>512", 0},
                                                        {"recommended>511", 1},
                                                        {"recommended>=512", 1},
                                                        {"recommended>=513", 0},
                                                        {"recommended<512", 0},
                                                        {"recommended<513", 1},
                                                        {"recommended<=512", 1},
                                                        {"recommended<=511", 0},
                                                        {"recommended==512", 1},
                                                        {"recommended==511", 0},
                                                        {"recommended!=512", 0},
                                                        {"recommended!=511", 1}}) {
    EXPECT_THAT(broken(tune(), rule), SizeIs(count)) << rule;
  }
}

TEST(Rule, CountsVoidTrialsOfTheWholeRunOrOfOneBacklog) {
  Json run = tune();
  row_with(run, 64)["void_runs"] = 2;
  row_with(run, 128)["void_runs"] = 1;
  EXPECT_THAT(broken(run, "void>2"), ElementsAre("void is 3 in all, more than 2"));
  EXPECT_THAT(broken(run, "void@64>1"), ElementsAre("void is 2 at backlog 64, more than 1"));
  EXPECT_THAT(broken(run, "void@512>0"), IsEmpty());
}

TEST(Rule, FindsClientsByTheirFates) {
  Json run = tune();
  row_with(run, 512)["fates"]["refused"] = 3;
  row_with(run, 512)["fates"]["reset_before_accept"] = 4;
  row_with(run, 512)["fates"]["reset_after_accept"] = 5;
  row_with(run, 512)["first_byte_s"]["unserved"] = 6;
  EXPECT_THAT(broken(run, "refused>0"), ElementsAre("refused is 3 at backlog 512, more than 0"));
  EXPECT_THAT(broken(run, "resets>0"), ElementsAre("resets is 9 at backlog 512, more than 0"));
  EXPECT_THAT(broken(run, "unserved>0"), ElementsAre("unserved is 6 at backlog 512, more than 0"));
}

// The curve.

std::string line_with(const std::string& text, const std::string& word) {
  for (const std::string& line : lines_of(text)) {
    if (line.find(word) != line.npos) return line;
  }
  return {};
}

std::ptrdiff_t count(const std::string& text, char c) { return std::ranges::count(text, c); }

/// A tune whose rows lost these shares, without a model.
Json losing(const std::vector<double>& shares) {
  Json run = tune();
  run["rows"] = Json::array();
  int backlog = 1000;
  for (const double share : shares) {
    run["rows"].push_back(row("reactor", ++backlog, share));
    run["rows"].back()["lost_first_syn"]["worst"] = share;
    run["rows"].back()["model_loss"] = nullptr;
  }
  return run;
}

TEST(Curve, HasABarAsLongAsTheLossAndNoneForZero) {
  const std::string text = curve(losing({0.26, 0.01, 0.001, 1e-7, 0}), terminal(60, false));
  const auto bar = [&](const char* backlog) { return count(line_with(text, backlog), '#'); };
  EXPECT_GT(bar("1,001"), bar("1,002") + 5);
  EXPECT_GT(bar("1,002"), bar("1,003") + 5);
  EXPECT_GE(bar("1,003"), 5) << "0.1 % is to be seen beside 26 %";
  EXPECT_EQ(bar("1,004"), 1) << "the least loss leaves a trace";
  EXPECT_EQ(bar("1,005"), 0);
  EXPECT_THAT(line_with(text, "1,001"), HasSubstr("26.0 %"));
  EXPECT_EQ(line_with(text, "1,005").back(), '0');
}

TEST(Curve, ShowsWhatOnlyTheWorstRunLost) {
  Json run = losing({0});
  run["rows"][0]["lost_first_syn"]["worst"] = 0.03;
  const std::string line = line_with(curve(run, terminal(60, false)), "1,001");
  EXPECT_EQ(count(line, '#'), 0);
  EXPECT_GT(count(line, '-'), 10);
  EXPECT_THAT(line, HasSubstr("<=3.0 %"));
}

TEST(Curve, MarksWhatTheModelSays) {
  Json run = losing({0.26, 0});
  run["rows"][0]["model_loss"] = 0.01;
  run["rows"][1]["model_loss"] = 0;
  const std::string text = curve(run, terminal(60, false));
  const std::string line = line_with(text, "1,001");
  EXPECT_THAT(line, HasSubstr("#o#")) << "within the bar";
  EXPECT_THAT(line_with(text, "1,002"), HasSubstr("1,002 o")) << "nothing is on the axis";
  EXPECT_THAT(text, HasSubstr("o the model"));
  EXPECT_THAT(curve(losing({0.26}), terminal(60, false)), Not(HasSubstr("the model")));
}

TEST(Curve, MarksTheRecommendedBacklog) {
  const std::string text = curve(tune(), terminal(60));
  EXPECT_THAT(line_with(text, " 512 "), HasSubstr("▶"));
  EXPECT_THAT(line_with(text, " 64 "), Not(HasSubstr("▶")));
  Terminal colours = terminal(60);
  colours.colours = true;
  EXPECT_THAT(line_with(curve(tune(), colours), " 512 "), HasSubstr("\x1b[1m"));
  EXPECT_THAT(line_with(curve(tune(), colours), " 64 "), HasSubstr("\x1b[31m"));
  EXPECT_THAT(line_with(curve(tune(), colours), "unlimited"), Not(HasSubstr("\x1b")));
}

TEST(Curve, FitsEveryTerminal) {
  for (int columns = 1; columns <= 200; ++columns) {
    for (const bool utf8 : {false, true}) {
      Terminal narrow = terminal(columns, utf8);
      narrow.colours = true;
      EXPECT_LE(widest_line(curve(tune(), narrow)), static_cast<std::size_t>(columns));
      EXPECT_LE(widest_line(curve(compare(), narrow)), static_cast<std::size_t>(columns));
    }
  }
  EXPECT_THAT(widest_line(curve(tune(), terminal(1000))), AllOf(Ge(90U), testing::Le(100U))) << "a file";
}

TEST(Curve, KeepsItsBarsAtFortyColumns) {
  const std::string text = curve(tune(), terminal(40, false));
  EXPECT_GT(count(line_with(text, " 64 "), '#'), 10);
  EXPECT_THAT(line_with(text, " 64 "), HasSubstr("26.0 %"));
}

TEST(Curve, IsPlainAsciiWhereNothingElseIsUnderstood) {
  for (const int columns : {40, 100}) {
    const std::string text = curve(tune(), terminal(columns, false));
    EXPECT_TRUE(std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x80; }))
        << text;
  }
}

TEST(Curve, HasAStripOfLatenciesWhereThereIsRoom) {
  // Of 3000 clients 100 are within 10 and 100 us, 2800 from there to 10 ms, 90 and 10 unfinished beyond.
  const std::string wide = curve(tune(), terminal(90, false));
  EXPECT_THAT(wide, HasSubstr("until the first byte"));
  EXPECT_THAT(wide, HasSubstr("100us 1ms   10ms  100ms 1s"));
  EXPECT_THAT(line_with(wide, " 64 "), HasSubstr("[++++++************+"));
  EXPECT_THAT(curve(tune(), terminal(89, false)), Not(HasSubstr("until the first byte")));
}

TEST(Curve, HasAPictureForEachServer) {
  const std::string text = curve(compare(), terminal(80));
  EXPECT_THAT(text, HasSubstr("reactor, open loop\n"));
  EXPECT_THAT(text, HasSubstr("\nblocking, open loop\n"));
  EXPECT_THAT(curve(tune(), terminal(80)), Not(HasSubstr("open loop")));
}

TEST(Curve, OfNothingIsNothing) {
  Json run = tune();
  run["rows"] = Json::array();
  EXPECT_EQ(curve(run, terminal(80)), "");
}

TEST(Lines, AreBrokenBetweenWordsAndIndentedAlike) {
  EXPECT_EQ(wrapped("  one two three", 9), "  one two\n  three\n");
  EXPECT_EQ(wrapped("incomprehensible", 5), "incom\n");
  EXPECT_EQ(wrapped("", 5), "\n");
  EXPECT_EQ(clipped("µµµ", 2), "µµ");
  EXPECT_EQ(display_width("µ▶a"), 3U);
}

}  // namespace
}  // namespace anteroom::tool
