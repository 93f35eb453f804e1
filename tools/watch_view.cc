#include "watch_view.h"

#include <anteroom/bench/advice.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <functional>

#include "curve.h"
#include "table.h"

namespace anteroom::tool {
namespace {

using bench::Counter;
using bench::RateSource;
using bench::RoomAdvice;
using bench::RoomLog;
using RoomVerdict = RoomAdvice::Verdict;

constexpr std::size_t kSparkSlots = 24;
constexpr std::size_t kProcessColumns = 28;
constexpr int kAdviceColumns = 100;  // in a file too

std::chrono::nanoseconds from_s(double seconds) {
  return std::chrono::nanoseconds(std::llround(seconds * 1e9));
}

/// "1 place", "2 places"
std::string several(double count, std::string_view one) {
  return fmt::format("{} {}{}", whole(count), one, std::llround(count) == 1 ? "" : "s");
}

/// How full it was over time, a character a slot.
std::string sparkline(const std::vector<float>& slots, bool utf8) {
  static constexpr std::array<std::string_view, 10> kBlocks{" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█", "█"};
  static constexpr std::array<std::string_view, 10> kAscii{" ", ".", ":", "-", "=", "+", "*", "%", "#", "#"};
  std::string line;
  for (const float slot : slots) {
    // Nobody waiting is blank, and one guest has at least a trace; the last step is a full room.
    const auto level = slot <= 0 ? 0 : slot >= 1 ? 8 : 1 + static_cast<int>(slot * 7);
    line += (utf8 ? kBlocks : kAscii)[static_cast<std::size_t>(level)];
  }
  return line;
}

/// The last slots, or all of them put together so that they fit.
std::vector<float> shown_slots(const bench::RoomHistory& history, bool all) {
  const std::vector<float>& slots = history.slots();
  if (!all || slots.size() <= kSparkSlots) {
    const std::size_t count = std::min(slots.size(), kSparkSlots);
    return {slots.end() - static_cast<std::ptrdiff_t>(count), slots.end()};
  }
  std::vector<float> shown(kSparkSlots, -1.0F);
  for (std::size_t i = 0; i < slots.size(); ++i) {
    float& slot = shown[i * kSparkSlots / slots.size()];
    slot = std::max(slot, slots[i]);
  }
  return shown;
}

std::string process_cell(const RoomGroup& group) {
  const std::vector<WatchedProcess> processes = group.processes();
  if (processes.empty()) return "?";
  std::string cell = fmt::format("{} {}", printable(processes.front().name, 20), processes.front().pid);
  if (processes.size() > 1) cell += fmt::format(" (+{})", processes.size() - 1);
  return clipped(cell, kProcessColumns);
}

struct WatchColumn {
  std::string heading;
  std::function<std::string(const RoomGroup&)> cell;
  bool is_left = false;
  int keep = 0;  ///< the lower, the sooner it is dropped from a narrow terminal
};

/// Whether the view is live decides what "a second" and the history are.
std::vector<WatchColumn> watch_columns(const WatchState& state, const Terminal& terminal, bool live) {
  const double seconds = std::max(std::chrono::duration<double>(state.took).count(), 1e-9);
  std::vector<WatchColumn> columns{
      {"address",
       [](const RoomGroup& group) {
         const std::string address = group.address.to_string();
         const std::string times = group.members() > 1 ? fmt::format(" x{}", group.members()) : "";
         return address + times + (group.fullest().is_gone ? " (gone)" : "");
       },
       true, 99},
      {"process", process_cell, true, 6},
      {"waiting", [](const RoomGroup& group) { return with_commas(group.fullest().log.depth()); }, false, 9},
      {"backlog", [](const RoomGroup& group) { return with_commas(group.fullest().log.limit()); }, false, 8},
      {"bound by",
       [&state](const RoomGroup& group) { return bound_by(group.fullest().log.limit(), state.backlog_max); },
       true, 2},
      {"peak", [](const RoomGroup& group) { return with_commas(group.peak()); }, false, 7},
      {"drops", [](const RoomGroup& group) { return with_commas(group.drops()); }, false, 7},
      {"drops/s",
       [live, seconds](const RoomGroup& group) {
         return live ? with_commas(group.drops_last_second())
                     : fmt::format("{:.3g}", static_cast<double>(group.drops()) / seconds);
       },
       false, 4},
      {"how full",
       [&terminal, live](const RoomGroup& group) {
         return sparkline(shown_slots(group.fullest().log.history(), !live), terminal.utf8);
       },
       true, 5}};
  return columns;
}

std::string join_cells(const std::vector<WatchColumn>& columns, const std::vector<std::string>& cells,
                       const std::vector<std::size_t>& widths) {
  std::string line;
  for (std::size_t i = 0; i < columns.size(); ++i) {
    const std::string padding(widths[i] - std::min(widths[i], display_width(cells[i])), ' ');
    if (i > 0) line += "  ";
    line += columns[i].is_left ? cells[i] + padding : padding + cells[i];
  }
  while (line.ends_with(' ')) line.pop_back();
  return line;
}

std::string watch_table(const WatchState& state, const std::vector<RoomGroup>& groups,
                        const Terminal& terminal, bool live) {
  std::vector<WatchColumn> columns = watch_columns(state, terminal, live);
  std::vector<std::vector<std::string>> cells;
  std::vector<std::size_t> widths;
  const auto lay_out = [&] {
    cells.assign(groups.size(), {});
    widths.clear();
    std::size_t total = 0;
    for (const WatchColumn& column : columns) {
      std::size_t width = column.heading.size();
      for (std::size_t i = 0; i < groups.size(); ++i)
        width = std::max(width, display_width(cells[i].emplace_back(column.cell(groups[i]))));
      widths.push_back(width);
      total += width + 2;
    }
    return total - 2;
  };
  while (lay_out() > static_cast<std::size_t>(terminal.columns) && columns.size() > 2)
    columns.erase(std::ranges::min_element(columns, {}, &WatchColumn::keep));
  const auto width = static_cast<std::size_t>(terminal.columns);
  std::vector<std::string> headings;
  for (const WatchColumn& column : columns) headings.push_back(column.heading);
  std::string text = terminal.dim(clipped(join_cells(columns, headings, widths), width)) + '\n';
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const std::string line = clipped(join_cells(columns, cells[i], widths), width);
    const bool is_full = groups[i].fullest().log.depth() > groups[i].fullest().log.limit();
    text += (is_full || (live && groups[i].drops_last_second() > 0) ? terminal.red(line) : line) + '\n';
  }
  return text;
}

/// What the last second, or the whole watch, has of a counter.
std::string counter(const WatchState& state, std::string_view name, Counter which, bool live) {
  const double seconds = std::max(std::chrono::duration<double>(state.took).count(), 1e-9);
  const auto sum = static_cast<double>(state.counted[which]);
  return fmt::format("{} +{} ({}/s)", name, whole(sum),
                     live ? whole(static_cast<double>(state.counted_last_second[which]))
                          : fmt::format("{:.3g}", sum / seconds));
}

std::string watch_heading(const WatchState& state, const Terminal& terminal, bool live) {
  const std::string dot = terminal.utf8 ? " · " : ", ";
  const auto width = static_cast<std::size_t>(terminal.columns);
  const std::string first = fmt::format(
      "anteroom watch   {}{}{} samples, one each {} (at most {}){}{}", short_duration(state.took, terminal),
      dot, with_commas(state.rooms.looks()), short_duration(from_s(state.interval_mean_s), terminal),
      short_duration(from_s(state.interval_max_s), terminal), dot,
      several(static_cast<double>(state.rooms.watched()), "listening socket"));
  const std::string second = fmt::format("this network namespace   {}{}{}",
                                         counter(state, "ListenOverflows", Counter::kListenOverflows, live),
                                         dot, counter(state, "ListenDrops", Counter::kListenDrops, live));
  return terminal.bold(clipped(first, width)) + '\n' + clipped(second, width) + '\n';
}

/// What is said of one listener: sentences, and what to type, if that helps.
struct AdviceWords {
  std::vector<std::string> sentences;
  std::string command;
};

std::string number_in_words(double number) {
  return number >= 10 ? whole(number) : fmt::format("{:.2g}", number);
}

std::string rate_in_words(const RoomAdvice& advice) {
  const std::string rate = number_in_words(advice.rate);
  switch (advice.rate_source) {
    case RateSource::kNamespace:
      return fmt::format("While clients came, {} came a second (kernel counters).", rate);
    case RateSource::kStalls:
      return fmt::format("While it did not accept, {} clients came a second (by the growth of its queue).",
                         rate);
    case RateSource::kGrowth:
      break;
  }
  if (advice.rate_at_most <= advice.rate)
    return fmt::format("At least {} clients a second came (seen in its queue).", rate);
  return fmt::format(
      "At least {} clients a second came (seen in its queue), at most {} (that is all of this network "
      "namespace).",
      rate, number_in_words(advice.rate_at_most));
}

std::string stall_in_words(const bench::RoomStall& stall, const Terminal& terminal) {
  // Of one that began before we looked, or has not ended, only this much is known.
  const bool is_part = stall.began_before || stall.goes_on;
  return fmt::format("The longest time in which nobody was accepted: {}{} (at least {}{}).",
                     is_part ? "at least " : "", short_duration(from_s(stall.length_s), terminal),
                     terminal.utf8 ? "±" : "+-", short_duration(from_s(stall.error_s), terminal));
}

std::string drops_in_words(const RoomLog& log, const RoomAdvice& advice) {
  if (log.drops() == 0) return "Nobody was turned away.";
  std::string words = several(static_cast<double>(log.drops()), "drop");
  if (advice.is_at_most) words += ", of fewer clients: each tries again after a second";
  if (log.peak() <= log.limit())
    words += "; it was never seen full, so that was shorter than two samples are apart";
  return words + '.';
}

/// What to type.
std::string retune_command(const WatchState& state, const RoomGroup& group, int backlog) {
  const std::vector<WatchedProcess> processes = group.processes();
  std::string command = "anteroom retune";
  if (!processes.empty()) command += fmt::format(" --pid {}", processes.front().pid);
  command += fmt::format(" --port {} --backlog {}", group.address.port(), backlog);
  if (backlog > state.backlog_max) {
    const WatchCommand& watched = state.command;
    const std::string there = watched.is_elsewhere ? fmt::format("nsenter -t {} -n ", *watched.pid) : "";
    command = fmt::format("{}sysctl -w net.core.somaxconn={} && {}", there, backlog, command);
  }
  return command;
}

/// "2,000/s x 100ms = 200 who wait, and 44 to spare for chance, and a burst of 30"
std::string law_in_words(const RoomAdvice& advice, const Terminal& terminal) {
  const double mean = advice.rate * advice.stall_s;
  std::string words =
      fmt::format("{}/s {} {} = {} who wait", number_in_words(advice.rate), terminal.utf8 ? "×" : "x",
                  short_duration(from_s(advice.stall_s), terminal), number_in_words(mean));
  if (const double spare = advice.needed - mean - advice.burst; spare >= 0.5)
    words += fmt::format(", {} to spare for chance", whole(spare));
  if (advice.burst >= 1) words += fmt::format(", a burst of {}", whole(advice.burst));
  return words;
}

AdviceWords size_in_words(const WatchState& state, const RoomGroup& group, const GroupAdvice& given,
                          const Terminal& terminal) {
  const RoomAdvice& advice = given.advice;
  const RoomLog& log = given.room->log;
  const double seen = log.deepest_wanted() * (1 + bench::kHeadroomMin);
  AdviceWords words;
  words.sentences.push_back(fmt::format("Most who wanted in at once: {}{}.", whole(log.deepest_wanted()),
                                        log.drops() > 0 ? ", with those turned away" : ""));
  words.sentences.push_back(drops_in_words(log, advice));
  if (advice.longest) words.sentences.push_back(stall_in_words(*advice.longest, terminal));
  words.sentences.push_back(rate_in_words(advice));
  if (advice.longest) words.sentences.push_back(law_in_words(advice, terminal) + '.');
  // Who has been turned away comes again, and is counted again.
  const std::string_view bound = advice.is_at_most            ? "at most "
                                 : advice.rate_is_lower_bound ? "at least "
                                                              : "";
  std::string needs =
      fmt::format("Needs {}{}", bound, several(std::ceil(std::max(advice.needed, seen)), "place"));
  if (advice.needed >= seen)
    needs +=
        fmt::format(" (at least {}{})", terminal.utf8 ? "±" : "+-", whole(std::ceil(advice.error_places)));
  else
    needs += " (the most at once and a tenth to spare)";
  needs += fmt::format(", has {}", whole(log.places()));
  if (advice.verdict != RoomVerdict::kTooSmall) {
    words.sentences.push_back(needs + ": enough.");
    return words;
  }
  words.sentences.push_back(needs + ": too small.");
  if (advice.is_at_most)
    words.sentences.emplace_back("Watch again after that: with nobody turned away it is known better.");
  words.command = retune_command(state, group, *advice.backlog);
  return words;
}

AdviceWords advice_words(const WatchState& state, const RoomGroup& group, const GroupAdvice& given,
                         const Terminal& terminal) {
  const RoomLog& log = given.room->log;
  switch (given.advice.verdict) {
    case RoomVerdict::kNeverNeeded:
      return {{fmt::format("0 waited in {}; its backlog of {} was never needed in this time.",
                           several(static_cast<double>(log.samples()), "sample"), log.limit())},
              {}};
    case RoomVerdict::kNotAccepting:
      return {
          {fmt::format("It does not accept: {} wait{}, and nobody was seen to be accepted in the last {}.",
                       with_commas(log.depth()), log.depth() == 1 ? "s" : "",
                       short_duration(from_s(log.current_stall()->length_s), terminal)),
           drops_in_words(log, given.advice),
           log.current_stall()->length_s < 1
               ? "Too early to say what that is: watch for longer."
               : "No backlog mends that: find out what the server does instead of accepting."},
          {}};
    case RoomVerdict::kTooSlow:
      return {{fmt::format("It accepts too slowly: full for {} in all, and accepting all the while.",
                           short_duration(from_s(log.full_s()), terminal)),
               drops_in_words(log, given.advice),
               "No backlog mends that: accept faster (more workers, less work between two accepts)."},
              {}};
    case RoomVerdict::kEnough:
    case RoomVerdict::kTooSmall:
      break;
  }
  return size_in_words(state, group, given, terminal);
}

std::string name_of_group(const RoomGroup& group) {
  const std::string process = process_cell(group);
  return process == "?" ? group.address.to_string()
                        : fmt::format("{} ({})", group.address.to_string(), process);
}

void keep_rows(std::vector<RoomGroup>& groups, int rows) {
  if (rows > 0 && groups.size() > static_cast<std::size_t>(rows))
    groups.resize(static_cast<std::size_t>(rows));
}

/// What the kernel has counted as drops, and were none.
std::string strange_drops_note(const std::vector<RoomGroup>& groups) {
  std::uint64_t others = 0;
  for (const RoomGroup& group : groups) others += group.sk_drops() - group.drops();
  if (others == 0) return {};
  return fmt::format(
      "sk_drops has {} more: no handshakes thrown away, but deferred ACKs (TCP_DEFER_ACCEPT) or resets.\n",
      with_commas(others));
}

std::string hidden_note(const WatchState& state, const std::vector<RoomGroup>& groups) {
  const bool has_nameless =
      std::ranges::any_of(groups, [](const auto& group) { return group.processes().empty(); });
  if (!has_nameless || state.hidden == 0) return {};
  return fmt::format(
      "{} of others could not be looked into: root sees their names.",
      state.hidden == 1 ? "1 process" : with_commas(static_cast<std::uint64_t>(state.hidden)) + " processes");
}

/// A name, and below it what is said of it; the command on a line of its own, so that it can be copied.
std::string advice_paragraph(const RoomGroup& group, const AdviceWords& words, bool is_bad,
                             const Terminal& terminal) {
  const auto width = static_cast<std::size_t>(std::min(terminal.columns, kAdviceColumns));
  const std::string name = clipped(fmt::format("{} {}", is_bad ? "!" : " ", name_of_group(group)), width);
  std::string text = (is_bad ? terminal.bold(name) : name) + '\n';
  text += wrapped(fmt::format("    {}", fmt::join(words.sentences, " ")), width);
  if (!words.command.empty()) text += "    Do: " + terminal.bold(words.command) + '\n';
  return text;
}

/// Advice for each that was active, and one line for all the others.
std::string all_advice(const WatchState& state, const std::vector<RoomGroup>& groups,
                       const Terminal& terminal) {
  std::string text;
  std::size_t idle = 0;
  for (const RoomGroup& group : groups) {
    const GroupAdvice given = advise(state, group);
    const RoomVerdict verdict = given.advice.verdict;
    if (verdict == RoomVerdict::kNeverNeeded && groups.size() > 1) {
      ++idle;
      continue;
    }
    const bool is_bad = verdict != RoomVerdict::kNeverNeeded && verdict != RoomVerdict::kEnough;
    text += advice_paragraph(group, advice_words(state, group, given, terminal), is_bad, terminal);
  }
  if (idle > 0)
    text +=
        fmt::format("  {}: 0 waited in any sample; {} never needed in this time.\n",
                    several(static_cast<double>(idle), idle < groups.size() ? "other listener" : "listener"),
                    idle == 1 ? "its backlog was" : "their backlogs were");
  return text;
}

}  // namespace

