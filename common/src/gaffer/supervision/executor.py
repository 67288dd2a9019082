"""Carries out the instructions of the jobs' state machines: the only place that starts, signals and watches processes.

Instructions may be queued from any thread; they are executed on the loop, in order, in slices that never block it long.
"""

import asyncio
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextvars import Context
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import Struct

from gaffer.errors import ProcessError, StartFailed
from gaffer.events import EventEmitter
from gaffer.jobs import events as ev
from gaffer.jobs.config import JobConfig
from gaffer.jobs.job import Job
from gaffer.jobs.names import JobName
from gaffer.jobs.probing import Question
from gaffer.loop import exit_soon
from gaffer.process import ExitStatus, Process, Recorder
from gaffer.processes.ports import listener_on
from gaffer.processes.reaper import DETACHED, Reaper
from gaffer.processes.sampler import Sampler
from gaffer.processes.sockets import JobSockets, SocketKeeper
from gaffer.processes.survivors import Survivor
from gaffer.streams.log_files import LogWriter
from gaffer.streams.log_store import LogStore
from gaffer.supervision import job_commands
from gaffer.supervision.commands import Commands
from gaffer.supervision.memory_guard import MemoryGuard
from gaffer.supervision.probes.prober import Prober
from gaffer.supervision.timetable import Timetable

log = logging.getLogger("gaffer.manager")

_LAST_LINES, _LAST_BYTES = 20, 4096  # of output that the record of an exit has at most
SLICE = 0.02  # seconds after which the loop gets its turn
_LAST_SLICE = 0.1  # before a handover

# The 0.5 names of events, for subscriptions that name them.
_ALIASES = {"create": "load", "delete": "unload", "stop_pid": "stop_process"}
# Events about a job's definition; all others are also published below `proc.<name>`.
_OF_THE_MANAGER = frozenset({"create", "update", "delete"})
# Events after which the record of a process has another state.
_OF_A_STATE = frozenset({"ready", "not_ready", "stop_pid", "reap", "rollout", "rollout_failed"})


class Settings(Struct, frozen=True):
    """Settings of new processes: capture of output, targets of records, logs and sockets, the node id in the cookie."""

    capture_all: bool = False
    recorder: Recorder | None = None
    node_id: str = ""
    log_dir: Path | None = None
    socket_keeper: SocketKeeper | None = None


