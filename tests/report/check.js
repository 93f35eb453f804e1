// Put before everything else in a copy of a report by report_browser_test.cc. Looks at the page once it has loaded, and
// writes what is wrong with it into <pre id="verdict">, as JSON; or tells the page that it is a frame of, which does
// so.
(() => {
  const problems = [];
  addEventListener("error", event => problems.push("an error: " + event.message));
  addEventListener("unhandledrejection", event => problems.push("a rejection: " + event.reason));
  document.addEventListener(
      "securitypolicyviolation", event => problems.push("wanted " + event.blockedURI + ": " + event.violatedDirective));
  const log = console.error;
  console.error = (...words) => {
    problems.push("on the console: " + words.join(" "));
    log(...words);
  };

  const check = (what, is_so) => {
    if (!is_so) problems.push(what);
  };
  const same = (what, values, expected) => {
    const [a, b] = [values, expected].map(list => JSON.stringify(Array.from(list ?? [], value => value ?? null)));
    check(`${what} is ${a.slice(0, 200)} and should be ${b.slice(0, 200)}`, a === b);
  };

  /// Each column of what is drawn with one column a row, read from the run document, which the page's own code has no
  /// part in.
  function check_numbers(run, plots) {
    const rows = run.rows.filter(row => row.runs > 0);
    const name = row => row.server,
          unknown = run.schema.startsWith("anteroom.swarm/") ? "not known" : "unlimited",
          label = row => row.backlog === null ? unknown : row.backlog.toLocaleString("en");
    const backlogs = [...new Set(rows.map(row => row.backlog))].sort(
        (a, b) => a === b ? 0 :
            a === null    ? 1 :
            b === null    ? -1 :
                            a - b);
    const servers = [...new Set(rows.map(name))];
    const series = (plot, wanted) => plots[plot]?.series.find(s => s.label === wanted)?.values;
    const at = (server, pick) => backlogs.map(backlog => {
      const row = rows.find(r => name(r) === server && r.backlog === backlog);
      return row ? pick(row) : null;
    });
    for (const server of servers) {
      const called = servers.length > 1 ? server : "measured";
      for (const [plot, field] of [["rate", "connections_per_second"], ["loss", "turned_away"]]) {
        same(`${plot}, ${called}`, series(plot, called), at(server, row => row[field].median));
        same(`${plot}, ${called}, low`, series(plot, called + ", low"), at(server, row => row[field].low));
        same(`${plot}, ${called}, high`, series(plot, called + ", high"), at(server, row => row[field].high));
      }
      if (rows.some(row => row.model_loss !== null)) {
        same(
            `loss, ${called}, model`, series("loss", servers.length > 1 ? server + ", model" : "model"),
            at(server, row => row.model_loss));
      }
    }
    if (servers.length === 1)
      same("loss, upper", series("loss", "at most (95 %)"), at(servers[0], row => row.turned_away.upper));
    same("rate, columns", plots.rate?.x, backlogs.map(backlog => label({backlog})));

    // Several servers are shown side by side at the last backlog; one server, at all of its.
    const slice = servers.length > 1 ? rows.filter(row => row.backlog === backlogs[backlogs.length - 1]) : rows;
    for (const plot of ["latency", "refused", "fates", "heat"])
      same(plot + ", columns", plots[plot]?.x, slice.map(servers.length > 1 ? name : label));
    for (const [p, called] of [["p50", "p50"], ["p90", "p90"], ["p99", "p99"], ["p99_9", "p99.9"], ["max", "max"]]) {
      same("latency, " + called, series("latency", called), slice.map(row => row.first_byte_s[p]));
      if (p !== "p90" && p !== "max")
        same("heat, " + called, series("heat", called), slice.map(row => row.first_byte_s[p]));
    }
    same("refused, overflows", series("refused", "listen overflows"), slice.map(row => row.listen_overflows.median));
    same("refused, ghosts", series("refused", "ghosts"), slice.map(row => row.ghosts.median));
    same(
        "refused, unserved", series("refused", "never served"), slice.map(row => row.first_byte_s.unserved / row.runs));
    same(
        "fates, served at once", series("fates", "served at once"),
        slice.map(row => row.fates.served_at_once / row.clients));
    same("heat, cells", plots.heat?.cells.flat(), slice.flatMap(row => row.histograms.first_byte));
    same("heat, unfinished", plots.heat?.unfinished.flat(), slice.flatMap(row => row.histograms.unfinished));
    for (const s of plots.queue?.series || []) {
      const row = slice.find(r => (servers.length > 1 ? name(r) : "backlog " + label(r)) === s.label);
      same("queue, " + s.label, s.values, row?.queue_over_time.depth);
    }
    check("up to three queues are shown", plots.queue?.series.length > 0 && plots.queue.series.length <= 3);
  }

  function check_canvases() {
    const canvases = [...document.querySelectorAll("#charts canvas")];
    check(`seven charts are drawn, not ${canvases.length}`, canvases.length === 7);
    for (const canvas of canvases) {
      const id = canvas.closest(".plot").id,
            {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      const colours = new Set();
      for (let i = 0; i < data.length; i += 4)
        if (data[i + 3] === 255) colours.add(data[i] << 16 | data[i + 1] << 8 | data[i + 2]);
      check(`the chart ${id} is blank`, canvas.width > 200 && canvas.height > 200 && colours.size > 3);
    }
  }

  /// Whatever can be pressed or chosen, is; and what has to follow.
  async function check_switches(run) {
    const pressed =
        (id,
         text) => [...document.querySelectorAll(`#${id} button`)].find(button => button.textContent === text).click();
    const rows = run.rows.filter(row => row.runs > 0);
    const shown = new Set(rows.map(row => row.server)).size > 1 ?
        rows.filter(row => row.backlog === rows[rows.length - 1].backlog) :
        rows;
    const values = (plot, i) => window.anteroomPlots[plot].series[i].values;
    pressed("latency-switch", "connect");
    same("latency, p50 to connect", values("latency", 0), shown.map(row => row.connect_s.p50));
    pressed("latency-switch", "first byte");
    same("latency, p50 again", values("latency", 0), shown.map(row => row.first_byte_s.p50));
    pressed("heat-view", "cumulative");
    pressed("heat-switch", "connect");
    same(
        "heat, cells of connect", window.anteroomPlots.heat.cells.flat(), shown.flatMap(row => row.histograms.connect));
    pressed("heat-view", "density");
    pressed("heat-switch", "first byte");
    for (const button of [...document.querySelectorAll("#queue-switch button")].map(button => button.textContent))
      pressed("queue-switch", button);
    const left = window.anteroomPlots.queue.series.length;
    check(`one to three queues are shown, not ${left}`, left >= 1 && left <= 3);
    for (const select of document.querySelectorAll("select")) {
      for (let i = select.options.length - 1; i >= 0; --i) {
        const place = select.isConnected ? select : document.querySelector("#tile-choices select");
        place.selectedIndex = i;
        place.dispatchEvent(new Event("change"));
        check(`a select shows what was chosen`, document.querySelectorAll("#tiles .value").length === 4);
      }
    }
    for (const over of document.querySelectorAll(".u-over")) {
      const {left, top, width, height} = over.getBoundingClientRect();
      for (const part of [0.1, 0.5, 0.9]) {
        over.dispatchEvent(
            new MouseEvent("mousemove", {clientX: left + part * width, clientY: top + part * height, bubbles: true}));
      }
    }
    await new Promise(resolve => setTimeout(resolve, 50));
    const tip = document.querySelector("#heat .tip").textContent;
    check(`the heat map tells of what is pointed at, not "${tip}"`, /clients?, [\d.]+ %/.test(tip));
    check(
        "a legend without a number: " + document.querySelector("#rate .u-legend").textContent,
        /\d/.test(document.querySelector("#rate .u-value:not(:empty)").textContent));
  }

  async function check_downloads(run) {
    const blobs = [];
    URL.createObjectURL = blob => {
      blobs.push(blob);
      return "#";
    };
    HTMLAnchorElement.prototype.click = () => {};
    document.getElementById("save-json").click();
    document.getElementById("save-csv").click();
    const [json, csv] = await Promise.all(blobs.map(blob => blob.text()));
    same("the JSON", [JSON.stringify(JSON.parse(json))], [JSON.stringify(run)]);
    const lines = csv.trimEnd().split("\r\n");
    same("the CSV's lines", [lines.length], [run.rows.length + 1]);
    run.rows.forEach((row, i) => {
      if (!(row.runs > 0) || /[",\n]/.test(row.server)) return;
      const field = name => lines[i + 1].split(",")[lines[0].split(",").indexOf(name)];
      same(
          "a line of the CSV",
          [
            field("server"), field("backlog"), field("connections_per_second_median"), field("turned_away_upper"),
            field("first_byte_s_p99"), field("fate_deadline")
          ],
          [
            row.server, row.backlog ?? "unlimited", row.connections_per_second.median, row.turned_away.upper,
            row.first_byte_s.p99, row.fates.deadline
          ].map(String));
    });
  }

  addEventListener(
      "load", () => setTimeout(async () => {
                const run = JSON.parse(document.getElementById("anteroom-run").textContent);
                const text = document.getElementById("page").innerText.slice(0, 20000);
                try {
                  check("the page is shown", !document.getElementById("page").hidden);
                  if (run.rows.some(row => row.runs > 0)) {
                    check_numbers(run, window.anteroomPlots);
                    check_canvases();
                  } else {
                    check(
                        "it is said that there is nothing to show",
                        document.getElementById("nothing").getClientRects().length > 0);
                    check("no chart is shown", document.getElementById("charts").getClientRects().length === 0);
                  }
                  const {scrollWidth} = document.documentElement;
                  check(`the page is ${scrollWidth} wide, the window ${innerWidth}`, scrollWidth <= innerWidth);
                  if (run.rows.some(row => row.runs > 0)) await check_switches(run);
                  await check_downloads(run);
                  check(
                      "nothing came in as markup",
                      !document.querySelector("img, iframe, object, embed, link") && !window.intruder);
                } catch (error) {
                  problems.push("the check itself failed: " + error.stack);
                }
                const verdict =
                    {problems, text, width: innerWidth, background: getComputedStyle(document.body).backgroundColor};
                if (parent !== window) {
                  parent.postMessage(verdict, "*");
                  return;
                }
                const place = document.createElement("pre");
                place.id = "verdict";
                place.textContent = JSON.stringify(verdict);
                document.body.append(place);
              }, 300));
})();
