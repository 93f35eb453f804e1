// A chart: its axes, and how values are drawn in it. What is handed to uPlot is kept in window.anteroomPlots too, by
// the chart's name, for whoever wants to check it.
const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';
window.anteroomPlots = {};
const plots = new Map();
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const pixels = () => uPlot.pxRatio;

/// uPlot on the element `id`. A legend shows column `idle` as long as the pointer is elsewhere.
function mount(id, title, labels, options, data, idle, height = 256) {
  plots.get(id)?.destroy();
  const host = $(id);
  const show = u => {
    if (idle != null && (u.cursor.idx == null || u.cursor.left < 0)) u.setLegend({idx: idle}, false);
  };
  const hooks = {...options.hooks, setCursor: [...(options.hooks?.setCursor || []), show], ready: [show]};
  const u = new uPlot({...options, hooks, width: host.clientWidth, height}, data, host);
  u.root.querySelector(".u-wrap").setAttribute("role", "img");
  u.root.querySelector(".u-wrap").setAttribute("aria-label", title);
  plots.set(id, u);
  window.anteroomPlots[id] = {
    title,
    x: labels,
    series: u.series.slice(1).map((s, i) => ({label: s.label, values: u.data[i + 1]}))
  };
  return u;
}
function axis(options = {}) {
  return {
    stroke: css("--mute"),
    font: "12px " + FONT,
    grid: {stroke: css("--grid"), width: 1},
    ticks: {show: false},
    gap: 6,
    filter: (u, splits) => splits,
    ...options,
  };
}
/// One column for each label. Where there is no room for all of them, names are put aslant; of numbers, the last one is
/// shown rather than its neighbours.
function column_axis(labels, title) {
  const short_names = labels.map(label => label.replace(/ loop$/, ""));
  const widest = (u, texts = labels) => {
    u.ctx.font = `${11 * pixels()}px ${FONT}`;
    return Math.max(0, ...texts.map(text => u.ctx.measureText(text).width)) / pixels();
  };
  const is_aslant = u => title === "server" && widest(u) + 2 > (u.width - 70) / labels.length;
  return axis({
    rotate: u => is_aslant(u) ? 40 : 0,
    splits: () => labels.map((_, i) => i),
    font: "11px " + FONT,
    grid: {show: false},
    space: 1,
    size: u => is_aslant(u) ? 24 + 0.65 * widest(u, short_names) : 24,
    label: title,
    labelFont: "12px " + FONT,
    labelSize: 18,
    labelGap: 0,
    values: u => {
      if (is_aslant(u)) return short_names;
      const texts = labels.map(() => "");
      u.ctx.font = `${11 * pixels()}px ${FONT}`;
      let free = Infinity;
      for (let i = labels.length - 1; i >= 0; --i) {
        const half = u.ctx.measureText(labels[i]).width / 2 + pixels(), middle = u.valToPos(i, "x", true);
        if (middle + half > free) continue;
        texts[i] = labels[i];
        free = middle - half;
      }
      return texts;
    },
  });
}
/// The pointer is in the same column of every chart that has the same columns.
const sync_key = (title, labels) => JSON.stringify([title, labels]);
const columns_scale = labels => ({time: false, range: [-0.5, labels.length - 0.5]});

// Where values go. Each returns what uPlot wants for the scale and the axis.
function linear_from_zero(values, print, size = 48) {
  const top = Math.max(0, ...values) * 1.1 || 1;
  return {
    scale: {range: [0, top]},
    axis: axis({values: (u, splits) => splits.map(print), size, filter: (u, s) => s.map(v => v <= top ? v : null)})
  };
}
/// Logarithmic above `threshold`, and yet with a 0.
function asinh(values, threshold, print, ceiling = Infinity) {
  const top = Math.min(ceiling, 10 ** Math.ceil(Math.log10(Math.max(10 * threshold, ...values))));
  const splits = [0];
  for (let v = threshold; v <= top * 1.001; v *= 10) splits.push(Number(v.toPrecision(3)));
  return {
    scale: {distr: 4, asinh: threshold, range: [0, top]},
    axis: axis({splits: () => splits, values: (u, s) => s.map(print), size: 58})
  };
}
function decades(values) {
  const known = values.filter(v => v > 0);
  const low = Math.floor(Math.log10(Math.min(1e-4, ...known)) * 2) / 2,
        high = Math.ceil(Math.log10(Math.max(2, ...known)) * 2) / 2;
  const splits = [];
  for (let e = Math.ceil(low); e <= high; ++e) splits.push(Number((10 ** e).toPrecision(3)));
  return {
    scale: {distr: 3, log: 10, range: [10 ** low, 10 ** high]},
    axis: axis({splits: () => splits, values: (u, s) => s.map(time), size: 58})
  };
}

