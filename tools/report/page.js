// The page, from top to bottom.
const is_tune = (run.schema || "").startsWith("anteroom.tune/");
const kind = is_tune ? "tune" : is_swarm ? "swarm" : "compare";

function heading() {
  document.title = is_tune && recommended != null ? `anteroom: backlog ${number(recommended)}` : `anteroom ${kind}`;
  say("title", is_tune ? "Which backlog this server needs" : is_swarm ? "What became of a swarm" : "Servers compared");
  say("subtitle", [
    machine.processor, machine.processors ? plural(machine.processors, "processor") : "", machine.kernel,
    (run.started || "").replace("T", " ").replace("Z", " UTC")
  ].filter(Boolean).join(" · "));
  const notes = run.notes || [], warnings = [...notes];
  const voids =
      (run.trials || []).filter(t => t.void).length || all_rows.reduce((n, row) => n + (row.void_runs || 0), 0);
  if (voids > 0 && !notes.some(note => note.includes("void")))
    warnings.push(`${plural(voids, "void trial")}: not counted`);
  const where = {
    shared: "On the machine's own loopback, which others share",
    loopback: "Client and server in one network namespace",
  }[network.kind];
  if (where && !run.target && !notes.some(note => network.why && note.includes(network.why)))
    warnings.push(where + (network.why ? `: ${network.why}` : ""));
  if (run.until != null && run.until_met === false && !notes.length)
    warnings.push(`Intervals did not get as narrow as ±${share(run.until)}`);
  say("warnings",
      ...(run.interrupted ? [make("li", {class: "bad"}, "Ended early: only what had been measured by then")] : []),
      ...warnings.map(text => make("li", {}, text)));
}

function answer_of_tune() {
  say("answer-kicker", "Recommended backlog");
  if (recommended == null) {
    $("answer").classList.add("words");
    say("answer", "No number can be given");
    say("reason", make("p", {}, advice.reason || "The runs that count do not suffice."));
    return;
  }
  const deepest = advice.deepest_queue;
  say("answer", number(recommended), make("small", {}, deepest == null ? "" : `deepest queue ${count(deepest)}`));
  const sure = [];
  if (advice.loss_upper != null)
    sure.push(`At most ${share(advice.loss_upper)} of the clients are turned away there (95 %).`);
  if (advice.headroom != null) sure.push(`${share(advice.headroom)} of room to spare.`);
  if (advice.predicted_depth != null)
    sure.push(`The model foretells a queue ${count(advice.predicted_depth)} deep${
        advice.dominant ? `, because of the ${advice.dominant}` : ""}.`);
  if (advice.upper_bound != null) sure.push(`Beyond ${number(advice.upper_bound)}, whoever waits is served too late.`);
  if (advice.confirmed === false) sure.push("Not confirmed by trials at this very backlog.");
  const reason = advice.reason || "";
  say("reason",
      make(
          "p", {},
          make("b", {}, reason ? reason[0].toUpperCase() + reason.slice(1) + (/[.!?]$/.test(reason) ? "" : ".") : "")),
      make("p", {}, sure.join(" ")));
  const limits = advice.limits || [];
  say("paste-lines", [`listen(fd, ${recommended});`, ...limits.map(limit => limit.command).filter(Boolean)].join("\n"));
  $("paste").hidden = false;
  const words = limit => `${limit.name} is ${count(limit.now)}` +
      (limit.now >= limit.needed ? ": enough." : `, and has to be ${count(limit.needed)} or more.`);
  say("answer-limits", limits.map(words).join(" "));
}
function answer_of_swarm() {
  const row = rows[0], served = row.fates.served_at_once + row.fates.served_after_retransmit;
  say("answer-kicker", "Served");
  say("answer", share(served / row.clients), make("small", {}, `of ${plural(row.clients, "client")}`));
  say("reason", make("p", {}, `${run.load.in_words}, on ${run.target.address}.`));
}

function answer_of_compare() {
  const list = run.comparisons || [], against = list[0]?.against || rows[0]?.server || "";
  say("answer-kicker", "Compared");
  $("answer").classList.add("words");
  say("answer", `${plural(distinct(rows.map(row => row.server)).length, "server")}, ${plural(backlogs.length, "backlog")}`);
  say("reason");
  if (!list.length) return;
  const differ = list.filter(c => c.verdict === "more" || c.verdict === "less");
  if (!differ.length) {
    say("reason", make("p", {}, `No server differs from ${against} by more than these runs leave to chance.`));
    return;
  }
  const where = c => backlogs.length > 1 ? ` at backlog ${backlog_name(c.backlog)}` : "";
  const words = c => `${METRICS[c.metric] || c.metric} × ${count(c.ratio)}${where(c)}`;
  const items = distinct(differ.map(c => c.server)).map(server => {
    const all = differ.filter(c => c.server === server).map(words).join("; ");
    return make("li", {}, make("b", {}, server), ": " + all);
  });
  const heading = `What differs from ${against}, by more than these runs leave to chance:`;
  say("reason", make("p", {}, heading), make("ul", {}, ...items));
  const unclear = list.length - differ.length;
  if (!unclear) return;
  const of_all = `In ${number(unclear)} of ${plural(list.length, "comparison")} no difference was seen`;
  say("answer-limits", of_all + "; that is not to say that there is none.");
}

