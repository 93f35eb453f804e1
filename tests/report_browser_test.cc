// The report as a browser shows it: what is drawn is what was measured, with no error and nothing from
// outside. Each page gets report/check.js put in front, which looks at it from inside and leaves its verdict
// in the page.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "report.h"
#include "report/documents.h"
#include "support/program.h"

namespace anteroom::tool {
namespace {

using namespace std::chrono_literals;
using test::Json;
using testing::AllOf;
using testing::Contains;
using testing::Each;
using testing::HasSubstr;
using testing::IsEmpty;

/// Empty if there is none.
std::string browser() {
  const char* const path = std::getenv("PATH");
  for (const char* name : {"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"}) {
    std::istringstream folders(path == nullptr ? "" : path);
    for (std::string folder; std::getline(folders, folder, ':');) {
      std::string program = folder + "/" + name;
      if (::access(program.c_str(), X_OK) == 0) return program;
    }
  }
  return {};
}

std::string read(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

std::string replaced(std::string text, const std::string& what, const std::string& with) {
  const std::size_t at = text.find(what);
  EXPECT_NE(at, text.npos) << "there is no " << what;
  return at == text.npos ? text : text.replace(at, what.size(), with);
}

std::string from_html(const std::string& html) {
  std::string text;
  for (std::size_t i = 0; i < html.size(); ++i) {
    text += html[i];
    for (const auto& [name, character] :
         {std::pair{"&lt;", "<"}, {"&gt;", ">"}, {"&amp;", "&"}, {"&nbsp;", "\xc2\xa0"}}) {
      if (html.compare(i, std::string(name).size(), name) != 0) continue;
      text.replace(text.size() - 1, 1, character);
      i += std::string(name).size() - 1;
      break;
    }
  }
  return text;
}

struct Verdict {
  std::vector<std::string> problems;
  std::string text;
  int width = 0;
  std::string background;
};

class ReportInABrowser : public testing::Test {
 protected:
  void SetUp() override {
    if (browser_.empty()) GTEST_SKIP() << "there is no Chromium here, which would look at the report";
    ASSERT_THAT(check_, HasSubstr("verdict")) << "report/check.js is not beside this file";
    std::string name = (std::filesystem::temp_directory_path() / "anteroom-report-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override {
    std::error_code ignored;  // the last of the browser's processes may still be at it
    if (!folder_.empty()) std::filesystem::remove_all(folder_, ignored);
  }

  Verdict look(const std::string& html, bool dark = false) {
    write("report.html", replaced(html, "<head>", "<head><script>" + check_ + "</script>"));
    return verdict_on("report.html", dark);
  }
  /// In a frame, because a browser's own window has a least width.
  Verdict look_on_a_phone(const std::string& html) {
    std::string framed;
    for (const char c : replaced(html, "<head>", "<head><script>" + check_ + "</script>")) {
      framed += c == '&' ? "&amp;" : c == '"' ? "&quot;" : std::string(1, c);
    }
    write("phone.html",
          "<script>onmessage = event => { const pre = document.createElement('pre'); pre.id = 'verdict';"
          "pre.textContent = JSON.stringify(event.data); document.body.append(pre); }</script>"
          "<body><iframe style='width: 420px; height: 900px; border: 0' srcdoc=\"" +
              framed + "\"></iframe>");
    return verdict_on("phone.html", false);
  }

 private:
  void write(const std::string& name, const std::string& text) { std::ofstream(folder_ / name) << text; }

  /// On a machine that is busy the browser may end, well, with a page that is not finished: then once more.
  Verdict verdict_on(const std::string& name, bool dark) {
    std::string errors;
    for (int attempt = 0; attempt < 2; ++attempt) {
      const std::string page = page_shown(name, dark, errors);
      const std::string begin = R"(<pre id="verdict">)";
      const std::size_t from = page.rfind(begin);
      const std::size_t to = from == page.npos ? page.npos : page.find("</pre>", from);
      if (to == page.npos) continue;
      const std::size_t at = from + begin.size();
      const Json json = Json::parse(from_html(page.substr(at, to - at)));
      return {json["problems"].get<std::vector<std::string>>(), json["text"].get<std::string>(),
              json["width"].get<int>(), json["background"].get<std::string>()};
    }
    return {.problems = {"there is no verdict: " + errors.substr(0, 2000)}, .text = {}, .background = {}};
  }

  /// What the page has become.
  std::string page_shown(const std::string& name, bool dark, std::string& errors) {
    const std::filesystem::path profile = folder_ / ("profile" + std::to_string(++profiles_));
    // The page is ours, so the sandbox, which containers and root do not let it have, is not missed.
    test::Program program({browser_, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
                           "--no-first-run", "--disable-background-networking", "--disable-component-update",
                           "--disable-sync", "--user-data-dir=" + profile.string(), "--window-size=1280,900",
                           std::string("--blink-settings=preferredColorScheme=") + (dark ? "0" : "1"),
                           "--virtual-time-budget=10000", "--dump-dom",
                           "file://" + (folder_ / name).string()});
    EXPECT_EQ(program.wait(90s), 0) << program.errors;
    errors = program.errors;
    return program.output;
  }

  const std::string browser_ = browser();
  const std::string check_ = read(std::filesystem::path(__FILE__).parent_path() / "report" / "check.js");
  std::filesystem::path folder_;
  int profiles_ = 0;
};

TEST_F(ReportInABrowser, DrawsWhatTuneHasMeasured) {
  const Verdict verdict = look(report_html(test::tune_run().dump()));
  EXPECT_THAT(verdict.problems, IsEmpty());
  EXPECT_THAT(verdict.text,
              AllOf(HasSubstr("listen(fd, 768);\nsysctl -w net.core.somaxconn=768"), HasSubstr("unlimited")));
  EXPECT_EQ(verdict.background, "rgb(246, 247, 249)");
}

TEST_F(ReportInABrowser, DrawsWhatCompareHasMeasured) {
  const Verdict verdict = look(report_html(test::compare_run().dump()));
  EXPECT_THAT(verdict.problems, IsEmpty());
  EXPECT_THAT(verdict.text, AllOf(HasSubstr("3 servers, 2 backlogs"), HasSubstr("M/M/c/K")));
}

TEST_F(ReportInABrowser, IsDarkWhereThatIsPreferred) {
  const Verdict verdict = look(report_html(test::tune_run().dump()), true);
  EXPECT_THAT(verdict.problems, IsEmpty());
  EXPECT_EQ(verdict.background, "rgb(13, 17, 23)");
}

TEST_F(ReportInABrowser, FitsAPhone) {
  for (const Json& run : {test::tune_run(), test::compare_run(), test::hostile_run()}) {
    const Verdict verdict = look_on_a_phone(report_html(run.dump()));
    EXPECT_THAT(verdict.problems, IsEmpty());
    EXPECT_EQ(verdict.width, 420);
  }
}

TEST_F(ReportInABrowser, ShowsHostileStringsAsText) {
  const Verdict verdict = look(report_html(test::hostile_run().dump()));
  EXPECT_THAT(verdict.problems, IsEmpty());
  EXPECT_THAT(verdict.text,
              HasSubstr("</script><script>intruder=1</script><!--<img src=x onerror=intruder=1>"));
}

TEST_F(ReportInABrowser, SaysSoWhenARunWasEndedBeforeAnythingWasMeasured) {
  Json run = test::run("anteroom.tune/2");
  run["interrupted"] = true;
  run["recommended"] = nullptr;
  const Verdict verdict = look(report_html(run.dump()));
  EXPECT_THAT(verdict.problems, IsEmpty());
  EXPECT_THAT(verdict.text, AllOf(HasSubstr("ended before anything had been measured"),
                                  HasSubstr("anteroom tune --seed 7")));
}

TEST_F(ReportInABrowser, DrawsTheRestWhereSomeRowsHaveNoRunThatCounts) {
  Json run = test::tune_run();
  run["rows"][2] = {{"server", "reactor"}, {"loop", "open"}, {"backlog", 128}, {"runs", 0}, {"void_runs", 3}};
  run["trials"] = Json::array({{{"server", "reactor"},
                                {"loop", "open"},
                                {"backlog", 128},
                                {"void", true},
                                {"problems", {"the generator was the limit"}}}});
  Verdict verdict = look(report_html(run.dump()));
  EXPECT_THAT(verdict.problems, IsEmpty());
  EXPECT_THAT(verdict.text, AllOf(HasSubstr("no run that counts"), HasSubstr("1 void trial: not counted"),
                                  HasSubstr("the generator was the limit")));

  for (Json& row : run["rows"])
    row = {
        {"server", "reactor"}, {"loop", "open"}, {"backlog", row["backlog"]}, {"runs", 0}, {"void_runs", 3}};
  run["recommended"] = nullptr;
  verdict = look(report_html(run.dump()));
  EXPECT_THAT(verdict.problems, IsEmpty());
  EXPECT_THAT(verdict.text, HasSubstr("No run counts"));
}

TEST_F(ReportInABrowser, CanDoWithoutARecommendation) {
  Json run = test::tune_run();
  run["recommended"] = nullptr;
  run["advice"] = {{"reason", "every backlog turned clients away"}};
  const Verdict verdict = look(report_html(run.dump()));
  EXPECT_THAT(verdict.problems, IsEmpty());
  EXPECT_THAT(verdict.text,
              AllOf(HasSubstr("No number can be given"), HasSubstr("every backlog turned clients away")));
}

TEST_F(ReportInABrowser, BearsWhatItDoesNotKnow) {
  const Json bare = {{"server", "reactor"}, {"loop", "open"}, {"backlog", 5}, {"runs", 1}};
  Json run = {{"schema", "anteroom.tune/2"},
              {"rows", {bare, test::row("reactor", 128, 300, 1)}},
              {"recommended", 128}};
  for (const Json& document : {run, Json{{"schema", "anteroom.compare/2"}}}) {
    const Verdict verdict = look(report_html(document.dump()));
    // The check misses fields, too; it may say so. The page may not.
    EXPECT_THAT(verdict.problems, Each(HasSubstr("the check itself failed")));
    EXPECT_THAT(verdict.text, HasSubstr("How this was measured"));
  }
}

TEST_F(ReportInABrowser, ShowsADashForWhatWasNotMeasured) {
  Json run = test::tune_run();
  Json row = test::row("running", std::nullopt, 0, 0);
  for (const char* field : {"ghosts", "listen_overflows", "listen_drops", "deepest_queue", "queue_over_time",
                            "server_cpu_s_per_connection", "model_loss", "law"})
    row[field] = nullptr;
  for (const char* percentile : {"p50", "p90", "p99", "p99_9", "max"})
    row["first_byte_s"][percentile] = row["connect_s"][percentile] = nullptr;
  for (const char* ghost : {"ghost_half_open", "ghost_unknown"}) row["fates"][ghost] = nullptr;
  for (const char* histogram : {"first_byte", "connect", "unfinished"}) {
    for (Json& clients : row["histograms"][histogram]) clients = 0;
  }
  run["schema"] = "anteroom.swarm/1";
  run["target"] = {{"address", "192.0.2.1:80"}, {"backlog", nullptr}};
  run["rows"] = Json::array({row});
  for (const char* field : {"recommended", "advice", "target_loss", "trials"}) run.erase(field);
  const Verdict verdict = look(report_html(run.dump()));
  // The check misses what is null; the page may not.
  EXPECT_THAT(verdict.problems, Each(HasSubstr("the check itself failed")));
  EXPECT_THAT(verdict.text, HasSubstr("not known"));
  EXPECT_THAT(verdict.text, HasSubstr("Nothing was recorded of it."));
  EXPECT_THAT(verdict.text, AllOf(testing::Not(HasSubstr("unlimited")), testing::Not(HasSubstr("no limit")),
                                  testing::Not(HasSubstr("NaN")), testing::Not(HasSubstr("null")),
                                  testing::Not(HasSubstr("everybody was served"))));
}

TEST_F(ReportInABrowser, CountsServersNotTheirLoopsAndHoldsOnlyOpenOnesAgainstEachOther) {
  Json run = test::compare_run();
  for (std::size_t i = 0; i < run["rows"].size(); ++i)
    run["rows"][i]["loop"] = i % 2 == 0 ? "open" : "closed";
  const Verdict verdict = look(report_html(run.dump()));
  EXPECT_THAT(verdict.text, HasSubstr("3 servers, 2 backlogs"));
  const std::string tiles = verdict.text.substr(0, verdict.text.find("Connections per second"));
  EXPECT_THAT(tiles, AllOf(HasSubstr("pool, open loop"), testing::Not(HasSubstr("closed loop, backlog"))));
}

TEST_F(ReportInABrowser, SaysNothingOfBoundsAndLimitsThatAreNone) {
  Json run = test::tune_run();
  for (Json& row : run["rows"]) row["turned_away"]["upper"] = nullptr;
  run["recommended"] = nullptr;
  run["network"]["sysctls"] = Json::object();
  run["trials"] = Json::array({{{"server", "reactor"},
                                {"loop", "open"},
                                {"backlog", nullptr},
                                {"backlog_in_force", 1'000'000},
                                {"void", false},
                                {"fates", run["rows"][0]["fates"]}}});
  const Verdict verdict = look(report_html(run.dump()));
  EXPECT_THAT(verdict.text,
              AllOf(HasSubstr("no limit"), testing::Not(HasSubstr("places spare")),
                    testing::Not(HasSubstr("with 95 % confidence")), testing::Not(HasSubstr("at most –")),
                    testing::Not(HasSubstr("Server's sysctls"))));
}

// A check that cannot fail is none: each of these pages has something wrong with it, of which the check has
// to know.
TEST_F(ReportInABrowser, IsFoundOutWhenItDrawsOtherNumbers) {
  std::string html = report_html(test::tune_run().dump());
  html = replaced(html, "values: values(g, row => median(estimate_of(row)))",
                  "values: values(g, row => estimate_of(row).best)");
  html = replaced(html, "row => median(row.listen_overflows)]", "row => median(row.listen_drops) + 1]");
  html = replaced(html, "values: in_slice(row => row[key]?.[p] > 0 ? row[key][p] : null)",
                  "values: in_slice(row => row[key].p99)");
  html = replaced(html, "row.histograms?.[state.heat]", "row.histograms?.connect");
  html = replaced(html, "[times(row), row.queue_over_time.depth]",
                  "[times(row), row.queue_over_time.depth.map(d => d + 1)]");
  const Verdict verdict = look(html);
  for (const char* problem :
       {"rate, measured", "loss, measured", "refused, overflows", "latency, p50", "heat, cells", "queue, "}) {
    EXPECT_THAT(verdict.problems, Contains(HasSubstr(problem)));
  }
}

TEST_F(ReportInABrowser, IsFoundOutWhenItIsBroken) {
  const Verdict verdict = look(replaced(report_html(test::tune_run().dump()), "</body>", R"(<script>
    anteroomPlots.rate.series[0].values = anteroomPlots.rate.series[0].values.with(2, 4100.5);
    addEventListener("load", () => { const canvas = document.querySelector("#fates canvas"); canvas.width = canvas.width; });
    console.error("from the page");
    throw new Error("broken");
    </script><div style="width: 2000px; height: 1px"></div><img src="http://127.0.0.1:9/a.png"></body>)"));
  for (const char* problem :
       {"rate, measured is [3800,3831,4100.5,", "the chart fates is blank", "on the console: from the page",
        "an error: Uncaught Error: broken", "the page is 20", "wanted http://127.0.0.1:9/a.png",
        "nothing came in as markup"}) {
    EXPECT_THAT(verdict.problems, Contains(HasSubstr(problem)));
  }
}

}  // namespace
}  // namespace anteroom::tool