// How values are drawn.
const x_at = (u, i, dodge) => u.valToPos(i, "x", true) + (dodge || 0) * pixels();
const path_of = (stroke, fill) => ({stroke, fill, clip: null, band: null, gaps: null, flags: 0});
function joined(dodge) {
  return (u, s, first, last) => {
    const path = new Path2D();
    let down = false;
    for (let i = first; i <= last; ++i) {
      const value = u.data[s][i];
      if (value == null) {
        down = false;
        continue;
      }
      path[down ? "lineTo" : "moveTo"](x_at(u, i, dodge), u.valToPos(value, "y", true));
      down = true;
    }
    return path_of(path);
  };
}
/// Bar `k` of `of` that stand side by side, or on each other.
function bars(k, of, stacked) {
  return (u, s, first, last) => {
    const path = new Path2D(),
          width = Math.min(u.valToPos(1, "x", true) - u.valToPos(0, "x", true), 110 * pixels()) * 0.78;
    for (let i = first; i <= last; ++i) {
      const value = u.data[s][i];
      if (!(value > 0)) continue;
      let below = 0;
      if (stacked)
        for (let t = 1; t < s; ++t)
          if (u.series[t].show) below += u.data[t][i] || 0;
      const top = u.valToPos(below + value, "y", true), bottom = u.valToPos(below, "y", true);
      const each = stacked ? width : width / of, left = u.valToPos(i, "x", true) - width / 2 + (stacked ? 0 : k * each);
      path.rect(left + pixels() / 2, top, each - pixels(), bottom - top);
    }
    return path_of(null, path);
  };
}
/// Intervals from the series `low` to the series `high`: a band where there is one line, whiskers where there are
/// several.
function intervals(u, low, high, colour, dodge, band) {
  const k = u.ctx, [lows, highs] = [u.data[low], u.data[high]], y = value => u.valToPos(value, "y", true);
  k.save();
  k.strokeStyle = k.fillStyle = css(colour);
  k.lineWidth = 1.5 * pixels();
  const whisker = i => {
    const x = x_at(u, i, dodge), half = 3 * pixels();
    k.beginPath();
    k.moveTo(x, y(lows[i])), k.lineTo(x, y(highs[i]));
    k.moveTo(x - half, y(lows[i])), k.lineTo(x + half, y(lows[i]));
    k.moveTo(x - half, y(highs[i])), k.lineTo(x + half, y(highs[i]));
    k.stroke();
  };
  const has = i => lows[i] != null && highs[i] != null;
  for (let i = 0; i < lows.length; ++i) {
    if (!has(i)) continue;
    k.globalAlpha = 0.55;
    whisker(i);
    if (!band || i + 1 === lows.length || !has(i + 1)) continue;
    k.globalAlpha = 0.13;
    k.beginPath();
    k.moveTo(x_at(u, i), y(lows[i])), k.lineTo(x_at(u, i), y(highs[i]));
    k.lineTo(x_at(u, i + 1), y(highs[i + 1])), k.lineTo(x_at(u, i + 1), y(lows[i + 1]));
    k.fill();
  }
  k.restore();
}
/// A filled point is what was measured; an open one with an arrow is only known to be larger.
function points(u, s, colour, dodge, is_open, shape) {
  const k = u.ctx, r = 2.8 * pixels();
  k.save();
  k.beginPath();
  k.rect(u.bbox.left - r * 2, u.bbox.top - r * 2, u.bbox.width + r * 4, u.bbox.height + r * 4);
  k.clip();
  k.strokeStyle = css(colour);
  k.lineWidth = 1.6 * pixels();
  u.data[s].forEach((value, i) => {
    if (value == null) return;
    const x = x_at(u, i, dodge), y = u.valToPos(value, "y", true), open = is_open?.(i);
    k.fillStyle = css(open || shape === "down" ? "--card" : colour);
    k.beginPath();
    if (shape === "down")
      k.moveTo(x - r, y - r * 0.8), k.lineTo(x + r, y - r * 0.8), k.lineTo(x, y + r * 0.8), k.closePath();
    else
      k.arc(x, y, r, 0, 7);
    k.fill();
    k.stroke();
    if (!open) return;
    k.beginPath();
    k.moveTo(x, y - r), k.lineTo(x, y - 3.4 * r), k.moveTo(x - r * 0.8, y - 2.6 * r), k.lineTo(x, y - 3.4 * r),
        k.lineTo(x + r * 0.8, y - 2.6 * r);
    k.stroke();
  });
  k.restore();
}
/// Dashed lines across the chart: [value, words, colour, whether the words stand at the left].
function level_lines(lines) {
  return u => {
    const k = u.ctx, {left, top, width, height} = u.bbox, r = pixels();
    k.save();
    k.font = `${11 * r}px ${FONT}`;
    k.lineWidth = r;
    for (const [value, words, colour, is_left] of lines) {
      const y = u.valToPos(value, "y", true);
      if (y < top || y > top + height) continue;
      k.strokeStyle = css(colour || "--faint");
      k.setLineDash([4 * r, 4 * r]);
      k.beginPath();
      k.moveTo(left, y), k.lineTo(left + width, y);
      k.stroke();
      const below = y - top < 16 * r, x = is_left ? left + 4 * r : left + width - 4 * r;
      k.textAlign = is_left ? "left" : "right";
      k.textBaseline = below ? "top" : "bottom";
      k.lineWidth = 3 * r;
      k.setLineDash([]);
      k.strokeStyle = css("--card");
      k.strokeText(words, x, y + (below ? 2 : -2) * r);
      k.lineWidth = r;
      k.fillStyle = css(colour || "--mute");
      k.fillText(words, x, y + (below ? 2 : -2) * r);
    }
    k.restore();
  };
}
function in_the_middle(words) {
  return u => {
    if (!words) return;
    const k = u.ctx, {left, top, width, height} = u.bbox;
    k.save();
    k.font = `${13 * pixels()}px ${FONT}`;
    k.fillStyle = css("--mute");
    k.textAlign = "center";
    k.fillText(words, left + width / 2, top + height / 2);
    k.restore();
  };
}
function column_mark(index) {
  return u => {
    if (index < 0) return;
    const k = u.ctx, left = u.valToPos(index - 0.5, "x", true), right = u.valToPos(index + 0.5, "x", true),
          w = Math.min(right - left, 30 * pixels());
    k.save();
    k.fillStyle = css("--accent");
    k.globalAlpha = 0.09;
    k.fillRect((left + right - w) / 2, u.bbox.top, w, u.bbox.height);
    k.restore();
  };
}

