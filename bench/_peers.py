"""Run other supervisors for comparison; install them from PyPI into a separate environment on first use.

Each supervises `count` processes of `/bin/sleep 1000` and is observed from outside, through /proc.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from _measure import installed_environment

BIN = Path(sys.executable).parent
PACKAGES = ("supervisor==4.3.*", "circus==0.19.*", "honcho==2.0.*", "setuptools<81")
WORDS = ("/bin/sleep", "1000")


def environment() -> Path:
    """Return the directory of the peers' commands; install them if needed."""
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "gaffer-bench" / "peers"
    if not (home / "installed").exists():
        print(f"installing {', '.join(PACKAGES)} into {home}", file=sys.stderr)
        venv.create(home, with_pip=True, clear=True)
        subprocess.run([home / "bin/pip", "install", "--quiet", *PACKAGES], check=True)
        (home / "installed").touch()
    return home / "bin"


@dataclass(frozen=True)
class Peer:
    """A supervisor: `command(folder, count)` writes its files into `folder` and returns its command line."""

    name: str
    command: Callable[[Path, int], list[str]]


def _gafferd(folder: Path, count: int) -> list[str]:
    config = folder / "gaffer.ini"
    config.write_text(f"[process:s]\ncmd = {' '.join(WORDS)}\nnumprocesses = {count}\nbackoff = 0\nstartsecs = 0\n")
    return [str(BIN / "gafferd"), "--bind", "127.0.0.1:0", "--state-dir", str(folder / "state"), str(config)]


def _supervisor(folder: Path, count: int) -> list[str]:
    config = folder / "supervisord.conf"
    config.write_text(
        f"[supervisord]\nnodaemon=true\nlogfile={folder}/log\npidfile={folder}/pid\nminfds=4096\n"
        f"[program:s]\ncommand={' '.join(WORDS)}\nnumprocs={count}\nprocess_name=%(program_name)s_%(process_num)03d\n"
    )
    return [str(environment() / "supervisord"), "-c", str(config)]


def _circus(folder: Path, count: int) -> list[str]:
    config = folder / "circus.ini"
    sockets = "".join(
        f"{name} = ipc://{folder}/{name}.sock\n" for name in ("endpoint", "pubsub_endpoint", "stats_endpoint")
    )
    config.write_text(f"[circus]\n{sockets}[watcher:s]\ncmd = {' '.join(WORDS)}\nnumprocesses = {count}\n")
    return [str(environment() / "circusd"), str(config)]


def _honcho(folder: Path, count: int) -> list[str]:
    (folder / "Procfile").write_text(f"s: exec {' '.join(WORDS)}\n")
    return [str(environment() / "honcho"), "-d", str(folder), "start", "-c", f"s={count}"]


GAFFERD = Peer("gafferd", _gafferd)
OTHERS = (Peer("supervisor", _supervisor), Peer("circus", _circus), Peer("honcho", _honcho))


class Running:
    """A running supervisor."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process

    def children(self) -> set[int]:
        """Return the OS pids of its children; cheaper than `sleepers`, for use while timing."""
        return set(_children(self.process.pid))

    def sleepers(self) -> set[int]:
        """Return the OS pids of the `sleep` processes below it; honcho runs each below another process."""
        found: set[int] = set()
        level = [self.process.pid]
        while level:
            children = [child for pid in level for child in _children(pid)]
            found.update(pid for pid in children if _comm(pid) == "sleep")
            level = children
        return found


@contextlib.contextmanager
def running(peer: Peer, count: int) -> Iterator[Running]:
    """Run `peer` with `count` processes; end it and its processes on exit."""
    with tempfile.TemporaryDirectory() as folder:
        words = peer.command(Path(folder), count)
        env = installed_environment()
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, env=env)
        started = Running(process)
        try:
            yield started
        finally:
            left = started.sleepers()
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for pid in left:
                if _comm(pid) == "sleep":
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)


def wait_for(started: Running, count: int, timeout: float = 60) -> set[int]:
    """Wait until `count` processes are running; return their OS pids."""
    deadline = time.monotonic() + timeout
    while len(found := started.sleepers()) < count:
        if time.monotonic() > deadline or started.process.poll() is not None:
            raise SystemExit(f"{started.process.args!r} runs only {len(found)} of {count}")
        time.sleep(0.002)
    return found


def _children(pid: int) -> list[int]:
    try:
        return [
            int(child)
            for task in os.listdir(f"/proc/{pid}/task")
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split()
        ]
    except OSError:
        return []


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
