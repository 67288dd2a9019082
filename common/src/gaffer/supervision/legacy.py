"""The 0.4 names of a manager's methods: groups are sessions, a process (template) is a job."""

import builtins
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from gaffer.errors import JobDisabled
from gaffer.jobs.names import JobName, parse_job_name
from gaffer.process import Process, ProcessConfig
from gaffer.processes import stats
from gaffer.schemas.responses import JobStatus

Name = str | JobName


class _Orders(Protocol):
    """The methods behind the old names; see Manager."""

    @property
    def sessions(self) -> builtins.list[str]: ...
    def jobs(self, sessionid: str | None = None) -> builtins.list[str]: ...
    def load(self, config: ProcessConfig) -> None: ...
    def update(self, config: ProcessConfig) -> None: ...
    def unload(self, name_or_process: Any) -> None: ...
    def reload(self, name: Name) -> None: ...
    def get(self, name: Name) -> ProcessConfig: ...
    def status(self, name: Name) -> JobStatus: ...
    def stats(self, name: Name) -> dict[str, Any]: ...
    def start_job(self, name: Name) -> None: ...
    def stop_job(self, name: Name) -> None: ...
    def scale(self, name: Name, n: int | str) -> int: ...
    def get_process(self, pid: int) -> Process: ...
    def kill(self, pid: int, sig: int | str) -> None: ...
    def killall(self, name: Name, sig: int | str) -> None: ...
    def list(self) -> builtins.list[Process]: ...


def _except_disabled(order: Callable[[str], None], names: Iterable[str]) -> None:
    for name in names:
        with suppress(JobDisabled):
            order(name)


class LegacyNames:
    """The methods of a manager under their 0.4 names."""

    def get_groups(self: _Orders) -> list[str]:
        """The sessions."""
        return self.sessions

    def get_group(self: _Orders, group: str) -> list[str]:
        """The bare names of the jobs of a session; raises ProcessNotFound."""
        return [parse_job_name(name).name for name in self.jobs(group)]

    def start_group(self: _Orders, group: str) -> None:
        """Start all jobs of a session that are not disabled."""
        _except_disabled(self.start_job, self.jobs(group))

    def stop_group(self: _Orders, group: str) -> None:
        """Stop all jobs of a session."""
        for name in self.jobs(group):
            self.stop_job(name)

    def restart_group(self: _Orders, group: str) -> None:
        """Replace all processes of a session's jobs that are not disabled."""
        _except_disabled(self.reload, self.jobs(group))

    def remove_group(self: _Orders, group: str) -> None:
        """Stop and forget all jobs of a session."""
        for name in self.jobs(group):
            self.unload(name)

    def start_processes(self: _Orders) -> None:
        """Start all jobs that are not disabled."""
        _except_disabled(self.start_job, self.jobs())

    def stop_processes(self: _Orders) -> None:
        """Stop all jobs."""
        for name in self.jobs():
            self.stop_job(name)

    def add_process(self: _Orders, name: str, cmd: str, **settings: Any) -> None:
        """Load a job: `ProcessConfig(name, cmd, **settings)`; ProcessConflict, a KeyError, when it exists."""
        self.load(ProcessConfig(name, cmd, **settings))

    def update_process(self: _Orders, name: str, cmd: str, **settings: Any) -> None:
        """Give a job a new config."""
        self.update(ProcessConfig(name, cmd, **settings))

    def start_process(self: _Orders, name: Name) -> None:
        """Start a job."""
        self.start_job(name)

    def restart_process(self: _Orders, name: Name) -> None:
        """Replace all processes of a job."""
        self.reload(name)

    def remove_process(self: _Orders, name: Name) -> None:
        """Stop a job and forget it."""
        self.unload(name)

    def get_process_info(self: _Orders, name: Name) -> dict[str, Any]:
        """The settings of a job."""
        return self.get(name).to_dict()

    def get_process_status(self: _Orders, name: Name) -> dict[str, Any]:
        """The numbers of a job: `active`, `running`, `max_processes` and, the same, `numprocesses`."""
        return {**self.status(name)}

    def get_process_stats(self: _Orders, name_or_pid: Name | int) -> dict[str, Any]:
        """The stats of one process, or of a job as in `Manager.stats`."""
        if isinstance(name_or_pid, int):
            return self.get_process(name_or_pid).stats
        return self.stats(name_or_pid)

    def processes_stats(self: _Orders) -> list[Mapping[str, Any]]:
        """The stats of all running processes."""
        return [*stats.stats_of(self.list())]

    def running_processes(self: _Orders) -> list[Process]:
        """All running processes."""
        return self.list()

    def ttin(self: _Orders, name: Name, i: int = 1) -> int:
        """Run `i` more processes of a job; returns the new number."""
        return self.scale(name, i)

    def ttou(self: _Orders, name: Name, i: int = 1) -> int:
        """Run `i` fewer processes of a job; returns the new number."""
        return self.scale(name, -i)

    def send_signal(self: _Orders, name_or_pid: Name | int, sig: int | str) -> None:
        """Send a signal to one process, or to all of a job."""
        if isinstance(name_or_pid, int):
            self.kill(name_or_pid, sig)
        else:
            self.killall(name_or_pid, sig)
