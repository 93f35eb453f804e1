#include "report.h"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string_view>

// The assembler puts the files of report/ into the program, in which they are only read: nothing is
// generated, and no compiler parses 80 KB of a script. REPORT is their folder; report/report.cmake sees to it
// that a change of one of them compiles this file again.
#define EMBED(name, file)                         \
  asm(".pushsection .rodata\n"                    \
      ".global anteroom_report_" #name            \
      "\n"                                        \
      ".global anteroom_report_" #name            \
      "_end\n"                                    \
      "anteroom_report_" #name                    \
      ":\n"                                       \
      ".incbin \"" REPORT "/" file                \
      "\"\n"                                      \
      "anteroom_report_" #name                    \
      "_end:\n"                                   \
      ".popsection\n");                           \
  extern "C" const char anteroom_report_##name[]; \
  extern "C" const char anteroom_report_##name##_end[]

EMBED(page_html, "page.html");
EMBED(page_css, "page.css");
EMBED(words_js, "words.js");
EMBED(run_js, "run.js");
EMBED(chart_js, "chart.js");
EMBED(plots_js, "plots.js");
EMBED(heat_map_js, "heat_map.js");
EMBED(tables_js, "tables.js");
EMBED(page_js, "page.js");
EMBED(uplot_license, "third_party/uPlot/LICENSE");
EMBED(uplot_css, "third_party/uPlot/uPlot.min.css");
EMBED(uplot_js, "third_party/uPlot/uPlot.iife.min.js");

#define EMBEDDED(name) std::string_view(anteroom_report_##name, anteroom_report_##name##_end)

namespace anteroom::tool {
namespace {

using Json = nlohmann::ordered_json;

struct Piece {
  std::string_view name;
  std::string_view text;
};

/// The document inside a <script>, which ends at the first "</script" and is in trouble at "<!--": no "<" is
/// left, but as JSON's \u003c. U+2028 and U+2029 were ends of lines to older scripts. All three occur inside
/// strings only.
std::string inside_script(std::string_view json) {
  std::string text;
  text.reserve(json.size() + json.size() / 64);
  for (std::size_t i = 0; i < json.size(); ++i) {
    const std::string_view rest = json.substr(i);
    if (rest.starts_with('<')) {
      text += "\\u003c";
    } else if (rest.starts_with("\xe2\x80\xa8") || rest.starts_with("\xe2\x80\xa9")) {
      text += rest[2] == '\xa8' ? "\\u2028" : "\\u2029";
      i += 2;
    } else {
      text += json[i];
    }
  }
  return text;
}

std::string as_html(std::string_view text) {
  std::string html;
  for (const char c : text) {
    switch (c) {
      case '<':
        html += "&lt;";
        break;
      case '>':
        html += "&gt;";
        break;
      case '&':
        html += "&amp;";
        break;
      case '"':
        html += "&quot;";
        break;
      case '\'':
        html += "&#39;";
        break;
      default:
        html += c;
    }
  }
  return html;
}

/// What `row` has at `pointer`, printed; a dash for what it does not have.
template <class Print>
std::string value(const Json& row, const char* pointer, Print print) {
  const Json::json_pointer place(pointer);
  if (!row.contains(place) || !row.at(place).is_number()) return "–";
  return print(row.at(place).get<double>());
}

/// For those who do not let scripts run: the few numbers that decide.
std::string table(const Json& run) {
  std::string html =
      "<h1>anteroom</h1><p>The charts need scripts, which are off. This is the least of it; all numbers are "
      "in this "
      "file, as JSON.</p>";
  if (run.contains("recommended") && run["recommended"].is_number()) {
    html += fmt::format("<p>Recommended backlog: <b>{}</b></p>", run["recommended"].dump());
  }
  html +=
      "<table><tr><th>server</th><th>backlog</th><th>turned away</th><th>first byte, "
      "p99</th><th>deepest queue</th></tr>";
  const bool is_swarm = run.value("schema", "").starts_with("anteroom.swarm/");
  const Json rows = run.value("rows", Json::array());
  for (const Json& row : rows) {
    const bool has_none = !row.contains("backlog") || row["backlog"].is_null();
    html += fmt::format(
        "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>", as_html(row.value("server", "")),
        has_none ? (is_swarm ? "–" : "unlimited") : as_html(row["backlog"].dump()),
        value(row, row.contains("turned_away") ? "/turned_away/median" : "/lost_first_syn/median",
              [](double share) { return fmt::format("{:.2f} %", share * 100); }),
        value(row, "/first_byte_s/p99", [](double seconds) { return fmt::format("{:.3g} s", seconds); }),
        value(row, "/deepest_queue/median", [](double depth) { return fmt::format("{:.0f}", depth); }));
  }
  return html + "</table>";
}

Json parse(const std::string& run_json) {
  Json run;
  try {
    run = Json::parse(run_json);
  } catch (const Json::exception& error) {
    throw std::invalid_argument(std::string("not JSON: ") + error.what());
  }
  const bool has_schema = run.is_object() && run.contains("schema") && run["schema"].is_string();
  const std::string schema = has_schema ? run["schema"].get<std::string>() : "none";
  if (schema != "anteroom.tune/2" && schema != "anteroom.compare/2" && schema != "anteroom.swarm/1") {
    throw std::invalid_argument("not the document of a run: its schema is " + schema +
                                ", and has to be anteroom.tune/2, anteroom.compare/2 or anteroom.swarm/1");
  }
  return run;
}

}  // namespace

std::string report_html(const std::string& run_json) {
  const Json run = parse(run_json);
  const std::string document = inside_script(run_json), without_scripts = [&run] {
    try {
      return table(run);
    } catch (const Json::exception& error) {
      throw std::invalid_argument(std::string("not the document of a run: ") + error.what());
    }
  }();
  const std::array<Piece, 13> pieces{{
      {"run", document},
      {"table", without_scripts},
      {"page.css", EMBEDDED(page_css)},
      {"words.js", EMBEDDED(words_js)},
      {"run.js", EMBEDDED(run_js)},
      {"chart.js", EMBEDDED(chart_js)},
      {"plots.js", EMBEDDED(plots_js)},
      {"heat_map.js", EMBEDDED(heat_map_js)},
      {"tables.js", EMBEDDED(tables_js)},
      {"page.js", EMBEDDED(page_js)},
      {"LICENSE", EMBEDDED(uplot_license)},
      {"uPlot.min.css", EMBEDDED(uplot_css)},
      {"uPlot.iife.min.js", EMBEDDED(uplot_js)},
  }};
  std::string html;
  std::string_view rest =
      EMBEDDED(page_html);  // in which {{words.js}} stands for that piece, and each is there once
  while (true) {
    const std::size_t begin = rest.find("{{"), end = rest.find("}}");
    if (begin == rest.npos) return html += rest;
    html += rest.substr(0, begin);
    const std::string_view name = rest.substr(begin + 2, end - begin - 2);
    for (const Piece& piece : pieces) {
      if (piece.name == name) html += piece.text;
    }
    rest.remove_prefix(end + 2);
  }
}

}  // namespace anteroom::tool
