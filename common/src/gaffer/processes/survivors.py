"""Processes that outlived the manager that started them, and what is left of them for the next one."""

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct, field

from gaffer.jobs.records import ProcessRecord


class ExitSource(Protocol):
    """Reports how processes that outlived their manager exit.

    It is their parent and holds them as zombies, but for those that another one had adopted which has ended.
    """

    @property
    def pid(self) -> int:
        """Its process id."""

    @property
    def connected(self) -> bool:
        """Whether it is still there; otherwise the ids of exited processes may be reused."""

    def watch(self, os_pid: int, callback: Callable[[int | None, float | None], object]) -> None:
        """Call `callback(wait_status, exited_at)` on the loop once the process has exited.

        The first is None if the status can't be known, the second the time of time.monotonic(), None if unknown.
        """


class Survivor(Struct, frozen=True):
    """A process that an earlier manager left, which may have exited meanwhile.

    `descriptors` are its pidfd and the earlier manager's ends of its pipes, by name. `parent` is None for a process
    whose exit status can't be known. `exited`: it is known to have exited, with the wait status `status` unless None,
    at the time `exited_at` of time.monotonic() unless None.
    """

    record: ProcessRecord
    descriptors: dict[str, int] = field(default_factory=dict)
    parent: ExitSource | None = None
    exited: bool = False
    status: int | None = None
    exited_at: float | None = None