function interval_words(s, i) {
  if (s.low[i] == null || s.high[i] == null || s.print(s.low[i]) === s.print(s.high[i])) return "";
  return ` (${s.print(s.low[i])} to ${s.print(s.high[i])})`;
}
/// A chart with a column for each label. A series is {label, values, colour, print} and may have `low` and `high`
/// values, `dash`, `is_open(i)`, `bar` or `stacked`, `shape`, `bare` (no line), and be a `helper`, of which the legend
/// does not tell.
function columns(id, title, {labels, axis_title, series, y, lines = [], mark = -1, idle, words}) {
  const data = [labels.map((_, i) => i)], drawn = [], under = [], over = [];
  const main = series.filter(s => s.low), spread = main.length > 1 ? Math.min(7, 40 / main.length) : 0;
  const add = (values, options) => {
    data.push(values);
    drawn.push(options);
    return data.length - 1;
  };
  const side_by_side = series.filter(s => s.bar).length;
  let beside = 0;
  for (const s of series) {
    const dodge = spread && s.group != null ? (s.group - (main.length - 1) / 2) * spread : 0;
    const index = add(s.values, {
      label: s.label,
      class: s.helper ? "helper" : undefined,
      stroke: css(s.colour),
      width: s.bare ? 0 : s.width || 2,
      dash: s.dash,
      points: {show: false},
      fill: s.bar || s.stacked ? css(s.colour) : undefined,
      paths: s.bar || s.stacked ? bars(beside++, side_by_side, s.stacked) :
          s.bare                ? () => null :
                                  joined(dodge),
      value: (u, value, _, i) => i == null || value == null ?
          NONE :
          (s.is_open?.(i) ? "> " : "") + s.print(value, i) + (s.says_interval ? interval_words(s, i) : ""),
    });
    if (!s.bar && !s.stacked && !s.dash)
      over.push(u => {
        if (u.series[index].show) points(u, index, s.colour, dodge, s.is_open, s.shape);
      });
    if (!s.low) continue;
    const low = add(s.low, {label: s.label + ", low", class: "helper", show: false}),
          high = add(s.high, {label: s.label + ", high", class: "helper", show: false});
    under.push(u => {
      if (u.series[index].show) intervals(u, low, high, s.colour, dodge, !spread);
    });
  }
  return mount(
      id, title, labels, {
        scales: {x: columns_scale(labels), y: y.scale},
        axes: [column_axis(labels, axis_title), y.axis],
        cursor: {
          sync: {key: sync_key(axis_title, labels), setSeries: false, scales: ["x", null]},
          x: true,
          y: false,
          points: {show: false},
          drag: {x: false, y: false}
        },
        series: [{label: axis_title, value: (u, value) => value == null ? NONE : labels[value]}, ...drawn],
        hooks: {
          drawClear: [column_mark(mark)],
          drawAxes: under,
          draw: [level_lines(lines), in_the_middle(words), u => over.forEach(draw => draw(u))]
        },
      },
      data, idle ?? Math.max(0, mark));
}
