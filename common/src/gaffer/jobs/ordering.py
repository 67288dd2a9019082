"""The order of jobs: what `after` says, and cycles in it. Pure."""

from collections.abc import Iterable, Mapping
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
