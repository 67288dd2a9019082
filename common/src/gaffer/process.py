"""One OS process: spawn it, watch for its exit, signal it and its descendants, read and write its streams."""

import asyncio
import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

from msgspec import Struct, structs

from gaffer.errors import ProcessError
from gaffer.jobs import config as jobs_config
from gaffer.jobs.names import JobName, parse_job_name
from gaffer.jobs.recorder import Recorder
from gaffer.jobs.records import ProcessRecord
from gaffer.jobs.rollout import RolloutKind
from gaffer.jobs.rules import FlappingInfo, port_number
from gaffer.jobs.slot import SlotState
from gaffer.jobs.usage import ResourceUsage
from gaffer.processes import launch, procfs, programs, stats
from gaffer.processes.reaper import COOKIE, Reaper
from gaffer.processes.rusage import usage_of_zombie
from gaffer.processes.sampler import Sampler, StatListener
from gaffer.processes.survivors import ExitSource, Survivor
from gaffer.runtime.signals import parse_signal_value
from gaffer.streams.journal import StreamKeeper
from gaffer.streams.log_files import LogFile, LogWriter
from gaffer.streams.log_formats import make_formatter
from gaffer.streams.log_names import LogName
from gaffer.streams.process_streams import STDIN, Data, IoListener, ProcessStreams, Stream
from gaffer.streams.rings import Ring
from gaffer.streams.rotation import Rotation

__all__ = ["FlappingInfo", "Process", "ProcessConfig", "ProcessRecord", "Recorder"]

log = logging.getLogger("gaffer.process")

_IN_INFO = (
    *("pid", "os_pid", "name", "active", "cmd", "args", "env", "uid", "gid"),
    *("redirect_output", "redirect_input", "custom_streams"),
)


class ExitStatus(Struct, frozen=True):
    """The exit status of a process.

    `exit_code` is None if a signal ended it, `term_signal` is 0 if it exited; both are None if unknown.

    `out_of_memory`: whether the kernel killed it because memory ran out; None if that is possible but not certain.
    `usage`: what it and its reaped descendants used; None if unknown. `wait_status` is the status as of waitpid(2).
    `ago`: how many seconds before we learned of it the process exited, as while no manager ran.
    """

    exit_code: int | None
    term_signal: int | None
    out_of_memory: bool | None = False
    usage: ResourceUsage | None = None

    wait_status: int | None = None
    ago: float = 0.0

    @classmethod
    def of(
        cls, wait_status: int, out_of_memory: Callable[[int], bool | None], usage: ResourceUsage | None = None
    ) -> Self:
        """Make it from a status as of waitpid(2); `out_of_memory(term_signal)` is asked for one that a signal ended."""
        if os.WIFEXITED(wait_status):
            return cls(os.WEXITSTATUS(wait_status), 0, usage=usage, wait_status=wait_status)
        signum = os.WTERMSIG(wait_status)
        return cls(None, signum, out_of_memory(signum), usage, wait_status)

    @classmethod
    def known(cls, wait_status: int | None) -> Self:
        """Make it from a status as of waitpid(2) that somebody else saw, None if nobody did."""
        if wait_status is None:
            return cls(None, None)
        return cls.of(wait_status, lambda signum: None if signum == signal.SIGKILL else False)


UNKNOWN_EXIT = ExitStatus(None, None)
_REPORT_TIMEOUT = 5.0  # seconds that the parent of an adopted process has to report its exit status


class _Keeping(NamedTuple):
    """Keeps descriptors of one process."""

    recorder: Recorder
    pid: int

    def keep(self, name: str, fd: int) -> None:
        self.recorder.keep(self.pid, name, fd)

    def drop(self, name: str) -> None:
        self.recorder.drop(self.pid, name)


