#include "report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "report/documents.h"

namespace anteroom::tool {
namespace {

using test::Json;
using testing::HasSubstr;
using testing::Not;

std::string between(const std::string& text, const std::string& begin, const std::string& end) {
  const std::size_t from = text.find(begin);
  if (from == text.npos) return "there is no " + begin;
  return text.substr(from + begin.size(), text.find(end, from) - from - begin.size());
}

std::string document_in(const std::string& html) {
  return between(html, R"(<script type="application/json" id="anteroom-run">)", "</script>");
}

int count(const std::string& text, const std::string& what) {
  int found = 0;
  for (std::size_t at = text.find(what); at != text.npos; at = text.find(what, at + 1)) ++found;
  return found;
}

TEST(Report, HasTheDocumentUnchanged) {
  for (const Json& run :
       {test::tune_run(), test::compare_run(), test::hostile_run(), test::run("anteroom.tune/2")}) {
    EXPECT_EQ(Json::parse(document_in(report_html(run.dump()))), run);
    EXPECT_EQ(Json::parse(document_in(report_html(run.dump(1)))), run);
  }
}

TEST(Report, WritesWhatCouldEndTheScriptAsJsonEscapes) {
  const std::string document = document_in(report_html(test::hostile_run().dump()));
  EXPECT_THAT(document, HasSubstr(R"(\u003c/script>\u003cscript>intruder=1\u003c/script>\u003c!--)"));
  EXPECT_THAT(document, HasSubstr(R"(\u2028)"));
  EXPECT_THAT(document, Not(HasSubstr("<")));
  EXPECT_THAT(document, Not(HasSubstr("\xe2\x80\xa8")));
}

TEST(Report, IsAsMuchMarkupForHostileStringsAsForOthers) {
  const std::string plain = report_html(test::tune_run().dump()),
                    hostile = report_html(test::hostile_run().dump());
  for (const char* markup : {"<", "<script", "</script", "<img", "<!--", "-->"}) {
    EXPECT_EQ(count(hostile, markup), count(plain, markup)) << markup;
  }
  EXPECT_THAT(between(hostile, "<noscript>", "</noscript>"), HasSubstr("&lt;/script&gt;&lt;script&gt;"));
}

TEST(Report, PutsEachPieceWhereItsNameStands) {
  const std::string html = report_html(test::tune_run().dump());
  EXPECT_THAT(html, Not(HasSubstr("{{")));
  for (const char* piece :
       {"function time(seconds)", "const run = JSON.parse", "function mount(", "function plot_heat(",
        "function numbers_table(", "function start(", ".kicker {", "Permission is hereby granted"}) {
    EXPECT_EQ(count(html, piece), 1) << piece;
  }
  EXPECT_THAT(html, HasSubstr("var uPlot="));
  EXPECT_THAT(html, HasSubstr(".u-legend"));
}

/// Whatever could make a browser ask somebody: an address, an attribute or a rule or a call that loads.
std::string reference_in(const std::string& html) {
  for (const char* reference :
       {"http:",      "https:",  "src=",    "href=",         "action=",        "@import",   "url(",
        "fetch(",     "import(", "import ", "importScripts", "XMLHttpRequest", "WebSocket", "EventSource",
        "sendBeacon", "<link",   "<iframe", "<base",         "<object",        "<embed"}) {
    const std::size_t at = html.find(reference);
    if (at != html.npos) return html.substr(at > 40 ? at - 40 : 0, 80);
  }
  return {};
}

TEST(Report, RefersToNothingOutside) {
  std::string html = report_html(test::tune_run().dump());
  const std::string banner =
      "/*! https://github.com/leeoniya/uPlot (v1.6.32) */";  // in a comment: who drew the charts
  ASSERT_EQ(count(html, banner), 1);
  html.erase(html.find(banner), banner.size());
  EXPECT_EQ(reference_in(html), "");
  for (const char* reference :
       {"<script src=\"a.js\">", "@import 'a'", "background: url(a.png)", "fetch('a')", "https://a.b",
        "<img src='a'>", "import('a')", "<link rel=stylesheet>"}) {
    EXPECT_NE(reference_in(html + reference), "") << reference;
  }
  EXPECT_THAT(html, HasSubstr(R"(http-equiv="Content-Security-Policy" content="default-src 'none';)"));
}

TEST(Report, MakesNoMarkupOfStrings) {
  const std::string html = report_html(test::tune_run().dump());
  for (const char* way : {"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser",
                          "srcdoc", "eval(", "new Function"}) {
    EXPECT_THAT(html, Not(HasSubstr(way)));
  }
}

TEST(Report, IsSmall) {
  const std::string document = test::tune_run().dump();
  EXPECT_LT(report_html(document).size() - document.size(), 150'000U);
}

TEST(Report, TellsThoseWithoutScriptsTheNumbersThatDecide) {
  const std::string table = between(report_html(test::tune_run().dump()), "<noscript>", "</noscript>");
  EXPECT_THAT(table, HasSubstr("Recommended backlog: <b>768</b>"));
  EXPECT_THAT(table,
              HasSubstr("<tr><td>reactor</td><td>128</td><td>33.00 %</td><td>1.03 s</td><td>62</td></tr>"));
  EXPECT_THAT(table, HasSubstr("<tr><td>reactor</td><td>unlimited</td><td>0.00 %</td>"));
}

TEST(Report, TellsOfLostSynsWhereARunKnowsOfNothingElse) {
  Json run = test::tune_run();
  for (Json& row : run["rows"]) row.erase("turned_away");
  EXPECT_THAT(between(report_html(run.dump()), "<noscript>", "</noscript>"),
              HasSubstr("<td>128</td><td>30.00 %</td>"));
}

TEST(Report, IsMadeOfARunInWhichNothingCounts) {
  Json run = test::tune_run();
  run["recommended"] = nullptr;
  run["rows"] =
      Json::array({{{"server", "reactor"}, {"loop", "open"}, {"backlog", 5}, {"runs", 0}, {"void_runs", 3}}});
  const std::string table = between(report_html(run.dump()), "<noscript>", "</noscript>");
  EXPECT_THAT(table, HasSubstr("<tr><td>reactor</td><td>5</td><td>–</td><td>–</td><td>–</td></tr>"));
  EXPECT_THAT(table, Not(HasSubstr("Recommended")));
}

std::string refusal(const std::string& document) {
  try {
    report_html(document);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "none";
}

TEST(Report, IsNotMadeOfAnythingElse) {
  EXPECT_THAT(refusal("{"), HasSubstr("not JSON: "));
  EXPECT_THAT(refusal("{\"a\":\"\xff\"}"), HasSubstr("not JSON: "));
  EXPECT_THAT(refusal("[]"), HasSubstr("its schema is none"));
  EXPECT_THAT(refusal("{}"), HasSubstr("its schema is none"));
  EXPECT_THAT(refusal(R"({"schema":2})"), HasSubstr("its schema is none"));
  EXPECT_THAT(refusal(R"({"schema":"anteroom.tune/1"})"), HasSubstr("its schema is anteroom.tune/1"));
  EXPECT_THAT(refusal(R"({"schema":"anteroom.tune/2","rows":[7]})"),
              HasSubstr("not the document of a run: "));
  EXPECT_THAT(refusal(R"({"schema":"anteroom.tune/2","rows":[{"server":7}]})"),
              HasSubstr("not the document of a run: "));
}

}  // namespace
}  // namespace anteroom::tool
