#include "curve.h"

#include <anteroom/bench/scenario.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <utility>
#include <vector>

#include "table.h"

namespace anteroom::tool {
namespace {

constexpr int kFileColumns = 100;
constexpr int kStripColumns = 90;  ///< from here on there is room for it
constexpr int kBarMost = 60;
constexpr int kLabelWidth = 8;  // " 26.1 %", " <=0.1 %"
constexpr int kMarginWidth = 2;
/// Where the scale turns from even to logarithmic: 0.05 %, so that 0.1 % is a fifth of a bar that ends at 30
/// %.
constexpr double kBend = 0.0005;
constexpr std::array kScaleEnds{0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0};
constexpr std::array kTicks{0.001, 0.01, 0.1, 1.0};
/// The strip shows nothing below a microsecond or beyond eleven days.
constexpr int kDecadeLeast = -6;
constexpr int kDecadeMost = 6;
constexpr int kCellsADecadeMost = 6;

/// What the picture is made of.
struct Glyphs {
  std::string_view recommended;
  std::string_view axis;
  std::string_view model;
  std::string_view faint;                ///< up to the worst run
  std::vector<std::string_view> blocks;  ///< parts of a cell, the last one is all of it
  std::string_view at_most;
  std::string_view open;                   ///< the left end of a strip
  std::string_view close;                  ///< the right one
  std::array<std::string_view, 5> shades;  ///< of a strip's cells, from below 0.01 % to 10 % and more
};

const Glyphs& glyphs(const Terminal& terminal) {
  static const Glyphs utf8{
      "▶", "│", "◆", "░", {"▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"}, "≤", "▕", "▏", {"·", "░", "▒", "▓", "█"}};
  static const Glyphs ascii{">", "|", "o", "-", {"#"}, "<=", "[", "]", {".", ":", "+", "*", "#"}};
  return terminal.utf8 ? utf8 : ascii;
}

/// From 0 for no loss to 1 for the end of the scale.
double on_scale(double loss, double end) { return std::asinh(loss / kBend) / std::asinh(end / kBend); }

/// "0.1 %", "10 %".
std::string percent(double share) { return fmt::format("{:.3g} %", share * 100); }

struct Bar {
  double median = 0;
  double worst = 0;
  std::optional<double> model;
};

std::optional<Bar> bar_of(const Row& row) {
  if (!row.measured || !row.measured->loss()) return std::nullopt;
  return Bar{.median = row.measured->loss()->median,
             .worst = row.measured->loss()->largest(),
             .model = row.measured->model_loss};
}

double scale_end(const std::vector<const Row*>& rows) {
  double most = 0;
  for (const Row* row : rows) {
    if (const auto bar = bar_of(*row))
      most = std::max({most, bar->median, bar->worst, bar->model.value_or(0)});
  }
  const auto* const end = std::ranges::find_if(kScaleEnds, [&](double e) { return e >= most; });
  return end == kScaleEnds.end() ? 1 : *end;
}

/// The axis, and a bar of `width` cells.
std::string print_bar(const std::optional<Bar>& bar, double end, int width, const Glyphs& glyphs) {
  std::vector<std::string_view> cells(static_cast<std::size_t>(width) + 1, " ");
  cells[0] = glyphs.axis;
  if (bar && width > 0) {
    const auto parts_a_cell = static_cast<int>(glyphs.blocks.size());
    const auto parts = [&](double loss) {
      const int most = width * parts_a_cell;
      const auto exact = static_cast<int>(std::lround(on_scale(loss, end) * most));
      return loss > 0 ? std::clamp(exact, 1, most) : 0;
    };
    const int median = parts(bar->median);
    const int full = median / parts_a_cell;
    const int worst = (parts(bar->worst) + parts_a_cell - 1) / parts_a_cell;
    for (int i = 0; i < worst; ++i) cells[static_cast<std::size_t>(i) + 1] = glyphs.faint;
    for (int i = 0; i < full; ++i) cells[static_cast<std::size_t>(i) + 1] = glyphs.blocks.back();
    const int rest = median % parts_a_cell;
    if (rest > 0)
      cells[static_cast<std::size_t>(full) + 1] = glyphs.blocks[static_cast<std::size_t>(rest) - 1];
    if (bar->model) {
      // On the axis if it is nothing, else in the cell in which a bar of that length would end.
      const int model = (parts(*bar->model) + parts_a_cell - 1) / parts_a_cell;
      cells[static_cast<std::size_t>(model)] = glyphs.model;
    }
  }
  return fmt::format("{}", fmt::join(cells, ""));
}

/// "19.9 %"; what only some runs lost is "<=3.1 %".
std::string print_loss(const Row& row, const Glyphs& glyphs) {
  if (row.runs == 0) return "void";
  const auto bar = bar_of(row);
  if (!bar) return "?";
  if (bar->median == 0 && bar->worst > 0) {
    return bar->worst < 0.001 ? share(bar->worst) : fmt::format("{}{}", glyphs.at_most, share(bar->worst));
  }
  return share(bar->median);
}

std::string right(std::string_view text, std::size_t width) {
  const std::size_t has = display_width(text);
  return std::string(width > has ? width - has : 0, ' ') + std::string(text);
}

/// Where a strip begins and ends, in powers of ten of a second, and how fine it is.
struct StripScale {
  int from = 0;
  int to = 0;
  int cells_a_decade = 0;

