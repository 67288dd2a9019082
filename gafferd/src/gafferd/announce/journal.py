"""The announcements of a node: one numbered sequence of change messages for all lookupds. Pure.

A lookupd of 0.5 gets fewer message types without states: a draining process is unregistered there, and a draining node
has no processes.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from gaffer.schemas.messages import (
    MAX_NODE_ENDPOINTS,
    MAX_NODE_JOBS,
    MAX_NODE_PROCESSES,
    Process,
    RegisterJob,
    RegisterProcess,
    Snapshot,
    UnregisterJob,
    UnregisterProcess,
    UpdateProcess,
)

Change = RegisterJob | UnregisterJob | RegisterProcess | UpdateProcess | UnregisterProcess


class Announced(Protocol):
    """A process announced by the manager; `endpoints` are dicts of name, address and port."""

    @property
    def state(self) -> str: ...

    @property
    def endpoints(self) -> list[dict[str, Any]]: ...


Table = Mapping[str, Mapping[int, Announced]]


class Journal:
    """The last announced table, and the number of the last change, 0 for the empty table.

    `draining` is whether the whole node is out of service. Draining, resuming and leaving also count as changes.
    """

    def __init__(self) -> None:
        self.seq = 0
        self.draining = False
        self._jobs: dict[str, dict[int, Process]] = {}

    def update(self, table: Table, among: Collection[str] | None = None) -> list[Change]:
        """Update the jobs `among`, or all jobs, from `table`.

        Return the changes, numbered, each with its number as `msgid`.
        """
        old = self._jobs if among is None else {job: self._jobs[job] for job in among if job in self._jobs}
        new = {job: {pid: _process(pid, found) for pid, found in pids.items()} for job, pids in table.items()}
        changes = list(_difference(old, new))
        for change in changes:
            self.seq += 1
            change.seq = self.seq
            change.msgid = str(self.seq)
        for job in old.keys() - new.keys():
            del self._jobs[job]
        self._jobs.update(new)
        return changes

    def drain(self) -> None:
        """Record that the node is out of service."""
        self.draining = True
        self.seq += 1

    def resume(self) -> None:
        """Record that the node is back in service."""
        self.draining = False
        self.seq += 1

    def leave(self) -> None:
        """Record that the node leaves."""
        self.seq += 1

    def snapshot(self, msgid: str, without: Collection[str] = ()) -> Snapshot:
        """Return the table as of the last change, without the jobs `without`."""
        jobs = {job: list(pids.values()) for job, pids in self._jobs.items() if job not in without}
        return Snapshot(msgid, self.seq, jobs, self.draining)

    def oversize(self) -> list[str]:
        """Return the most recent jobs that exceed the limits of a lookupd for one node."""
        left_out = []
        jobs = processes = endpoints = 0
        for job, pids in self._jobs.items():
            more = sum(len(process.endpoints) for process in pids.values())
            if (
                jobs + 1 > MAX_NODE_JOBS
                or processes + len(pids) > MAX_NODE_PROCESSES
                or endpoints + more > MAX_NODE_ENDPOINTS
            ):
                left_out.append(job)
                continue
            jobs, processes, endpoints = jobs + 1, processes + len(pids), endpoints + more
        return left_out

    # For a lookupd of 0.5

    def plain_snapshot(self) -> list[Change]:
        """Return the whole table in messages of 0.5."""
        return _numbered("snapshot", self.plain_changes(_difference({}, self._jobs)))

    def plain_changes(self, changes: Iterable[Change]) -> list[Change]:
        """Return the changes in messages of 0.5, without those that have no equivalent."""
        found = [message for change in changes if (message := plain(change)) is not None]
        return [each for each in found if not (self.draining and isinstance(each, RegisterProcess))]

    def plain_offers(self) -> list[Change]:
        """Return messages of 0.5 that register all processes of a node that is back in service."""
        changes = [change for change in _difference({}, self._jobs) if isinstance(change, RegisterProcess)]
        return _numbered("offer", self.plain_changes(changes))

    def plain_withdrawals(self) -> list[Change]:
        """Return messages of 0.5 that unregister all processes of the node."""
        return _numbered(
            "withdraw", [UnregisterProcess("", job, pid) for job, pids in self._jobs.items() for pid in pids]
        )


def plain(change: Change) -> Change | None:
    """Return the change as a message of 0.5, or None if it has no equivalent."""
    match change:
        case RegisterJob():
            return RegisterJob(change.msgid, change.job_name)
        case UnregisterJob():
            return UnregisterJob(change.msgid, change.job_name)
        case RegisterProcess(state="starting" | "ready"):
            return RegisterProcess(change.msgid, change.job_name, change.pid)
        case UnregisterProcess() | UpdateProcess(state="draining"):
            return UnregisterProcess(change.msgid, change.job_name, change.pid)
    return None


def _numbered(what: str, messages: Iterable[Change]) -> list[Change]:
    numbered = list(messages)
    for number, message in enumerate(numbered):
        message.msgid = f"{what} {number}"
    return numbered


def _process(pid: int, found: Announced) -> Process:
    return msgspec.convert({"pid": pid, "state": found.state, "endpoints": found.endpoints}, Process)


def _difference(old: Mapping[str, Mapping[int, Process]], new: Mapping[str, Mapping[int, Process]]) -> Iterator[Change]:
    """Yield the changes from `old` to `new`, additions first, so that responses have no gap in between."""
    for job, pids in new.items():
        before = old.get(job)
        if before is None:
            yield RegisterJob("", job)
            before = {}
        for pid, process in pids.items():
            if pid not in before:
                yield RegisterProcess("", job, pid, state=process.state, endpoints=process.endpoints)
            elif process != before[pid]:
                yield UpdateProcess("", job, pid, state=process.state, endpoints=process.endpoints)
        for pid, process in before.items():
            if pid not in pids:
                yield UnregisterProcess("", job, pid, state=process.state, endpoints=process.endpoints)
    for job in old:
        if job not in new:
            yield UnregisterJob("", job)
