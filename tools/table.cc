#include "table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>

namespace anteroom::tool {
namespace {

using bench::Summary;

struct Column {
  std::string heading;
  std::function<std::string(const Summary&)> cell;
  int keep = 0;  ///< the lower, the sooner it is dropped from a narrow terminal
};

/// What stands behind a row.
std::string note_of(const Summary& row) {
  return row.void_runs > 0 ? fmt::format("  ({} void)", row.void_runs) : "";
}

/// Right-aligned columns, two spaces apart, as many as there is room for.
class Table {
 public:
  Table(std::vector<Column> columns, const Terminal& terminal, int margin)
      : columns_(std::move(columns)), terminal_(terminal), margin_(margin) {}

  std::string print(const std::vector<Summary>& rows,
                    const std::function<std::string(const Summary&, std::string)>& line) {
    std::vector<std::vector<std::string>> cells;
    std::vector<std::size_t> widths;
    const auto lay_out = [&] {
      cells.clear();
      widths.clear();
      for (const Column& column : columns_) widths.push_back(column.heading.size());
      for (const Summary& row : rows) {
        std::vector<std::string>& in_row = cells.emplace_back();
        for (std::size_t i = 0; i < columns_.size(); ++i) {
          in_row.push_back(row.runs == 0 && i > 0 ? "-" : columns_[i].cell(row));
          widths[i] = std::max(widths[i], display_width(in_row.back()));
        }
      }
    };
    lay_out();
    std::size_t note = 0;
    for (const Summary& row : rows) note = std::max(note, note_of(row).size());
    while (total(widths) + static_cast<int>(note) > terminal_.columns && columns_.size() > 2) {
      columns_.erase(std::ranges::min_element(columns_, {}, &Column::keep));
      lay_out();
    }
    std::vector<std::string> headings;
    for (const Column& column : columns_) headings.push_back(column.heading);
    std::string text =
        terminal_.dim(std::string(static_cast<std::size_t>(margin_), ' ') + join(headings, widths)) + '\n';
    for (std::size_t i = 0; i < rows.size(); ++i) text += line(rows[i], join(cells[i], widths)) + '\n';
    return text;
  }

 private:
  static std::size_t display_width(const std::string& text) {
    return static_cast<std::size_t>(std::ranges::count_if(text, [](char c) { return (c & 0xc0) != 0x80; }));
  }
  int total(const std::vector<std::size_t>& widths) const {
    int sum = margin_;
    for (const std::size_t width : widths) sum += static_cast<int>(width) + 2;
    return sum;
  }
  static std::string join(const std::vector<std::string>& cells, const std::vector<std::size_t>& widths) {
    std::string line;
    for (std::size_t i = 0; i < cells.size(); ++i) {
      line += std::string(2 + widths[i] - display_width(cells[i]), ' ') + cells[i];
    }
    return line;
  }