/// What the other row has instead; in colour if that is better or worse by more than a twentieth.
function instead(here, there, words) {
  if (here == null || there == null) return [""];
  if (here === there) return ["as there"];
  const judged = here < there * 0.95 ? "worse" : here * 0.95 > there ? "better" : "";
  return ["there ", make("span", {class: judged}, words)];
}
/// By how much a rate is larger than the other row's.
function change(here, there) {
  if (here == null || !(there > 0)) return [""];
  const more = here / there - 1;
  if (Math.abs(more) < 0.0005) return ["as there"];
  const sign = more < 0 ? "−" : "+";
  const judged = more < -0.02 ? "worse" : more > 0.02 ? "better" : "";
  return [make("span", {class: judged}, `${sign}${number(Math.abs(more) * 100, 1)} %`), ` against ${short(there)}`];
}
function room_words(deepest, limit) {
  if (limit == null || deepest == null) return limit == null && !is_swarm ? "no limit" : "";
  const places = limit + 1;  // the kernel lets one more in than was asked for
  if (deepest >= places) return `full: ${number(limit)} + 1 places`;
  return `${share(deepest / places)} of the room, ${plural(Math.round(places - deepest), "place")} spare`;
}

/// Of one loop: a closed one's numbers are no measure for an open one's.
const tile_rows = open_rows.length ? open_rows : rows;
/// Four numbers of one row against another one's.
function tiles() {
  const {subject, reference} = state, names = tile_rows.map(row_name);
  const pick = name => make_select(names, tile_rows.indexOf(state[name]), i => {
    state[name] = tile_rows[i];
    tiles();
  });
  const nearest = recommended_row && recommended_row.backlog !== recommended ? ", the nearest that was measured," : "";
  const chosen = recommended_row ? make("span", {}, make("b", {}, row_name(subject)), nearest) : pick("subject");
  say("tile-choices", chosen, "against", pick("reference"));

  const same = subject === reference, p99 = row => row.first_byte_s?.p99, lost = row => median(turned_away(row));
  const both = read => [read(subject), read(reference)];
  const at_most = turned_away(subject)?.upper, deepest = median(subject.deepest_queue);
  const tile = (title, value, ...compared) => {
    const below = make("div", {}, ...compared);
    return make("div", {class: "tile"}, make("div", {}, title), make("div", {class: "value"}, value), below);
  };
  const rates = both(row => median(row.connections_per_second));
  say("tiles", tile("Connections per second", short(rates[0]), ...(same ? [""] : change(...rates))),
      tile(
          "First byte, p99", latency(subject.first_byte_s, "p99"),
          ...(same ? [""] : instead(...both(p99), latency(reference.first_byte_s, "p99")))),
      tile(
          "Clients turned away", share(lost(subject)),
          ...(same ? [""] : instead(...both(lost), share(lost(reference)))),
          at_most == null ? "" : `${same ? "" : ", "}at most ${share(at_most)} here`),
      tile("Deepest queue", count(deepest), room_words(deepest, limit_of(subject))));
}