  int cells() const { return (to - from) * cells_a_decade; }
};

double logarithm(double seconds) {
  return std::clamp(seconds > 0 ? std::log10(seconds) : kDecadeLeast, static_cast<double>(kDecadeLeast),
                    static_cast<double>(kDecadeMost));
}

double clients_in_bin(const Measured& row, std::size_t bin) {
  return row.first_byte_clients[bin] + row.unfinished_clients[bin];
}

/// The decades that somebody is in; none if nobody is anywhere.
std::optional<StripScale> strip_scale(const RunDocument& run, int width) {
  double from = kDecadeMost;
  double to = kDecadeLeast;
  for (const Row& row : run.rows) {
    for (std::size_t bin = 0; row.measured && bin + 1 < run.edges_s.size(); ++bin) {
      if (clients_in_bin(*row.measured, bin) == 0) continue;
      from = std::min(from, logarithm(run.edges_s[bin]));
      to = std::max(to, logarithm(run.edges_s[bin + 1]));
    }
  }
  if (from > to) return std::nullopt;
  constexpr double kHair = 1e-9;  // 0.001 s may be a hair beside its decade
  StripScale scale{.from = static_cast<int>(std::floor(from + kHair)),
                   .to = static_cast<int>(std::ceil(to - kHair))};
  scale.from = std::min(scale.from, kDecadeMost - 1);
  scale.to = std::max(scale.to, scale.from + 1);
  scale.cells_a_decade = std::min(width / (scale.to - scale.from), kCellsADecadeMost);
  if (scale.cells_a_decade < 1) return std::nullopt;
  return scale;
}

/// Clients in each cell of the strip: a bin that lies over several is shared between them.
std::vector<double> cells_of(const Measured& row, const std::vector<double>& edges, const StripScale& scale) {
  std::vector<double> cells(static_cast<std::size_t>(scale.cells()));
  const double last = scale.cells() - 1;
  for (std::size_t bin = 0; bin + 1 < edges.size(); ++bin) {
    const double clients = clients_in_bin(row, bin);
    if (clients == 0) continue;
    const double from = (logarithm(edges[bin]) - scale.from) * scale.cells_a_decade;
    const double to = (logarithm(edges[bin + 1]) - scale.from) * scale.cells_a_decade;
    constexpr double kHair = 1e-6;  // of a cell
    const auto first = static_cast<std::size_t>(std::clamp(std::floor(from + kHair), 0.0, last));
    const auto end =
        static_cast<std::size_t>(std::clamp(std::ceil(to - kHair) - 1, static_cast<double>(first), last));
    for (std::size_t cell = first; cell <= end; ++cell) {
      const auto at = static_cast<double>(cell);
      const double common = std::min(to, at + 1) - std::max(from, at);
      cells[cell] += first == end ? clients : clients * std::max(common, 0.0) / (to - from);
    }
  }
  return cells;
}

std::string print_strip(const Row& row, const std::vector<double>& edges, const StripScale& scale,
                        const Glyphs& glyphs) {
  if (!row.measured) return {};
  const std::vector<double> cells = cells_of(*row.measured, edges, scale);
  double all = 0;
  for (const double clients : cells) all += clients;
  std::string strip(glyphs.open);
  for (const double clients : cells) {
    const double share = all > 0 ? clients / all : 0;
    const std::size_t shade = share < 0.0001 ? 0 : share < 0.001 ? 1 : share < 0.01 ? 2 : share < 0.1 ? 3 : 4;
    strip += clients == 0 ? " " : glyphs.shades[shade];
  }
  return strip + std::string(glyphs.close);
}

/// "1ms", "10s": where a decade of the strip begins.
std::string decade_name(int decade, const Terminal& terminal) {
  const std::string name =
      short_duration(std::chrono::nanoseconds(std::llround(std::pow(10, decade + 9))), terminal);
  const std::size_t space = name.find(' ');
  const std::size_t point = std::min(name.find('.'), space);
  return name.substr(0, point) + (space == name.npos ? "" : name.substr(space + 1));
}

/// Words at columns, each dropped if it would touch the one before it or not fit.
class Ruler {
 public:
  explicit Ruler(std::size_t columns) : columns_(columns) {}
  void put(std::size_t column, std::string_view word) {
    const std::size_t has = display_width(text_);
    if (column < has + (has > 0 ? 1 : 0) || column + display_width(word) > columns_) return;
    text_ += std::string(column - has, ' ') + std::string(word);
  }
  const std::string& text() const { return text_; }