def _identified(child: launch.Child, survivor: Survivor) -> procfs.Stat | None:
    """Open the pidfd of a survivor unless it is open; return its state, None if it is gone."""
    record, held = survivor.record, survivor.parent is not None
    with contextlib.suppress(OSError):
        if child.pidfd is None:
            child.pidfd = os.pidfd_open(record.os_pid)
    if child.pidfd is None:
        return None
    # While the descriptor is open, reuse of the pid can be detected.
    stat = procfs.read_stat(record.os_pid)
    if stat is None or procfs.pid_of(child.pidfd) != record.os_pid or (stat.state in "ZX" and not held):
        return None
    same = stat.start_time == record.start_time or (held and not record.start_time)
    return stat if same else None


def _wait_status(result: "os.waitid_result") -> int:
    """Return the wait status that a result of waitid(2) stands for."""
    if result.si_code == os.CLD_EXITED:
        return result.si_status << 8
    return result.si_status | (0x80 if result.si_code == os.CLD_DUMPED else 0)


class ProcessConfig(jobs_config.JobConfig):
    """The configuration of a job; see gaffer.jobs.config.JobConfig for the settings."""

    def make_process(
        self,
        loop: asyncio.AbstractEventLoop,
        pid: int,
        label: str,
        env: Mapping[str, str] | None = None,
        on_exit: "Callable[[Process, int | None, int | None], Any] | None" = None,
    ) -> "Process":
        """Return a new process with these settings, not started and not supervised by a manager.

        `pid` becomes its id, `label` (`session.job` or a bare name) its job; `env` overrides variables of the settings.
        `on_exit(process, exit_code, term_signal)` is called on the loop when it has exited; `exit_code` is None if a
        signal ended it.
        """

        def ended(process: "Process", status: ExitStatus) -> None:
            if on_exit is not None:
                on_exit(process, status.exit_code, status.term_signal)

        return Process(loop, self, pid=pid, job=parse_job_name(label), env=env, on_exit=ended)


