"""The order of jobs: tells those that come after others whether they may start, and ends jobs in reverse order.

No I/O; the manager's lock guards it.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gaffer.errors import ConfigError, Problem
from gaffer.jobs import events as ev
from gaffer.jobs.config import JobConfig
from gaffer.jobs.gates import obstacle
from gaffer.jobs.job import Job
from gaffer.jobs.names import JobName
from gaffer.jobs.ordering import Condition, Dependency, dependencies, find_mistakes, in_order
from gaffer.supervision.job_table import JobTable


class Ordering:
    """Watches the jobs of `jobs`; `submit(job, event)` gives an event to a job."""

    def __init__(self, jobs: JobTable, submit: Callable[[Job, ev.Event], Any]) -> None:
        self._jobs = jobs
        self._submit = submit
        self._after: dict[JobName, tuple[object, list[Dependency]]] = {}
        self._dependents: dict[JobName, dict[JobName, None]] = {}
        self._seen: dict[tuple[JobName, JobName], tuple[Job, int]] = {}  # renewals of the job it comes after
        self._teardown: _Teardown | None = None

    def check(
        self, configs: Mapping[JobName, JobConfig], paths: Mapping[JobName, str], *, complete: bool = True
    ) -> None:
        """Raise ConfigError if, with `configs` loaded, one comes after itself or, if `complete`, an unknown job."""
        if not any(config.after for config in configs.values()):
            return
        graph = {job.name: [each.job for each in self._dependencies(job)] for job in self._jobs}
        graph |= {
            name: [each.job for each in dependencies(config.after, name.session)] for name, config in configs.items()
        }
        if problems := [
            Problem(paths[job] + (".after" if index is None else f".after[{index}]"), message, hint)
            for job, index, message, hint in find_mistakes(
                graph, [name for name in configs if graph[name]], complete=complete
            )
        ]:
            raise ConfigError(problems)

    def changed(self, job: Job) -> None:
        """Let the jobs that come after `job`, and itself, know what that means; call it after each event of a job."""
        if job.config.after or job.name in self._after:
            self._learn(job)
            if job.gated:
                self._evaluate(job)
        for name in self._dependents.get(job.name, ()):
            dependent = self._jobs.find(name)
            if dependent is None:
                continue
            if dependent.gated:
                self._evaluate(dependent)
            else:
                self._follow(dependent)
        if self._teardown is not None:
            self._teardown.advance(job)

    def end(self, jobs: Iterable[Job], event: ev.Event, gone: Callable[[Job], bool]) -> None:
        """Give `event`, which ends them, to `jobs` in turn; to those that others come after once these are `gone`.

        An automatic rollback can lead to a cycle, in which one job does not wait for those that come after it.
        """
        known = [*jobs]
        graph = {job.name: [each.job for each in self._dependencies(job)] for job in known}
        place = {name: number for number, name in enumerate(in_order(graph))}
        dependents: dict[JobName, list[Job]] = {}
        for job in known:
            for each in self._dependencies(job):
                if place.get(each.job, 0) < place[job.name]:
                    dependents.setdefault(each.job, []).append(job)
        holds = {job: dependents.get(job.name, []) for job in known}
        self._teardown = _Teardown(known, holds, gone, lambda job: self._submit(job, event))
        self._teardown.advance(None)

    def _dependencies(self, job: Job) -> list[Dependency]:
        return dependencies(job.config.after, job.name.session) if job.config.after else []

    def _learn(self, job: Job) -> None:
        """Remember what `job` comes after, and forget it when it is unloaded."""
        loaded = self._jobs.find(job.name)
        if loaded is not None and loaded is not job:
            return
        current = job.config.after if loaded is job else None
        known, before = self._after.get(job.name, (None, []))
        if known is current:
            return
        for each in before:
            names = self._dependents[each.job]
            del names[job.name]
            if not names:
                del self._dependents[each.job]
            self._seen.pop((job.name, each.job), None)
        if current is None:
            del self._after[job.name]
            return
        now = self._dependencies(job)
        self._after[job.name] = current, now
        for each in now:
            self._dependents.setdefault(each.job, {})[job.name] = None

    def _evaluate(self, job: Job) -> None:
        found = (obstacle(each.job, self._jobs.find(each.job), each.condition) for each in self._after[job.name][1])
        reason = next((each for each in found if each is not None), None)
        if reason is None:
            self._seen = {key: seen for key, seen in self._seen.items() if key[0] != job.name}
            self._follow(job)  # from here on
        if reason != job.waiting_for:
            self._submit(job, ev.DependencyChanged(reason))

    def _follow(self, job: Job) -> None:
        """Restart `job` if the processes of one that it follows were replaced."""
        replaced = False
        for each in self._after[job.name][1]:
            other = self._jobs.find(each.job)
            if each.condition is not Condition.RESTART or other is None or not other.all_ready:
                continue
            key = job.name, each.job
            before = self._seen.get(key)
            self._seen[key] = other, other.renewals
            replaced = replaced or (before is not None and before != self._seen[key])
        if replaced and job.active:
            self._submit(job, ev.RestartRequested())


class _Teardown:
    """Ends jobs, each once those that `holds` names for it are gone."""

    def __init__(
        self,
        jobs: list[Job],
        holds: Mapping[Job, list[Job]],
        gone: Callable[[Job], bool],
        end: Callable[[Job], Any],
    ) -> None:
        self._left = dict.fromkeys(jobs)
        self._holds = holds
        self._gone = gone
        self._end = end
        self._advancing = False

    def advance(self, job: Job | None) -> None:
        """End what can be ended, after an event of `job`."""
        if self._advancing or not self._left or (job is not None and not self._gone(job)):
            return
        self._advancing = True
        while ready := [each for each in self._left if all(map(self._gone, self._holds[each]))]:
            for each in ready:
                del self._left[each]
                self._end(each)
        self._advancing = False
