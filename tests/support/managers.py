"""Managers for tests: one that runs on a loop of its own in a thread, so that a test is any thread."""

import contextlib
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from gaffer import Manager
from gaffer.loop import new_loop
from gaffer.schemas.views import ExitInfo


@contextlib.contextmanager
def running_manager(apps: Iterable[Any] = (), *, loop: str = "auto", **settings: Any) -> Iterator[Manager]:
    """A started manager; at the end it is stopped (its processes are killed) and its loop closed."""
    manager = Manager(new_loop(loop), **settings)
    manager.start(apps)
    thread = threading.Thread(target=manager.run, name="manager")
    thread.start()
    try:
        yield manager
    finally:
        manager.stop(now=True)
        thread.join(20)
        assert not thread.is_alive(), "the manager did not stop"
        manager.loop.close()


class Recording:
    """An application that keeps the events of a manager: `(name, message)` in order."""

    def __init__(self, pattern: str = ".") -> None:
        self.pattern = pattern
        self.seen: list[tuple[str, dict[str, Any]]] = []

    def start(self, loop: Any, manager: Manager) -> None:
        manager.events.subscribe(self.pattern, self._note)

    def _note(self, name: str, message: dict[str, Any]) -> None:
        self.seen.append((name, message))

    def names(self) -> list[str]:
        return [name for name, _ in self.seen]

    def of(self, name: str) -> list[dict[str, Any]]:
        return [message for seen, message in self.seen if seen == name]


def last_exit(manager: Manager, job: str) -> ExitInfo:
    """How the last process of the job ended; one must have."""
    found = manager.info(job)["last_exit"]
    assert found is not None, f"no process of {job} has ended"
    return found
