"""User instructions a connection and an echo: what callgrind counts for 400 of them, one after another, less what it counts
for 100. The kernel is not in it, start and end cancel out, and the machine's other work does not matter: the client takes
its next step when the server has gone to sleep, so each connection takes the same way, with one wake-up a step."""
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile

from figures import median, table
from hosts import Failed, Server, fresh_network

FEW, MANY = 100, 400
MESSAGE = b"x" * 64


def _hello(server, count):
    for _ in range(count):
        with _call(server) as guest:
            while guest.recv(100):
                pass
        server.wait_for_sleep()


def _crr(server, count):
    for _ in range(count):
        with _call(server) as guest:
            _exchange(server, guest)
        server.wait_for_sleep()


def _echoes(server, count):
    with _call(server) as guest:
        for _ in range(count):
            _exchange(server, guest)


def _call(server):
    guest = socket.create_connection(("127.0.0.1", server.port), 10)
    server.wait_for_sleep()
    return guest


def _exchange(server, guest):
    guest.sendall(MESSAGE)
    left = len(MESSAGE)
    while left:
        got = len(guest.recv(left))
        if got == 0:
            raise Failed("a server has closed early")
        left -= got
    server.wait_for_sleep()


KINDS = {"hello": ("hello", _hello), "crr": ("echo", _crr), "echo": ("echo", _echoes)}


def _count(contestant, kind, count, by_function):
    """Instructions in all, and by function."""
    service, play = KINDS[kind]
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder, "callgrind.out")
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", *contestant.command(service)]
        with Server(command) as server:
            server.wait_for_sleep()
            play(server, count)
        found = re.search(r"^(?:summary|totals): (\d+)", out.read_text(), re.MULTILINE)
        if not found:
            raise Failed(f"callgrind has counted nothing of {contestant.name}")
        functions = _functions(out) if by_function else {}
        return int(found[1]), functions


def _functions(out):
    said = subprocess.run(["callgrind_annotate", "--threshold=100", "--auto=no", "--show-percs=no", str(out)],
                          capture_output=True, text=True, check=True).stdout
    functions = {}
    for count, function in re.findall(r"^\s*([\d,]+) +\S*?:((?:[^\s\[]| (?!\[))+)", said, re.MULTILINE):
        functions[function] = functions.get(function, 0) + int(count.replace(",", ""))
    return functions


def measure(contestants, options):
    for program in "valgrind", "callgrind_annotate":
        if not shutil.which(program):
            raise Failed("missing: apt-get install valgrind")
    rows = []
    for contestant in contestants.chosen:
        row = {"server": contestant.name}
        for kind in KINDS:
            slopes, few, many = [], {}, {}
            for _ in range(options.rounds or 1):
                fresh_network()
                few_total, few = _count(contestant, kind, FEW, options.by_function)
                many_total, many = _count(contestant, kind, MANY, options.by_function)
                slopes.append((many_total - few_total) / (MANY - FEW))
            row[kind] = median(slopes)
            if options.by_function:
                slope = {name: (count - few.get(name, 0)) / (MANY - FEW) for name, count in many.items()}
                row[f"{kind}_by_function"] = {name: round(count, 1) for name, count in
                                              sorted(slope.items(), key=lambda item: -item[1]) if count >= 0.5}
        rows.append(row)
    return rows


def show(rows):
    lines = [table(rows, [("server", "", "{}"), ("hello", "hello", "{:.0f}"), ("crr", "CRR", "{:.0f}"),
                          ("echo", "one echo more", "{:.0f}")])]
    for row in rows:
        for kind in KINDS:
            if f"{kind}_by_function" in row:
                lines.append(f"\n{row['server']}, {kind}:")
                lines += [f"{count:9.1f}  {name}" for name, count in row[f"{kind}_by_function"].items()]
    return "\n".join(lines)