 private:
  std::size_t columns_;
  std::string text_;
};

/// How a line is divided: margin, backlog, axis and bar, loss, and perhaps the strip.
struct Layout {
  int columns = 0;
  int name = 0;
  int bar = 0;
  std::optional<StripScale> strip;

  std::size_t bar_at() const { return kMarginWidth + static_cast<std::size_t>(name) + 1; }
  std::size_t strip_at() const { return bar_at() + static_cast<std::size_t>(1 + bar + kLabelWidth + 2); }
};

Layout lay_out(const RunDocument& run, const Terminal& terminal) {
  Layout layout{.columns = terminal.columns >= 1000 ? kFileColumns : std::max(terminal.columns, 1)};
  layout.name = static_cast<int>(std::string_view("backlog").size());
  for (const Row& row : run.rows) {
    layout.name = std::max(layout.name, static_cast<int>(print_backlog(row.name.backlog).size()));
  }
  int rest = layout.columns - static_cast<int>(layout.bar_at()) - 1 - kLabelWidth;
  if (layout.columns >= kStripColumns) {
    constexpr int kFrame = 4;  // two spaces and both ends
    layout.strip = strip_scale(run, (rest - kFrame) * 3 / 5);
    if (layout.strip) rest -= layout.strip->cells() + kFrame;
  }
  layout.bar = std::clamp(rest, 0, kBarMost);
  return layout;
}

/// Lines that fit, in a style each.
class Drawing {
 public:
  Drawing(const RunDocument& run, const Terminal& terminal)
      : run_(run), terminal_(terminal), glyphs_(glyphs(terminal)), layout_(lay_out(run, terminal)) {}

  void block(const std::vector<const Row*>& rows, bool has_title) {
    if (!text_.empty()) text_ += '\n';
    const RowName& name = rows.front()->name;
    if (has_title) line(fmt::format("{}, {} loop", name.server, name.loop), &Terminal::bold);
    const double end = scale_end(rows);
    header(end);
    for (const Row* row : rows) print(*row, end);
  }

  std::string legend() && {
    std::string bars =
        fmt::format("{} in the median run, {} in the worst one", glyphs_.blocks.back(), glyphs_.faint);
    if (has_model_) bars += fmt::format(", {} the model", glyphs_.model);
    if (has_recommended_) bars += fmt::format(", {} the recommended backlog", glyphs_.recommended);
    paragraph(bars);
    if (layout_.strip) {
      const auto& s = glyphs_.shades;
      paragraph(
          fmt::format("share of clients in a cell: {} <0.01 %, {} <0.1 %, {} <1 %, {} <10 %, {} more; "
                      "those without a first byte are at their age",
                      s[0], s[1], s[2], s[3], s[4]));
    }
    return std::move(text_);
  }

 private:
  void line(const std::string& text, std::string (Terminal::*style)(std::string_view) const = nullptr) {
    std::string fitting = clipped(text, static_cast<std::size_t>(layout_.columns));
    fitting.erase(fitting.find_last_not_of(' ') + 1);
    text_ += (style == nullptr ? fitting : (terminal_.*style)(fitting)) + '\n';
  }

  void paragraph(const std::string& text) {
    const std::string lines = wrapped(text, static_cast<std::size_t>(layout_.columns));
    for (std::size_t at = 0; at < lines.size();) {
      const std::size_t end = lines.find('\n', at);
      text_ += terminal_.dim(lines.substr(at, end - at)) + '\n';
      at = end + 1;
    }
  }