class Executor:
    """The I/O around the jobs. `lock` guards the jobs, which any thread may touch.

    `after_event(job)` is called after each event that a job handled, `on_job_gone(job)` when an unloaded job has no
    processes left, `on_end(exit_code, reason)` when an essential job has ended for good.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        lock: "threading.RLock",
        events: EventEmitter,
        reaper: Reaper,
        settings: Settings,
        commands: Commands,
        *,
        after_event: Callable[[Job], Any],
        on_job_gone: Callable[[Job], Any],
        on_end: Callable[[int, str], Any],
    ) -> None:
        self.running: dict[int, Process] = {}
        self.owners: dict[int, Job] = {}  # of the running processes, by pid
        self.revision = 0  # grows with every change of jobs or processes
        self.sampler = Sampler(loop, self.running)
        self.losses = commands.losses
        self._loop = loop
        self._lock = lock
        self._events = events
        self._reaper = reaper
        self._settings = settings
        self._commands = commands
        self._prober = Prober(loop, self._on_verdict, partial(job_commands.probe, commands), settings.socket_keeper)
        self._scheduled: set[Job] = set()  # that were armed
        self._timetable: Timetable[Job] = Timetable(loop, self._on_armed, self._on_run_due)
        self._sockets = JobSockets(loop, settings.socket_keeper)
        self._guard: MemoryGuard[Process] = MemoryGuard(loop, self._on_memory_exceeded, cgroups=reaper.cgroups)
        self._socket_owners: dict[JobName, Job] = {}
        self._preparing: dict[tuple[Job, int], asyncio.Task[None]] = {}  # starts that wait for `before_start`
        self._logs = LogWriter(loop, settings.log_dir) if settings.log_dir is not None else None
        self.log_store = LogStore(loop, self._logs) if self._logs is not None else None
        self._after_event = after_event
        self._on_job_gone = on_job_gone
        self._on_end = on_end
        self._signals: deque[tuple[Job, ev.Signal]] = deque()  # to running processes; executed before the queue
        self._queue: deque[tuple[Job, ev.Instruction]] = deque()
        self._timers: dict[tuple[Job, ev.TimerKey], asyncio.TimerHandle] = {}
        self._ports: dict[tuple[Job, int], int] = {}
        self._listeners: list[Callable[[], Any]] = []
        self._job_listeners: list[Callable[[JobName], Any]] = []
        self._survivors: dict[int, Survivor] = {}  # to be adopted, by pid
        self._on_spawn: list[Callable[[Process], Any]] = []
        self._open = False
        self._due = False
        self._notify_due = False

    @property
    def lost_log_bytes(self) -> int:
        """The bytes of output that could not be written to log files."""
        return self._logs.lost if self._logs is not None else 0

    def log_loss(self, name: JobName) -> int:
        """Return the bytes of output of a job that could not be written to log files."""
        return self._logs.lost_by_job.get(str(name), 0) if self._logs is not None else 0

    # From any thread

    def submit(self, job: Job, event: ev.Event) -> None:
        """Give `event` to `job` and queue its instructions."""
        with self._lock:
            for instruction in job.handle(event, time.monotonic()):
                # A process that is still to be adopted is signalled after that.
                if isinstance(instruction, ev.Signal) and instruction.pid in self.running:
                    self._signals.append((job, instruction))
                else:
                    self._enqueue(job, instruction)
            if log.isEnabledFor(logging.DEBUG):
                log.debug("%s: %s", job.name, job.story[-1], extra=_about(job))
            self._wake()
            for key, task in self._preparing.items():
                if key[0] is job and not job.expects(key[1]):
                    self._loop.call_soon_threadsafe(task.cancel)
            if isinstance(event, ev.ConfigChanged):
                for process in [self.running[pid] for pid in job.pids() if pid in self.running]:
                    self._loop.call_soon_threadsafe(self._guard_memory, job, process)
                    self._loop.call_soon_threadsafe(self._record, process.pid)
            self.touch(job.name)
            self._after_event(job)
            if self._sockets.awaits_opening(job.name) and not job.uses_sockets:
                self._loop.call_soon_threadsafe(self._sockets.close, job.name)
            if job.gone:
                self._loop.call_soon_threadsafe(self._forget, job)

    def start_logs(self) -> None:
        """Begin to write log files; raises GafferError when that is not possible."""
        if self._logs is not None:
            self._logs.start()
        if self.log_store is not None:
            self.log_store.start()

    def open(self) -> None:
        """Begin to execute."""
        with self._lock:
            self._open = True
            self._wake()

    def touch(self, *names: JobName) -> None:
        """Notify listeners that the jobs of these names, or something else, changed."""
        self.revision += 1
        for listener in self._job_listeners:
            for name in names:
                listener(name)
        if self._listeners and not self._notify_due:
            self._notify_due = True
            self._loop.call_soon_threadsafe(self._notify, context=Context())

    def on_change(self, callback: Callable[[], Any]) -> None:
        """Call `callback()` on the loop after jobs or processes changed; many changes may be one call."""
        with self._lock:
            self._listeners.append(callback)
            self.touch()

    def off_change(self, callback: Callable[[], Any]) -> None:
        """Undo `on_change`; unknown ones are ignored."""
        with self._lock:
            if callback in self._listeners:
                self._listeners.remove(callback)

    def on_job_change(self, callback: Callable[[JobName], Any]) -> None:
        """Call `callback(name)` when a job may have been added, changed or removed, before those of `on_change`.

        Called in any thread, under the lock; it must return at once and raise nothing.
        """
        with self._lock:
            self._job_listeners.append(callback)

    def off_job_change(self, callback: Callable[[JobName], Any]) -> None:
        """Undo `on_job_change`; unknown ones are ignored."""
        with self._lock:
            if callback in self._job_listeners:
                self._job_listeners.remove(callback)

    def on_spawn(self, callback: Callable[[Process], Any]) -> None:
        """Call `callback(process)` on the loop for each process as it starts, before any of its output is read."""
        self._on_spawn.append(callback)

    def off_spawn(self, callback: Callable[[Process], Any]) -> None:
        """Undo `on_spawn`; unknown ones are ignored."""
        if callback in self._on_spawn:
            self._on_spawn.remove(callback)

    def expect(self, survivor: Survivor) -> None:
        """Take a survivor that a job is about to adopt."""
        with self._lock:
            self._survivors[survivor.record.pid] = survivor

    def publish(self, job: Job, kind: str, pid: int | None = None, **data: Any) -> None:
        """Announce an event of `job`, after those that are queued already."""
        with self._lock:
            self._enqueue(job, ev.Publish(kind, pid, data))
            self._wake()

    def _enqueue(self, job: Job, instruction: ev.Instruction) -> None:
        if isinstance(instruction, ev.Publish):
            self._identify(instruction.pid, instruction.data)  # it may be gone before this is published
        self._queue.append((job, instruction))

    def _identify(self, pid: int | None, data: dict[str, Any]) -> None:
        """Add the OS pid and the slot of process `pid` to the data of an event."""
        process = self.running.get(pid) if pid is not None else None
        if process is not None:
            data.setdefault("os_pid", process.os_pid)
            if process.slot:
                data["slot"] = process.slot

    # On the loop

    def close(self) -> None:
        """Cancel all timers and stop executing instructions."""
        self._end()
        self._sockets.close_all()
        self._socket_owners.clear()
        self._close_logs()

    def freeze(self) -> None:
        """Execute what is queued, as far as that takes a tenth of a second; then nothing more, and notice no exits."""
        self._run(_LAST_SLICE)
        self._end()
        for process in self.running.values():
            process.freeze()

    def leave(self, timeout: float) -> None:
        """After `freeze`: leave the processes alone, and wait up to `timeout` seconds for log files to be written."""
        for process in self.running.values():
            process.leave()
        self._sockets.leave()
        with self._lock:
            self.running.clear()
            self.owners.clear()
        self._close_logs(timeout)

    def _end(self) -> None:
        self._open = False
        for handle in self._timers.values():
            handle.cancel()
        self._timers.clear()
        for task in self._preparing.values():
            task.cancel()
        self._prober.close()
        self._timetable.close()
        self._guard.close()
        self._signals.clear()
        self._queue.clear()

    def _close_logs(self, timeout: float | None = None) -> None:
        if self._logs is not None:
            self._logs.close(timeout)
        if self.log_store is not None:
            self.log_store.close()

    def _wake(self) -> None:
        if self._open and (self._signals or self._queue) and not self._due:
            self._due = True
            # In a context of its own: what follows does not concern the request that caused it.
            self._loop.call_soon_threadsafe(self._run, context=Context())

    async def adopt(self) -> None:
        """Execute the adoptions that are queued, before all else and however long they take."""
        with self._lock:
            queued, self._queue = self._queue, deque()
            others = []
            for job, instruction in queued:
                if isinstance(instruction, ev.Adopt):
                    self._execute(instruction, job)
                else:
                    others.append((job, instruction))
            self._queue.extendleft(reversed(others))
            self._wake()

    def run_pending(self) -> None:
        """Execute everything that is queued, however long it takes."""
        self._run(float("inf"))

    def _run(self, budget: float = SLICE) -> None:
        started = time.monotonic()
        self._due = False
        while (queue := self._signals or self._queue) and time.monotonic() - started < budget:
            with self._lock:
                job, instruction = queue.popleft()
                self._execute(instruction, job)
        with self._lock:
            self._wake()

    def _execute(self, instruction: ev.Instruction, job: Job) -> None:
        match instruction:
            case ev.Publish():
                self._publish(instruction, job)
            case ev.Signal():
                self._signal(instruction)
            case ev.Spawn():
                self._spawn(instruction, job)
            case ev.SetTimer():
                self._set_timer(instruction, job)
            case ev.CancelTimer():
                self._cancel_timer(instruction, job)
            case ev.Adopt():
                self._adopt(instruction, job)
            case ev.Release():
                self._release(instruction, job)
            case ev.StartProbes() | ev.StopProbes():
                self._probe(instruction)
            case ev.AfterExit():
                self._after_exit(instruction, job)
            case ev.ArmSchedule():
                self._arm(job)
            case ev.DisarmSchedule():
                self._timetable.disarm(job)
            case ev.AwaitConnection():
                self._await_connection(job)
            case ev.AwaitIdle():
                self._await_idle(job)
            case ev.CloseSockets():
                self._close_sockets(job)
            case ev.EndManager():
                self._on_end(instruction.exit_code, instruction.reason)

    def _notify(self) -> None:
        self._notify_due = False
        self._call(self._listeners)

    def _call(self, listeners: Sequence[Callable[..., Any]], *args: Any) -> None:
        for listener in tuple(listeners):
            # Listeners are applications, foreign code perhaps.
            try:
                listener(*args)
            except (SystemExit, KeyboardInterrupt) as error:
                exit_soon(self._loop, error)
            except BaseException:
                log.exception("a listener of changes failed")

    def _forget(self, job: Job) -> None:
        for key in [key for key in self._ports if key[0] is job]:
            del self._ports[key]
        for timer in [timer for timer in self._timers if timer[0] is job]:
            self._timers.pop(timer).cancel()
        self._timetable.disarm(job)
        self._scheduled.discard(job)
        self._on_job_gone(job)

    def _spawn(self, order: ev.Spawn, job: Job) -> None:
        if not job.expects(order.pid):
            return
        if job.config.before_start is None or not order.slot:
            self._launch(order, job)
            return
        task = self._loop.create_task(self._prepare(order, job))
        self._preparing[job, order.pid] = task
        task.add_done_callback(lambda _: self._prepared(job, order.pid))

    def _prepared(self, job: Job, pid: int) -> None:
        with self._lock:
            self._preparing.pop((job, pid), None)

    async def _prepare(self, order: ev.Spawn, job: Job) -> None:
        """Start a process after the command that precedes its start."""
        try:
            port = self._port(job, order.slot)
            await job_commands.before_start(self._commands, job.config, job.name, slot=order.slot, port=port)
        except StartFailed as error:
            self._start_failed(order, job, error)
            return
        with self._lock:
            if job.expects(order.pid):
                self._launch(order, job)

    def _launch(self, order: ev.Spawn, job: Job) -> None:
        try:
            process = self._make_new(job, order)
            self._warn_of_taken_port(job, process)
            process.spawn()
        except StartFailed as error:
            self._start_failed(order, job, error)
            return
        self._began(job, process)
        self.submit(job, ev.Spawned(order.pid, process.os_pid))

    def _warn_of_taken_port(self, job: Job, process: Process) -> None:
        if process.port is not None and job.config.port not in (None, "auto") and listener_on(process.port):
            log.warning(
                "%s: port %d is in use already; its process may fail",
                job.name,
                process.port,
                extra=_about(job, process),
            )
            self.publish(job, "port_in_use", port=process.port)

    def _start_failed(self, order: ev.Spawn, job: Job, error: StartFailed) -> None:
        if job.expects(order.pid):
            log.warning("%s can't be started: %s", job.name, error.message, extra=_about(job))
            message = f"{error.message}: {error.hint}" if error.hint else error.message
            self.submit(job, ev.SpawnFailed(order.pid, error.reason, message, time.time()))
            self._record_exit(job)

    def _adopt(self, order: ev.Adopt, job: Job) -> None:
        process, survivor = self._make_adopted(job, order), self._survivors.pop(order.pid)
        try:
            process.adopt(survivor)
        except ProcessError as error:
            status = ExitStatus.known(survivor.status)
            ago = time.monotonic() - survivor.exited_at if survivor.exited_at is not None else 0.0
            if survivor.status is None:
                log.warning("%s is not adopted: %s", job.name, error.message, extra=_about(job))
            code, signum, oom = status.exit_code, status.term_signal, status.out_of_memory
            at = time.time() - ago
            self.submit(job, ev.Exited(order.pid, code, signum, order.record.os_pid, None, oom, at, ago=ago))
            self.submit(job, ev.GroupEmpty(order.pid))
            self._record_exit(job)
            if self._settings.recorder is not None:
                self._settings.recorder.ended(order.pid)
            return
        # Hundreds of them may be adopted while clients wait: one line each is for a close look.
        message = "process %d of %s, left by an earlier manager, is watched again"
        log.debug(message, process.os_pid, job.name, extra=_about(job, process))
        self._began(job, process)
        self.touch(job.name)

    def _began(self, job: Job, process: Process) -> None:
        with self._lock:
            self.owners[process.pid] = job
            self.running[process.pid] = process
        self._guard_memory(job, process)
        if self._settings.recorder is not None:
            # A moment later: reading /proc is slow while the kernel sets up the new program.
            self._loop.call_soon(self._record, process.pid)
        self._call(self._on_spawn, process)

    def _record(self, pid: int) -> None:
        process, job = self.running.get(pid), self.owners.get(pid)
        slot = job.slot_of(pid) if job is not None else None
        if self._settings.recorder is not None and process is not None and job is not None and slot is not None:
            if process.exit_status is None:  # the slot of one that has exited is stopping
                process.slot_state = slot.visible_state
            outdated = job.rollout.kind if slot.outdated and job.rollout is not None else None
            self._settings.recorder.spawned(process.record(current=job.config, outdated=outdated))

    def _signal(self, order: ev.Signal) -> None:
        process = self.running.get(order.pid)
        if process is not None:
            if order.leader_only:
                process.kill(order.signum)
            else:
                process.signal_tree(order.signum)
                self._record(order.pid)

    def _release(self, order: ev.Release, job: Job) -> None:
        process = self.running.get(order.pid)
        if process is not None:
            self._record(process.pid)
            self._ended(order.pid)
            process.release()
            self.touch(job.name)

    def _ended(self, pid: int) -> None:
        with self._lock:
            self.running.pop(pid, None)
            self.owners.pop(pid, None)

    def _set_timer(self, order: ev.SetTimer, job: Job) -> None:
        key = (job, order.key)
        if key in self._timers:
            self._timers[key].cancel()
        self._timers[key] = self._loop.call_later(order.delay, self._fire, job, order.key)

    def _cancel_timer(self, order: ev.CancelTimer, job: Job) -> None:
        handle = self._timers.pop((job, order.key), None)
        if handle is not None:
            handle.cancel()

    def _publish(self, order: ev.Publish, job: Job) -> None:
        """Emit an event of `job` under its documented names and aliases."""
        kind, pid = order.kind, order.pid
        if kind == "start" and job.exits and not order.data:
            self._record_exit(job)
        if kind in _OF_A_STATE:
            for recorded in job.pids() if pid is None else (pid,):
                self._record(recorded)
        display, qualified = job.name.display, str(job.name)
        base = {"name": display, "job": qualified, "session": job.name.session, **order.data}
        if pid is not None:
            base["pid"] = pid
        if kind == "spawn":
            base["detach"] = base["detached"] = job.config.detach

        def payloads(name: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
            shown = qualified if name.startswith("job.") else display
            return ({**base, "event": name, "name": shown},), {}

        self._events.publish_record((kind, _ALIASES[kind]) if kind in _ALIASES else (kind,), payloads)
        if kind in _OF_THE_MANAGER:
            return
        names = [f"proc.{display}.{kind}"]
        for each in (kind, _ALIASES.get(kind)):
            if each is not None:
                names.append(f"job.{qualified}.{each}")
                if pid is not None:
                    names.append(f"proc.{pid}.{each}")
        self._events.publish_record(tuple(names), payloads)

    def _fire(self, job: Job, key: ev.TimerKey) -> None:
        self._timers.pop((job, key), None)
        self.submit(job, ev.TimerFired(key))

    def _probe(self, order: ev.StartProbes | ev.StopProbes) -> None:
        process = self.running.get(order.pid)
        if isinstance(order, ev.StopProbes):
            self._prober.stop(order.pid)
        elif process is not None:
            self._prober.start(process, again=order.again, ready=order.ready)

    def _on_verdict(self, process: Process, question: Question, good: bool, error: str) -> None:
        job = self.owners.get(process.pid)
        if job is not None:
            self.submit(job, ev.ProbeResult(process.pid, question, good, error))

    def _after_exit(self, order: ev.AfterExit, job: Job) -> None:
        process = self.running.get(order.pid)
        job_commands.after_exit(
            self._commands,
            job.config,
            job.name,
            pid=order.pid,
            exit_code=order.exit_code,
            term_signal=order.term_signal,
            reason=order.reason,
            slot=order.slot,
            port=process.port if process is not None else None,
        )

    def _on_armed(self, job: Job, next_run: float | None) -> None:
        self.submit(job, ev.ScheduleArmed(next_run))

    def _arm(self, job: Job) -> None:
        """Arm a schedule; only for a job that was just loaded, runs can have been missed."""
        first = job not in self._scheduled
        self._scheduled.add(job)
        if job.config.every and job.last_run is None and (job.armed_at is None or not first):
            job.armed_at = time.time()
            if self._settings.recorder is not None:
                self._settings.recorder.armed(str(job.name), job.armed_at)
        self._timetable.arm(job, job.config, last_run=job.last_run or job.armed_at, catch_up=first)

    def _on_run_due(self, job: Job, at: float) -> None:
        if (job.config.missed == "once" or job.config.every) and self._settings.recorder is not None:
            self._settings.recorder.ran(str(job.name), at)
        self.submit(job, ev.ScheduleDue(at))

    def _open_sockets(self, job: Job) -> list[tuple[str, int]]:
        """The sockets of a job; a successor of the same name takes them over."""
        config = job.config
        if not config.socket and self._socket_owners.get(job.name) is not job:
            return []
        self._socket_owners[job.name] = job
        return self._sockets.open(
            job.name, config.socket, uid=config.uid, gid=config.gid, in_use=self._sockets_in_use(job)
        )

    def _sockets_in_use(self, job: Job) -> set[str]:
        """The sockets that processes of a job were given."""
        found = [self.running[pid] for pid in job.pids() if pid in self.running]
        return {spec for process in found for spec in process.config.socket}

    def _close_sockets(self, job: Job) -> None:
        if self._socket_owners.get(job.name) is job:
            del self._socket_owners[job.name]
            self._sockets.close(job.name)

    def _await_connection(self, job: Job) -> None:
        try:
            self._open_sockets(job)
        except StartFailed as error:
            log.warning("%s can't be started: %s", job.name, error.message, extra=_about(job))
            self.submit(job, ev.SocketsFailed(f"{error.message}: {error.hint}" if error.hint else error.message))
            return
        self._sockets.await_connection(job.name, partial(self.submit, job, ev.ConnectionWaiting()))

    def _guard_memory(self, job: Job, process: Process) -> None:
        if job.config.max_memory and process.slot:
            self._guard.watch(process, lambda: job.config.max_memory)

    def _on_memory_exceeded(self, process: Process, used: int, limit: int) -> None:
        job = self.owners.get(process.pid)
        if job is not None:
            message = f"process {process.pid} and its descendants use {used >> 20} MiB, more than {limit >> 20} MiB"
            log.warning("%s: %s", job.name, message, extra=_about(job, process))
            self.submit(job, ev.LimitExceeded(process.pid, "max_memory", message))

    def close_unused_sockets(self, jobs: Collection[JobName]) -> None:
        """Close the sockets of an earlier manager, except those of `jobs`, which have not opened theirs yet."""
        self._sockets.close_unused(jobs)

    def socket_addresses(self, job: Job) -> list[dict[str, str | int]]:
        """Where a job listens: `name`, and `address` and `port` or `path`, of each open socket."""
        return self._sockets.addresses(job.name)

    def _await_idle(self, job: Job) -> None:
        if job.config.idle_timeout:
            idle = partial(self.submit, job, ev.ConnectionsIdle())
            self._sockets.await_idle(job.name, job.config.idle_timeout, idle)
        else:
            self._sockets.stop_awaiting(job.name)

    def _on_exit(self, job: Job, process: Process, status: ExitStatus) -> None:
        if self._settings.recorder is not None and status.wait_status is not None:
            self._settings.recorder.died(process.pid, status.wait_status)
        self.submit(
            job,
            ev.Exited(
                process.pid,
                status.exit_code,
                status.term_signal,
                process.os_pid,
                process.last_lines(_LAST_LINES, _LAST_BYTES),
                status.out_of_memory,
                time.time() - status.ago,
                status.usage,
                status.ago,
            ),
        )
        self._record_exit(job)

    def _record_exit(self, job: Job) -> None:
        if self._settings.recorder is not None:
            self._settings.recorder.exited(str(job.name), job.exits, job.restarts, job.failures)

    def _on_refused(self, job: Job, process: Process, message: str, final: bool) -> None:
        self.submit(job, ev.EndRefused(process.pid, message, final))

    def _on_gone(self, job: Job, process: Process) -> None:
        self._ended(process.pid)
        restarts = job.restarts
        self.submit(job, ev.GroupEmpty(process.pid))
        if job.restarts != restarts:
            self._record_exit(job)
        # Last: what follows from its exit is known now, and its output is in the log.
        process.when_logged(partial(self._record_end, process.pid))
        if process.config.socket and self._socket_owners.get(job.name) is job:
            self._sockets.release(job.name, self._sockets_in_use(job))

    def _record_end(self, pid: int) -> None:
        if self._settings.recorder is not None:
            self._settings.recorder.ended(pid)

    def _cookie(self, job: Job, pid: int) -> str:
        node_id = self._settings.node_id
        return f"{node_id}:{pid}{DETACHED if job.config.detach else ''}" if node_id else ""

    def _make_new(self, job: Job, order: ev.Spawn) -> Process:
        slot = order.slot
        return self._make(
            job,
            job.config,
            order.pid,
            slot,
            env={**self._watchdog(job.config), **order.env} if slot else order.env,
            port=self._port(job, slot),
            sockets=self._open_sockets(job) if slot else (),
            notify_socket=self._notify_socket(job.config) if slot else "",
            cookie=self._cookie(job, order.pid),
        )

    def _make_adopted(self, job: Job, order: ev.Adopt) -> Process:
        slot = order.record.slot
        if slot and order.record.port is not None:
            self._ports[job, slot] = order.record.port
        try:
            if slot:
                self._open_sockets(job)
        except StartFailed as error:
            log.warning("%s: %s", job.name, error.message, extra=_about(job))
        held = job.slot_of(order.pid)
        config = held.config if held is not None else None
        return self._make(job, config or job.config, order.pid, slot)

    def _make(self, job: Job, config: JobConfig, pid: int, slot: int, **given: Any) -> Process:
        process = Process(
            self._loop,
            config,
            pid=pid,
            job=job.name,
            slot=slot,
            once=slot == 0,
            restarts=job.restarts,
            reaper=self._reaper,
            sampler=self.sampler,
            capture_all=self._settings.capture_all,
            logs=self._logs,
            recorder=self._settings.recorder,
            on_exit=partial(self._on_exit, job),
            on_gone=partial(self._on_gone, job),
            on_refused=partial(self._on_refused, job),
            **given,
        )
        for ring in process.rings.values():
            ring.losses = self.losses
        return process

    def _notify_socket(self, config: JobConfig) -> str:
        if not config.notifies:
            return ""
        try:
            return self._prober.notify_address()
        except OSError as error:
            raise StartFailed(f"can't open a socket for notifications: {error.strerror}", reason="no_socket") from None

    def _watchdog(self, config: JobConfig) -> dict[str, str]:
        """Return the variable that asks a program for WATCHDOG=1, sd_watchdog_enabled(3)."""
        return {"WATCHDOG_USEC": str(round(config.live_interval * 1e6))} if config.live == "notify" else {}

    def _port(self, job: Job, slot: int) -> int | None:
        if slot == 0 or job.config.port != "auto" or "PORT" in job.config.env:
            return job.config.port_of(slot) if slot else None
        key = (job, slot)
        if key not in self._ports:
            self._ports[key] = self._free_port()
        return self._ports[key]

    def _free_port(self) -> int:
        taken = set(self._ports.values())
        while True:
            try:
                with socket.socket() as probe:
                    probe.bind(("", 0))
                    port = int(probe.getsockname()[1])
            except OSError as error:
                raise StartFailed(f"no free port was found: {error.strerror}", reason="no_port") from None
            if port not in taken:
                return port


def _about(job: Job, process: Process | None = None) -> dict[str, Any]:
    """Return what a log line concerns."""
    return {"job": job.name, "pid": process.pid if process is not None else None}
