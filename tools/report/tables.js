// The tables, and the same as CSV.
const METRICS = {
  connections_per_second: "connections a second",
  first_byte_p99_s: "first byte, p99",
  turned_away: "turned away",
  lost_first_syn: "lost first SYN",
  server_cpu_s_per_connection: "server's CPU a connection",
};
const head = titles => make(
    "thead", {},
    make("tr", {}, ...titles.map(([title,
                                   is_text]) => make("th", {scope: "col", class: is_text ? "text" : ""}, title))));
const interval = (estimate, print) =>
    estimate?.low == null || estimate.high == null || print(estimate.low) === print(estimate.high) ?
    "" :
    `${print(estimate.low)} – ${print(estimate.high)}`;
function cell(text, more = "") {
  const is_zero = text === "0" || text === "0 %";
  return make("td", is_zero ? {class: "zero"} : {}, text, ...(more ? [make("span", {class: "interval"}, more)] : []));
}

function numbers_table() {
  const several = distinct(all_rows.map(server_name)).length > 1;
  const most = Math.max(1, ...rows.map(row => median(row.listen_overflows) || 0));
  const bar = row => {
    const value = median(row.listen_overflows), made = cell(count(value));
    if (value > 0) {
      const strip = make("span", {class: "bar"});
      strip.style.width = Math.max(2, 30 * value / most) + "px";
      made.prepend(strip);
    }
    return made;
  };
  const upper = rows.some(row => turned_away(row)?.upper != null);
  const law = rows.some(row => row.law != null), model = rows.some(row => row.model_loss != null);
  const latencies = PERCENTILES.map(([p, label]) => ["first byte " + label, row => cell(latency(row.first_byte_s, p))]);
  const in_stall = row => row.law == null ? NONE : `${count(median(row.first_stall_drops))} / ${count(row.law)}`;
  // What decides comes first: on most screens the last ones have to be scrolled to.
  const wanted = [
    ["runs", row => cell(count(row.runs))],
    [
      "connections a second",
      row => cell(short(median(row.connections_per_second)), interval(row.connections_per_second, short))
    ],
    ["turned away", row => cell(share(median(turned_away(row))), interval(turned_away(row), share))],
    ...(upper ? [["at most", row => cell(share(turned_away(row)?.upper))]] : []),
    ...(model ? [["model", row => cell(share(row.model_loss))]] : []),
    ...latencies,
    ["deepest queue", row => cell(count(median(row.deepest_queue)))],
    ["overflows a run", bar],
    ["never served", row => cell(count(row.first_byte_s?.unserved))],
    ["ghosts a run", row => cell(count(median(row.ghosts)))],
    ...(law ? [["first stall / law", row => cell(in_stall(row))]] : []),
    ["SYNs sent again", row => cell(count(median(row.syn_retransmits)))],
    ["connect p99", row => cell(latency(row.connect_s, "p99"))],
    ["queue wait p99", row => cell(time(row.queue_wait_s?.p99))],
    ["CPU a connection", row => cell(time(median(row.server_cpu_s_per_connection)))],
    ["clients", row => cell(count(row.clients))],
  ];
  let previous;
  const lines = all_rows.map(row => {
    const name = make(
        "th", {scope: "row", class: several ? "text" : ""},
        (several ? server_name(row) + " " : "") + backlog_name(row.backlog));
    if (row === recommended_row && row.backlog === recommended)
      name.append(make("span", {class: "tag"}, "recommended"));
    if (row.void_runs > 0) name.append(make("span", {class: "tag warn"}, `${row.void_runs} void`));
    const rule = previous != null && previous !== server_name(row);
    previous = server_name(row);
    const classes = [row === recommended_row ? "best" : "", rule ? "rule" : ""].join(" ");
    if (!(row.runs > 0))
      return make(
          "tr", {class: classes}, name, make("td", {class: "text", colspan: wanted.length}, "no run that counts"));
    return make("tr", {class: classes}, name, ...wanted.map(([, make_cell]) => make_cell(row)));
  });
  say("numbers", head([[several ? "server, backlog" : "backlog", several], ...wanted.map(([title]) => [title])]),
      make("tbody", {}, ...lines));
  say("numbers-legend",
      "Medians over the runs, below some of them the 95 % interval; latencies are of all clients of all ",
      "runs. “> ” is a lower bound: the percentile is among those who were never served.");
}

