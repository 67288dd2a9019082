"""The names that 0.4 had for what a manager does: groups are sessions, a process (template) is a job.

Each function is a method of Manager.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gaffer.jobs.names import JobName, parse_job_name
from gaffer.process import ProcessConfig
from gaffer.processes import stats

if TYPE_CHECKING:
    from gaffer.manager import Manager
    from gaffer.process import Process

Name = str | JobName


def get_groups(manager: "Manager") -> list[str]:
    """The sessions."""
    return manager.sessions


def get_group(manager: "Manager", group: str) -> list[str]:
    """The bare names of the jobs of a session; raises ProcessNotFound."""
    return [parse_job_name(name).name for name in manager.jobs(group)]


def start_group(manager: "Manager", group: str) -> None:
    """Start all jobs of a session."""
    for name in manager.jobs(group):
        manager.start_job(name)


def stop_group(manager: "Manager", group: str) -> None:
    """Stop all jobs of a session."""
    for name in manager.jobs(group):
        manager.stop_job(name)


def restart_group(manager: "Manager", group: str) -> None:
    """Replace all processes of a session's jobs."""
    for name in manager.jobs(group):
        manager.reload(name)


def remove_group(manager: "Manager", group: str) -> None:
    """Stop and forget all jobs of a session."""
    for name in manager.jobs(group):
        manager.unload(name)


def start_processes(manager: "Manager") -> None:
    """Start all jobs."""
    for name in manager.jobs():
        manager.start_job(name)


def stop_processes(manager: "Manager") -> None:
    """Stop all jobs."""
    for name in manager.jobs():
        manager.stop_job(name)


def add_process(manager: "Manager", name: str, cmd: str, **settings: Any) -> None:
    """Load a job: `ProcessConfig(name, cmd, **settings)`; ProcessConflict, a KeyError, when there is one already."""
    manager.load(ProcessConfig(name, cmd, **settings))


def update_process(manager: "Manager", name: str, cmd: str, **settings: Any) -> None:
    """Give a job a new config."""
    manager.update(ProcessConfig(name, cmd, **settings))


def start_process(manager: "Manager", name: Name) -> None:
    """Start a job."""
    manager.start_job(name)


def restart_process(manager: "Manager", name: Name) -> None:
    """Replace all processes of a job."""
    manager.reload(name)


def remove_process(manager: "Manager", name: Name) -> None:
    """Stop a job and forget it."""
    manager.unload(name)


def get_process_info(manager: "Manager", name: Name) -> dict[str, Any]:
    """The settings of a job."""
    return manager.get(name).to_dict()


def get_process_status(manager: "Manager", name: Name) -> dict[str, Any]:
    """The numbers of a job: `active`, `running`, `max_processes` and, the same, `numprocesses`."""
    return {**manager.status(name)}


def get_process_stats(manager: "Manager", name_or_pid: Name | int) -> dict[str, Any]:
    """The stats of one process, or of a job as in `Manager.stats`."""
    if isinstance(name_or_pid, int):
        return manager.get_process(name_or_pid).stats
    return manager.stats(name_or_pid)


def processes_stats(manager: "Manager") -> list[Mapping[str, Any]]:
    """The stats of all running processes."""
    return [*stats.stats_of(manager.list())]


def running_processes(manager: "Manager") -> "list[Process]":
    """All running processes."""
    return manager.list()


def ttin(manager: "Manager", name: Name, i: int = 1) -> int:
    """Run `i` more processes of a job; returns the new number."""
    return manager.scale(name, i)


def ttou(manager: "Manager", name: Name, i: int = 1) -> int:
    """Run `i` fewer processes of a job; returns the new number."""
    return manager.scale(name, -i)


def send_signal(manager: "Manager", name_or_pid: Name | int, sig: int | str) -> None:
    """Send a signal to one process, or to all of a job."""
    if isinstance(name_or_pid, int):
        manager.kill(name_or_pid, sig)
    else:
        manager.killall(name_or_pid, sig)
