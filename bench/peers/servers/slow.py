"""Slow senders, as slowhttptest makes them, against our deadlines: how late after it each was cut, and that nobody was cut
who was not slow."""
import select
import socket
import time

from figures import quantile, table
from hosts import Server, fresh_network

FIRST_BYTE_S, IDLE_S, BYTES_PER_SECOND_MIN, WINDOW_S = 1.0, 1.5, 50, 2.0
CLIENTS, HONEST, BYTE_EVERY_S, PATIENCE_S = 500, 50, 0.2, 4.0


class Sender:
    """kind: silent says nothing; mute says one byte and no more; dripping sends a byte every 200 ms; honest 20."""

    PIECE = {"silent": b"", "mute": b"x", "dripping": b"x", "honest": b"x" * 20}

    def __init__(self, kind, address, start_s):
        self.kind, self.socket = kind, socket.create_connection(address, 10)
        self.socket.setblocking(False)
        self.began = self.last_sent = time.monotonic()
        self.next_due = self.began + start_s
        self.cut = None

    def send_if_due(self, now):
        if self.kind == "silent" or now < self.next_due:
            return
        try:
            self.socket.send(self.PIECE[self.kind])
        except (BrokenPipeError, ConnectionResetError, BlockingIOError):
            return  # its end is told by poll
        self.last_sent = now
        self.next_due = now + BYTE_EVERY_S if self.kind != "mute" else float("inf")

    def deadline(self):
        return {"silent": self.began + FIRST_BYTE_S, "mute": self.last_sent + IDLE_S,
                "dripping": self.began + WINDOW_S}[self.kind]


def _play(address):
    kinds = ["silent", "mute", "dripping"]
    senders = [Sender("honest", address, BYTE_EVERY_S * i / HONEST) for i in range(HONEST)]
    senders += [Sender(kinds[i % len(kinds)], address, BYTE_EVERY_S * i / CLIENTS) for i in range(CLIENTS)]
    poll = select.epoll()
    of_descriptor = {}
    for sender in senders:
        poll.register(sender.socket, select.EPOLLRDHUP)
        of_descriptor[sender.socket.fileno()] = sender
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        for descriptor, _ in poll.poll(0.002):
            sender = of_descriptor[descriptor]
            sender.cut = time.monotonic()
            poll.unregister(descriptor)
        now = time.monotonic()
        for sender in senders:
            if sender.cut is None:
                sender.send_if_due(now)
    for sender in senders:
        sender.socket.close()
    return senders


def measure(contestants, options):
    late = {"silent": [], "mute": [], "dripping": []}
    not_cut, honest_cut = dict.fromkeys(late, 0), 0
    for _ in range(options.rounds or 3):
        fresh_network()
        with Server([contestants.tool("deadline_server"), 0, int(FIRST_BYTE_S * 1e3), int(IDLE_S * 1e3),
                     BYTES_PER_SECOND_MIN, int(WINDOW_S * 1e3)]) as server:
            senders = _play(("127.0.0.1", server.port))
        for sender in senders:
            if sender.kind == "honest":
                honest_cut += sender.cut is not None
            elif sender.cut is None:
                not_cut[sender.kind] += 1
            else:
                late[sender.kind].append((sender.cut - sender.deadline()) * 1e3)
    words = {"silent": ("says nothing", "first byte", FIRST_BYTE_S), "mute": ("falls silent", "idle", IDLE_S),
             "dripping": ("a byte each 200 ms", f"{BYTES_PER_SECOND_MIN} bytes/s", WINDOW_S)}
    rows = []
    for kind, values in late.items():
        row = {"sender": words[kind][0], "deadline": f"{words[kind][1]}, {words[kind][2]:.1f} s", "cut": len(values),
               "not_cut": not_cut[kind]}
        if values:
            row.update(early_ms=min(values), p50_ms=quantile(values, 0.5), p99_ms=quantile(values, 0.99),
                       max_ms=max(values))
        rows.append(row)
    rows.append({"sender": "is not slow", "deadline": "none", "cut": honest_cut})
    return rows


def show(rows):
    return table(rows, [("sender", "who", "{}"), ("deadline", "deadline", "{}"), ("cut", "cut", "{}"),
                        ("not_cut", "not cut", "{}"), ("early_ms", "late at least, ms", "{:.1f}"),
                        ("p50_ms", "p50", "{:.1f}"), ("p99_ms", "p99", "{:.1f}"), ("max_ms", "at most", "{:.1f}")])
