"""How changes of jobs are made: at once, or once they are stored."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Changer(Protocol):
    """Makes changes of jobs, now or once they are stored."""

    error: str | None
    """Why changes can't be stored."""

    def change(self, call: Callable[[], T]) -> Awaitable[T]:
        """Return the result of `call`, which changes jobs by methods of the manager (see Manager.rehearse)."""


class Immediately:
    """Makes changes at once; see Changer."""

    error: str | None = None

    async def change(self, call: Callable[[], T]) -> T:
        """Call `call`."""
        return call()