function comparisons_table() {
  const list = run.comparisons || [];
  $("comparisons-panel").hidden = list.length === 0;
  const reach =
      Math.max(0.1, ...list.flatMap(c => [c.low, c.high, c.ratio]).filter(v => v > 0).map(v => Math.abs(Math.log(v))));
  const at = ratio => Math.max(0, Math.min(100, 50 + 46 * Math.log(ratio) / reach));
  const picture = c => {
    const forest = make("span", {class: "forest"}, make("i", {class: "one"}));
    if (c.low > 0 && c.high > 0) {
      const span = make("i", {class: "span"});
      span.style.left = at(c.low) + "%";
      span.style.width = at(c.high) - at(c.low) + "%";
      forest.append(span);
    }
    if (c.ratio > 0) {
      const dot = make("i", {class: "dot"});
      dot.style.left = at(c.ratio) + "%";
      forest.append(dot);
    }
    return make("td", {}, forest);
  };
  const ratio = value => value == null ? NONE : number(value, value < 10 ? 3 : 1);
  const p = value => value == null ? NONE : value < 0.001 ? "<0.001" : number(value, 3);
  const name = c => loops.length > 1 ? `${c.server}, ${c.loop} loop` : c.server;
  const text = (...children) => make("td", {class: "text"}, ...children);
  const lines = list.map((c, i) => {
    const begins = i > 0 && list[i - 1].server !== c.server;
    const verdict = c.verdict === "no difference seen" ? c.verdict : make("b", {}, c.verdict);
    const range = c.low == null ? NONE : `${ratio(c.low)} – ${ratio(c.high)}`;
    return make(
        "tr", {class: begins ? "rule" : ""}, make("th", {scope: "row", class: "text"}, name(c)), text(c.against),
        cell(backlog_name(c.backlog)), text(METRICS[c.metric] || c.metric), cell(ratio(c.ratio)), cell(range),
        picture(c), cell(p(c.p)), cell(p(c.p_holm)), text(verdict), text(`${count(c.n)} ${c.method}`));
  });
  const titles = [
    ["server", true], ["against", true], ["backlog"], ["metric", true], ["ratio"], ["95 % interval"], ["", true], ["p"],
    ["p, adjusted"], ["verdict", true], ["by", true]
  ];
  say("comparisons", head(titles), make("tbody", {}, ...lines));
}
function theory_table() {
  const list = run.theory || [], of_backlogs = list.some(t => "backlog" in t);
  $("theory-panel").hidden = list.length === 0;
  const lines = list.map(
      t => make(
          "tr", {}, make("th", {scope: "row", class: "text"}, t.server),
          ...(of_backlogs ? [cell(backlog_name(t.backlog))] : []), make("td", {class: "text"}, t.model),
          cell(share(t.predicted_loss)), cell(share(t.measured_loss))));
  const titles =
      [["server", true], ...(of_backlogs ? [["backlog"]] : []), ["model", true], ["predicted loss"], ["measured loss"]];
  say("theory", head(titles), make("tbody", {}, ...lines));
}

/// RFC 4180. A text that a spreadsheet would take for a formula gets an apostrophe in front.
function csv() {
  const estimates = [
    "connections_per_second", "lost_first_syn", "turned_away", "ghosts", "listen_overflows", "listen_drops", "syn_retransmits",
    "first_stall_drops", "deepest_queue", "server_cpu_s_per_connection"
  ];
  const parts = ["median", "low", "high", "best", "worst"], times = ["p50", "p90", "p99", "p99_9", "max", "unserved"];
  const fields = [
    ["server", row => row.server],
    ["loop", row => row.loop],
    ["backlog", row => row.backlog ?? (is_swarm ? null : "unlimited")],
    ["runs", row => row.runs],
    ["void_runs", row => row.void_runs],
    ["clients", row => row.clients],
    ...estimates.flatMap(e => parts.map(part => [`${e}_${part}`, row => row[e]?.[part]])),
    ["turned_away_upper", row => row.turned_away?.upper],
    ["model_loss", row => row.model_loss],
    ["law", row => row.law],
    ...["first_byte_s", "connect_s"].flatMap(
        l =>
            [...times.map(t => [`${l}_${t}`, row => row[l]?.[t]]),
             [`${l}_lower_bounds`, row => row[l]?.lower_bounds?.join(" ")]]),
    ...["p50", "p99", "max"].map(t => ["queue_wait_s_" + t, row => row.queue_wait_s?.[t]]),
    ...FATES.map(([fate]) => ["fate_" + fate, row => row.fates?.[fate]]),
  ];
  const quoted = value => {
    if (value == null) return "";
    const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? "'" + value : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [fields.map(([name]) => name), ...all_rows.map(row => fields.map(([, pick]) => pick(row)))]
             .map(line => line.map(quoted).join())
             .join("\r\n") +
      "\r\n";
}
