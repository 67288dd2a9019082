"""One OS process: spawn it, watch its exit, signal it and all that belongs to it, read and write its streams."""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from gaffer import launch, procfs, stats
from gaffer.config import ProcessConfig
from gaffer.errors import ProcessError
from gaffer.names import JobName
from gaffer.pipes import Input, Output, Tap
from gaffer.reaper import COOKIE, Reaper
from gaffer.rules import FlappingInfo
from gaffer.sampler import Sampler, StatListener
from gaffer.streams import Ring
from gaffer.util import parse_signal_value

__all__ = ["FlappingInfo", "Process", "ProcessConfig", "ProcessRecord", "Recorder"]

log = logging.getLogger("gaffer.process")

STDIN_LABELS = ("stdin", "ttin")

IoListener = Callable[[str, dict[str, Any]], Any]


class ProcessRecord(msgspec.Struct, frozen=True):
    """What must be known of a process to find it again after the daemon was killed.

    `start_time` in clock ticks since boot (field 22 of proc_pid_stat(5)), `graceful_timeout` in seconds.
    """

    pid: int
    job: str
    slot: int
    os_pid: int
    pgid: int
    start_time: int
    boot_id: str
    cookie: str
    graceful_timeout: float
    detach: bool


class Recorder(Protocol):
    """Keeps the records of living processes somewhere that outlives the daemon."""

    def spawned(self, record: ProcessRecord) -> None:
        """A process was started."""

    def ended(self, pid: int) -> None:
        """Nothing is left of the process with the internal id `pid`."""


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended: `term_signal` is 0 unless a signal ended it."""

    exit_code: int
    term_signal: int


class Process:
    """A process and its streams.

    `pid` is the internal id, `os_pid` the system's. `on_exit(process, status)` is called on the loop when the leader
    has ended, `on_gone(process)` when nothing of its tree is left and the OS pid was given back.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        config: ProcessConfig,
        *,
        pid: int,
        job: JobName,
        reaper: Reaper,
        sampler: Sampler,
        slot: int = 0,
        once: bool = False,
        env: Mapping[str, str] | None = None,
        port: int | None = None,
        cookie: str = "",
        capture_all: bool = False,
        on_exit: "Callable[[Process, ExitStatus], Any]" = lambda process, status: None,
        on_gone: "Callable[[Process], Any]" = lambda process: None,
    ) -> None:
        self.loop = loop
        self.config = config
        self.pid = pid
        self.job = job
        self.name = job.display
        self.slot = slot
        self.once = once
        self.port = port
        self.cookie = cookie
        self.os_pid = 0
        self.started_at = 0.0  # wall clock, for people
        self.exit_status: ExitStatus | None = None
        self.closed = False
        self.last_write_offsets: dict[str, int] = {}  # by label: where the ring ended when stdin was last written
        self._extra = dict(env or {})
        self._capture_all = capture_all
        self._reaper = reaper
        self._sampler = sampler
        self._on_exit = on_exit
        self._on_gone = on_gone
        self._child: launch.Child | None = None
        self._spawned = 0.0
        self._env: dict[str, str] = {}
        self._argv: list[str] = []
        self._outputs: list[Output] = []
        self._rings: dict[str, Ring] = {}
        self._unlabelled: list[Ring] = []
        self._input: Input | None = None
        self._taps: dict[tuple[str, IoListener], list[Tap]] = {}

    # Life

    def spawn(self) -> None:
        """Start the process; raises StartFailed, and leaves nothing behind then. To be called on the loop."""
        config = self.config
        variables = {COOKIE: self.cookie} if self.cookie else {}
        if self.slot:
            variables["GAFFER_INSTANCE"] = str(self.slot)
        if self.port is not None and "PORT" not in config.env and "PORT" not in self._extra:
            variables["PORT"] = str(self.port)
        self._env = launch.environment(config, {**self._extra, **variables})
        self._argv = launch.arguments(config, self._env)
        labels = config.redirect_output
        capture = self._capture_all and not config.detach
        merged = len(labels) == 2 and labels[0] == labels[1]
        child = launch.launch(
            config,
            self._env,
            stdout=launch.CAPTURE if labels or capture else launch.DISCARD,
            stderr=launch.MERGE if merged else launch.CAPTURE if len(labels) == 2 or capture else launch.DISCARD,
        )
        self.started_at = time.time()
        self.attach(child)

    def attach(self, child: launch.Child) -> None:
        """Take over a running process and our ends of its pipes."""
        self._child = child
        self.os_pid = child.os_pid
        self._spawned = time.monotonic()
        self._reaper.add(self, confine=not self.config.detach)
        for index, fd in enumerate((child.stdout, child.stderr)):
            if fd is not None:
                ring = Ring()
                if index < len(self.config.redirect_output):
                    self._rings[self.config.redirect_output[index]] = ring
                else:
                    self._unlabelled.append(ring)
                self._outputs.append(Output(self.loop, fd, ring))
        child.stdout = child.stderr = None
        if child.stdin is not None:
            self._input = Input(self.loop, child.stdin)
            child.stdin = None
        if child.pidfd is not None:
            self.loop.add_reader(child.pidfd, self._leader_exited)
        else:
            threading.Thread(target=self._wait_in_thread, daemon=True).start()

    def release(self) -> None:
        """Stop watching the process and let it live (detach)."""
        child = self._child
        if child is None or child.popen is None:
            return
        self._close_streams()
        if child.pidfd is not None:
            self.loop.remove_reader(child.pidfd)
        self._reaper.remove(self)
        launch.close(child)
        child.popen.returncode = 0  # nobody is going to wait for it
        self._child = None
        self.closed = True

    def _wait_in_thread(self) -> None:
        os.waitid(os.P_PID, self.os_pid, os.WEXITED | os.WNOWAIT)
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._leader_exited)

    def _leader_exited(self) -> None:
        child = self._child
        if child is None or self.exit_status is not None:
            return
        # WNOWAIT leaves the leader a zombie: it pins the group id, so that signals to the group can't hit a stranger.
        result = os.waitid(os.P_PID, self.os_pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if result is None:
            return
        if child.pidfd is not None:
            self.loop.remove_reader(child.pidfd)
        if result.si_code == os.CLD_EXITED:
            self.exit_status = ExitStatus(result.si_status, 0)
        else:
            self.exit_status = ExitStatus(0, result.si_status)
        for output in self._outputs:
            output.drain()
        self._on_exit(self, self.exit_status)
        self._reaper.watch(self, self._tree_ended, alone=not self.config.kill_group)

    def _tree_ended(self) -> None:
        child = self._child
        if child is None:
            return
        self._reaper.remove(self)
        if child.popen is not None:
            child.popen.wait()
        self._close_streams()
        launch.close(child)
        self._child = None
        self.closed = True
        self._on_gone(self)

    def _close_streams(self) -> None:
        for output in self._outputs:
            output.drain()
            output.close()
        if self._input is not None:
            self._input.close()
        self._taps.clear()

    # Signals

    def kill(self, signum: int | str) -> None:
        """Send a signal to the leader alone; ValueError for an unknown signal, nothing when it has ended."""
        number = parse_signal_value(signum)
        if self.active:
            os.kill(self.os_pid, number)

    def stop(self) -> None:
        """Ask the process and its group to end."""
        self.signal_tree(signal.SIGTERM)

    def signal_tree(self, signum: int) -> None:
        """Send a signal to the leader, its group and the descendants that left it (only the leader by opt-out)."""
        if self._child is None:
            return
        if not self.config.kill_group:
            self.kill(signum)
            return
        # The group id can't belong to a stranger: the leader is alive or a zombie until the group is empty.
        try:
            os.killpg(self.os_pid, signum)
        except ProcessLookupError:
            pass
        except PermissionError as error:
            log.warning("%s (pid %d) can't be signalled: %s", self.job, self.os_pid, error.strerror)
        self._reaper.signal(self, signum)

    # What people ask

    @property
    def active(self) -> bool:
        """Whether the leader runs."""
        return self._child is not None and self.exit_status is None

    @property
    def uptime(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._spawned

    @property
    def info(self) -> dict[str, Any]:
        """What R-58 answers."""
        config = self.config
        return {
            "pid": self.pid,
            "name": self.name,
            "job": str(self.job),
            "cmd": config.cmd,
            "args": self._argv[1:],
            "env": dict(config.env),
            "uid": config.uid,
            "gid": config.gid,
            "os_pid": self.os_pid,
            "create_time": self.started_at,
            "commited": self.once,
            "committed": self.once,
            "redirect_output": list(config.redirect_output),
            "redirect_input": config.redirect_input,
            "custom_streams": list(config.custom_streams),
            "active": self.active,
        }

    @property
    def stats(self) -> dict[str, Any]:
        """Memory, CPU time and the like, see gaffer.stats."""
        return stats.stats_of([self])[0]

    def monitor(self, listener: StatListener) -> None:
        """Call `listener("STATS", stats)` on the loop every 0.1 s until the process ends (STAT-08)."""
        self._sampler.monitor(self.pid, listener)

    def unmonitor(self, listener: StatListener) -> None:
        """Undo `monitor`; unknown listeners are ignored."""
        self._sampler.unmonitor(self.pid, listener)

    def record(self) -> ProcessRecord:
        """What finds this process again."""
        stat = procfs.read_stat(self.os_pid)
        return ProcessRecord(
            pid=self.pid,
            job=str(self.job),
            slot=self.slot,
            os_pid=self.os_pid,
            pgid=self.os_pid,
            start_time=stat.start_time if stat else 0,
            boot_id=procfs.boot_id(),
            cookie=self.cookie,
            graceful_timeout=self.config.graceful_timeout,
            detach=self.config.detach,
        )

    # Streams

    @property
    def rings(self) -> Mapping[str, Ring]:
        """The captured outputs by label."""
        return self._rings

    def last_output(self, limit: int = 400) -> str | None:
        """The end of what it wrote last, stderr before stdout, for people."""
        for ring in reversed([*self._rings.values(), *self._unlabelled]):
            text = ring.read(ring.offset_of_tail_bytes(limit)).data.decode(errors="replace").strip()
            if text:
                return text
        return None

    def ring(self, label: str) -> Ring:
        """The output `label`; ProcessError 400 `io_not_redirected` or 404 `io_not_found` when there is none."""
        if not self.config.redirect_output:
            raise ProcessError(
                400,
                "io_not_redirected",
                f"the output of {self.job} is not redirected",
                hint="set redirect_output in the job",
            )
        if label not in self._rings:
            known = ", ".join(self._rings)
            raise ProcessError(404, "io_not_found", f"{self.job} has no output {label!r}", hint=f"there is {known}")
        return self._rings[label]

    def write(self, data: bytes | str) -> None:
        """Write to stdin, from any thread; raises ProcessError 403 `forbidden_write` when it is not redirected."""
        if self._input is None:
            raise ProcessError(
                403,
                "forbidden_write",
                f"the input of {self.job} is not redirected",
                hint="set redirect_input in the job",
            )
        for label, ring in self._rings.items():
            self.last_write_offsets[label] = ring.end
        self._input.write(data.encode() if isinstance(data, str) else bytes(data))

    def writelines(self, lines: Iterable[bytes | str]) -> None:
        """Write several pieces as one, without adding anything between them (IO-11)."""
        self.write(b"".join(line.encode() if isinstance(line, str) else bytes(line) for line in lines))

    def monitor_io(self, label: str, callback: IoListener) -> None:
        """Call `callback(label, {"event", "name", "pid", "data"})` with what comes on `label`, or on all (`.`)."""
        labels = list(self._rings) if label == "." else [label]
        for each in labels or [label]:
            tap = Tap(self.loop, self.ring(each), self._teller(each, callback))
            self._taps.setdefault((label, callback), []).append(tap)

    def unmonitor_io(self, label: str, callback: IoListener) -> None:
        """Undo `monitor_io`; unknown ones are ignored."""
        for tap in self._taps.pop((label, callback), ()):
            tap.close()

    def _teller(self, label: str, callback: IoListener) -> Callable[[bytes], Any]:
        return lambda data: callback(label, {"event": label, "name": self.name, "pid": self.pid, "data": data})
