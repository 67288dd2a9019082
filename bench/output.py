"""Measure how fast a program can write while its output is captured, in MB/s of the program.

python bench/output.py [--rounds 5] [--no-peers] [--formats]

The program writes blocks of 64 KiB, or lines of 100 bytes through a buffer of 4 KiB as stdio does. Gaffer writes them
to rotated log files of 10 MiB, with and without a subscriber in the manager's process. A second part measures, on
gafferd, how an HTTP subscriber that stops reading slows down the program and another subscriber. With --formats, only
the formats of log files are compared, for lines.
"""

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from _measure import daemon, show, show_ratio
from _peers import environment

PRODUCER = """
import os, sys, time
kind, total, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
open(f"{folder}/up", "w").close()
while not os.path.exists(f"{folder}/go"):
    time.sleep(0.005)
began = time.perf_counter()
if kind == "blocks":
    block = b"x" * 65535 + b"\\n"
    for _ in range(total // len(block)):
        rest = block
        while rest:
            rest = rest[os.write(1, rest):]
else:
    line = b"x" * 99 + b"\\n"
    with open(1, "wb", buffering=4096, closefd=False) as out:
        for _ in range(total // len(line)):
            out.write(line)
took = time.perf_counter() - began
os.close(1)
with open(f"{folder}/took.new", "w") as file:
    file.write(str(took))
os.rename(f"{folder}/took.new", f"{folder}/took")
time.sleep(1000)
"""

MANAGER = """
import sys
from pathlib import Path
from gaffer import Manager
from gaffer.process import ProcessConfig
folder, subscribed, words = Path(sys.argv[1]), sys.argv[2] == "subscribed", sys.argv[3:]
settings = {"log_format": sys.argv[2]} if sys.argv[2] in ("timestamps", "json") else {}
manager = Manager(capture_all=True, log_dir=folder / "logs")
manager.start()
manager.load(ProcessConfig("producer", words[0], args=words[1:], redirect_output=["out", "err"], **settings))
def subscribe(name, message):
    manager.get_process(message["pid"]).monitor_io("out", lambda label, message: None)
if subscribed:
    manager.events.subscribe("spawn", subscribe)
manager.run()
"""

MEGABYTE = 1e6
KINDS = {"blocks": 600, "lines": 150}  # MB written per run


@dataclass(frozen=True)
class Catcher:
    """A program that captures output: `command(folder, words)` returns the command that runs and captures `words`.

    `share` is the fraction of the usual amount to write; a slow program gets less.
    """

    name: str
    command: Callable[[Path, list[str]], list[str]]
    share: float = 1.0


def _manager(mode: str) -> Callable[[Path, list[str]], list[str]]:
    return lambda folder, words: [sys.executable, "-c", MANAGER, str(folder), mode, *words]


def _supervisor(folder: Path, words: list[str]) -> list[str]:
    config = folder / "supervisord.conf"
    config.write_text(
        f"[supervisord]\nnodaemon=true\nlogfile={folder}/log\npidfile={folder}/pid\n"
        f"[program:producer]\ncommand={' '.join(words)}\nstdout_logfile={folder}/out.log\n"
        "stdout_logfile_maxbytes=10MB\nstdout_logfile_backups=3\n"
    )
    return [str(environment() / "supervisord"), "-c", str(config)]


def _circus(folder: Path, words: list[str]) -> list[str]:
    config = folder / "circus.ini"
    sockets = "".join(
        f"{name} = ipc://{folder}/{name}.sock\n" for name in ("endpoint", "pubsub_endpoint", "stats_endpoint")
    )
    config.write_text(
        f"[circus]\n{sockets}[watcher:producer]\ncmd = {' '.join(words)}\nstdout_stream.class = FileStream\n"
        f"stdout_stream.filename = {folder}/out.log\nstdout_stream.max_bytes = 10485760\n"
        "stdout_stream.backup_count = 3\n"
    )
    return [str(environment() / "circusd"), str(config)]


def _honcho(folder: Path, words: list[str]) -> list[str]:
    (folder / "Procfile").write_text(f"producer: exec {' '.join(words)}\n")
    return [str(environment() / "honcho"), "-d", str(folder), "start"]


OURS = Catcher("gaffer, to a file", _manager("alone"))
SUBSCRIBED = Catcher("gaffer, to a file and a subscriber", _manager("subscribed"))
SUPERVISOR = Catcher("supervisor", _supervisor)
SLOW = (Catcher("circus", _circus, 0.1), Catcher("honcho", _honcho, 0.005))


@contextlib.contextmanager
def _workplace(kind: str, share: float = 1.0) -> Iterator[tuple[Path, list[str], int]]:
    """Yield a temporary directory, the command that starts the producer there, and the bytes that it will write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "producer.py").write_text(PRODUCER)
        total = int(KINDS[kind] * share * MEGABYTE)
        yield folder, [sys.executable, str(folder / "producer.py"), kind, str(total), name], total


def _wait_for(path: Path, timeout: float = 120) -> None:
    deadline = time.monotonic() + timeout
    while not path.exists():
        if time.monotonic() > deadline:
            raise SystemExit(f"no {path.name} after {timeout:g} s")
        time.sleep(0.005)


def _go(folder: Path, total: int) -> float:
    """Start the producer's output; return its MB/s."""
    _wait_for(folder / "up")
    (folder / "go").touch()
    _wait_for(folder / "took")
    return total / MEGABYTE / float((folder / "took").read_text())


