"""Waiting for the state of a job."""

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import Any, Protocol

from gaffer.errors import BadValue
from gaffer.jobs.job import Job
from gaffer.jobs.states import JobState


class _Changes(Protocol):
    """Something that calls back after jobs may have changed; see Manager."""

    def on_change(self, callback: Callable[[], Any]) -> None: ...
    def off_change(self, callback: Callable[[], Any]) -> None: ...


def job_states(state: str | Iterable[str]) -> list[JobState]:
    """The states that `state` names, one or several; raises BadValue for an unknown one."""
    try:
        return [JobState(each) for each in ([state] if isinstance(state, str) else state)]
    except ValueError:
        raise BadValue(f"unknown job state in {state!r}", hint=f"use one of {', '.join(JobState)}") from None


async def wait_for_state(
    changes: _Changes, find: Callable[[], Job], states: Collection[JobState], timeout: float | None
) -> None:
    """Return once the job that `find` returns is in one of `states`.

    Raises TimeoutError after `timeout` seconds, and what `find` raises after a change.
    """
    changed = asyncio.Event()
    changes.on_change(changed.set)
    try:
        async with asyncio.timeout(timeout):
            while True:
                changed.clear()
                if find().state in states:
                    return
                await changed.wait()
    except TimeoutError:
        job = find()
        because = f" ({job.reason})" if job.reason else ""
        wanted = " or ".join(states)
        raise TimeoutError(f"{job.name} is {job.state}{because}, not {wanted}, after {timeout:g} s") from None
    finally:
        changes.off_change(changed.set)
