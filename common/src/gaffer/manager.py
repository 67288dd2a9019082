"""The manager: keeps jobs and their processes alive, and starts applications that watch and control them.

Public methods may be called from any thread, before the loop runs as well as while it runs. They take a lock, run the
pure state machines, queue what is to be done on the loop, and return at once.
"""

import asyncio
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from gaffer.errors import NodeDraining, ProcessConflict, ProcessError, ProcessNotFound, TopicError
from gaffer.jobs import events as ev
from gaffer.jobs import rules
from gaffer.jobs.job import Job
from gaffer.jobs.names import DEFAULT_SESSION, JobName, split_job_name
from gaffer.jobs.records import ProcessRecord, Recorder
from gaffer.process import Process, ProcessConfig
from gaffer.processes import procfs
from gaffer.schemas.responses import JobInfo, JobStatus
from gaffer.streams.rings import Ring
from gaffer.supervision import aliases, arguments, serializers
from gaffer.supervision.channels import Channel, open_channel
from gaffer.supervision.executor import Settings
from gaffer.supervision.observed import Observed

Name = str | JobName
Lines = bytes | str | Sequence[bytes | str]
Pids = list[int]  # inside the class `list` is a method
Jobs = list[Job]


class Manager(Observed):
    """Maintains processes. Raises ProcessNotFound (404) for unknown names and pids, ManagerStopping (503) after stop().

    `subreaper` makes this OS process adopt orphaned descendants (a process-wide setting); `cgroup` is the directory of
    a control group to divide among the processes, see gaffer.processes.cgroups; `capture_all` captures the
    output of every job, redirected or not; what is captured also goes to files in `log_dir`; `recorder` is told of
    every process; `endpoint_host` is the address that announced endpoints carry; `node_id` marks the processes so that
    they can be found again; `detached` are the processes that an earlier manager left running, which their jobs count
    again once they are loaded.
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
        detached: Sequence[ProcessRecord] = (),
    ) -> None:
        self.endpoint_host = endpoint_host
        self._jobs: dict[JobName, Job] = {}
        self._leaving: list[Job] = []  # unloaded, with processes that have not ended yet
        self._pids = itertools.count(1)
        self._detached = list(detached)
        super().__init__(
            loop, apps, Settings(capture_all, recorder, node_id, log_dir), subreaper=subreaper, cgroup=cgroup
        )

    # Jobs

    @property
    def sessions(self) -> list[str]:
        """The sessions that have jobs."""
        with self._lock:
            return list(dict.fromkeys(name.session for name in self._jobs))

    def jobs(self, sessionid: str | None = None) -> list[str]:
        """The qualified names of all jobs, or of one session's."""
        with self._lock:
            names = [str(name) for name in self._jobs if sessionid in (None, name.session)]
        if sessionid is not None and not names:
            raise ProcessNotFound(f"there is no session {sessionid!r}", hint="`gaffer apps` lists the sessions")
        return names

    def jobs_walk(self, callback: "Callable[[Manager, str], Any]", sessionid: str | None = None) -> None:
        """Call `callback(manager, qualified_name)` for each job there is now."""
        for name in self.jobs(sessionid):
            callback(self, name)

    def load(
        self,
        config: ProcessConfig,
        sessionid: str | None = None,
        env: Mapping[str, str] | None = None,
        start: bool = True,
    ) -> None:
        """Register a job and start it, unless `start` or the config's own `start` is false.

        `env` is laid over the config's. Raises ProcessConflict (409) when the session has a job of that name.
        """
        self.load_all([config], sessionid, env, start)

    def load_all(
        self,
        configs: Sequence[ProcessConfig],
        sessionid: str | None = None,
        env: Mapping[str, str] | None = None,
        start: bool = True,
    ) -> None:
        """Register several jobs, or none when one of them can't be. Raises like `load`."""
        if isinstance(configs, ProcessConfig):
            raise TypeError("expected a list of ProcessConfig, got one: call load()")
        wanted = [(arguments.name_of(config, sessionid), config) for config in configs]
        with self._lock:
            self._check_open()
            seen: set[JobName] = set()
            for name, _ in wanted:
                if name in self._jobs or name in seen:
                    raise ProcessConflict(f"there is a job {name} already", hint="unload it first, or update it")
                seen.add(name)
            for name, config in wanted:
                stored = config.replace(name=name.name, env={**config.env, **(env or {})})
                job = self._jobs[name] = Job(name, stored, self.get_process_id, drained=self.draining)
                self._supervisor.publish(job, "create")
                if any(other.name == name for other in self._leaving):
                    self._supervisor.submit(job, ev.DependencyChanged(False))
                adopted = self._adopt(job)
                if start and config.start:
                    self._supervisor.submit(job, ev.StartRequested())
                elif adopted:
                    self._supervisor.submit(job, ev.StopRequested())
            self._supervisor.touch(*(name for name, _ in wanted))

    def _adopt(self, job: Job) -> bool:
        """Give a new job the processes that an earlier one of its name detached; whether there are any."""
        theirs = [record for record in self._detached if record.job == str(job.name)]
        self._detached = [record for record in self._detached if record not in theirs]
        for record in theirs:
            pid = self.get_process_id()
            self._supervisor.submit(job, ev.Adopted(pid, record, procfs.age(record.start_time)))
            if not job.config.detach:
                self._supervisor.submit(job, ev.ProcessStopRequested(pid))
        return bool(theirs)

    def unload(self, name_or_process: Any, sessionid: str | None = None) -> None:
        """Stop a job and forget it; a name, or anything with a `name` such as a ProcessConfig."""
        name = getattr(name_or_process, "name", name_or_process)
        if isinstance(name_or_process, JobName):
            name = name_or_process
        with self._lock:
            job = self._open_job(name, sessionid)
            del self._jobs[job.name]
            self._leaving.append(job)
            self._supervisor.sampler.forget(job.name)
            self._supervisor.submit(job, ev.Unloaded())

    def update(
        self,
        config: ProcessConfig,
        sessionid: str | None = None,
        env: Mapping[str, str] | None = None,
        start: bool = False,
    ) -> None:
        """Give a job a new config; its processes are replaced only when the change needs it (design rule 2).

        `start` also starts a stopped job. Raises ConfigError when the config doesn't allow for as many processes as the
        job was scaled to.
        """
        with self._lock:
            job = self._open_job(arguments.name_of(config, sessionid))
            stored = config.replace(name=job.name.name, env={**config.env, **(env or {})})
            if job.active and stored.numprocesses == job.config.numprocesses:
                stored.replace(numprocesses=job.target)
            if stored.port == job.config.port:
                self._check_ports(job, stored.numprocesses)
            self._supervisor.submit(job, ev.ConfigChanged(stored, start))

    def reload(self, name: Name, sessionid: str | None = None) -> None:
        """Replace all processes of a job and bring their number back to the configured one."""
        with self._lock:
            self._supervisor.submit(self._open_job(name, sessionid), ev.RestartRequested(reset=True))

    def get(self, name: Name) -> ProcessConfig:
        """The config of a job."""
        with self._lock:
            return cast(ProcessConfig, self._job(name).config)  # all of them come from here

    def start_job(self, name: Name) -> None:
        """Start a job; it forgets earlier crashes."""
        with self._lock:
            self._supervisor.submit(self._open_job(name), ev.StartRequested())

    def stop_job(self, name: Name) -> None:
        """Stop a job; it stays stopped until it is started again."""
        with self._lock:
            self._supervisor.submit(self._open_job(name), ev.StopRequested())

    def manage(self, name: Name) -> None:
        """Bring the number of processes to the wanted one now: what waits for its next start starts at once."""
        with self._lock:
            job = self._open_job(name)
            for index in tuple(job.slots):
                self._supervisor.submit(job, ev.TimerFired(("backoff", index)))

    def stopall(self, name: Name) -> None:
        """End all processes of a job, which then replaces them."""
        with self._lock:
            self._supervisor.submit(self._open_job(name), ev.RestartRequested())

    def scale(self, name: Name, n: int | str) -> int:
        """Change the number of processes: by a number (1, -1, "+2", "-2") or to one ("=3"); returns the new number.

        Raises BadValue (a ValueError, reason `bad_operation`) for anything else, ConfigError for more processes than
        the config allows, ProcessError (409, `port_conflict`) when a new process would get the port of another job.
        """
        with self._lock:
            job = self._open_job(name)
            count = arguments.scaled(job.target, n)
            job.config.replace(numprocesses=count)  # raises when so many can't be
            self._check_ports(job, count)
            if count != job.target:
                self._supervisor.submit(job, ev.Scaled(count))
            return count

    def _check_ports(self, job: Job, count: int) -> None:
        """Refuse `count` processes when those to be added would get ports of other jobs."""
        first, last = job.config.port_of(job.target + 1), job.config.port_of(count)
        if count <= job.target or first is None or last is None or "PORT" in job.config.env:
            return
        for other in self._jobs.values():
            start, end = other.config.port_of(1), other.config.port_of(max(other.target, 1))
            if other is job or start is None or end is None or end < first or start > last:
                continue
            whose = str(other.name) if other.name.session == job.name.session else "another application"
            highest = max(start, first) - first + job.target
            raise ProcessError(
                409,
                "port_conflict",
                f"{count} processes of {job.name} would take port {max(start, first)}, which belongs to {whose}",
                hint=f"use at most {highest}, or give the job port = auto",
            )

    def commit(self, name: Name, graceful_timeout: float = 0, env: Mapping[str, str] | None = None) -> int:
        """Run one more process of a job once, without keeping it alive or counting it; returns its pid.

        `graceful_timeout` is how long it has to end when it is stopped, in seconds; 0 takes the job's. Raises
        NodeDraining (503) while the node is drained, and BadValue.
        """
        with self._lock:
            job = self._open_job(name)
            if self.draining:
                raise NodeDraining
            timeout = arguments.setting("graceful_timeout", rules.seconds, graceful_timeout)
            variables = arguments.setting("env", rules.variables, env)
            pid = self.get_process_id()
            self._supervisor.submit(job, ev.Committed(pid, timeout, dict(variables)))
            return pid

    # Processes

    @property
    def running(self) -> dict[int, Process]:
        """The live processes by pid, in the order of their start."""
        return self._supervisor.running

    def get_process_id(self) -> int:
        """A process id that was never used before."""
        with self._lock:
            return next(self._pids)

    def get_process(self, pid: int) -> Process:
        """The process with the internal id `pid`."""
        with self._lock:
            process = self._supervisor.running.get(pid)
        if process is None:
            raise ProcessNotFound(f"there is no process {pid}")
        return process

    def list(self, name: Name | None = None) -> list[Process]:
        """The running processes, or those of one job without its committed ones."""
        with self._lock:
            if name is None:
                return [process for process in self._supervisor.running.values() if process.active]
            running = self._supervisor.running
            return [running[pid] for pid in self._job(name).pids() if pid in running]

    def pids(self, name: Name | None = None) -> Pids:
        """The pids of `list(name)`."""
        return [process.pid for process in self.list(name)]

    def walk(self, callback: "Callable[[Manager, Process], Any]", name: Name | None = None) -> None:
        """Call `callback(manager, process)` for each running process."""
        for process in self.list(name):
            callback(self, process)

    def stop_process(self, pid: int) -> None:
        """Stop one process; its job starts another in its place."""
        with self._lock:
            self._check_open()
            self.get_process(pid)
            self._supervisor.submit(self._owner(pid), ev.ProcessStopRequested(pid))

    def kill(self, pid: int, sig: int | str) -> None:
        """Send a signal to one process; BadValue (a ValueError, reason `bad_signal`) for an unknown one.

        Raises ProcessError (409 `not_permitted`) for a process that runs as another user, unless we are root.
        """
        number = arguments.signal_number(sig)
        with self._lock:
            self._check_open()
            self.get_process(pid).kill(number)
            self._supervisor.publish(self._owner(pid), "kill", pid, signum=number)

    def killall(self, name: Name, sig: int | str) -> None:
        """Send a signal to every process of a job, committed ones too; raises like `kill`, once all got it."""
        number = arguments.signal_number(sig)
        with self._lock:
            job = self._open_job(name)
            refused: ProcessError | None = None
            for pid in job.pids(committed=True):
                if pid in self._supervisor.running:
                    try:
                        self._supervisor.running[pid].kill(number)
                    except ProcessError as error:
                        refused = error
            self._supervisor.publish(job, "kill", signum=number)
            if refused is not None:
                raise refused

    def send(self, pid: int, lines: Lines, stream: str | None = None) -> None:
        """Write to the stdin of a process, or to a custom stream; ProcessError 404 `stream_not_found` for another."""
        pieces = lines if isinstance(lines, Sequence) and not isinstance(lines, bytes | str) else [lines]
        self.get_process(pid).writelines(pieces, stream or "stdin")

    def ring(self, pid: int, label: str) -> Ring:
        """The output `label` of a process."""
        return self.get_process(pid).ring(label)

    # Queries

    def info(self, name: Name) -> JobInfo:
        """A job's state, numbers, processes and config (MGR-50)."""
        with self._lock:
            return serializers.job_info(self._job(name), self._supervisor.running, self.endpoint_host)

    def status(self, name: Name) -> JobStatus:
        """A job's numbers, without what is costly of `info`."""
        with self._lock:
            return serializers.job_status(self._job(name))

    def subscribe(self, topic: str) -> Channel:
        """Return a Channel (see gaffer.supervision.channels) for the events of `topic`; TopicError for a bad one."""
        return open_channel(self, topic)

    def unsubscribe(self, topic: str, channel: Channel) -> None:
        """Close a channel; TopicError when it is not of this topic."""
        if channel.topic != topic:
            raise TopicError(f"the channel is of the topic {channel.topic!r}, not {topic!r}")
        channel.close()

    def announced(self, among: Collection[JobName] | None = None) -> dict[str, dict[int, serializers.Announcement]]:
        """The jobs, those `among` or all, with their processes from spawn to exit, by pid: what lookupds get."""
        with self._lock:
            jobs = [self._jobs[name] for name in (self._jobs if among is None else among) if name in self._jobs]
            return {
                str(job.name): serializers.announcements(job, self._supervisor.running, self.endpoint_host)
                for job in jobs
            }

    # The names of 0.4

    get_groups = aliases.get_groups
    get_group = aliases.get_group
    start_group = aliases.start_group
    stop_group = aliases.stop_group
    restart_group = aliases.restart_group
    remove_group = aliases.remove_group
    start_processes = aliases.start_processes
    stop_processes = aliases.stop_processes
    add_process = aliases.add_process
    update_process = aliases.update_process
    start_process = aliases.start_process
    restart_process = aliases.restart_process
    remove_process = aliases.remove_process
    get_process_info = aliases.get_process_info
    get_process_status = aliases.get_process_status
    get_process_stats = aliases.get_process_stats
    processes_stats = aliases.processes_stats
    running_processes = aliases.running_processes
    ttin = aliases.ttin
    ttou = aliases.ttou
    send_signal = aliases.send_signal

    # Inside

    def _all_jobs(self) -> Jobs:
        return [*self._leaving, *self._jobs.values()]

    def _forget_jobs(self) -> None:
        self._jobs.clear()
        self._leaving.clear()

    def __repr__(self) -> str:
        state = "stopping" if self.stopping else "draining" if self.draining else "started" if self.started else "new"
        if self.stopping and not self.started:
            state = "stopped"
        return f"<Manager {state}, {len(self._jobs)} jobs, {len(self._supervisor.running)} processes>"

    def _open_job(self, name: Name, sessionid: str | None = None) -> Job:
        self._check_open()
        return self._job(name, sessionid)

    def _job(self, name: Name, sessionid: str | None = None) -> Job:
        if not isinstance(name, str | JobName):
            raise TypeError(f"expected the name of a job, got {type(name).__name__} {name!r}")
        key = name if isinstance(name, JobName) else JobName(*split_job_name(name, sessionid or DEFAULT_SESSION))
        job = self._jobs.get(key)
        if job is None:
            raise ProcessNotFound(f"there is no job {str(key)!r}")
        return job

    def _owner(self, pid: int) -> Job:
        """The job of a running process: an unloaded one may have a successor of the same name."""
        return self._supervisor.owners[pid]

    def _job_gone(self, job: Job) -> None:
        with self._lock:
            if job in self._leaving:
                self._leaving.remove(job)
                successor = self._jobs.get(job.name)
                if successor is not None and not any(other.name == job.name for other in self._leaving):
                    self._supervisor.submit(successor, ev.DependencyChanged(True))
            if self._jobs.get(job.name) is job:
                self._supervisor.sampler.forget(job.name)
            super()._job_gone(job)