  void header(double end) {
    Ruler words(static_cast<std::size_t>(layout_.columns));
    words.put(layout_.bar_at(), layout_.bar >= 30 ? "clients that were turned away" : "turned away");
    if (layout_.strip) words.put(layout_.strip_at() + 1, "until the first byte, every client");
    line(words.text(), &Terminal::dim);

    Ruler ticks(static_cast<std::size_t>(layout_.columns));
    ticks.put(kMarginWidth + static_cast<std::size_t>(layout_.name) - std::string_view("backlog").size(),
              "backlog");
    ticks.put(layout_.bar_at(), "0");
    for (const double tick : kTicks) {
      if (tick > end) break;
      const auto column = static_cast<std::size_t>(std::lround(on_scale(tick, end) * layout_.bar));
      ticks.put(layout_.bar_at() + column, percent(tick));
    }
    for (int decade = 0; layout_.strip && decade < layout_.strip->to - layout_.strip->from; ++decade) {
      const int column = decade * layout_.strip->cells_a_decade;
      ticks.put(layout_.strip_at() + 1 + static_cast<std::size_t>(column),
                decade_name(layout_.strip->from + decade, terminal_));
    }
    line(ticks.text(), &Terminal::dim);
  }

  void print(const Row& row, double end) {
    const bool is_recommended = run_.recommended == row.name.backlog;
    const auto bar = bar_of(row);
    has_recommended_ |= is_recommended;
    has_model_ |= bar && bar->model;
    std::string text = right(is_recommended ? glyphs_.recommended : "", 1) + ' ';
    text += right(print_backlog(row.name.backlog), static_cast<std::size_t>(layout_.name)) + ' ';
    text += print_bar(bar, end, layout_.bar, glyphs_);
    text += right(print_loss(row, glyphs_), kLabelWidth);
    if (layout_.strip) text += "  " + print_strip(row, run_.edges_s, *layout_.strip, glyphs_);
    if (is_recommended) return line(text, &Terminal::bold);
    line(text, bar && bar->worst > 0 ? &Terminal::red : nullptr);
  }

  const RunDocument& run_;
  const Terminal& terminal_;
  const Glyphs& glyphs_;
  Layout layout_;
  std::string text_;
  bool has_model_ = false;
  bool has_recommended_ = false;
};

/// Rows of one server and one loop, in the order of the document.
std::vector<std::vector<const Row*>> blocks(const RunDocument& run) {
  std::vector<std::vector<const Row*>> blocks;
  for (const Row& row : run.rows) {
    const auto is_like = [&](const std::vector<const Row*>& block) {
      return block.front()->name.server == row.name.server && block.front()->name.loop == row.name.loop;
    };
    auto block = std::ranges::find_if(blocks, is_like);
    if (block == blocks.end()) block = blocks.insert(blocks.end(), std::vector<const Row*>());
    block->push_back(&row);
  }
  return blocks;
}

}  // namespace

std::string curve(const Json& run, const Terminal& terminal) {
  const RunDocument document = understand(run);
  const auto all = blocks(document);
  if (all.empty()) return {};
  Drawing drawing(document, terminal);
  for (const auto& rows : all) drawing.block(rows, all.size() > 1);
  return std::move(drawing).legend();
}

std::size_t display_width(std::string_view text) noexcept {
  return static_cast<std::size_t>(std::ranges::count_if(text, [](char c) { return (c & 0xc0) != 0x80; }));
}

std::string clipped(std::string_view text, std::size_t columns) {
  std::size_t seen = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if ((text[i] & 0xc0) != 0x80 && seen++ == columns) return std::string(text.substr(0, i));
  }
  return std::string(text);
}

std::string wrapped(std::string_view text, std::size_t columns) {
  const std::size_t indent = std::min(text.find_first_not_of(' '), text.size());
  const std::string margin(indent, ' ');
  std::string lines;
  std::string line = margin;
  for (std::string_view rest = text.substr(indent); !rest.empty();) {
    const std::string_view word = rest.substr(0, rest.find(' '));
    rest.remove_prefix(std::min(word.size() + 1, rest.size()));
    if (line != margin && display_width(line) + 1 + display_width(word) > columns) {
      lines += clipped(line, columns) + '\n';
      line = margin;
    }
    if (line != margin) line += ' ';
    line += word;
  }
  return lines + clipped(line, columns) + '\n';
}

}  // namespace anteroom::tool