/// A heading with names and values below, without those that say nothing.
function section(title, named, name_of = words_of) {
  const print = (name, value) => {
    if (typeof value === "boolean") return value ? "yes" : "no";
    if (typeof value !== "number") return value;
    if (name.endsWith("_s")) return time(value);
    if (value >= 2 ** 63) return "unlimited";
    return count(value);
  };
  const said = Object.entries(named).filter(([, value]) => value != null && value !== "" && typeof value !== "object");
  const lines =
      said.map(([name, value]) => make("tr", {}, make("td", {}, name_of(name)), make("td", {}, print(name, value))));
  return make("div", {}, make("h3", {}, title), make("table", {}, make("tbody", {}, ...lines)));
}
const words_of = name => name.replace(/_s$/, "").replaceAll("_", " ");
/// Of the load: what this one had nothing of.
function is_idle(name, value) {
  if (name === "in_words") return true;  // said above
  if (name === "threads") return !servers.some(server => /threads|pool|reactors/.test(server));
  if (name === "dispersion") return value === 0 || value === 1;
  return value === 0 && /^(burst|stall|on_|off_)/.test(name);
}
function facts() {
  say("load-words", load.in_words || "");
  say("command", run.command || "");
  const trouble = (run.trials || []).filter(trial => trial.problems?.length).map(trial => {
    const what = trial.void === false ? "" : "void: ";
    return `${what}${trial.server}, backlog ${backlog_name(trial.backlog)}: ${trial.problems.join("; ")}`;
  });
  say("notes", ...[...(run.notes || []), ...trouble].map(text => make("li", {}, text)));
  const kinds = {pair: "two namespaces, one each", loopback: "one private namespace", shared: "the machine's loopback"};
  const {loss, rtt_s} = network, {memory_bytes, ...hardware} = machine;
  const asked = run.until == null ? null : "±" + share(run.until);
  const sections = {
    load: section("Load", Object.fromEntries(Object.entries(load).filter(([name, value]) => !is_idle(name, value)))),
    network: section(
        "Network",
        {kind: kinds[network.kind] || network.kind, rtt_s, "packets lost": loss == null ? null : share(loss)}),
    sysctls: Object.keys(network.sysctls || {}).length ?
        [make("br"), section("Server's sysctls", network.sysctls, name => name)] :
        [],
    machine: section(
        "Machine", {...hardware, memory: memory_bytes == null ? null : figures(memory_bytes / 2 ** 30) + " GiB"}),
    procedure: section("Procedure", {
      "runs of each": run.repeat,
      "valid trials": advice.valid_trials,
      "void trials": advice.void_trials,
      "intervals asked for": asked,
      "reached": asked && run.until_met,
      "may be turned away": run.target_loss == null ? null : share(run.target_loss),
      "seed": Number.isSafeInteger(run.seed) ? String(run.seed) : null,
      "took_s": run.took_s,
    }),
  };
  const column = (...parts) => make("div", {}, ...parts);
  say("facts", column(sections.load), column(sections.network, ...sections.sysctls),
      column(sections.machine, make("br"), sections.procedure));
  say("foot", make("span", {}, `anteroom ${run.version || ""}`), make("span", {}, run.schema || ""),
      make("span", {}, "Charts: uPlot, MIT licence. This page needs no network."));
}

function plot_slice() {
  choose_queues();
  plot_latency();
  plot_refused();
  plot_queue();
  plot_fates();
  plot_heat();
}
function plot_all() {
  plot_rate();
  plot_loss();
  plot_slice();
}
function start() {
  heading();
  $("page").hidden = false;
  facts();
  comparisons_table();
  theory_table();
  $("numbers-panel").hidden = all_rows.length === 0;
  numbers_table();
  for (const button of document.querySelectorAll("[data-copies]")) {
    button.onclick = () => copy(button, $(button.getAttribute("data-copies")).textContent);
  }
  $("save-json").onclick = () => save(`anteroom-${kind}.json`, "application/json", $("anteroom-run").textContent);
  $("save-csv").onclick = () => save(`anteroom-${kind}.csv`, "text/csv", csv());
  if (!rows.length) {
    $("charts").hidden = true;
    document.querySelector(".answer").hidden = true;
    $("nothing").hidden = false;
    say("nothing",
        make(
            "b", {},
            run.interrupted ? "The run was ended before anything had been measured." :
                              "No run counts, so there is nothing to show."),
        " ",
        all_rows.length ?
            "What was tried is in the table below, and why it does not count under “How this was measured”." :
            "Below is what was to be measured, and the command that starts it again.");
    return;
  }
  // Against 128, which much software still asks for, or else the smallest that was tried; of servers, the first against
  // the last.
  state.subject = recommended_row || tile_rows[tile_rows.length - 1];
  state.reference = recommended_row ? tile_rows.find(row => row.backlog === 128) || tile_rows[0] :
                                      tile_rows.find(row => row.backlog === state.subject.backlog);
  state.slice = servers.length > 1 ? slices.findLast(slice => slice.axis === "server") : slices[0];
  $("slice-row").hidden = slices.length < 2;
  $("slice").replaceWith(make_select(slices.map(slice => slice.name), slices.indexOf(state.slice), i => {
    state.slice = slices[i];
    plot_slice();
  }));
  if (is_tune)
    answer_of_tune();
  else if (is_swarm && run.target)
    answer_of_swarm();
  else
    answer_of_compare();
  tiles();
  make_switch("latency-switch", [["connect_s", "connect"], ["first_byte_s", "first byte"]], state.latency, key => {
    state.latency = key;
    plot_latency();
  });
  make_switch("heat-switch", [["connect", "connect"], ["first_byte", "first byte"]], state.heat, key => {
    state.heat = key;
    plot_heat();
  });
  make_switch("heat-view", [["density", "density"], ["cumulative", "cumulative"]], "density", key => {
    state.cumulative = key === "cumulative";
    plot_heat();
  });
  plot_all();
  let width = innerWidth, waiting;
  addEventListener("resize", () => {
    if (innerWidth === width) return;  // a phone that hides its bars has only got taller
    width = innerWidth;
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => {
      for (const [id, u] of plots) u.setSize({width: $(id).clientWidth, height: u.height});
    });
  });
  for (const query of ["(prefers-color-scheme: dark)", "print"]) {
    matchMedia(query).addEventListener("change", () => {
      plot_all();
    });
  }
}

try {
  start();
} catch (error) {
  $("broken").hidden = false;
  say("broken", `This report could not be drawn: ${error.message}. The numbers are in the file all the same.`);
  throw error;
}
