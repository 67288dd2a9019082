"""One OS process: spawn it, watch its exit, signal it and all that belongs to it, read and write its streams."""

import asyncio
import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gaffer.errors import ProcessError
from gaffer.jobs import config as jobs_config
from gaffer.jobs.names import JobName, parse_job_name
from gaffer.jobs.records import ProcessRecord, Recorder
from gaffer.jobs.rules import FlappingInfo
from gaffer.processes import launch, procfs, stats
from gaffer.processes.reaper import COOKIE, Reaper
from gaffer.processes.sampler import Sampler, StatListener
from gaffer.runtime.signals import parse_signal_value
from gaffer.streams.log_files import LogFile, LogWriter
from gaffer.streams.process_streams import STDIN, Data, IoListener, ProcessStreams, Stream
from gaffer.streams.rings import Ring
from gaffer.streams.rotation import Rotation

__all__ = ["FlappingInfo", "Process", "ProcessConfig", "ProcessRecord", "Recorder"]

log = logging.getLogger("gaffer.process")

_IN_INFO = (
    *("pid", "os_pid", "name", "active", "cmd", "args", "env", "uid", "gid"),
    *("redirect_output", "redirect_input", "custom_streams"),
)


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended: with `exit_code`, or by `term_signal`.

    `exit_code` is None after a signal, `term_signal` 0 after an exit; both are None when unknown.

    `out_of_memory`: whether the kernel killed it because memory ran out, None when that is possible but unknown.
    """

    exit_code: int | None
    term_signal: int | None
    out_of_memory: bool | None = False


UNKNOWN_EXIT = ExitStatus(None, None)


class ProcessConfig(jobs_config.ProcessConfig):
    """How to launch the processes of one job, and how many; see gaffer.jobs.config.ProcessConfig for the settings."""

    def make_process(
        self,
        loop: asyncio.AbstractEventLoop,
        pid: int,
        label: str,
        env: Mapping[str, str] | None = None,
        on_exit: "Callable[[Process, int | None, int | None], Any] | None" = None,
    ) -> "Process":
        """A process with these settings that no manager looks after, not started yet (TPL-27).

        `pid` becomes its internal id, `label` (`session.job` or a bare name) its job, `env` goes over the settings'.
        `on_exit(process, exit_code, term_signal)` is called on the loop when it has ended; `exit_code` is None when a
        signal ended it.
        """

        def ended(process: "Process", status: ExitStatus) -> None:
            if on_exit is not None:
                on_exit(process, status.exit_code, status.term_signal)

        return Process(loop, self, pid=pid, job=parse_job_name(label), env=env, on_exit=ended)


def _with_cont(signum: int) -> tuple[int, ...]:
    """The signals to send for `signum`: a process that is stopped does not handle SIGTERM before it continues."""
    return (signum, signal.SIGCONT) if signum == signal.SIGTERM else (signum,)


class Process:
    """A process and its streams.

    `pid` is the internal id, `os_pid` the system's (0 before the start), `name` the job's. `cmd`, `args`, `env`, `uid`,
    `gid`, `cwd`, `detach`, `redirect_output`, `redirect_input` and `custom_streams` are the settings it has. `once` is
    true for one that is not kept alive. `exit_status` is None until the leader has ended, `closed` true when nothing is
    left of it. `on_exit(process, status)` is called on the loop when the leader has ended, `on_gone(process)` when
    nothing of its tree is left and the OS pid was given back.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        config: jobs_config.ProcessConfig,
        *,
        pid: int,
        job: JobName,
        reaper: Reaper | None = None,
        sampler: Sampler | None = None,
        slot: int = 0,
        once: bool = False,
        env: Mapping[str, str] | None = None,
        port: int | None = None,
        cookie: str = "",
        capture_all: bool = False,
        logs: LogWriter | None = None,
        on_exit: "Callable[[Process, ExitStatus], Any]" = lambda process, status: None,
        on_gone: "Callable[[Process], Any]" = lambda process: None,
        on_refused: "Callable[[Process, str, bool], Any]" = lambda process, message, final: None,
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
        self.started_at = 0.0  # wall clock, for display
        self.exit_status: ExitStatus | None = None
        self.closed = False
        self.graceful_timeout = config.graceful_timeout  # seconds
        self.cmd = config.cmd
        self.args = list(config.args)
        self.env = dict(config.env)
        self.uid = config.uid
        self.gid = config.gid
        self.cwd = config.cwd
        self.detach = config.detach
        self.redirect_output = list(config.redirect_output)
        self.redirect_input = config.redirect_input
        self.custom_streams = list(config.custom_streams)
        self._streams = ProcessStreams(loop, config, {"name": self.name, "pid": pid}, capture_all=capture_all)
        self._extra = dict(env or {})
        self._logs = logs
        self._alone: dict[int, Process] = {}  # itself while it runs, where no manager has it
        self._reaper = reaper or Reaper(loop)
        self._sampler = sampler or Sampler(loop, self._alone)
        self._on_exit = on_exit
        self._on_gone = on_gone
        self._on_refused = on_refused
        self._child: launch.Child | None = None
        self._spawned = 0.0
        self._ending = threading.Lock()  # held while it is signalled or given back
        self._kill_timer: asyncio.TimerHandle | None = None
        self._killed = False  # by us

    def __repr__(self) -> str:
        status = "not started" if not self.started_at else "active" if self.active else "exited"
        return f"<Process {self.pid} of {self.job}: {status}, os pid {self.os_pid or None}>"

    # Life

    def spawn(
        self, once: bool = False, graceful_timeout: float | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        """Start the process, to be called on its loop or before that runs. A process is started at most once.

        `once`, `graceful_timeout` (seconds) and `env` go over what it was made with. Raises StartFailed, and leaves
        nothing behind then.
        """
        if self.started_at:
            raise ProcessError(409, "already_started", f"process {self.pid} of {self.job} was started before")
        config = self.config
        self.once = once or self.once
        if graceful_timeout is not None:
            self.graceful_timeout = graceful_timeout
        self._extra.update(env or {})
        variables = {COOKIE: self.cookie} if self.cookie else {}
        if self.slot:
            variables["GAFFER_INSTANCE"] = str(self.slot)
        if self.port is not None and "PORT" not in config.env and "PORT" not in self._extra:
            variables["PORT"] = str(self.port)
        environment = launch.environment(config, {**self._extra, **variables})
        argv = launch.arguments(config, environment)
        child = launch.launch(
            config,
            argv,
            environment,
            stdout=self._streams.stdout,
            stderr=self._streams.stderr,
            cgroups=None if config.detach else self._reaper.cgroups,
        )
        self.args = argv[1:]
        self.started_at = time.time()
        self.attach(child)

    def adopt(self, record: ProcessRecord) -> None:
        """Watch a running process that is not our child; ProcessError (404 `process_gone`) when it is gone."""
        gone = ProcessError(404, "process_gone", f"the process {record.os_pid} of {record.job} has ended")
        try:
            pidfd = os.pidfd_open(record.os_pid)
        except OSError:
            raise gone from None
        # With the descriptor open, the number can't be given to another process without our noticing.
        stat = procfs.read_stat(record.os_pid)
        if stat is None or stat.state == "Z" or stat.start_time != record.start_time:
            os.close(pidfd)
            raise gone
        self.cookie = record.cookie
        self.started_at = time.time() - procfs.age(stat.start_time)
        self.attach(launch.Child(os_pid=record.os_pid, pidfd=pidfd))
        self._spawned -= procfs.age(stat.start_time)

    def attach(self, child: launch.Child) -> None:
        """Take over a running process and our ends of its pipes."""
        self._child = child
        self.os_pid = child.os_pid
        self._spawned = time.monotonic()
        self._alone[self.pid] = self
        self._reaper.add(self)
        self._streams.connect(child, self._log_file)
        if child.pidfd is not None:
            self.loop.add_reader(child.pidfd, self._leader_exited)
        else:
            threading.Thread(target=self._wait_in_thread, daemon=True).start()

    def _log_file(self, kind: str) -> LogFile | None:
        config = self.config
        if self._logs is None or not config.logs:
            return None
        return self._logs.file(f"{self.job}.{self.slot}.{kind}.log", Rotation(config.log_max_bytes, config.log_backups))

    def release(self) -> None:
        """Stop watching the process and let it live (detach)."""
        child = self._child
        if child is None:
            return
        self._streams.close()
        if child.pidfd is not None:
            self.loop.remove_reader(child.pidfd)
        self._alone.clear()
        self._reaper.remove(self)
        launch.close(child)
        if child.popen is not None:
            child.popen.returncode = 0  # so that subprocess does not wait for it
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
        if child.popen is None:
            self.exit_status = UNKNOWN_EXIT
        else:
            # WNOWAIT leaves the leader a zombie: it pins the group id, so signals to the group can't hit a stranger.
            result = os.waitid(os.P_PID, self.os_pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            if result is None:
                return
            exited = result.si_code == os.CLD_EXITED
            self.exit_status = (
                ExitStatus(result.si_status, 0)
                if exited
                else ExitStatus(None, result.si_status, self._ran_out_of_memory(result.si_status))
            )
        if child.pidfd is not None:
            self.loop.remove_reader(child.pidfd)
        self._streams.read_available()
        # Its scan comes before what the exit brings about: most often nothing is left to be signalled then.
        self._reaper.watch(self, self._tree_ended, alone=not self.config.kill_group)
        self._on_exit(self, self.exit_status)

    def _ran_out_of_memory(self, term_signal: int) -> bool | None:
        if term_signal != signal.SIGKILL or self._killed:
            return False
        return self._reaper.ran_out_of_memory(self)

    def _tree_ended(self) -> None:
        child = self._child
        if child is None:
            return
        self._alone.clear()
        self._reaper.remove(self)
        with self._ending:
            if child.popen is not None:
                child.popen.poll()  # a zombie, which this reaps
            self._child = None
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        self._streams.close()
        launch.close(child)
        self.closed = True
        self._on_gone(self)

    # Signals

    def kill(self, signum: int | str) -> None:
        """Send a signal to the leader alone, nothing when it has ended. SIGTERM is followed by SIGCONT.

        Raises ValueError for an unknown signal, ProcessError (409 `not_permitted`) when it runs as another user.
        """
        number = parse_signal_value(signum)
        try:
            self._signal_leader(*_with_cont(number))
        except PermissionError:
            raise ProcessError(
                409,
                "not_permitted",
                f"process {self.pid} (pid {self.os_pid}) belongs to uid {procfs.owner(self.os_pid)}: "
                f"uid {os.geteuid()} is not permitted to signal it",
            ) from None

    def _signal_leader(self, *signums: int) -> None:
        with self._ending:
            child = self._child
            if child is None or self.exit_status is not None:
                return
            self._killed = self._killed or signal.SIGKILL in signums
            with contextlib.suppress(ProcessLookupError):
                for signum in signums:
                    if child.pidfd is None:
                        os.kill(self.os_pid, signum)
                    else:
                        signal.pidfd_send_signal(child.pidfd, signum)

    def stop(self) -> None:
        """Stop the process and its tree, from any thread; kill the rest after `graceful_timeout`."""
        self.loop.call_soon_threadsafe(self._stop)

    def close(self) -> None:
        """Kill the process and its tree, from any thread; `closed` is true once all was given back."""
        self.loop.call_soon_threadsafe(self._close)

    def _stop(self) -> None:
        if self._child is not None and self._kill_timer is None:
            self.signal_tree(signal.SIGTERM)
            self._kill_timer = self.loop.call_later(self.graceful_timeout, self.signal_tree, signal.SIGKILL)

    def _close(self) -> None:
        if self._child is None:
            self.closed = True
        self.signal_tree(signal.SIGKILL)

    def signal_tree(self, signum: int) -> None:
        """Send a signal to the leader, its group and the descendants that left it (only the leader by opt-out)."""
        if self._child is None:
            return
        if self.config.kill_group:
            self._killed = self._killed or signum == signal.SIGKILL
            self._reaper.signal(self, signum)
            return
        try:
            self._signal_leader(*_with_cont(signum))
        except PermissionError as error:
            self.refused(f"can't signal {self.os_pid}: {error.strerror}", final=signum == signal.SIGKILL)

    @property
    def pins_group(self) -> bool:
        """Whether its group id can't belong to a stranger.

        Our own leader is alive, or a zombie until the group is empty. The id of an adopted one may be anybody's once it
        has ended.
        """
        child = self._child
        return child is not None and (child.popen is not None or self.exit_status is None)

    def refused(self, message: str, *, final: bool) -> None:
        """Note that it can't be signalled, or does not end; `final` when nothing more is tried."""
        log.warning("%s (pid %d) can't be ended: %s", self.job, self.os_pid, message)
        self._on_refused(self, message, final)

    # Queries

    @property
    def status(self) -> str:
        """What it does, in psutil's words (`running`, `sleeping`, `stopped`...); `not started`, `exited`."""
        if not self.started_at:
            return "not started"
        if not self.active:
            return "exited"
        import psutil  # late, see gaffer.processes.stats

        try:
            return str(psutil.Process(self.os_pid).status())
        except psutil.Error:
            return "exited"

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
        return {
            **{key: getattr(self, key) for key in _IN_INFO},
            "job": str(self.job),
            "create_time": self.started_at,
            "commited": self.once,
            "committed": self.once,
        }

    @property
    def stats(self) -> dict[str, Any]:
        """Memory, CPU time and the like, see gaffer.processes.stats."""
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
            port=self.port,
        )

    # Streams

    @property
    def streams(self) -> Mapping[str, Stream]:
        """Its streams by label: `stdin`, the redirected outputs, the custom streams."""
        return self._streams.by_label

    @property
    def rings(self) -> Mapping[str, Ring]:
        """What it wrote, by label."""
        return self._streams.rings

    @property
    def last_write_offsets(self) -> dict[str, int]:
        """Where each ring ended when something was last written to the process, by label."""
        return self._streams.last_write_offsets

    def last_output(self) -> str | None:
        """The end of its last output."""
        return self._streams.last_output()

    def ring(self, label: str) -> Ring:
        """What it wrote to `label`; ProcessError 400 `io_not_redirected` or 404 `io_not_found` when nothing reads it.

        The first one is an OSError too.
        """
        return self._streams.ring(label)

    def write(self, data: Data) -> None:
        """Write to stdin, from any thread; ProcessError 403 `forbidden_write`, an OSError too, when not redirected."""
        self._streams.writable(STDIN).write(data)

    def writelines(self, lines: Iterable[Data], stream: str = STDIN) -> None:
        """Write several pieces as one to stdin or another stream, without adding anything between them (IO-11)."""
        self._streams.writable(stream).writelines(lines)

    def monitor_io(self, label: str, listener: IoListener) -> None:
        """Call `listener(label, {"event", "name", "pid", "data"})` for output on `label`, or on any stream (`.`)."""
        self._streams.subscribe(label, listener)

    def unmonitor_io(self, label: str, listener: IoListener) -> None:
        """Undo `monitor_io`; unknown ones are ignored."""
        self._streams.unsubscribe(label, listener)
