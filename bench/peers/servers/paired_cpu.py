"""Server CPU a connection against the plain epoll loop, in pairs: both servers live at once on one processor, and one client
on another calls them in slices, A B B A. The ratio of each quadruple is free of whatever the machine did meanwhile."""
from contestants import PLAIN
from figures import median, median_interval, table
from hosts import Server, fresh_network, run_client

FLOWS = 64
SLICE_MS = 30
QUADRUPLES = 25  # in one namespace, whose table of TIME_WAIT is far from full then


def _quadruples(lines):
    for first in range(0, len(lines) - 3, 4):
        cpu, served = [0, 0], [0, 0]
        for which, used, count, _, _ in lines[first:first + 4]:
            cpu[int(which)] += int(used)
            served[int(which)] += int(count)
        yield cpu[1] / served[1] / (cpu[0] / served[0])


def measure(contestants, options):
    rows = []
    # The plain loop against itself shows what a ratio of 1 looks like.
    asked = {(one.name, kind): [] for one in contestants.chosen for kind in ("hello", "echo")}
    for _ in range(options.rounds or 12):
        for contestant in contestants.chosen:
            for kind in "hello", "echo":
                fresh_network()
                with Server(contestants.plain.command(kind)) as plain, Server(contestant.command(kind)) as other:
                    asked[contestant.name, kind].append(run_client(
                        [contestants.tool("paired_calls"), kind, plain.port, plain.pid, other.port, other.pid, FLOWS,
                         SLICE_MS, QUADRUPLES], 30 + QUADRUPLES * 4 * SLICE_MS / 50))
    for (name, kind), runs in asked.items():
        ratios = [ratio for lines in runs for ratio in _quadruples(lines)]
        low, high = median_interval(ratios)
        sums = [[int(number) for number in line] for lines in runs for line in lines]
        own = [line for line in sums if line[0] == 1]
        elapsed = sum(line[3] for line in own)
        rows.append({"server": name, "kind": "crr" if kind == "echo" else kind, "ratio": median(ratios), "low": low,
                     "high": high, "quadruples": len(ratios),
                     "runs": [round(median(list(_quadruples(lines))), 4) for lines in runs],
                     "cpu_us": sum(line[1] for line in own) / sum(line[2] for line in own) / 1e3,
                     "per_second": sum(line[2] for line in own) / elapsed * 1e9,
                     "server_busy_percent": 100 * sum(line[1] for line in own) / elapsed,
                     "client_busy_percent": 100 * sum(line[4] for line in own) / elapsed})
    return sorted(rows, key=lambda row: row["kind"] != "hello")


def show(rows):
    return table(rows, [("server", "", "{}"), ("kind", "", "{}"), ("ratio", f"CPU to {PLAIN}'s", "{:.3f}"),
                        ("low", "from", "{:.3f}"), ("high", "to", "{:.3f}"), ("quadruples", "quadruples", "{}"),
                        ("cpu_us", "us a connection", "{:.1f}"), ("per_second", "a second", "{:.0f}"),
                        ("server_busy_percent", "server busy, %", "{:.0f}"),
                        ("client_busy_percent", "client busy, %", "{:.0f}")])
