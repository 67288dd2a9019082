"""Measure what journals cost: output that outlives gafferd, beside output that does not.

python bench/journals.py [--rounds 5] [--streams 200] [--rate 100] [--seconds 5]

A reader captures pipes into rings and rotated log files, as gafferd does, with journals that somebody else holds and
without them. First one producer writes as fast as it can, in blocks of 64 KiB and in lines of 100 bytes; the figures
are its MB/s. Then all pipes get lines of 60 bytes at the given rate; the figure is the CPU time of the reader.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from _measure import pairs, show, show_ratio

from gaffer.jobs.config import JobConfig
from gaffer.loop import new_loop
from gaffer.processes import launch
from gaffer.streams.log_files import LogFile, LogWriter
from gaffer.streams.process_streams import ProcessStreams
from gaffer.streams.rings import Cursor, Ring
from gaffer.streams.rotation import Rotation

FAST = """
import os, sys
total, block = int(sys.argv[1]), b"x" * 65535 + b"\\n"
if sys.argv[2] == "lines":
    block = (b"x" * 99 + b"\\n") * 40
while total > 0:
    rest = block
    while rest:
        rest = rest[os.write(1, rest):]
    total -= len(block)
"""

SLOW = """
import os, sys, time
rate, seconds, fds = int(sys.argv[1]), float(sys.argv[2]), [int(fd) for fd in sys.argv[3:]]
began = time.perf_counter()
slices = 20
for number in range(int(rate * seconds)):
    for part in range(slices):
        for fd in fds[part::slices]:
            os.write(fd, b"%059d\\n" % number)
        ahead = (number + (part + 1) / slices) / rate - (time.perf_counter() - began)
        if ahead > 0:
            time.sleep(ahead)
"""


class Holder:
    """Keeps descriptors, as the keeper does."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}

    def keep(self, name: str, fd: int) -> None:
        """Hold a duplicate."""
        self._held[name] = os.dup(fd)

    def drop(self, name: str) -> None:
        """Close it."""
        fd = self._held.pop(name, None)
        if fd is not None:
            os.close(fd)

    def close(self) -> None:
        """Close all."""
        for name in list(self._held):
            self.drop(name)


def _capture(words: list[str], count: int, *, journals: bool) -> tuple[float, float]:
    """Run the producer `words`, with the numbers of `count` pipes; return its seconds and our CPU seconds."""
    with tempfile.TemporaryDirectory() as folder:
        loop = new_loop()
        writer = LogWriter(loop, Path(folder))
        writer.start()
        rings: list[Ring] = []
        holders: list[Holder] = []
        ends: list[int] = []
        for number in range(count):
            reading, writing = os.pipe()
            os.set_blocking(reading, False)
            ends.append(writing)
            config = JobConfig(f"job{number}", "true", redirect_output=["out"])
            streams = ProcessStreams(loop, config, {"name": config.name, "pid": number}, capture_all=False)
            holder = Holder()
            holders.append(holder)
            name = f"{number}.log"

            def log_file(_kind: str, name: str = name) -> LogFile:
                return writer.file(name, Rotation(10 * 1024 * 1024, 3))

            streams.connect(launch.Child(stdout=reading), log_file, holder if journals else None)
            rings += streams.captured

        async def read() -> None:
            for ring in rings:
                cursor = Cursor(ring)
                while not ring.closed:
                    cursor.offset = ring.end
                    await cursor.next()

        stdout = ends[0] if count == 1 else None
        producer = subprocess.Popen([sys.executable, "-S", "-c", *words, *map(str, ends)], stdout=stdout, pass_fds=ends)
        for fd in ends:
            os.close(fd)
        before, began = _cpu(), time.perf_counter()
        threading.Thread(target=producer.wait, daemon=True).start()
        loop.run_until_complete(read())
        took, used = time.perf_counter() - began, _cpu() - before
        producer.wait()
        writer.close()
        for holder in holders:
            holder.close()
        loop.close()
        return took, used


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Run the measurements and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--rate", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    for kind, megabytes in (("blocks", 600), ("lines", 300)):
        words = [FAST, str(megabytes * 1_000_000), kind]

        def speed(journals: bool, words: list[str] = words, megabytes: int = megabytes) -> float:
            return megabytes / _capture(words, 1, journals=journals)[0]

        with_them, without = pairs(lambda: speed(True), lambda: speed(False), options.rounds)
        show(f"{kind}, with a journal", with_them, "MB/s", 1)
        show(f"{kind}, without", without, "MB/s", 1)
        show_ratio(f"{kind}, ratio", with_them, without)
    words = [SLOW, str(options.rate), str(options.seconds)]
    used, usual = pairs(
        lambda: _capture(words, options.streams, journals=True)[1],
        lambda: _capture(words, options.streams, journals=False)[1],
        options.rounds,
    )
    what = f"CPU of {options.streams} streams, {options.seconds:g} s"
    show(f"{what}, with journals", used, "s", 1)
    show(f"{what}, without", usual, "s", 1)
    show_ratio("ratio", used, usual)


if __name__ == "__main__":
    main()
