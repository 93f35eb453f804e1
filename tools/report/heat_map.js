// Every connection: a column for each row of the slice, a cell for each bin of the histograms.
const LIGHT = ["#f0f9f7", "#c3e9e2", "#86d3cc", "#46b3b6", "#25899f", "#2a5f8f", "#3a3878", "#3b1656"];
const DARK = ["#12232b", "#14424a", "#146a6c", "#1f9484", "#56bd86", "#a8dc7a", "#e8f28b", "#fdfdd8"];
const FAINTEST = -5;  // a share of 10^-5 has the faintest colour
const ramp = () => css("--bg") === "#0d1117" ? DARK : LIGHT;
function colour_at(part) {
  const stops = ramp(), at = Math.max(0, Math.min(0.9999, part)) * (stops.length - 1), i = Math.floor(at);
  const channels = hex => [1, 3, 5].map(o => parseInt(hex.slice(o, o + 2), 16));
  const [a, b] = [channels(stops[i]), channels(stops[i + 1])];
  return `rgb(${a.map((v, j) => Math.round(v + (b[j] - v) * (at - i))).join(",")})`;
}
const strength = portion => Math.max(0.04, 1 - Math.log10(portion) / FAINTEST);

/// A logarithmic axis on which what nobody was in takes a sixth of the height, and the seconds of retransmits thrice
/// theirs.
function compressed(edges, busy) {
  const bins = edges.length - 1;
  const near = busy.map((_, j) => [-2, -1, 0, 1, 2].some(d => busy[j + d]));
  const heights = [0];
  near.forEach((is_near, j) => heights.push(heights[j] + (is_near ? 1 : 0.16) * (edges[j] >= 0.8 ? 3 : 1)));
  const bin_of = value => {
    let low = 0, high = bins - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (edges[middle] <= value)
        low = middle;
      else
        high = middle - 1;
    }
    return low;
  };
  const quiet = [];
  near.forEach((is_near, j) => {
    if (is_near) return;
    const last = quiet[quiet.length - 1];
    if (last && last[1] === j)
      last[1] = j + 1;
    else
      quiet.push([j, j + 1]);
  });
  return {
    bin_of,
    quiet,
    forth: value => {
      const v = Math.min(Math.max(value, edges[0]), edges[bins]), j = bin_of(v);
      return heights[j] + Math.log(v / edges[j]) / Math.log(edges[j + 1] / edges[j]) * (heights[j + 1] - heights[j]);
    },
    back: height => {
      let j = 0;
      while (j < bins - 1 && heights[j + 1] <= height) ++j;
      return edges[j] * (edges[j + 1] / edges[j]) ** ((height - heights[j]) / (heights[j + 1] - heights[j]));
    },
  };
}

let hatching;  // remade for each chart: its colour and scale may have changed
function hatch(k) {
  const size = Math.round(6 * pixels()), tile = document.createElement("canvas");
  tile.width = tile.height = size;
  const t = tile.getContext("2d");
  t.strokeStyle = css("--red");
  t.lineWidth = 1.6 * pixels();
  for (const shift of [-size, 0, size]) {
    t.beginPath();
    t.moveTo(shift, size), t.lineTo(shift + size, 0);
    t.stroke();
  }
  return k.createPattern(tile, "repeat");
}

