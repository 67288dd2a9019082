"""The interface of what finds drift: differences between jobs and the files that they come from."""

from collections.abc import Awaitable
from typing import Protocol

from gaffer.jobs.job import Job
from gaffer.schemas.views import DriftInfo


class DriftSource(Protocol):
    """Finds drift from what it last saw of the files; neither method blocks."""

    def find(self, job: Job) -> list[DriftInfo]:
        """Return the drift of a job; called in any thread, with the manager locked."""

    def refresh(self) -> Awaitable[None] | None:
        """Look at the files again, unless that was done a moment ago; call it on the loop.

        Returns None if there is nothing to wait for.
        """


class NoDrift:
    """The drift of a manager whose jobs do not come from files: none."""

    def find(self, job: Job) -> list[DriftInfo]:
        """Return an empty list."""
        return []

    def refresh(self) -> None:
        """Return None: there is nothing to look at."""
        return
