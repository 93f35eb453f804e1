"""Fair both ways: 400 old guests who talk without pause, and 1,000 new ones at once. How long the new wait for their first
answer, and what share of their echoes the old keep meanwhile. The client's one processor is the limit of both."""
from figures import median, quantile, table
from hosts import Server, fresh_network, run_client

OLD, NEW, BURSTS, BEFORE_MS = 400, 1000, 3, 300


def measure(contestants, options):
    bursts = {one.name: [] for one in contestants.chosen}
    rounds = options.rounds or 10
    for number in range(rounds):
        # Nobody always comes first, or always after the same one.
        turn = number % len(contestants.chosen)
        order = contestants.chosen[turn:] + contestants.chosen[:turn]
        for contestant in order if number % 2 == 0 else reversed(order):
            fresh_network()
            with Server(contestant.command("echo")) as server:
                lines = run_client([contestants.tool("burst"), server.port, OLD, NEW, BURSTS, BEFORE_MS], 120)
            for before, during, took, *waits in lines:
                waits = [int(wait) / 1e6 for wait in waits]
                bursts[contestant.name].append({
                    "p50_ms": quantile(waits, 0.5), "p99_ms": quantile(waits, 0.99), "max_ms": max(waits),
                    "before_per_s": float(before), "during_per_s": float(during), "took_ms": float(took) * 1e3,
                    "share": float(during) / float(before)})
    rows = []
    for name, all_of_them in bursts.items():
        row = {"server": name, "bursts": len(all_of_them)}
        for key in all_of_them[0]:
            values = [burst[key] for burst in all_of_them]
            row[key] = median(values)
            row[f"{key}_low"], row[f"{key}_high"] = quantile(values, 0.1), quantile(values, 0.9)
        row["p99_range"] = f"{row['p99_ms_low']:.0f} - {row['p99_ms_high']:.0f}"
        row["share_range"] = f"{row['share_low']:.2f} - {row['share_high']:.2f}"
        rows.append(row)
    return rows


def show(rows):
    return table(rows, [("server", "", "{}"), ("bursts", "bursts", "{}"), ("p50_ms", "first answer p50, ms", "{:.1f}"),
                        ("p99_ms", "p99, ms", "{:.1f}"), ("p99_range", "of 80 % of bursts", "{}"),
                        ("before_per_s", "echoes/s before", "{:.0f}"), ("during_per_s", "during", "{:.0f}"),
                        ("share", "share kept", "{:.2f}"), ("share_range", "of 80 % of bursts", "{}")])
