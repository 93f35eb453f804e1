// The charts of the page, but for the heat map.
const RETRY_S = 1.024;  // when Linux first sends a SYN again: TCP_TIMEOUT_INIT, rounded up by its timer wheel
const SERVER_COLOURS = ["--accent", "--amber", "--violet", "--blue", "--red", "--olive", "--pink", "--grey"];

// The charts of all servers: by backlog, or by server if there was but one backlog. `estimate_of` a row is what is
// shown.
function over_all(estimate_of) {
  const by_backlog = backlogs.length > 1 || servers.length === 1;
  const labels = by_backlog ? backlogs.map(backlog_name) : servers;
  const groups = by_backlog ? servers : backlogs.map(backlog => "backlog " + backlog_name(backlog));
  const cell = (g, i) => by_backlog ? row_of(servers[g], backlogs[i]) : row_of(servers[i], backlogs[g]);
  const values = (g, pick) => labels.map((_, i) => {
    const row = cell(g, i);
    return row ? pick(row) ?? null : null;
  });
  return {
    labels,
    axis_title: by_backlog ? "backlog" : "server",
    mark: by_backlog && recommended_row ? backlogs.indexOf(recommended_row.backlog) : -1,
    idle: recommended_row ? undefined : labels.length - 1,
    bare: !by_backlog,
    values,
    series: (print) => groups.map((name, g) => ({
                                    label: groups.length > 1 || servers.length > 1 ? name : "measured",
                                    group: groups.length > 1 ? g : null,
                                    says_interval: groups.length === 1,
                                    bare: !by_backlog,
                                    colour: SERVER_COLOURS[g % SERVER_COLOURS.length],
                                    print,
                                    values: values(g, row => median(estimate_of(row))),
                                    low: values(g, row => estimate_of(row)?.low),
                                    high: values(g, row => estimate_of(row)?.high),
                                  })),
  };
}
const flat = series => series.flatMap(s => [s.values, s.low || [], s.high || []]).flat().filter(v => v != null);

function plot_rate() {
  const all = over_all(row => row.connections_per_second), series = all.series(short);
  say("rate-legend", "Clients served a second, median of the runs; ",
      series.length > 1 ? "the whiskers are" : "the band is",
      " the 95 % interval. Who comes again after a second makes the run longer, so turning clients away costs rate.");
  columns("rate", "Connections per second", {...all, series, y: linear_from_zero(flat(series), short)});
}
const model_names = () => {
  const names = distinct(rows.map(row => row.model).filter(Boolean));
  return names.length ? ` (${names.join(", ")})` : "";
};
function plot_loss() {
  const all = over_all(turned_away), series = all.series(share), several = series.length > 1;
  const uppers = several ? [] : all.values(0, row => turned_away(row)?.upper);
  const is_bounded = uppers.some(upper => upper != null);
  if (is_bounded) {
    series.push({
      label: "at most (95 %)",
      colour: "--mute",
      bare: true,
      shape: "down",
      print: share,
      values: uppers
    });
  }
  const models = series.filter(s => s.low)
                     .map((s, g) => ({
                            label: several ? s.label + ", model" : "model",
                            helper: several,
                            group: s.group,
                            bare: s.bare,
                            colour: several ? s.colour : "--violet",
                            dash: [6, 4],
                            print: share,
                            values: all.values(g, row => row.model_loss),
                          }))
                     .filter(s => s.values.some(v => v != null));
  const target = run.target_loss ?? null;
  const everything = [...series, ...models];
  say("loss-legend",
      "Their first SYN was dropped, because the listen queue was full, and is sent again a second later; or they became ",
      "ghosts, or were reset before the accept. ", several ? "Whiskers" : "Band and whiskers",
      ": 95 % interval.",
      is_bounded ? " Triangles: no more than this, with 95 % confidence." : "",
      models.length ? ` Dashed: what the model foretells${model_names()}.` : "",
      " The axis has a 0, and is logarithmic from 0.01 % on.");
  columns("loss", "Clients turned away", {
    ...all,
    series: everything,
    y: asinh([...flat(everything), target ?? 0], 1e-4, v => `${Number((v * 100).toPrecision(6))} %`, 1),
    lines: target > 0 ? [[target, `asked for: at most ${share(target)}`, "--good", true]] : [],
  });
}