  std::vector<Column> columns_;
  const Terminal& terminal_;
  int margin_;
};

/// What stands in the place of a number that was not measured.
constexpr const char* kNotKnown = "-";

template <class Print>
std::string if_known(const bench::Estimate& estimate, Print print) {
  return estimate.n > 0 ? print(estimate) : kNotKnown;
}

/// Of the best run and the worst: one where they are alike.
std::string range(const std::string& best, const std::string& worst) {
  return best == worst ? best : best + " to " + worst;
}

Column latency(std::string heading, double at, int keep, const Terminal& terminal) {
  return {std::move(heading),
          [at, &terminal](const Summary& row) -> std::string {
            if (row.first_byte.count() == 0) return kNotKnown;
            const std::string value = short_duration(row.first_byte.percentile(at), terminal);
            return row.first_byte.is_lower_bound(at) ? ">" + value : value;
          },
          keep};
}

/// What both tables show, between the name of the row and what only one of them has.
std::vector<Column> common_columns(const Terminal& terminal) {
  return {
      {"lost 1st SYN",
       [](const Summary& row) {
         return range(share(row.lost_first_syn.least), share(row.lost_first_syn.most));
       },
       10},
      {"model", [](const Summary& row) { return row.forecast_loss ? share(*row.forecast_loss) : "-"; }, 6},
      {"ghosts",
       [](const Summary& row) {
         return if_known(row.ghosts, [](const bench::Estimate& ghosts) {
           return range(whole(ghosts.least), whole(ghosts.most));
         });
       },
       7},
      latency("first byte p50", 0.5, 2, terminal),
      latency("p99", 0.99, 8, terminal),
      latency("p99.9", 0.999, 3, terminal),
      latency("max", 1.0, 4, terminal),
      {"conn/s", [](const Summary& row) { return whole(row.connections_per_second.median); }, 5},
      {"deepest queue",
       [](const Summary& row) {
         return if_known(row.deepest_queue, [](const bench::Estimate& depth) { return whole(depth.most); });
       },
       9},
      {"overflows",
       [](const Summary& row) {
         return if_known(row.overflows, [](const bench::Estimate& count) { return whole(count.median); });
       },
       5},
  };
}

}  // namespace

std::string print_backlog(int backlog) {
  return backlog == bench::kUnlimitedBacklog ? "unlimited" : with_commas(static_cast<std::uint64_t>(backlog));
}

std::string with_commas(std::uint64_t value) {
  std::string text = fmt::to_string(value);
  for (std::size_t place = 3; place < text.size(); place += 4) text.insert(text.size() - place, 1, ',');
  return text;
}

std::string whole(double value) {
  return with_commas(static_cast<std::uint64_t>(std::llround(std::max(value, 0.0))));
}

std::string short_duration(std::chrono::nanoseconds duration, const Terminal& terminal) {
  struct Unit {
    double nanoseconds;
    std::string_view name;
  };
  const std::array<Unit, 4> units{{{1e9, "s"}, {1e6, "ms"}, {1e3, terminal.utf8 ? "µs" : "us"}, {1, "ns"}}};
  const auto ns = static_cast<double>(duration.count());
  const auto* const unit = std::ranges::find_if(units, [&](const Unit& u) { return ns >= u.nanoseconds; });
  if (unit == units.end()) return "0";
  const double value = ns / unit->nanoseconds;
  const int decimals = value < 10 && unit->nanoseconds > 1 ? 2 : value < 100 && unit->nanoseconds > 1 ? 1 : 0;
  return fmt::format("{:.{}f} {}", value, decimals, unit->name);
}

std::string share(double value) {
  if (value == 0) return "0";
  if (value < 0.001) return "<0.1 %";
  return fmt::format("{:.1f} %", value * 100);
}

std::string tune_table(const std::vector<Summary>& rows, int recommended, const Terminal& terminal) {
  std::vector<Column> columns = common_columns(terminal);
  if (std::ranges::any_of(rows, [](const Summary& row) { return row.stall_loss.has_value(); })) {
    columns.push_back(
        {"in the stall", [](const Summary& row) { return whole(row.first_stall_drops.median); }, 1});
    columns.push_back(
        {"law", [](const Summary& row) { return row.stall_loss ? whole(*row.stall_loss) : kNotKnown; }, 1});
  }
  columns.insert(columns.begin(),
                 {"backlog", [](const Summary& row) { return print_backlog(row.scenario.backlog); }, 99});
  return Table(std::move(columns), terminal, 1).print(rows, [&](const Summary& row, const std::string& line) {
    const bool marked = row.scenario.backlog == recommended;
    const std::string text = (marked ? (terminal.utf8 ? "▶" : ">") : " ") + line;
    if (marked) return terminal.bold(text) + note_of(row);
    return (row.runs_that_turned_away > 0 ? terminal.red(text) : text) + note_of(row);
  });
}

std::string compare_table(const std::vector<Summary>& rows, const Terminal& terminal) {
  std::vector<Column> columns = common_columns(terminal);
  const Summary base = rows.front();
  const auto ratio = [](const bench::Estimate& value, const bench::Estimate& of) {
    const bool is_known = value.n > 0 && of.median > 0;
    return is_known ? fmt::format("{:.2f}", value.median / of.median) : std::string(kNotKnown);
  };
  columns.insert(
      columns.begin(),
      {"server", [](const Summary& row) { return std::string(bench::name(row.scenario.server)); }, 99});
  columns.push_back(
      {"x conn/s",
       [=](const Summary& row) { return ratio(row.connections_per_second, base.connections_per_second); },
       5});
  columns.push_back({"CPU us/conn",
                     [](const Summary& row) {
                       return if_known(row.server_cpu_s, [](const bench::Estimate& cpu) {
                         return fmt::format("{:.1f}", cpu.median * 1e6);
                       });
                     },
                     7});
  columns.push_back(
      {"x CPU", [=](const Summary& row) { return ratio(row.server_cpu_s, base.server_cpu_s); }, 7});
  return Table(std::move(columns), terminal, 0).print(rows, [](const Summary& row, const std::string& line) {
    return line + note_of(row);
  });
}

}  // namespace anteroom::tool