def captured(catcher: Catcher, kind: str) -> tuple[float, float]:
    """Return the producer's MB/s, and the peak growth of the catcher's memory in MB."""
    with _workplace(kind, catcher.share) as (folder, words, total):
        command = catcher.command(folder, words)
        with (folder / "output").open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL, cwd=folder)
            try:
                _wait_for(folder / "up")
                before = _memory(process.pid, "VmRSS")
                return _go(folder, total), _memory(process.pid, "VmHWM") - before
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(60)


def read_in_a_bare_loop(kind: str) -> float:
    """Return the producer's MB/s when its output is read and discarded."""
    with _workplace(kind) as (folder, words, total):
        process = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert process.stdout is not None
        with process.stdout:
            threading.Thread(target=_drain, args=(os.dup(process.stdout.fileno()),), daemon=True).start()
            speed = _go(folder, total)
        process.kill()
        process.wait()
        return speed


def _drain(fd: int) -> None:
    while os.read(fd, 65536):
        pass
    os.close(fd)


def _memory(pid: int, field: str) -> float:
    """Return a field of /proc/PID/status in MB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split(f"{field}:")[1].split()[0]) / 1024


class Subscriber:
    """A client that follows the output of a process over HTTP; `received` counts the bytes that it has read."""

    def __init__(self, url: str, pid: int, *, reads: bool) -> None:
        self.received = 0
        address = urlsplit(url)
        self._socket = socket.create_connection((address.hostname, address.port))
        self._socket.sendall(f"GET /streams/{pid}/out?feed=continuous HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        self._socket.recv(4096)
        if reads:
            threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._socket.recv(1 << 18):
                self.received += len(data)

    def close(self) -> None:
        self._socket.close()


def followed(stalled: int) -> tuple[float, float]:
    """Return MB/s of the producer, and of a reading subscriber while `stalled` others do not read."""
    with _workplace("blocks") as (folder, words, total), daemon("gafferd") as node:
        job = {"name": "producer", "cmd": words[0], "args": words[1:], "redirect_output": ["out"]}
        node.call("POST", "/jobs/default", job)
        _wait_for(folder / "up")
        (pid,) = node.call("GET", "/pids")["pids"]
        subscribers = [Subscriber(node.url, pid, reads=reads) for reads in (True, *[False] * stalled)]
        speed = _go(folder, total)
        received = subscribers[0].received / MEGABYTE
        for subscriber in subscribers:
            subscriber.close()
        return speed, received * speed / (total / MEGABYTE)


def measure_formats(rounds: int) -> None:
    """Show the speed of a program whose lines are written in each format."""
    catchers = {form: Catcher(form, _manager(form)) for form in ("raw", "timestamps", "json")}
    speeds: dict[str, list[float]] = {form: [] for form in catchers}
    for _ in range(rounds):
        for form, catcher in catchers.items():
            speeds[form].append(captured(catcher, "lines")[0])
    for form, values in speeds.items():
        show(f"lines: log_format = {form}", values, "MB/s", 1)
        show_ratio(f"lines: {form}, vs. raw", values, speeds["raw"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--formats", action="store_true")
    chosen = parser.parse_args()
    if chosen.formats:
        measure_formats(chosen.rounds)
        return

    catchers = [OURS, SUBSCRIBED, *(() if chosen.no_peers else (SUPERVISOR,))]
    for kind in KINDS:
        speeds: dict[str, list[float]] = {catcher.name: [] for catcher in catchers}
        growth: list[float] = []
        floor = []
        for _ in range(chosen.rounds):
            floor.append(read_in_a_bare_loop(kind))
            for catcher in catchers:
                speed, grown = captured(catcher, kind)
                speeds[catcher.name].append(speed)
                if catcher in (OURS, SUBSCRIBED):
                    growth.append(grown)
        show(f"{kind}: a bare read loop", floor, "MB/s", 1)
        for name, values in speeds.items():
            show(f"{kind}: {name}", values, "MB/s", 1)
        for other in () if chosen.no_peers else SLOW:
            show(f"{kind}: {other.name}", [captured(other, kind)[0] for _ in range(2)], "MB/s", 1)
        for ours in (OURS, SUBSCRIBED):
            show_ratio(f"{kind}: {ours.name}, vs. bare loop", speeds[ours.name], floor)
            if not chosen.no_peers:
                show_ratio(f"{kind}: {ours.name}, vs. supervisor", speeds[ours.name], speeds[SUPERVISOR.name])
        show(f"{kind}: growth of our memory", growth, "MB", 1)

    runs = [(followed(0), followed(1)) for _ in range(chosen.rounds)]
    for what, index in (("the program", 0), ("another subscriber", 1)):
        alone = [without[index] for without, _ in runs]
        beside = [with_one[index] for _, with_one in runs]
        show(f"{what}, none stalled", alone, "MB/s", 1)
        show(f"{what}, one stalled", beside, "MB/s", 1)
        show_ratio(f"{what}: ratio", beside, alone)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        raise SystemExit(str(error)) from None