// The charts of one slice.
const state = {
  slice: null,
  latency: "first_byte_s",
  heat: "first_byte",
  cumulative: false,
  queues: []
};
function in_slice(pick) {
  return state.slice.rows.map(row => pick(row) ?? null);
}
function slice_columns() {
  const mark = recommended_row ? state.slice.rows.indexOf(recommended_row) : -1;
  return {
    labels: state.slice.labels,
    axis_title: state.slice.axis,
    mark,
    idle: mark < 0 ? state.slice.labels.length - 1 : undefined
  };
}
function plot_latency() {
  const key = state.latency, connect = key === "connect_s", shown = state.slice.rows;
  const title = connect ? "Time to connect" : "Time to the first byte";
  say("latency-title", title);
  say("latency-legend",
      connect ? "From the intended start until the socket is writable. " :
                "From the intended start until the server's first byte: the wait in the listen queue is in it. ",
      make("b", {}, "Medians carry no signal about loss"),
      ": they stay put while clients are turned away. Read p99 and beyond. ",
      "An open point with an arrow is a lower bound: so many were never served that the percentile is among their ages.");
  const series = PERCENTILES.map(([p, label, colour]) => ({
                                   label,
                                   colour,
                                   print: time,
                                   bare: state.slice.axis === "server",
                                   is_open: i => is_lower_bound(shown[i][key], p),
                                   values: in_slice(row => row[key]?.[p] > 0 ? row[key][p] : null),
                                 }));
  columns(
      "latency", title,
      {...slice_columns(), series, y: decades(flat(series)), lines: [[RETRY_S, "1 s: SYN sent again"]]});
}
function plot_refused() {
  const series = [
    ["listen overflows", "--red", row => median(row.listen_overflows)],
    ["ghosts", "--violet", row => median(row.ghosts)],
    ["never served", "--amber", unserved_a_run],
  ].map(([label, colour, pick]) => ({label, colour, bar: true, print: short, values: in_slice(pick)}));
  columns("refused", "Turned away and never served", {
    ...slice_columns(),
    series,
    y: asinh(flat(series), 1, short),
    words: flat(series).some(v => v > 0)                  ? "" :
        series.some(s => s.values.some(v => v == null)) ? "nobody is known to have been turned away" :
                                                          "nobody was turned away, and everybody was served",
  });
}
function plot_fates() {
  const shown = state.slice.rows, total = row => Object.values(row.fates || {}).reduce((sum, n) => sum + n, 0);
  const series = FATES.filter(([key], i) => i < 2 || shown.some(row => row.fates?.[key] > 0))
                     .map(([key, label, colour]) => ({
                            label,
                            colour,
                            stacked: true,
                            values: in_slice(row => total(row) > 0 ? row.fates[key] / total(row) : null),
                            print: (value, i) => `${share(value)} (${number(shown[i].fates[key])})`,
                          }));
  columns("fates", "What became of the clients", {
    ...slice_columns(),
    series,
    y: {scale: {range: [0, 1]}, axis: axis({values: (u, s) => s.map(share), size: 52})}
  });
}

const QUEUE_COLOURS = ["--teal", "--amber", "--red"];
const with_queue = () =>
    state.slice.rows.filter(
        row => row.queue_over_time?.depth?.some(depth => depth != null) && row.queue_over_time.step_s > 0);
/// Three to begin with: what is recommended, what it is measured against, and the next smaller one.
function choose_queues() {
  const able = with_queue();
  const first = able.includes(recommended_row) ? recommended_row : able[able.length - 1];
  state.queues =
      distinct(
          [first, able.find(row => row === state.reference), able[able.indexOf(first) - 1], able[0]].filter(Boolean))
          .slice(0, 3);
}
function plot_queue() {
  const able = with_queue(), label = row => state.slice.labels[state.slice.rows.indexOf(row)];
  const buttons = able.map(row => {
    const button = make("button", {"aria-pressed": state.queues.includes(row)}, label(row));
    button.onclick = () => {
      const others = state.queues.filter(q => q !== row);
      state.queues = others.length < state.queues.length && others.length ? others : [...others, row].slice(-3);
      plot_queue();
    };
    return button;
  });
  say("queue-switch", ...buttons);
  plots.get("queue")?.destroy();
  plots.delete("queue");
  delete window.anteroomPlots.queue;
  if (!state.queues.length) {
    say("queue-legend", "Nothing was recorded of it.");
    return;
  }
  const chosen = able.filter(row => state.queues.includes(row)).reverse();
  const deepest = Math.max(1, ...chosen.map(row => row.queue_over_time.depth.reduce((a, b) => Math.max(a, b), 0)));
  const limits = chosen.map(limit_of), shown = limits.map(limit => limit != null && limit <= 2 * deepest);
  const top = Math.max(deepest, ...limits.filter((_, i) => shown[i])) * 1.14;
  const outside = chosen.filter((_, i) => limits[i] != null && !shown[i]).map(label);
  say("queue-legend", "How many waited to be accepted in one run, the most in each ",
      time(Math.min(...chosen.map(row => row.queue_over_time.step_s))),
      ". A dashed line is the limit of that colour; who calls while the queue is at it is turned away.",
      outside.length ? ` The limit of ${outside.join(" and ")} lies above the chart.` : "",
      " Up to three at once; drag to zoom, click twice to return.");
  const times = row => row.queue_over_time.depth.map((_, i) => i * row.queue_over_time.step_s);
  const data = uPlot.join(chosen.map(row => [times(row), row.queue_over_time.depth]));
  const end = data[0][data[0].length - 1] || 1;
  const colours = chosen.map((_, i) => css(QUEUE_COLOURS[i]));
  mount(
      "queue", "Listen queue over time", data[0], {
        scales: {x: {time: false}, y: {range: [0, top]}},
        cursor: {x: true, y: false, points: {size: 6}, drag: {x: true, y: false}},
        axes: [
          axis({
            values: (u, s) => s.map(
                v => v === 0 ? "0" :
                    end >= 1 ? `${Number(v.toPrecision(6))} s` :
                               time(Number(v.toPrecision(6)))),
            grid: {show: false},
            size: 24,
            space: 60,
            label: "time since the run began",
            labelFont: "12px " + FONT,
            labelSize: 18,
            labelGap: 0
          }),
          axis({size: 48, values: (u, s) => s.map(short)})
        ],
        series: [
          {label: "time", value: (u, v) => v == null ? NONE : time(v)},
          ...chosen.map((row, i) => ({
                          label: (state.slice.axis === "backlog" ? "backlog " : "") + label(row),
                          stroke: colours[i],
                          fill: colours[i] + "22",
                          width: 1.4,
                          spanGaps: true,
                          paths: uPlot.paths.stepped({align: 1}),
                          points: {show: false},
                          value: (u, v) => v == null ? NONE : number(v),
                        }))
        ],
        hooks: {
          draw: [level_lines(
              chosen.map((row, i) => [limits[i] ?? Infinity, "limit " + backlog_name(limits[i]), QUEUE_COLOURS[i]])
                  .filter((_, i) => shown[i]))]
        },
      },
      data, Math.max(0, chosen[0].queue_over_time.depth.indexOf(Math.max(...chosen[0].queue_over_time.depth))));
}