function plot_heat() {
  const first_byte = state.heat === "first_byte", key = first_byte ? "first_byte_s" : "connect_s";
  const shown = state.slice.rows, edges = run.edges_s || [], bins = edges.length - 1;
  const {labels, axis: axis_title} = state.slice;  // kept: the charts outlive a change of slice for a moment
  const none = [], finished = shown.map(row => row.histograms?.[state.heat] || none),
        unfinished = shown.map(row => first_byte ? row.histograms?.unfinished || none : none);
  const sum = values => values.reduce((a, b) => a + b, 0);
  const total = shown.map((row, i) => row.clients || sum(finished[i]) + sum(unfinished[i]) || 1);
  const title = (first_byte ? "Time to the first byte" : "Time to connect") +
      (state.cumulative ? ", share that was this fast" : ", every connection");
  say("heat-title", title);
  const ghosts = sum(shown.map(row => (row.fates?.ghost_half_open || 0) + (row.fates?.ghost_unknown || 0)));
  const absent = first_byte ? sum(unfinished.map(sum)) : sum(total.map((n, i) => Math.max(0, n - sum(finished[i]))));
  say("heat-legend",
      `A column is one ${state.slice.axis}; the darker a cell, the more clients. The lines join p50, p99 and p99.9. `
          .replace("darker", ramp() === DARK ? "brighter" : "darker"),
      `The faint bands, ${RETRY_S} s apart, are where a SYN that is sent again arrives. `,
      absent === 0 ?
          "" :
          first_byte ?
          make(
              "span", {}, make("b", {}, `Hatched red: ${plural(absent, "client")} never served`),
              ", at the age at which that was known. ") :
          `${plural(absent, "client")} never connected and ${absent === 1 ? "is" : "are"} not in the picture. `,
      ghosts === 0 ?
          "" :
          `${
              plural(
                  ghosts,
                  "client")} of all are ghosts: connected as far as they know, while the server knows nothing of them.`);

  plots.get("heat")?.destroy();
  plots.delete("heat");
  delete window.anteroomPlots.heat;
  $("heat").replaceChildren();
  if (bins < 1) return;
  const busy = Array.from({length: bins}, (_, j) => shown.some((_, i) => finished[i][j] > 0 || unfinished[i][j] > 0));
  const lowest = Math.max(0, busy.indexOf(true) - 1),
        highest = Math.max(lowest + 1, Math.min(bins - 1, busy.lastIndexOf(true) + 2));
  const scale = compressed(edges, busy), bottom = edges[lowest], top = edges[highest + 1] ?? edges[bins];
  const running = finished.map(values => {
    let n = 0;
    return values.map(value => n += value);
  });

  const draw = u => {
    const k = u.ctx, r = pixels(), {left, width} = u.bbox, y = value => u.valToPos(value, "y", true);
    hatching = hatch(k);
    k.save();
    k.beginPath();
    k.rect(left, u.bbox.top, width, u.bbox.height);
    k.clip();
    for (const [from, to] of scale.quiet) {
      const high = y(edges[to]), low = y(edges[from]);
      if (low - high < 14 * r) continue;
      k.fillStyle = css("--grid");
      k.globalAlpha = 0.55;
      k.fillRect(left, high, width, low - high);
      k.globalAlpha = 1;
      k.fillStyle = css("--faint");
      k.font = `${11 * r}px ${FONT}`;
      k.textBaseline = "middle";
      k.fillText("nobody took this long: compressed", left + 8 * r, (low + high) / 2);
    }
    // Linux sends the first SYNs again a second apart (tcp_syn_linear_timeouts, 4 by default), then ever more rarely.
    for (let again = 1; again <= 5; ++again) {
      if (again * RETRY_S > top) break;
      const j = scale.bin_of(again * RETRY_S);
      k.fillStyle = css("--amber");
      k.globalAlpha = 0.16;
      k.fillRect(left, y(edges[j + 1]), width, y(edges[j]) - y(edges[j + 1]));
    }
    k.globalAlpha = 1;
    shown.forEach((row, i) => {
      const x0 = Math.round(u.valToPos(i - 0.5, "x", true)) + 1, x1 = Math.round(u.valToPos(i + 0.5, "x", true)) - 1;
      for (let j = 0; j < bins; ++j) {
        const y0 = Math.round(y(edges[j + 1])), y1 = Math.round(y(edges[j]));
        const here = state.cumulative ? (running[i][j] ?? 0) / total[i] : (finished[i][j] ?? 0) / total[i];
        if (here > 0) {
          k.fillStyle = colour_at(state.cumulative ? here : strength(here));
          k.fillRect(x0, y0, x1 - x0, y1 - y0);
        }
        const lost = (unfinished[i][j] ?? 0) / total[i];
        if (lost > 0) {
          k.globalAlpha = 0.35 + 0.65 * strength(lost);
          k.fillStyle = hatching;
          k.fillRect(x0, y0, x1 - x0, y1 - y0);
          k.strokeStyle = css("--red");
          k.lineWidth = r;
          k.strokeRect(x0 + r / 2, y0 + r / 2, x1 - x0 - r, y1 - y0 - r);
          k.globalAlpha = 1;
        }
      }
    });
    k.strokeStyle = css("--card");  // lest a line be lost in cells of its own colour
    k.lineJoin = "round";
    k.lineWidth = 5 * r;
    k.globalAlpha = 0.7;
    if (state.slice.axis === "backlog")
      lines.forEach((_, s) => {
        if (u.series[s + 1].show) k.stroke(joined(0)(u, s + 1, 0, shown.length - 1).stroke);
      });
    k.globalAlpha = 1;
    const mark = shown.indexOf(recommended_row);
    if (mark >= 0) {
      const x0 = u.valToPos(mark - 0.5, "x", true), x1 = u.valToPos(mark + 0.5, "x", true);
      k.fillStyle = css("--accent");
      k.globalAlpha = 0.08;
      k.fillRect(x0, u.bbox.top, x1 - x0, u.bbox.height);
      k.globalAlpha = 1;
      k.fillRect(x0 + 1, u.bbox.top, x1 - x0 - 2, 3 * r);
    }
    k.restore();
  };
  const tip = make("div", {class: "tip"});
  const point_out = u => {
    const {left, top: above, idx} = u.cursor;
    tip.style.opacity = 0;
    if (left < 0 || above < 0 || !shown[idx]) return;
    const i = idx, j = scale.bin_of(u.posToVal(above, "y"));
    const here = finished[i][j] || 0, lost = unfinished[i][j] || 0;
    tip.textContent = [
      `${axis_title} ${labels[i]}`,
      `${time(edges[j])} to ${time(edges[j + 1])}`,
      `${plural(here, "client")}, ${share(here / total[i])}`,
      ...(lost ? [`${plural(lost, "client")} never served`] : []),
      `${share((running[i][j] || 0) / total[i])} were this fast or faster`,
    ].join("\n");
    const box = u.over.getBoundingClientRect();
    tip.style.left = u.over.offsetLeft + left + "px";
    tip.style.top = u.over.offsetTop + above + "px";
    tip.style.transform = left > box.width * 0.6 ? "translate(calc(-100% - 12px), -50%)" : "translate(12px, -50%)";
    tip.style.opacity = 1;
  };
  const lines = PERCENTILES.filter(([p]) => p !== "p90" && p !== "max"), over = [];
  const series = lines.map(([p, label, colour], s) => {
    const is_open = i => is_lower_bound(shown[i][key], p);
    over.push(u => {
      if (u.series[s + 1].show) points(u, s + 1, colour, 0, is_open);
    });
    return {
      label,
      stroke: css(colour),
      width: 2,
      dash: p === "p99_9" ? [5, 4] : undefined,
      points: {show: false},
      paths: state.slice.axis === "server" ? () => null : joined(0),
      value: (u, value, _, i) => i == null || value == null ? NONE : (is_open(i) ? "> " : "") + time(value),
    };
  });
  const marks = [1e-6, 1e-5, 3e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 2, 3, 5, 10, 30, 100, 1000];
  const {mark, idle} = slice_columns();
  const u =
      mount(
          "heat", title, state.slice.labels, {
            scales: {x: columns_scale(shown), y: {distr: 100, fwd: scale.forth, bwd: scale.back, range: [bottom, top]}},
            axes: [
              column_axis(state.slice.labels, state.slice.axis), axis({
                splits: () => marks.filter(v => v > bottom && v < top),
                size: 58,
                values: (u, splits) => {  // the compressed decades leave no room for all of them
                  let free = Infinity;
                  return splits.map(v => {
                    const y = u.valToPos(v, "y");
                    if (y > free) return "";
                    free = y - 15;
                    return time(v);
                  });
                },
              })
            ],
            cursor: {
              sync: {key: sync_key(state.slice.axis, state.slice.labels), setSeries: false, scales: ["x", null]},
              x: true,
              y: false,
              points: {show: false},
              drag: {x: false, y: false}
            },
            series: [{label: state.slice.axis, value: (u, v) => v == null ? NONE : labels[v]}, ...series],
            hooks: {drawAxes: [draw], draw: [u => over.forEach(draw_points => draw_points(u))], setCursor: [point_out]},
          },
          [shown.map((_, i) => i), ...lines.map(([p]) => shown.map(row => row[key]?.[p] > 0 ? row[key][p] : null))],
          idle ?? mark, 430);
  window.anteroomPlots.heat.cells = finished;
  window.anteroomPlots.heat.unfinished = unfinished;
  $("heat").append(tip);
  u.over.addEventListener("mouseleave", () => {
    tip.style.opacity = 0;
  });
  const swatch = make("i");
  swatch.style.background = `linear-gradient(0deg, ${ramp().join(",")})`;
  say("ramp", make("span", {}, state.cumulative ? "this fast" : "share of"),
      make("span", {}, state.cumulative ? "" : "clients"), make("span", {}, "100 %"), swatch,
      make("span", {}, state.cumulative ? "0 %" : "0.001 %"));
}
