"""The installed daemons as subprocesses: on free ports, awaited until they listen, stopped and checked.

with lookupd("--ttl", "3") as registry, gafferd("--lookupd-address", registry.url) as node:
    requests.get(node.url + "/ping")
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

START_TIMEOUT = 20.0
STOP_TIMEOUT = 20.0

_LISTENING = "listening on "


def command_path(name: str) -> str:
    """The path of an installed command of the running interpreter's environment."""
    path = Path(sys.executable).parent / name
    assert path.exists(), f"{path} is missing: install the four packages into this environment"
    return str(path)


def clean_env(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This environment without the variables that would configure Gaffer, plus `extra`."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("GAFFER", "LISTEN_", "NOTIFY_"))}
    return {**inherited, **(extra or {})}


def run_command(
    name: str, *args: str, env: Mapping[str, str] | None = None, timeout: float = 30.0
) -> subprocess.CompletedProcess[str]:
    """Run an installed command to its end and return what it printed and its exit code."""
    return subprocess.run(
        [command_path(name), *args],
        env=clean_env(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


class Daemon:
    """A running daemon: `url` of its first endpoint, all `urls`, `pid`, what it wrote to `stderr`.

    `enter` are the words of a command that runs another one in its place, somewhere else: in a network namespace.
    """

    def __init__(self, name: str, *args: str, env: Mapping[str, str] | None = None, enter: Sequence[str] = ()) -> None:
        if name == "gafferd" and not {"--keeper", "--no-keeper"} & set(args):
            args = ("--no-keeper", *args)  # tests signal and kill gafferd itself
        self.name = name
        self.args = args
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self._process = subprocess.Popen(
            [*enter, command_path(name), *args],
            env=clean_env(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read_stderr, name=f"stderr of {name}", daemon=True)
        self._reader.start()

    def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            for line in stream:
                with self._news:
                    self._lines.append(line)
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    @property
    def stderr(self) -> str:
        with self._news:
            return "".join(self._lines)

    @property
    def urls(self) -> list[str]:
        lines = self.stderr.splitlines()
        return [line.removeprefix(_LISTENING) for line in lines if line.startswith(_LISTENING)]

    @property
    def url(self) -> str:
        return self.urls[0]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def wait_for_line(self, text: str, timeout: float = START_TIMEOUT) -> str:
        """The first line on stderr that contains `text`; AssertionError when none comes."""
        deadline = time.monotonic() + timeout
        seen = 0
        with self._news:
            while True:
                for line in self._lines[seen:]:
                    if text in line:
                        return line.rstrip("\n")
                seen = len(self._lines)
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    break
                self._news.wait(left)
        raise AssertionError(f"{self} wrote no line with {text!r}; it wrote:\n{self.stderr}")

    def signal(self, signum: int) -> None:
        self._process.send_signal(signum)

    def wait(self, timeout: float = STOP_TIMEOUT) -> int:
        """Wait for its end; return the exit code."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self} still runs after {timeout} s; it wrote:\n{self.stderr}") from None
        self._reader.join(timeout)
        return code

    def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """SIGTERM, then exit code 0 within `timeout` seconds; nothing when it has ended already."""
        if self.returncode is None:
            self.signal(signal.SIGTERM)
            code = self.wait(timeout)
            assert code == 0, f"{self} ended with {code}; it wrote:\n{self.stderr}"

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self._process.kill()
        self.wait()

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"


@contextmanager
def daemon(name: str, *args: str, env: Mapping[str, str] | None = None, enter: Sequence[str] = ()) -> Iterator[Daemon]:
    """Run an installed daemon until the block ends; it is listening when the block begins."""
    running = Daemon(name, *args, env=env, enter=enter)
    try:
        running.wait_for_line(_LISTENING)
        yield running
        running.stop()
    finally:
        if running.returncode is None:
            running.kill()
        running.wait()


@contextmanager
def lookupd(*args: str, env: Mapping[str, str] | None = None, enter: Sequence[str] = ()) -> Iterator[Daemon]:
    """A gaffer_lookupd on a free loopback port, unless `args` bind it elsewhere; it needs no time to warm up."""
    warm = () if any(arg.split("=")[0] == "--warmup" for arg in args) else ("--warmup", "0")
    with daemon("gaffer_lookupd", *_bound(args), *warm, env=env, enter=enter) as running:
        yield running


@contextmanager
def gafferd(
    *args: str, state_dir: str | Path | None = None, env: Mapping[str, str] | None = None, enter: Sequence[str] = ()
) -> Iterator[Daemon]:
    """A gafferd on a free loopback port with a state directory of its own.

    A `state_dir` that is given is kept. Processes that a killed gafferd left are ended with the block.
    """
    home = tempfile.mkdtemp(prefix="gafferd-")
    state = str(state_dir or Path(home) / "state")
    try:
        options = ("--state-dir", state, *_bound(args))
        with daemon("gafferd", *options, env={"HOME": home, **(env or {})}, enter=enter) as running:
            yield running
    finally:
        kill_leftovers(state)
        shutil.rmtree(home, ignore_errors=True)


def kill_leftovers(state_dir: str | Path) -> None:
    """Kill the processes that carry the cookie of the node whose state directory this is."""
    try:
        node_id = msgspec.json.decode((Path(state_dir) / "node.json").read_bytes())["id"]
    except FileNotFoundError:
        return
    cookie = f"GAFFER_PROCESS={node_id}:".encode()
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if any(variable.startswith(cookie) for variable in environ.read_bytes().split(b"\0")):
                os.kill(int(environ.parent.name), signal.SIGKILL)
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue


def _bound(args: tuple[str, ...]) -> tuple[str, ...]:
    if any(arg.split("=")[0] == "--bind" for arg in args):
        return args
    return ("--bind", "127.0.0.1:0", *args)
