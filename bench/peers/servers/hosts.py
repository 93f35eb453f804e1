"""Where servers and clients are put: a network of their own, a processor each, and an end in any case."""
import ctypes
import fcntl
import os
import pathlib
import select
import signal
import socket
import struct
import subprocess
import time

CLONE_NEWUSER, CLONE_NEWNET, PR_SET_PDEATHSIG = 0x10000000, 0x40000000, 1
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1

_libc = ctypes.CDLL(None, use_errno=True)
_processors = sorted(os.sched_getaffinity(0))
CLIENT_CPU, SERVER_CPU = _processors[0], _processors[-1]


class Failed(Exception):
    """What was tried, and why it did not work."""


def _unshare(flags):
    if _libc.unshare(flags) != 0:
        raise Failed(f"no network namespace of our own: {os.strerror(ctypes.get_errno())}")


def fresh_network():
    """Puts this process, and whom it starts from now on, into a new network namespace: no TIME_WAIT is left there, and
    nobody else calls. Who is not root becomes root in a user namespace of his own, once."""
    if os.geteuid() != 0:
        user, group = os.geteuid(), os.getegid()
        _unshare(CLONE_NEWUSER | CLONE_NEWNET)
        for file, text in ("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1"):
            pathlib.Path("/proc/self", file).write_text(text)
    else:
        _unshare(CLONE_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        name_and_flags = fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0))
        flags = struct.unpack("16sh14x", name_and_flags)[1] | IFF_UP
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags))


def _child(cpu):
    def prepare():
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.sched_setaffinity(0, {cpu})

    return prepare


class Server:
    """A server that runs from here on, on its processor, until the end of the `with`."""

    def __init__(self, command, cpu=SERVER_CPU):
        self.command = [str(word) for word in command]
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        preexec_fn=_child(cpu))
        self.pid = self.process.pid
        speaks, _, _ = select.select([self.process.stdout], [], [], 20)
        line = self.process.stdout.readline() if speaks else ""
        if "listening on" not in line:
            self.process.kill()
            said = line + self.process.stderr.read()
            self.stop()
            raise Failed(f"{self.command[0]} did not start: {said}")
        self.port = int(line.rsplit(":", 1)[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()

    def cpu_ns(self):
        return time.clock_gettime_ns(~self.pid << 3 | 2)  # clock_getcpuclockid(3): user and system time, in ns

    def private_dirty_bytes(self):
        for line in pathlib.Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Private_Dirty:"):
                return int(line.split()[1]) * 1024
        raise Failed("smaps_rollup has no Private_Dirty")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def wait_for_descriptors(self, count, patience_s=20):
        _wait(lambda: self.descriptors() == count, patience_s, f"{self.command[0]} to have {count} descriptors")

    def wait_for_sleep(self, patience_s=20):
        """Until it has done all that there is to do. On loopback, send() has woken it before it returns."""
        stat = pathlib.Path(f"/proc/{self.pid}/stat")
        _wait(lambda: stat.read_text().rsplit(")", 1)[1].split()[0] == "S", patience_s, f"{self.command[0]} to sleep")


def _wait(is_so, patience_s, for_what):
    end = time.monotonic() + patience_s
    while not is_so():
        if time.monotonic() > end:
            raise Failed(f"waited {patience_s} s for {for_what}")
        time.sleep(0.0002)


def run_client(command, timeout_s, cpu=CLIENT_CPU):
    """The words of each line that a client prints."""
    words = [str(word) for word in command]
    try:
        ended = subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, preexec_fn=_child(cpu))
    except subprocess.TimeoutExpired:
        raise Failed(f"{words[0]} did not end within {timeout_s:.0f} s") from None
    if ended.returncode != 0:
        raise Failed(f"{words[0]}: {ended.stderr.strip()}")
    return [line.split() for line in ended.stdout.splitlines()]