std::string bound_by(std::uint32_t limit, int backlog_max) {
  const auto most = static_cast<std::uint32_t>(backlog_max);
  return limit < most ? "program" : limit == most ? "somaxconn" : "somaxconn was higher";
}

std::string advice_in_words(const WatchState& state, const RoomGroup& group, const GroupAdvice& given) {
  const AdviceWords words = advice_words(state, group, given, Terminal{.utf8 = true});
  const std::string text = fmt::format("{}", fmt::join(words.sentences, " "));
  return words.command.empty() ? text : text + " Do: " + words.command;
}

std::string live_view(const WatchState& state, const Terminal& terminal, int lines) {
  constexpr int kOtherLines = 6;  // two above, a heading, two empty ones, one below
  std::vector<RoomGroup> groups = state.rooms.groups(false);
  const std::string note = hidden_note(state, groups);
  const int room = std::max(lines - kOtherLines, 1);
  keep_rows(groups, state.command.rows_max > 0 ? std::min(state.command.rows_max, room) : room);
  std::string text =
      watch_heading(state, terminal, true) + '\n' + watch_table(state, groups, terminal, true) + '\n';
  const std::string last =
      groups.empty()
          ? "nobody listens"
          : fmt::format(
                "how full: the last {}. waiting, peak, how full: samples. "
                "drops, Listen...: the kernel's counts. Ctrl-C ends.",
                short_duration(groups.front().fullest().log.history().step() * kSparkSlots, terminal));
  return text + terminal.dim(clipped(note.empty() ? last : note + " " + last,
                                     static_cast<std::size_t>(terminal.columns)));
}

std::string final_view(const WatchState& state, const Terminal& terminal) {
  std::vector<RoomGroup> groups = state.rooms.groups(true);
  std::string text = watch_heading(state, terminal, false) + '\n';
  if (groups.empty()) return text + "nobody listens\n";
  const std::size_t all = groups.size();
  keep_rows(groups, state.command.rows_max);
  text += watch_table(state, groups, terminal, false);
  if (groups.size() < all) text += fmt::format("and {} more\n", all - groups.size());
  text += '\n' + all_advice(state, groups, terminal);
  text += '\n' +
          wrapped(
              "waiting, peak, how full and times are samples: what is shorter than two of them are apart may "
              "be missed. drops and Listen... are the kernel's own counts, which miss nothing.",
              static_cast<std::size_t>(std::min(terminal.columns, kAdviceColumns)));
  text += strange_drops_note(groups);
  const std::string note = hidden_note(state, groups);
  if (!note.empty()) text += note + '\n';
  for (const std::string& line : state.notes) text += line + '\n';
  return text;
}

}  // namespace anteroom::tool
