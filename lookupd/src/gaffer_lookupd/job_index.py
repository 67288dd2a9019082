"""The tables announced by nodes: jobs, their processes, and whether the node is draining.

A node with an `id` numbers its changes from 1. Changes are applied in order: an old one is ignored, and after a gap the
node must send a snapshot (`node.resync`). Unnumbered changes are applied as they arrive.

The tables of each node and of all nodes are limited. A change beyond a limit is refused, but its number is recorded, so
that it does not count as a gap.
"""

from collections.abc import Iterable, Mapping

from gaffer.schemas.messages import (
    MAX_ENTRIES,
    MAX_NODE_ENDPOINTS,
    MAX_NODE_JOBS,
    MAX_NODE_PROCESSES,
    JobReport,
    Process,
)
from gaffer_lookupd.changes import Publisher
from gaffer_lookupd.errors import Refused
from gaffer_lookupd.records import Node, NodeKey, Size


class JobIndex:
    """The tables of all nodes, indexed by job; `entries` is the size of all tables."""

    def __init__(self, publish: Publisher) -> None:
        self.entries = 0
        self._publish = publish
        self._by_job: dict[str, dict[NodeKey, Node]] = {}

    @property
    def jobs(self) -> Mapping[str, Mapping[NodeKey, Node]]:
        """The nodes that have each job: `{job name: {node key: node}}`."""
        return self._by_job

    def check_seq(self, node: Node, seq: int | None) -> None:
        """Check the number of the node's last change against the last one received."""
        if seq is not None and seq != node.seq:
            node.resync = True

    def register_job(self, node: Node, job_name: str, seq: int | None = None) -> None:
        """Add a job; raises Refused: 409 if the node already has it, 413 if it has too many."""
        if not _is_next(node, seq):
            return
        if job_name in node.jobs:
            raise Refused(409, f"job {job_name} is already registered")
        _count(node, seq)
        self._check_size(node, len(node.jobs) + 1, node.size)
        node.thaw()
        self._add_job(node, job_name)

    def unregister_job(self, node: Node, job_name: str, seq: int | None = None) -> None:
        """Remove a job and its processes, if the node has it."""
        if not _is_next(node, seq):
            return
        _count(node, seq)
        if job_name in node.jobs:
            node.thaw()
            self._remove_job(node, job_name)
        self._publish.update(node)

    def put_process(self, node: Node, job_name: str, process: Process, seq: int | None = None) -> None:
        """Add a process to a job of the node, or update it.

        Raises Refused: 404 if the node lacks the job, 413 if it has too many processes or endpoints.
        """
        if not _is_next(node, seq):
            return
        before = _processes(node, job_name).get(process.pid)
        _count(node, seq)
        self._check_size(node, len(node.jobs), node.size.plus(process).minus(before))
        node.thaw()
        self._put_process(node, job_name, process)
        self._publish.update(node)

    def drop_process(self, node: Node, job_name: str, pid: int, seq: int | None = None) -> None:
        """Remove a process of a job, if it exists; raises Refused (404) if the node lacks the job."""
        if not _is_next(node, seq):
            return
        known = pid in _processes(node, job_name)
        _count(node, seq)
        if known:
            node.thaw()
            self._drop_process(node, job_name, pid)
        self._publish.update(node)

    def replace(self, node: Node, seq: int, jobs: Mapping[str, Iterable[Process]], draining: bool = False) -> None:
        """Replace the table of a node, as of change `seq`, unless a later change was already applied.

        Raises Refused (413) if it is too large.
        """
        if seq < node.seq and not node.resync:
            return
        new = {name: {process.pid: process for process in processes} for name, processes in jobs.items()}
        size = Size.of(process for processes in new.values() for process in processes.values())
        self._check_size(node, len(new), size)
        node.thaw()
        node.seq = seq
        node.resync = False
        if draining != node.draining:
            self.set_draining(node, draining)
        for job_name in node.jobs.keys() - new.keys():
            self._remove_job(node, job_name)
        for job_name, current in new.items():
            if job_name not in node.jobs:
                self._add_job(node, job_name)
            for process in current.values():
                self._put_process(node, job_name, process)
            for pid in node.jobs[job_name].keys() - current.keys():
                self._drop_process(node, job_name, pid)
        self._publish.update(node)

    def put_state(self, node: Node, job_name: str, report: JobReport | None) -> None:
        """Set the state of a job of the node, None if it is not known any more; ignore it if the node lacks the job."""
        if job_name not in node.jobs or node.states.get(job_name) == report:
            return
        node.thaw()
        if report is None:
            del node.states[job_name]
        else:
            node.states[job_name] = report
        self._publish.job_state(node, job_name, report)

    def forget_states(self, node: Node) -> None:
        """Forget the states of the jobs of a node, which may not report them any more."""
        for job_name in list(node.states):
            self.put_state(node, job_name, None)

    def drain(self, node: Node, seq: int | None = None) -> None:
        """Mark the node as draining."""
        if _is_next(node, seq):
            _count(node, seq)
            self.set_draining(node, True)

    def set_draining(self, node: Node, draining: bool) -> None:
        """Set whether the node is draining; responses list no `pids` of a draining node."""
        node.draining = draining
        self._publish.update(node)

    def forget(self, node: Node) -> None:
        """Drop the table of a removed node, without publishing changes for its jobs."""
        self.entries -= node.entries
        for job_name in node.jobs:
            self._unindex(node, job_name)

    def _check_size(self, node: Node, jobs: int, size: Size) -> None:
        """Raise Refused if the table of the node, or all tables together, would be too large."""
        for noun, count, limit in (
            ("jobs", jobs, MAX_NODE_JOBS),
            ("processes", size.processes, MAX_NODE_PROCESSES),
            ("endpoints", size.endpoints, MAX_NODE_ENDPOINTS),
        ):
            if count > limit:
                raise Refused(413, f"too_many_{noun}: a node can announce at most {limit}")
        entries = jobs + sum(size)
        if entries > node.entries and self.entries - node.entries + entries > MAX_ENTRIES:
            raise Refused(413, f"registry_full: all nodes together can announce at most {MAX_ENTRIES} entries")

    def _resize(self, node: Node, size: Size) -> None:
        self.entries += sum(size) - sum(node.size)
        node.size = size

    def _add_job(self, node: Node, job_name: str) -> None:
        node.jobs[job_name] = {}
        self.entries += 1
        self._by_job.setdefault(job_name, {})[node.key] = node
        self._publish.job("add_job", node, job_name)

    def _remove_job(self, node: Node, job_name: str) -> None:
        for process in node.jobs.pop(job_name).values():
            self._resize(node, node.size.minus(process))
        node.states.pop(job_name, None)
        self.entries -= 1
        self._unindex(node, job_name)
        self._publish.job("remove_job", node, job_name)

    def _unindex(self, node: Node, job_name: str) -> None:
        holders = self._by_job[job_name]
        del holders[node.key]
        if not holders:
            del self._by_job[job_name]

    def _put_process(self, node: Node, job_name: str, process: Process) -> None:
        known = node.jobs[job_name]
        before = known.get(process.pid)
        if before == process:
            return
        known[process.pid] = process
        self._resize(node, node.size.plus(process).minus(before))
        self._publish.process("update_process" if before else "add_process", node, job_name, process)

    def _drop_process(self, node: Node, job_name: str, pid: int) -> None:
        process = node.jobs[job_name].pop(pid)
        self._resize(node, node.size.minus(process))
        self._publish.process("remove_process", node, job_name, process)


def _is_next(node: Node, seq: int | None) -> bool:
    if seq is None or seq == node.seq + 1:
        return True
    if seq > node.seq:
        node.resync = True
    return False


def _count(node: Node, seq: int | None) -> None:
    """Record the number of a change, before the change is published with it."""
    if seq is not None:
        node.seq = seq


def _processes(node: Node, job_name: str) -> dict[int, Process]:
    try:
        return node.jobs[job_name]
    except KeyError:
        raise Refused(404, "job_not_found") from None