class Process:
    """A process and its streams.

    `pid` is Gaffer's id, `os_pid` the system's (0 before the start), `name` that of its job. `cmd`, `args`, `env`,
    `uid`, `gid`, `cwd`, `detach`, `redirect_output`, `redirect_input` and `custom_streams` are its settings. `once` is
    true for a process that is not kept alive. `port` is its PORT; its variables may set it at the start. `exit_status`
    is None until the leader has exited; `program` has the files of its program as they were at the start, and is empty
    for an adopted process; `closed` is true once its whole tree is gone. `on_exit(process, status)` is
    called on the loop when the leader has exited, `on_gone(process)` when the whole tree is gone and the leader is
    reaped.

    `sockets` are the names and descriptors of listening sockets to pass to the program, sd_listen_fds(3), and
    `notify_socket` is the path that it can notify, sd_notify(3).
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        config: jobs_config.JobConfig,
        *,
        pid: int,
        job: JobName,
        reaper: Reaper | None = None,
        sampler: Sampler | None = None,
        slot: int = 0,
        once: bool = False,
        restarts: int = 0,
        env: Mapping[str, str] | None = None,
        port: int | None = None,
        cookie: str = "",
        sockets: Sequence[tuple[str, int]] = (),
        notify_socket: str = "",
        capture_all: bool = False,
        logs: LogWriter | None = None,
        recorder: Recorder | None = None,
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
        self.slot_state = SlotState.STARTING  # while it runs, as in its record
        self.closed = False
        self.program: tuple[programs.FileMark, ...] = ()
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
        self._sockets = tuple(sockets)
        self._notify_socket = notify_socket
        self._logs = logs
        self._recorder = recorder
        self._restarts = restarts  # of its job
        self._parent: ExitSource | None = None  # of an adopted process
        self._held = False  # by that, once it has exited
        self._reporting: asyncio.TimerHandle | None = None
        self._alone: dict[int, Process] = {}  # this process while it runs, for its own sampler
        self._reaper = reaper or Reaper(loop)
        self._sampler = sampler or Sampler(loop, self._alone)
        self._on_exit = on_exit
        self._on_gone = on_gone
        self._on_refused = on_refused
        self._child: launch.Child | None = None
        self._spawned = 0.0
        self._ending = threading.Lock()  # held while it is signalled or reaped
        self._kill_timer: asyncio.TimerHandle | None = None
        self._frozen = False
        self._killed = False  # by us

    def __repr__(self) -> str:
        status = "not started" if not self.started_at else "active" if self.active else "exited"
        return f"<Process {self.pid} of {self.job}: {status}, os pid {self.os_pid or None}>"

    # Life

    def spawn(
        self, once: bool = False, graceful_timeout: float | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        """Start the process; call it on the loop, or before the loop runs. A process can be started only once.

        `once`, `graceful_timeout` (seconds) and `env` override the constructor's. Raises StartFailed, leaving nothing
        behind, and ProcessError (409 `already_started`).
        """
        if self.started_at:
            raise ProcessError(409, "already_started", f"process {self.pid} of {self.job} was already started")
        config = self.config
        self.once = once or self.once
        if graceful_timeout is not None:
            self.graceful_timeout = graceful_timeout
        self._extra.update(env or {})
        given = launch.variables(config, self._extra, job=self.job, slot=self.slot, port=self.port)
        self.port = port_number(given.get("PORT", ""))
        if self.cookie:
            given[COOKIE] = self.cookie
        if self._notify_socket:
            given["NOTIFY_SOCKET"] = self._notify_socket
        environment = launch.environment(config, given)
        argv = launch.arguments(config, environment)
        child = launch.launch(
            config,
            argv,
            environment,
            stdout=self._streams.stdout,
            stderr=self._streams.stderr,
            cgroups=None if config.detach else self._reaper.cgroups,
            sockets=self._sockets,
        )
        self.args = argv[1:]
        self.program = programs.mark_files(argv, environment["PATH"], config.cwd)
        self.started_at = time.time()
        self.attach(child)

    def adopt(self, survivor: Survivor) -> None:
        """Watch a process that is not our child; takes over its descriptors.

        Raises ProcessError (404 `process_gone`) if it has exited, unless its parent reports how.
        """
        record = survivor.record
        child = launch.Child.of(record.os_pid, survivor.descriptors, self.config.custom_streams)
        stat = _identified(child, survivor)
        if stat is None:
            launch.close(child)
            raise ProcessError(404, "process_gone", f"the process {record.os_pid} of {record.job} has exited")
        self.cookie = record.cookie
        self.port = record.port
        self.started_at = record.started_at or time.time() - procfs.age(stat.start_time)
        self._parent = survivor.parent
        self._held = survivor.parent is not None and stat.ppid == survivor.parent.pid
        self.attach(child)
        self._spawned = record.spawned_at or self._spawned - procfs.age(stat.start_time)
        if self._parent is not None:
            self._parent.watch(self.os_pid, self._on_report)

    def attach(self, child: launch.Child) -> None:
        """Watch the running process `child` and use our ends of its pipes."""
        self._child = child
        self.os_pid = child.os_pid
        self._spawned = time.monotonic()
        self._alone[self.pid] = self
        self._reaper.add(self)
        keeper = self._register(child)
        self._streams.connect(child, self._log_file, keeper)
        if child.pidfd is not None:
            self.loop.add_reader(child.pidfd, self._leader_exited)
        else:
            threading.Thread(target=self._wait_in_thread, daemon=True).start()

    def _register(self, child: launch.Child) -> StreamKeeper | None:
        """Have what outlives us recorded; return what keeps further descriptors, None if none are to be kept."""
        if self._recorder is None or self.detach:  # which is found again by its record alone
            return None
        kept = child.descriptors(self.custom_streams) if self.config.survive else {}
        # Without its pidfd, one that is nobody's child would be taken for one that has exited.
        if child.popen is not None or (self._parent is None and kept):
            self._recorder.started(self.record(start_time=0), kept)
        return _Keeping(self._recorder, self.pid) if self.config.survive else None

    def _log_file(self, kind: str) -> LogFile | None:
        config = self.config
        if self._logs is None or not config.logs:
            return None
        return self._logs.file(
            str(LogName(str(self.job), self.slot, kind)),
            Rotation(config.log_max_bytes, config.log_backups),
            make_formatter(config.log_format, kind, self.pid),
            str(self.job),
        )

    def release(self) -> None:
        """Stop watching the process and leave it running (detach)."""
        child = self._child
        if child is None:
            return
        self._streams.close()
        if child.pidfd is not None:
            self.loop.remove_reader(child.pidfd)
        self._let_go(child)

    def freeze(self) -> None:
        """Do not notice its exit any more; its streams go on."""
        child = self._child
        if child is None:
            return
        self._frozen = True
        if child.pidfd is not None and self.exit_status is None:
            self.loop.remove_reader(child.pidfd)
        if self._kill_timer is not None:
            self._kill_timer.cancel()

    def leave(self) -> None:
        """After `freeze`: close our ends of its streams and forget it, with its exit status if it has exited.

        Its output that was not read, and input that it has not read, are left to whoever has duplicates of the pipes.
        """
        child = self._child
        if child is not None:
            self._streams.release()
            self._let_go(child)

    def _let_go(self, child: launch.Child) -> None:
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
        if child is None or self.exit_status is not None or self._frozen:
            return
        if child.popen is not None:
            # WNOWAIT leaves the leader a zombie, which keeps its group id from being reused by another group.
            result = os.waitid(os.P_PID, self.os_pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            if result is not None:
                self._exited(child, _wait_status(result))
        elif self._parent is None:
            self._exited(child, None)
        elif child.pidfd is not None:
            self.loop.remove_reader(child.pidfd)
            self._reporting = self.loop.call_later(_REPORT_TIMEOUT, self._on_report, None)

    def _on_report(self, wait_status: int | None, exited_at: float | None = None) -> None:
        """Handle what the parent of an adopted process reports: how it exited, or that this can't be known."""
        child = self._child
        if child is None or self.exit_status is not None or self._frozen:
            return
        if wait_status is not None or self._reporting is not None:
            self._exited(child, wait_status, exited_at)
        else:
            self._parent = None  # it may go on; its exit shows at its pidfd

    def _exited(self, child: launch.Child, wait_status: int | None, exited_at: float | None = None) -> None:
        if wait_status is None:
            status = UNKNOWN_EXIT
        else:
            usage = usage_of_zombie(self.os_pid)
            status = ExitStatus.of(wait_status, self._ran_out_of_memory, usage)
        self.exit_status = status if exited_at is None else structs.replace(status, ago=time.monotonic() - exited_at)
        if self._reporting is not None:
            self._reporting.cancel()
        if child.pidfd is not None:
            self.loop.remove_reader(child.pidfd)
        self._streams.read_available()
        # Scheduled before the consequences of the exit: usually the tree is already gone when they would signal it.
        self._reaper.watch(self, self._tree_ended, alone=not self.config.kill_group)
        self._on_exit(self, self.exit_status)

    def _ran_out_of_memory(self, term_signal: int) -> bool | None:
        if term_signal != signal.SIGKILL or self._killed:
            return False
        return self._reaper.ran_out_of_memory(self)

    def _tree_ended(self) -> None:
        child = self._child
        if child is None or self._frozen:
            return
        self._alone.clear()
        self._reaper.remove(self)
        with self._ending:
            if child.popen is not None:
                child.popen.poll()  # reaps the zombie
            self._child = None
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        self._streams.close()
        launch.close(child)
        self.closed = True
        self._on_gone(self)

    # Signals

    def kill(self, signum: int | str) -> None:
        """Send a signal to the leader only; no-op if it has exited.

        SIGTERM and the stop signal of the job are followed by SIGCONT: a stopped process handles no other signal.
        Raises ValueError for an unknown signal, ProcessError (409 `not_permitted`) if it runs as another user.
        """
        number = parse_signal_value(signum)
        try:
            self._signal_leader(number, *((signal.SIGCONT,) if number in (signal.SIGTERM, self._stop_signal) else ()))
        except PermissionError:
            raise ProcessError(
                409,
                "not_permitted",
                f"process {self.pid} (pid {self.os_pid}) belongs to uid {procfs.owner(self.os_pid)}: "
                f"uid {os.geteuid()} is not permitted to signal it",
            ) from None

    @property
    def _stop_signal(self) -> int:
        return parse_signal_value(self.config.stop_signal)

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
        """Stop the process and its tree; kill what is left after `graceful_timeout`. Callable from any thread."""
        self.loop.call_soon_threadsafe(self._stop)

    def close(self) -> None:
        """Kill the process and its tree; `closed` becomes true once they are gone. Callable from any thread."""
        self.loop.call_soon_threadsafe(self._close)

    def _stop(self) -> None:
        if self._child is not None and self._kill_timer is None:
            self.signal_tree(self._stop_signal)
            self._kill_timer = self.loop.call_later(self.graceful_timeout, self.signal_tree, signal.SIGKILL)

    def _close(self) -> None:
        if self._child is None:
            self.closed = True
        self.signal_tree(signal.SIGKILL)

    def signal_tree(self, signum: int) -> None:
        """Send a signal to the leader, its group and other descendants; without `kill_group`, only to the leader.

        All but SIGKILL are followed by SIGCONT.
        """
        if self._child is None:
            return
        if self.config.kill_group:
            self._killed = self._killed or signum == signal.SIGKILL
            self._reaper.signal(self, signum)
            return
        try:
            self._signal_leader(signum, *(() if signum == signal.SIGKILL else (signal.SIGCONT,)))
        except PermissionError as error:
            self.refused(f"can't signal {self.os_pid}: {error.strerror}", final=signum == signal.SIGKILL)

    @property
    def pins_group(self) -> bool:
        """Whether its group id is certain not to have been reused.

        A leader that we started is alive, or a zombie until the group is empty, as is one whose parent is still there.
        The id of another adopted leader may be reused once it has exited.
        """
        child = self._child
        if child is None:
            return False
        held = self._held and self._parent is not None and self._parent.connected
        return held or child.popen is not None or self.exit_status is None

    @property
    def is_child(self) -> bool:
        """Whether we started it, so that orphans of its tree become our children if we are a subreaper."""
        return self._child is not None and self._child.popen is not None

    def refused(self, message: str, *, final: bool) -> None:
        """Report that it can't be signalled or does not exit; `final` if nothing more will be tried."""
        about = {"job": self.job, "pid": self.pid}
        log.warning("%s (pid %d) can't be ended: %s", self.job, self.os_pid, message, extra=about)
        self._on_refused(self, message, final)

    # Queries

    @property
    def status(self) -> str:
        """Its status as psutil names it (`running`, `sleeping`, `stopped`...), or `not started` or `exited`."""
        if not self.started_at:
            return "not started"
        if not self.active:
            return "exited"
        import psutil  # deferred, see gaffer.processes.stats

        try:
            return str(psutil.Process(self.os_pid).status())
        except psutil.Error:
            return "exited"

    @property
    def active(self) -> bool:
        """Whether the leader is running."""
        return self._child is not None and self.exit_status is None

    @property
    def uptime(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._spawned

    @property
    def info(self) -> dict[str, Any]:
        """Its ids, settings and start time, as GET /PID returns them."""
        return {
            **{key: getattr(self, key) for key in _IN_INFO},
            "job": str(self.job),
            "create_time": self.started_at,
            "commited": self.once,
            "committed": self.once,
        }

    @property
    def stats(self) -> dict[str, Any]:
        """Its resource usage, see gaffer.processes.stats.get_process_stats."""
        return stats.stats_of([self])[0]

    def monitor(self, listener: StatListener) -> None:
        """Call `listener("STATS", stats)` on the loop every 0.1 s until the process exits."""
        self._sampler.monitor(self.pid, listener)

    def unmonitor(self, listener: StatListener) -> None:
        """Undo `monitor`; unknown listeners are ignored."""
        self._sampler.unmonitor(self.pid, listener)

    def record(
        self,
        start_time: int | None = None,
        current: jobs_config.JobConfig | None = None,
        outdated: RolloutKind | None = None,
    ) -> ProcessRecord:
        """Return the record from which a later daemon can find this process.

        Live settings are those of the `current` definition of its job, by default those it was started with.
        `outdated` is the kind of the rollout that is to replace it.
        `start_time` is read from /proc by default, which is slow while the kernel sets up a new program.
        """
        if start_time is None:
            stat = procfs.read_stat(self.os_pid)
            start_time = stat.start_time if stat else 0
        current = current or self.config
        return ProcessRecord(
            pid=self.pid,
            job=str(self.job),
            slot=self.slot,
            os_pid=self.os_pid,
            pgid=self.os_pid,
            start_time=start_time,
            boot_id=procfs.boot_id(),
            cookie=self.cookie,
            graceful_timeout=current.graceful_timeout,
            detach=self.config.detach,
            port=self.port,
            state=self.slot_state,
            definition=self.config.launch_digest,
            stop_signal=current.stop_signum,
            orphans=current.orphan_policy(self.config),
            restarts=self._restarts,
            outdated=outdated,
            started_at=self.started_at,
            spawned_at=self._spawned,
        )

    # Streams

    @property
    def streams(self) -> Mapping[str, Stream]:
        """Its streams by label: `stdin`, the redirected outputs, the custom streams."""
        return self._streams.by_label

    @property
    def rings(self) -> Mapping[str, Ring]:
        """Its output, by label."""
        return self._streams.rings

    @property
    def last_write_offsets(self) -> dict[str, int]:
        """The end offset of each ring at the last write to the process, by label."""
        return self._streams.last_write_offsets

    @property
    def captured(self) -> Sequence[Ring]:
        """What is read of its stdout and stderr, with a label or without one; one ring for both if they are merged."""
        return self._streams.captured

    def last_output(self) -> str | None:
        """Return the end of its latest output, or None."""
        return self._streams.last_output()

    def last_lines(self, count: int = 20, limit: int = 64 * 1024) -> str | None:
        """Return the last lines of its output, at most `count` and of at most `limit` bytes, or None.

        Those of stderr come last; those of stdout make up the number. Bytes that are not UTF-8 are replaced.
        """
        return self._streams.last_lines(count, limit)

    def ring(self, label: str) -> Ring:
        """Return the output `label`.

        Raises ProcessError: 400 `io_not_redirected` (also an OSError) if no output is redirected, 404 `io_not_found`
        for an unknown label.
        """
        return self._streams.ring(label)

    def writable(self, label: str) -> Stream:
        """Return the stream `label` for writing; ProcessError 403 `forbidden_write` or 404 `stream_not_found`."""
        return self._streams.writable(label)

    def when_logged(self, callback: Callable[[], object]) -> None:
        """Once it is gone: call `callback()` on the loop as soon as all its output is in its log files, or lost."""
        self._streams.when_logged(callback)

    def write(self, data: Data) -> None:
        """Write to stdin, from any thread; ProcessError 403 `forbidden_write` (also an OSError) if not redirected."""
        self._streams.writable(STDIN).write(data)

    def writelines(self, lines: Iterable[Data], stream: str = STDIN) -> None:
        """Write several pieces as one to stdin or another stream, without separators."""
        self._streams.writable(stream).writelines(lines)

    def monitor_io(self, label: str, listener: IoListener) -> None:
        """Call `listener(label, {"event", "name", "pid", "data"})` for output on `label`, or on all (`.`)."""
        self._streams.subscribe(label, listener)

    def unmonitor_io(self, label: str, listener: IoListener) -> None:
        """Undo `monitor_io`; unknown listeners are ignored."""
        self._streams.unsubscribe(label, listener)
