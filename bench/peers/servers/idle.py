"""Connections that are held and say nothing: what each costs in user memory, what 19,000 cost in CPU, and how long one of
them waits for an echo."""
import multiprocessing
import os
import random
import resource
import socket
import time

from figures import quantile, table
from hosts import CLIENT_CPU, Failed, Server, fresh_network

HELD, MANY, MESSAGE = 9_000, 19_000, b"x" * 64
IDLE_S, PINGS, ADDRESSES, SPARE = 10, 2_000, 64, 200


def _hold(pipe, port, count):
    os.sched_setaffinity(0, {CLIENT_CPU})
    guests = []
    try:
        for i in range(count):
            guest = socket.create_connection((f"127.0.0.{1 + i % ADDRESSES}", port), 10)
            guest.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            guests.append(guest)
        pipe.send("held")
        while True:
            what, *of_them = pipe.recv()
            waits = []
            for guest in guests if what == "echo" else random.choices(guests, k=of_them[0]):
                began = time.monotonic_ns()
                guest.sendall(MESSAGE)
                left = len(MESSAGE)
                while left:
                    got = len(guest.recv(left))
                    if got == 0:
                        raise Failed("a server has closed a connection that was held")
                    left -= got
                waits.append((time.monotonic_ns() - began) / 1e3)
                if what == "ping":
                    time.sleep(0.001)  # the server goes to sleep between two of them
            pipe.send(waits)
    except EOFError:
        pass
    except (OSError, Failed) as error:
        pipe.send(error)


class Held:
    """So many connections, in as many processes as their limit of descriptors asks for."""

    def __init__(self, port, count):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard <= count + SPARE:
            raise Failed(f"the server may have {hard} descriptors (ulimit -Hn), and this takes {count + SPARE}")
        processes = -(-count // (hard - SPARE - count // 2))
        fork = multiprocessing.get_context("fork")
        self._pipes, self._processes = [], []
        for i in range(processes):
            ours, its = fork.Pipe()
            share = count // processes + (i < count % processes)
            process = fork.Process(target=_hold, args=(its, port, share), daemon=True)
            process.start()
            its.close()
            self._pipes.append(ours)
            self._processes.append(process)
        for pipe in self._pipes:
            self._answer(pipe)

    def _answer(self, pipe, patience_s=60):
        if not pipe.poll(patience_s):
            raise Failed("a client does not get on")
        answer = pipe.recv()
        if isinstance(answer, Exception):
            raise Failed(f"a client: {answer}")
        return answer

    def ask(self, *what):
        waits = []
        for pipe in self._pipes:
            pipe.send(what)
            waits += self._answer(pipe)
        return waits

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.kill()
            process.join()


def _memory(contestant):
    fresh_network()
    with Server(contestant.command("echo")) as server:
        descriptors = server.descriptors()
        with Held(server.port, 1) as first:  # what is made for the first guest is made once
            first.ask("echo")
        server.wait_for_descriptors(descriptors)
        server.wait_for_sleep()
        before = server.private_dirty_bytes()
        with Held(server.port, HELD) as held:
            server.wait_for_descriptors(descriptors + HELD)
            server.wait_for_sleep()
            silent = server.private_dirty_bytes()
            held.ask("echo")
            server.wait_for_sleep()
            spoken = server.private_dirty_bytes()
    return {"silent_bytes": (silent - before) / HELD, "spoken_bytes": (spoken - before) / HELD}


def _crowd(contestant):
    fresh_network()
    with Server(contestant.command("echo")) as server:
        descriptors = server.descriptors()
        with Held(server.port, 1) as one:  # what the machine itself takes
            alone = one.ask("ping", PINGS)
        server.wait_for_descriptors(descriptors)
        with Held(server.port, MANY) as held:
            server.wait_for_descriptors(descriptors + MANY)
            held.ask("echo")
            began, used = time.monotonic_ns(), server.cpu_ns()
            time.sleep(IDLE_S)
            cpu_percent = 100 * (server.cpu_ns() - used) / (time.monotonic_ns() - began)
            pings = held.ask("ping", PINGS // 2)
    return {"held": MANY, "idle_cpu_percent": cpu_percent, "ping_p50_us": quantile(pings, 0.5),
            "ping_p99_us": quantile(pings, 0.99), "ping_max_us": max(pings),
            "alone_p50_us": quantile(alone, 0.5), "alone_p99_us": quantile(alone, 0.99), "alone_max_us": max(alone)}


def measure(contestants, options):
    rows = []
    for contestant in contestants.chosen:
        row = {"server": contestant.name, **_memory(contestant)}
        if contestant.is_ours or options.all_crowds:
            row.update(_crowd(contestant))
        rows.append(row)
    return rows


def show(rows):
    return table(rows, [("server", "", "{}"), ("silent_bytes", "bytes each, silent", "{:.0f}"),
                        ("spoken_bytes", "after an echo", "{:.0f}"), ("held", "held", "{}"),
                        ("idle_cpu_percent", "idle CPU, %", "{:.4f}"), ("ping_p50_us", "ping p50, us", "{:.0f}"),
                        ("ping_p99_us", "p99", "{:.0f}"), ("ping_max_us", "max", "{:.0f}"),
                        ("alone_p50_us", "with no others p50", "{:.0f}"), ("alone_p99_us", "p99", "{:.0f}"),
                        ("alone_max_us", "max", "{:.0f}")])
