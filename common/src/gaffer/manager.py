"""The manager: supervises jobs and their processes, and runs the applications that watch and control them.

Public methods may be called from any thread, before the loop runs or while it runs. They acquire a lock, run the pure
state machines, queue instructions for the loop, and return at once.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Collection, Coroutine, Generator, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from gaffer.errors import (
    GenerationNotFound,
    NodeDraining,
    ProcessError,
    ProcessNotFound,
    TopicError,
)
from gaffer.events import EventEmitter
from gaffer.jobs import events as ev
from gaffer.jobs import rules
from gaffer.jobs.config import JobConfig
from gaffer.jobs.desired import Desired
from gaffer.jobs.job import Job
from gaffer.jobs.names import DEFAULT_SESSION, JobName, split_job_name
from gaffer.jobs.recorder import Past, Recorder
from gaffer.jobs.states import JobState
from gaffer.loop import Loop
from gaffer.process import Process, ProcessConfig
from gaffer.processes import stats
from gaffer.processes.cgroups import Cgroups
from gaffer.processes.reaper import Reaper
from gaffer.processes.sampler import StatListener
from gaffer.processes.sockets import SocketKeeper
from gaffer.processes.survivors import Survivor
from gaffer.schemas.responses import JobInfo, JobStatus
from gaffer.schemas.views import Instance, JobSummary
from gaffer.streams import event_log
from gaffer.streams.event_log import Event
from gaffer.streams.log_store import LogStore
from gaffer.streams.rings import Log, Ring
from gaffer.supervision import arguments, job_commands, serializers
from gaffer.supervision.channels import Channel, open_channel
from gaffer.supervision.checks import Checks
from gaffer.supervision.commands import Command, CommandResult, Commands
from gaffer.supervision.drift import DriftSource, NoDrift
from gaffer.supervision.executor import Executor, Settings
from gaffer.supervision.job_commands import MAX_ACTION_TIMEOUT
from gaffer.supervision.job_table import JobTable
from gaffer.supervision.legacy import LegacyNames
from gaffer.supervision.lifecycle import Lifecycle
from gaffer.supervision.listeners import Listeners
from gaffer.supervision.living import Living
from gaffer.supervision.loading import Loading
from gaffer.supervision.order import Ordering
from gaffer.supervision.waiting import job_states, wait_for_state

log = logging.getLogger("gaffer.manager")

Name = str | JobName
Lines = bytes | str | Sequence[bytes | str]
# Inside the class `list` is a method.
Pids = list[int]
StatsOfJobs = list[dict[str, Any]]
Definitions = list[tuple[int, JobConfig]]


class Manager(Living, LegacyNames, Listeners):
    """A supervisor of jobs. Methods raise ProcessNotFound (404) for unknown names and pids, ManagerStopping (503) after
    stop().

    `subreaper` makes this OS process adopt orphaned descendants (a process-wide setting); `cgroup` is the directory of
    a control group under which each process gets its own, see gaffer.processes.cgroups; `capture_all` captures the
    output of every job, redirected or not; captured output is also written to files in `log_dir`; `recorder` is
    notified of every process; `endpoint_host` is the address in announced endpoints; `node_id` marks the processes so
    that they can be found again; `survivors` are the processes that an earlier manager left: their jobs adopt them when
    loaded; `past` has the exits and the last scheduled run of jobs by qualified name: they get it when loaded;
    `socket_keeper` keeps the listening sockets of jobs open while another manager takes over.

    `exit_code` is 0 unless an essential job ended the manager; then it is the exit code of that job.
    Subscribe to `events`; `event_log` keeps the newest events for readers on the loop. `drift` finds that of jobs.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop | None = None,
        *,
        apps: Sequence[Any] = (),
        subreaper: bool = False,
        cgroup: Path | None = None,
        capture_all: bool = False,
        recorder: Recorder | None = None,
        endpoint_host: str = "127.0.0.1",
        node_id: str = "",
        log_dir: Path | None = None,
        survivors: Iterable[Survivor] = (),
        past: Mapping[str, Past] | None = None,
        socket_keeper: SocketKeeper | None = None,
    ) -> None:
        self.endpoint_host = endpoint_host
        self.loop = loop if loop is not None else Loop.default_loop()
        self.event_log: Log[Event] = Log(event_log.LIMIT)
        self.events = EventEmitter(self.loop, history=self.event_log)
        self._lock = threading.RLock()
        left = [*survivors]
        self._jobs = JobTable(left, (exit for each in (past or {}).values() for exit in each.exits))
        # The node's id ends with `:` and a number that changes with each start.
        os_pids = [each.record.os_pid for each in left]
        cgroups = Cgroups(cgroup, node_id.partition(":")[0], os_pids) if cgroup is not None else None
        reaper = Reaper(self.loop, subreaper=subreaper, cgroups=cgroups)
        settings = Settings(capture_all, recorder, node_id, log_dir, socket_keeper)
        self.exit_code = 0
        self.drift: DriftSource = NoDrift()
        self._recorder = recorder
        self._rehearsal: dict[JobName, Desired | None] | None = None
        self._ordering = Ordering(self._jobs, self._submit)
        self._checks = Checks(self._jobs, self._ordering)
        self._commands = Commands(self.loop, reaper, node_id=node_id)
        self._executor = Executor(
            self.loop,
            self._lock,
            self.events,
            reaper,
            settings,
            self._commands,
            after_event=self._ordering.changed,
            on_job_gone=self._job_gone,
            on_end=self._essential_ended,
        )
        self._loading = Loading(self._jobs, self._executor, past or {})
        self._life = Lifecycle(
            self, self._lock, self._jobs, self._executor, self._ordering, self._commands, self.events, reaper, apps
        )

    def __repr__(self) -> str:
        state = "stopping" if self.stopping else "draining" if self.draining else "started" if self.started else "new"
        if self.stopping and not self.started:
            state = "stopped"
        return f"<Manager {state}, {len(self._jobs)} jobs, {len(self.running)} processes>"

    # Jobs

    @property
    def sessions(self) -> list[str]:
        """The sessions that have jobs."""
        with self._lock:
            return list(dict.fromkeys(job.name.session for job in self._jobs))

    def jobs(self, sessionid: str | None = None) -> list[str]:
        """Return the qualified names of all jobs, or of those in one session."""
        with self._lock:
            names = [str(job.name) for job in self._jobs if sessionid in (None, job.name.session)]
        if sessionid is not None and not names:
            raise ProcessNotFound(f"there is no session {sessionid!r}", hint="list the sessions: `gaffer apps`")
        return names

    def jobs_walk(self, callback: "Callable[[Manager, str], Any]", sessionid: str | None = None) -> None:
        """Call `callback(manager, qualified_name)` for each loaded job."""
        for name in self.jobs(sessionid):
            callback(self, name)

    def load(
        self,
        config: ProcessConfig,
        sessionid: str | None = None,
        env: Mapping[str, str] | None = None,
        start: bool = True,
    ) -> None:
        """Load a job and start it, unless `start` or the config's own `start` is false.

        `env` overrides variables of the config. Raises ProcessConflict (409) if the session already has a job of that
        name, PortConflict (409) if a started job has one of its fixed ports, and ConfigError if the job would come
        after itself or an unknown job.
        """
        self.load_all([config], sessionid, env, start)

    def load_all(
        self,
        configs: Sequence[ProcessConfig],
        sessionid: str | None = None,
        env: Mapping[str, str] | None = None,
        start: bool = True,
    ) -> None:
        """Load several jobs, all or none. Raises like `load`."""
        if isinstance(configs, ProcessConfig):
            raise TypeError("expected a list of ProcessConfig, got one: call load()")
        named = [(arguments.name_of(config, sessionid), config) for config in configs]
        variables = env or {}
        self.restore(
            Desired.new(name, config.replace(name=name.name, env={**config.env, **variables}), start=start)
            for name, config in named
        )

    def restore(self, jobs: Iterable[Desired], *, ordered: bool = True) -> None:
        """Load jobs with all that was desired of them, see `desired`; all or none. Raises like `load`.

        Unless `ordered`, a job may come after one that is unknown or not yet loaded, and waits for it.
        """
        wanted = [*jobs]
        with self._lock:
            self._life.check_open()
            self._checks.check_new(wanted, ordered=ordered)
            for each in wanted:
                if self._rehearsal is not None:
                    self._rehearsal[each.name] = each
                else:
                    self._loading.add(each, drained=self.draining)
            self._executor.touch(*(each.name for each in wanted))

    def adopt(self) -> None:
        """Adopt the survivors of the jobs that are loaded; call it after the start, before the loop runs.

        Otherwise this happens once the loop runs, and others may see jobs without their processes for a moment.
        """
        self.loop.run_until_complete(self._executor.adopt())

    def end_unclaimed(self) -> list[str]:
        """End the survivors that no job has adopted, but for detached ones; return the names of their jobs."""
        with self._lock:
            self._life.check_open()
            return self._loading.end_unclaimed()

    def unload(self, name_or_process: Any, sessionid: str | None = None) -> None:
        """Stop a job and remove it, given its name or an object with a `name`, such as a ProcessConfig."""
        name = getattr(name_or_process, "name", name_or_process)
        if isinstance(name_or_process, JobName):
            name = name_or_process
        with self._lock:
            job = self._open_job(name, sessionid)
            if self._rehearsal is not None:
                self._rehearsal[job.name] = None
                return
            self._jobs.remove(job)
            self._executor.sampler.forget(job.name)
            self._executor.submit(job, ev.Unloaded())
            self.loop.call_soon_threadsafe(self._commands.end_actions, job.name)

    def update(
        self,
        config: ProcessConfig,
        sessionid: str | None = None,
        env: Mapping[str, str] | None = None,
        start: bool = False,
        rolling: bool = False,
    ) -> None:
        """Replace a job's config; its processes are replaced only if the change requires it.

        They are replaced at once, or a few at a time if `rolling` or the settings `surge` or `auto_rollback` ask for
        it. `start` also starts a stopped job. Raises ConfigError if the config doesn't allow the number of processes
        that the job was scaled to, or if the job would come after itself or an unknown job.
        """
        with self._lock:
            job = self._open_job(arguments.name_of(config, sessionid))
            stored = config.replace(name=job.name.name, env={**config.env, **(env or {})})
            self._checks.check_definition(job, stored, start)
            self._order(job, ev.ConfigChanged(stored, start, rolling))

    def reload(self, name: Name, sessionid: str | None = None) -> None:
        """Make the processes of a job read their configuration again.

        With `reload_signal` they get that signal, else all are replaced, and their number becomes the configured one.
        Raises PortConflict (409) if another started job has one of the fixed ports of those to be started.
        """
        with self._lock:
            job = self._open_job(name, sessionid)
            if job.config.reload_signum is None:
                self._checks.check_restart(job, reset=True)
            self._order(job, ev.ReloadRequested())

    def restart_job(self, name: Name, rolling: bool = False, reset: bool = False) -> None:
        """Replace all processes of a job, at once or, if `rolling`, a few at a time (see `max_unavailable`, `surge`).

        A rolling restart replaces a process only while enough others are ready, and stops when a new one does not
        become ready; `info` shows its progress. A job that has completed, failed or paused is started. `reset` brings
        the number of processes back to the configured one. Raises JobDisabled (409), and PortConflict (409) if another
        started job has one of the fixed ports of those to be started.
        """
        with self._lock:
            job = self._open_job(name)
            self._checks.check_restart(job, reset)
            self._order(job, ev.RestartRequested(reset=reset, rolling=rolling))

    def rollback(self, name: Name, to: int | None = None) -> int:
        """Return to an earlier definition of a job, by default the one before the current; return its new generation.

        Processes are replaced a few at a time. Raises GenerationNotFound if it is not kept, and the errors of `update`.
        """
        with self._lock:
            job = self._open_job(name)
            config = job.definitions.find(to)
            if config is None:
                kept = ", ".join(map(str, job.definitions.generations))
                asked = "no earlier definition" if to is None else f"no definition {to}"
                raise GenerationNotFound(message=f"{job.name} has {asked}", hint=f"kept: {kept}")
            self._checks.check_definition(job, config)
            self._order(job, ev.RollbackRequested(to))
            return job.definitions.generation

    def definitions(self, name: Name) -> Definitions:
        """Return the last definitions of a job, newest first, each with its generation."""
        with self._lock:
            return self._job(name).definitions.kept

    def exits(self, name: Name) -> StatsOfJobs:
        """Return the last exits of the processes of a job, newest first, as `GET /jobs/<session>/<job>/exits`."""
        with self._lock:
            return serializers.job_exits(self._job(name))

    def get(self, name: Name) -> ProcessConfig:
        """Return the config of a job."""
        with self._lock:
            return cast(ProcessConfig, self._job(name).config)  # this manager loaded every config

    def start_job(self, name: Name) -> None:
        """Start a job, and clear its record of crashes.

        Raises JobDisabled (409), and PortConflict (409) if another started job has one of its fixed ports.
        """
        with self._lock:
            job = self._open_job(name)
            self._checks.check_start(job)
            self._order(job, ev.StartRequested())

    def disable(self, name: Name, reason: str, seconds: float | None = None) -> None:
        """Stop a job and keep it from running for `seconds`, or until `enable`; what is desired of it is kept.

        It can be configured and scaled in the meantime, but not be started or restarted. Raises BadValue for an empty
        or too long reason, or seconds that are not positive.
        """
        arguments.check_disabling(reason, seconds)
        with self._lock:
            now = time.time()
            until = now + seconds if seconds is not None else None
            self._order(self._open_job(name), ev.DisableRequested(reason, now, until, seconds))

    def enable(self, name: Name) -> None:
        """Undo `disable`; no-op for a job that is not disabled."""
        with self._lock:
            self._order(self._open_job(name), ev.EnableRequested())

    def stop_job(self, name: Name) -> None:
        """Stop a job; it stays stopped until it is started again."""
        with self._lock:
            self._order(self._open_job(name), ev.StopRequested())

    def manage(self, name: Name) -> None:
        """Start missing processes at once, without waiting for their back-off."""
        with self._lock:
            job = self._open_job(name)
            for index in tuple(job.slots):
                self._executor.submit(job, ev.TimerFired(("backoff", index)))

    def stopall(self, name: Name) -> None:
        """Stop all processes of a job, which then starts new ones."""
        with self._lock:
            self._executor.submit(self._open_job(name), ev.RestartRequested())

    def scale(self, name: Name, n: int | str) -> int:
        """Change the number of processes by a delta (1, -1, "+2", "-2") or to a value ("=3"); return the new number.

        Raises BadValue (a ValueError, reason `bad_operation`) for anything else, ConfigError for more processes than
        the config allows, PortConflict (409) if a new process would get the port of another job.
        """
        with self._lock:
            job = self._open_job(name)
            count = arguments.scaled(job.target, n)
            job.config.replace(numprocesses=count)  # raises if the config allows fewer
            if count > job.target:
                self._checks.check_growth(job, count)
            if count != job.target:
                self._order(job, ev.Scaled(count))
            return count

    def commit(self, name: Name, graceful_timeout: float = 0, env: Mapping[str, str] | None = None) -> int:
        """Run one additional process of a job once, neither counted nor kept alive; return its pid.

        `graceful_timeout` is in seconds; 0 means that of the job. Raises NodeDraining (503) while the node is drained,
        JobDisabled (409), and BadValue for an invalid argument.
        """
        with self._lock:
            job = self._open_job(name)
            if self.draining:
                raise NodeDraining
            self._checks.check_enabled(job)
            timeout = arguments.setting("graceful_timeout", rules.seconds, graceful_timeout)
            variables = arguments.setting("env", rules.variables, env)
            pid = self.get_process_id()
            self._executor.submit(job, ev.Committed(pid, timeout, dict(variables)))
            return pid

    @property
    def commands(self) -> Commands:
        """The auxiliary commands of the jobs: hooks, exec probes and actions."""
        return self._commands

    def start_action(self, name: Name, action: str, timeout: float = MAX_ACTION_TIMEOUT) -> Command:
        """Start the command `action.ACTION` of a job, whatever its state; call it on the loop.

        It is stopped after `timeout` seconds, at most 24 hours, when the job is unloaded, and when the manager stops.
        Raises ProcessError (404 `action_not_found`), BadValue, NodeDraining (503), TooManyCommands (429) and
        StartFailed.
        """
        with self._lock:
            job = self._open_job(name)
            if self.draining:
                raise NodeDraining
            command = job_commands.start_action(self._commands, job.config, job.name, action, timeout)
        command.ended.add_done_callback(partial(self._action_ended, job, action))
        return command

    def _action_ended(self, job: Job, action: str, ended: "asyncio.Future[CommandResult]") -> None:
        result = ended.result()
        log.info("%s: action %s %s", job.name, action, result, extra={"job": job.name})
        self._executor.publish(
            job,
            "action_ended",
            action=action,
            outcome=result.outcome.value,
            exit_code=result.exit_code,
            term_signal=result.term_signal,
            uptime=result.uptime,
        )

    def run_action(self, name: Name, action: str, timeout: float = MAX_ACTION_TIMEOUT) -> Any:
        """Run the command `action.ACTION` of a job and return its CommandResult (gaffer.supervision.commands).

        Blocks or returns an awaitable, and raises RuntimeError before the start, as `wait`; otherwise raises like
        `start_action`. Cancelling the awaitable cancels the command.
        """

        async def run() -> CommandResult:
            return await self.start_action(name, action, timeout).wait()

        return self._complete(run)

    # Processes

    @property
    def running(self) -> dict[int, Process]:
        """The live processes by pid, in the order of their start."""
        return self._executor.running

    def get_process_id(self) -> int:
        """Return a new pid (Gaffer's, not the system's)."""
        with self._lock:
            return self._jobs.next_pid()

    def get_process(self, pid: int) -> Process:
        """Return the process with the given pid (Gaffer's, not the system's)."""
        with self._lock:
            process = self._executor.running.get(pid)
        if process is None:
            raise ProcessNotFound(f"there is no process {pid}")
        return process

    def list(self, name: Name | None = None) -> list[Process]:
        """Return the running processes, or those of one job without its committed ones."""
        with self._lock:
            if name is None:
                return [process for process in self._executor.running.values() if process.active]
            running = self._executor.running
            return [running[pid] for pid in self._job(name).pids() if pid in running]

    def pids(self, name: Name | None = None) -> Pids:
        """Return the pids of `list(name)`."""
        return [process.pid for process in self.list(name)]

    def walk(self, callback: "Callable[[Manager, Process], Any]", name: Name | None = None) -> None:
        """Call `callback(manager, process)` for each running process."""
        for process in self.list(name):
            callback(self, process)

    def stop_process(self, pid: int) -> None:
        """Stop one process; its job starts a replacement."""
        with self._lock:
            self._life.check_open()
            self.get_process(pid)
            self._executor.submit(self._owner(pid), ev.ProcessStopRequested(pid))

    def kill(self, pid: int, sig: int | str) -> None:
        """Send a signal to one process; BadValue (a ValueError, reason `bad_signal`) for an unknown signal.

        Raises ProcessError (409 `not_permitted`) for a process that runs as another user, unless we are root.
        """
        number = arguments.signal_number(sig)
        with self._lock:
            self._life.check_open()
            self.get_process(pid).kill(number)
            self._executor.publish(self._owner(pid), "kill", pid, signum=number)

    def killall(self, name: Name, sig: int | str) -> None:
        """Send a signal to every process of a job, including committed ones; raise like `kill` after trying all."""
        number = arguments.signal_number(sig)
        with self._lock:
            job = self._open_job(name)
            refused: ProcessError | None = None
            for pid in job.pids(committed=True):
                if pid in self._executor.running:
                    try:
                        self._executor.running[pid].kill(number)
                    except ProcessError as error:
                        refused = error
            self._executor.publish(job, "kill", signum=number)
            if refused is not None:
                raise refused

    def send(self, pid: int, lines: Lines, stream: str | None = None) -> None:
        """Write to the stdin of a process, or to a custom stream; ProcessError 404 `stream_not_found` for others."""
        pieces = lines if isinstance(lines, Sequence) and not isinstance(lines, bytes | str) else [lines]
        self.get_process(pid).writelines(pieces, stream or "stdin")

    def ring(self, pid: int, label: str) -> Ring:
        """Return the ring with the output `label` of a process."""
        return self.get_process(pid).ring(label)

    # Queries

    def info(self, name: Name) -> JobInfo:
        """Return a job's state, counts, processes and config."""
        with self._lock:
            job, executor = self._job(name), self._executor
            sockets, drift = executor.socket_addresses(job), self.drift.find(job)
            lost = executor.log_loss(job.name)
            return serializers.job_info(job, executor.running, self.endpoint_host, sockets, drift, lost)

    def summary(self, name: JobName) -> tuple[JobSummary, Sequence[Instance]] | None:
        """Return what a list shows of a job and of its running processes, None if it is not loaded."""
        with self._lock:
            job, running = self._jobs.find(name), self._executor.running
            if job is None:
                return None
            return serializers.job_summary(job, running), serializers.job_instances(job, running, self.endpoint_host)

    def status(self, name: Name) -> JobStatus:
        """Return the state and counts of a job: the cheap part of `info`."""
        with self._lock:
            return serializers.job_status(self._job(name))

    def subscribe(self, topic: str) -> Channel:
        """Return a Channel (see gaffer.supervision.channels) for the events of `topic`; TopicError if unknown."""
        return open_channel(self, topic)

    def unsubscribe(self, topic: str, channel: Channel) -> None:
        """Close a channel; TopicError if it is subscribed to another topic."""
        if channel.topic != topic:
            raise TopicError(f"the channel is subscribed to {channel.topic!r}, not to {topic!r}")
        channel.close()

    def announced(self, among: Collection[JobName] | None = None) -> dict[str, dict[int, serializers.Announcement]]:
        """Return what the node announces: all jobs, or those in `among`, each with its processes by pid."""
        with self._lock:
            found = self._jobs if among is None else map(self._jobs.find, among)
            return {
                str(job.name): serializers.announcements(job, self._executor.running, self.endpoint_host)
                for job in found
                if job is not None
            }

    def announced_states(self, among: Collection[JobName] | None = None) -> dict[JobName, serializers.JobAnnouncement]:
        """Return what the node announces of the jobs themselves, all or those in `among`."""
        with self._lock:
            found = self._jobs if among is None else map(self._jobs.find, among)
            return {job.name: serializers.job_announcement(job) for job in found if job is not None}

    # Waiting

    def wait(self, name: Name, state: str | Iterable[str] = "running", timeout: float | None = None) -> Any:
        """Wait until a job is in `state`, or in one of several; return its info, see `Manager.info`.

        Blocks the calling thread, and runs the loop unless it is already running. On the running loop itself, returns
        an awaitable: `await manager.wait("web", "running")`. A very brief state may be missed. Raises BadValue for an
        unknown state, TimeoutError after `timeout` seconds, RuntimeError before the start, ProcessNotFound if the job
        is unloaded, and ManagerStopping if the manager stops.
        """
        states = job_states(state)
        return self._complete(lambda: self._wait(name, states, timeout))

    def _complete(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Return the result of `work()`, run on the loop; on the running loop itself, return an awaitable."""
        if not self.started:
            raise RuntimeError("start the manager before waiting for a job")
        waiting = work()
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is self.loop:
            return self.loop.create_task(waiting)
        if self.loop.is_running():
            return asyncio.run_coroutine_threadsafe(waiting, self.loop).result()
        return self.loop.run_until_complete(waiting)

    async def _wait(self, name: Name, states: Collection[JobState], timeout: float | None) -> JobInfo:
        def find() -> Job:
            job = self._job(name)
            if job.state not in states:
                self._life.check_open()
            return job

        await wait_for_state(self, find, states, timeout)
        return self.info(name)

    # Stats

    def stats(self, name: Name) -> dict[str, Any]:
        """Return the stats of a job's processes and their totals."""
        return stats.finish(self.measuring([name]))[0]

    def measuring(self, names: Iterable[Name]) -> Generator[None, None, StatsOfJobs]:
        """Measure several jobs like `stats`, as a generator that yields to let the loop run between steps."""
        with self._lock:
            running = self._executor.running
            jobs = [self._job(name) for name in names]
            pids = [[pid for pid in job.pids(committed=True) if pid in running] for job in jobs]
            processes = [running[pid] for of_job in pids for pid in of_job]
        found = {each["pid"]: each for each in (yield from stats.measuring(processes))}
        return [
            serializers.job_stats(job.name, [found[pid] for pid in of_job])
            for job, of_job in zip(jobs, pids, strict=True)
        ]

    def monitor(
        self,
        listener: StatListener | Name | int,
        name: Name | int | StatListener,
        *,
        ended: Callable[[], Any] = lambda: None,
    ) -> None:
        """Call `listener("STATS", stats)` every 0.1 s for each process of a job, or for one process given by its pid.

        The arguments may be swapped. A job's later processes are covered too, until it is unloaded. `stats` has the
        keys of gaffer.processes.stats.get_process_stats, plus `pid` and `os_pid`. `ended()` is called on the loop after
        the last call.
        """
        function, target = arguments.listener_and_target(listener, name)
        with self._lock:
            self._life.check_open()
            if isinstance(target, int):
                self.get_process(target)
            else:
                self._job(target)
            self._executor.sampler.monitor(target, function, ended)

    def unmonitor(self, listener: StatListener | Name | int, name: Name | int | StatListener) -> None:
        """Undo `monitor`; unknown listeners are ignored."""
        function, target = arguments.listener_and_target(listener, name)
        self._executor.sampler.unmonitor(target, function)

    @property
    def dropped_bytes(self) -> int:
        """Bytes of output that readers lost because they were too slow, for all processes so far."""
        return self._executor.losses.count

    @property
    def lost_log_bytes(self) -> int:
        """Bytes of output that could not be written to log files, for instance because the disk was full."""
        return self._executor.lost_log_bytes

    @property
    def log_store(self) -> LogStore | None:
        """The log files of jobs, for reading; None without `log_dir`."""
        return self._executor.log_store

    # The desired state

    def desired(self, name: JobName) -> Desired | None:
        """Return what is desired of a job, None if it is not loaded."""
        with self._lock:
            job = self._jobs.find(name)
            return Desired.of(job) if job is not None else None

    def rehearse(self, call: Callable[[], object]) -> dict[JobName, Desired | None]:
        """Return what would be desired of the jobs that `call` changes, which changes nothing; raise what it raises.

        `call` calls methods of this manager: load, unload, update, reload, rollback, scale, start, stop, restart,
        disable, enable. It must not block. None stands for a job that would be unloaded.
        """
        with self._lock:
            found: dict[JobName, Desired | None] = {}
            self._rehearsal = found
            try:
                call()
            finally:
                self._rehearsal = None
            return found

    # Internal

    def _order(self, job: Job, event: ev.Event) -> None:
        """Give a job an event that may change what is desired of it."""
        if self._rehearsal is None:
            self._executor.submit(job, event)
            return
        desired = self._rehearsal[job.name] if job.name in self._rehearsal else Desired.of(job)
        self._rehearsal[job.name] = desired.after(event) if desired is not None else None

    def _open_job(self, name: Name, sessionid: str | None = None) -> Job:
        self._life.check_open()
        return self._job(name, sessionid)

    def _job(self, name: Name, sessionid: str | None = None) -> Job:
        if not isinstance(name, str | JobName):
            raise TypeError(f"expected the name of a job, got {type(name).__name__} {name!r}")
        return self._jobs.get(
            name if isinstance(name, JobName) else JobName(*split_job_name(name, sessionid or DEFAULT_SESSION))
        )

    def _submit(self, job: Job, event: ev.Event) -> None:
        self._executor.submit(job, event)

    def _essential_ended(self, exit_code: int, reason: str) -> None:
        log.warning("stopping: %s", reason)
        self.exit_code = exit_code
        self.stop()

    def _owner(self, pid: int) -> Job:
        """Return the job of a running process; it may be unloaded, with a successor of the same name."""
        return self._executor.owners[pid]

    def _job_gone(self, job: Job) -> None:
        if self._recorder is not None and not self.stopping:
            self._recorder.unloaded(str(job.name))
        with self._lock:
            successor = self._jobs.forget(job)
            if successor is not None:
                self._executor.submit(successor, ev.NameFreed(True))
            if self._jobs.find(job.name) is job:
                self._executor.sampler.forget(job.name)
            self._life.check_all_gone()
