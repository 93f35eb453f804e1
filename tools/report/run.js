// The run, as the page looks at it: rows that count, the servers they are of, and slices of them for the charts of one
// thing.
const run = JSON.parse($("anteroom-run").textContent);
const is_swarm = (run.schema || "").startsWith("anteroom.swarm/");
const all_rows = run.rows || [];
const rows = all_rows.filter(row => row.runs > 0);
const advice = run.advice || {};
const load = run.load || {}, machine = run.machine || {}, network = run.network || {};

const distinct = values => [...new Set(values)];
const by_size = (a, b) => (a ?? Infinity) - (b ?? Infinity) || 0;
const backlogs = distinct(rows.map(row => row.backlog)).sort((a, b) => a === b ? 0 : by_size(a, b));
const loops = distinct(rows.map(row => row.loop));
const server_name = row => loops.length > 1 ? `${row.server}, ${row.loop} loop` : row.server;
const servers = distinct(rows.map(server_name));
const row_of = (server, backlog) => rows.find(row => server_name(row) === server && row.backlog === backlog);
const open_rows = rows.filter(row => row.loop !== "closed");
const row_name = row => servers.length > 1 ? `${server_name(row)}, backlog ${backlog_name(row.backlog)}` :
                                             `backlog ${backlog_name(row.backlog)}`;

/// What is drawn with one column for each row: a server's backlogs, or the servers at a backlog.
const slices = [
  ...servers.map(server => ({
                   name: server + ", by backlog",
                   axis: "backlog",
                   rows: backlogs.map(backlog => row_of(server, backlog)).filter(Boolean),
                 })),
  ...(servers.length > 1 ? backlogs.map(backlog => ({
                                          name: `backlog ${backlog_name(backlog)}, by server`,
                                          axis: "server",
                                          rows: servers.map(server => row_of(server, backlog)).filter(Boolean),
                                        })) :
                           []),
];
for (const slice of slices) {
  slice.labels = slice.rows.map(row => slice.axis === "backlog" ? backlog_name(row.backlog) : server_name(row));
}

/// The first row, of those that count, with room for the recommended backlog; or the one with the most room.
const recommended = run.recommended ?? null;
const recommended_row = recommended == null || !rows.length ?
    null :
    rows.find(row => (row.backlog ?? Infinity) >= recommended) || rows[rows.length - 1];

const PERCENTILES = [
  ["p50", "p50", "--teal"], ["p90", "p90", "--blue"], ["p99", "p99", "--violet"], ["p99_9", "p99.9", "--amber"],
  ["max", "max", "--red"]
];
const is_lower_bound = (latencies, key) => (latencies?.lower_bounds || []).includes(key);
const latency = (latencies, key) => (is_lower_bound(latencies, key) ? "> " : "") + time(latencies?.[key]);
/// Who lost the first SYN, became a ghost or was reset before the accept; older runs know of the first only.
const turned_away = row => row.turned_away ?? row.lost_first_syn;
const median = estimate => estimate?.median ?? null;
const unserved_a_run = row => row.first_byte_s?.unserved == null ? null : row.first_byte_s.unserved / row.runs;

const FATES = [
  ["served_at_once", "served at once", "--teal"],
  ["served_after_retransmit", "after a retransmit", "--amber"],
  ["ghost_half_open", "ghost, half open", "--violet"],
  ["ghost_unknown", "ghost, unknown", "--pink"],
  ["refused", "refused", "--red"],
  ["reset_before_accept", "reset before accept", "--blue"],
  ["reset_after_accept", "reset after accept", "--olive"],
  ["deadline", "patience ended", "--bad"],
  ["timed_out", "timed out", "--warn"],
  ["no_local_port", "no local port", "--faint"],
  ["no_descriptor", "no descriptor", "--mute"],
  ["not_started", "not started", "--grey"],
  ["answered_otherwise", "answered otherwise", "--brown"],
];
/// The listener's limit, as the kernel had it: the queue holds one more. None if it is unlimited.
function limit_of(row) {
  if (row.backlog == null) return null;
  const is_of = trial => trial.server === row.server && trial.loop === row.loop && trial.backlog === row.backlog;
  const trial = (run.trials || []).find(trial => trial.fates && is_of(trial));
  return trial?.backlog_in_force ?? row.backlog;
}
