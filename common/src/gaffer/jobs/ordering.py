"""The order of jobs: what `after` says, and cycles in it. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from gaffer.errors import BadRequest, InvalidValue, did_you_mean, quoted
from gaffer.jobs.names import JobName, parse_job_name
from gaffer.jobs.rules import split_list


class Condition(StrEnum):
    """What a job waits for another one to be."""

    READY = "ready"  # all its processes are ready; a job that runs once has completed
    STARTED = "started"  # all its processes run, or it has completed
    COMPLETED = "completed"  # it has run to success
    RESTART = "restart"  # ready; and this job is restarted when the other one's processes were replaced


class Dependency(NamedTuple):
    """A job that another one comes after."""

    job: JobName
    condition: Condition


_HINT = f"use JOB or JOB:CONDITION with one of {', '.join(Condition)}"


def dependencies(after: Iterable[str], session: str) -> list[Dependency]:
    """Parse the items of a checked `after` of a job in `session`."""
    found = []
    for item in after:
        name, _, condition = item.partition(":")
        found.append(Dependency(parse_job_name(name, session), Condition(condition or Condition.READY)))
    return found


def job_list(value: Any, lax: bool) -> tuple[str, ...]:
    """`JOB` or `JOB:CONDITION` items with ready, started, completed or restart; default: ready."""
    items = split_list(value, "a list of jobs")
    for index, item in enumerate(items):
        if not isinstance(item, str):
            raise InvalidValue(f"expected the name of a job, got {quoted(item)}", _HINT, f"[{index}]")
        name, colon, condition = item.partition(":")
        try:
            parse_job_name(name)
        except BadRequest as error:
            raise InvalidValue(error.message, error.hint, f"[{index}]") from None
        if colon and condition not in list(Condition):
            hint = did_you_mean(condition, list(Condition)) or _HINT
            raise InvalidValue(f"unknown condition {quoted(condition)} of {name}", hint, f"[{index}]")
    if len({item.partition(":")[0] for item in items}) != len(items):
        raise InvalidValue("duplicate job", "name each job once")
    return tuple(items)


class Misplaced(NamedTuple):
    """A mistake in the order of `job`: in the item of that number of its `after`, or in all of it."""

    job: JobName
    item: int | None
    message: str
    hint: str


def find_mistakes(
    graph: Mapping[JobName, Sequence[JobName]], among: Collection[JobName], hint: str = "load it first"
) -> list[Misplaced]:
    """Return the unknown jobs that jobs `among` those of `graph` come after; if there are none, a cycle, if any.

    `hint` says what to do about an unknown job unless its name resembles that of a known one.
    """
    found = []
    for name in among:
        for index, other in enumerate(graph[name]):
            if other not in graph:
                near = _nearest(other, [each for each in graph if each != name], name.session)
                found.append(Misplaced(name, index, f"after: there is no job {str(other)!r}", near or hint))
    cycle = None if found else find_cycle(graph)
    if cycle is not None:
        steps = " -> ".join(each.display for each in cycle)
        name = next((each for each in cycle if each in among), next(iter(among)))
        found.append(Misplaced(name, None, f"after: a cycle: {steps}", "remove one of these steps"))
    return found


def _nearest(unknown: JobName, known: Iterable[JobName], session: str) -> str | None:
    """Return a hint with the known job nearest to `unknown`, as a job of `session` names it, or None."""
    if unknown.session == session:
        return did_you_mean(unknown.name, [each.name for each in known if each.session == session])
    return did_you_mean(unknown.display, [each.display for each in known if each.session != session])


def in_order(graph: Mapping[JobName, Iterable[JobName]]) -> list[JobName]:
    """Return the jobs of `graph`, each after those that it comes after unless in a cycle, else in their order."""
    found: dict[JobName, None] = {}
    entered: set[JobName] = set()
    todo = [(name, False) for name in reversed([*graph])]
    while todo:
        name, visited = todo.pop()
        if visited:
            found[name] = None
        elif name not in entered and name in graph:
            entered.add(name)
            todo.append((name, True))
            todo += [(other, False) for other in reversed([*graph[name]])]
    return [*found]


def find_cycle(graph: Mapping[JobName, Iterable[JobName]]) -> list[JobName] | None:
    """Return a path of `graph` that leads back to its first job, which is also its last; None if there is none."""
    done: set[JobName] = set()
    for first in graph:
        path: list[JobName] = []
        on_path: set[JobName] = set()
        todo: list[tuple[JobName, bool]] = [(first, False)]
        while todo:
            name, leaving = todo.pop()
            if leaving:
                on_path.discard(path.pop())
                done.add(name)
            elif name in on_path:
                return [*path[path.index(name) :], name]
            elif name not in done:
                path.append(name)
                on_path.add(name)
                todo.append((name, True))
                todo += [(next_, False) for next_ in graph.get(name, ())]
    return None
