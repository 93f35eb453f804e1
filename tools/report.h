#pragma once
#include <string>

namespace anteroom::tool {

/// A run as a page that needs nothing but a browser: no network, no other file. `run_json` is what --json
/// writes (tools/JSON.md), and is in the page as it is, so that it can be had from there again. What came
/// from outside (commands, names, notes) stays text. Throws std::invalid_argument, with the reason, if it is
/// no such document.
std::string report_html(const std::string& run_json);

}  // namespace anteroom::tool
