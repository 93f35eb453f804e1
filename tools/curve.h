#pragma once
#include <cstddef>
#include <string>
#include <string_view>

#include "run_document.h"
#include "terminal.h"

namespace anteroom::tool {

/// The curve that a run is about: for each backlog a bar as long as the share of clients that were turned
/// away (lost their first SYN, or became ghosts), in which the eye finds the knee. Solid up to the median
/// run, faint up to the worst one, and where the model says it ends there is a mark. The scale is asinh: even
/// below 0.1 %, logarithmic above, so that 0.1 % is seen beside 26 %, and zero is nothing. A loss, however
/// small, has at least a trace.
///
/// Beside it, from 90 columns on, when the clients got their first byte: a strip on a scale of logarithms, in
/// which each cell is the darker, the more clients it has (those who never got one are in it with their age).
///
/// One curve for each server and loop. No line is wider than the terminal, or than 100 columns if that is a
/// file. Throws RunDocumentError.
std::string curve(const Json& run, const Terminal& terminal);

// How lines are made to fit; for UTF-8 without double-width or combining characters, which is all we write.

std::size_t display_width(std::string_view text) noexcept;
/// At most so many columns of it.
std::string clipped(std::string_view text, std::size_t columns);
/// Lines broken between words, each with its newline and indented as the first one.
std::string wrapped(std::string_view text, std::size_t columns);

}  // namespace anteroom::tool
