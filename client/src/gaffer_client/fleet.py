"""Many nodes at a time: asks each in a thread of its own, and waits for the processes of their jobs."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from gaffer_client.errors import GafferClientError
from gaffer_client.jobs import Job
from gaffer_client.naming import display_name
from gaffer_client.progress import Progress

if TYPE_CHECKING:
    from gaffer.schemas.lookup import NodeInfo
    from gaffer_client.documents import ListedJob

AT_A_TIME = 64  # nodes: so many that hang delay the others by no more than one timeout
_POLL_INTERVAL = 0.2  # seconds

T = TypeVar("T")
M = TypeVar("M")


class Member(NamedTuple):
    """A node of a cluster as lookups list it: `name` is unique for display, `url` is the announced address."""

    name: str
    url: str
    id: str | None
    labels: Mapping[str, str]
    status: str

    @classmethod
    def of(cls, node: "NodeInfo") -> "Member":
        """Return the member that an entry of a lookup describes."""
        labels = node.get("labels") or {}
        return cls(display_name(node), node["origin"], node.get("id"), labels, node.get("status", "alive"))

    @property
    def key(self) -> str:
        """The id of the node, or its address if it has none."""
        return self.id or self.url


def ask_all(
    members: Sequence[M], ask: Callable[[M], T], *, at_a_time: int = AT_A_TIME
) -> Iterator[tuple[M, T | GafferClientError]]:
    """Yield the result of `ask` for each member, or its error, as they arrive.

    At most `at_a_time` are asked at once; `ask` must itself end in time. Raises its OSError, as of output that can't be
    written. Other errors end the thread, and the members that it was to ask are missing in the result.
    """
    waiting = iter(members)
    lock = threading.Lock()
    results: queue.SimpleQueue[tuple[M, T | GafferClientError] | OSError | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            while True:
                with lock:
                    member = next(waiting, None)
                if member is None:
                    return
                try:
                    results.put((member, ask(member)))
                except GafferClientError as error:
                    results.put((member, error))
        except OSError as error:
            results.put(error)
        finally:
            results.put(None)

    running = min(at_a_time, len(members))
    threads = [threading.Thread(target=work, name=f"node {index}", daemon=True) for index in range(running)]
    for thread in threads:
        thread.start()
    while running:
        result = results.get()
        if result is None:
            running -= 1
        elif isinstance(result, OSError):
            raise result
        else:
            yield result
    for thread in threads:
        thread.join()


def follow_progress(
    job: Job, judge: "Callable[[ListedJob], Progress]", timeout: float, show: Callable[[Progress], object]
) -> Progress:
    """Poll the info of a job until `judge` says that it is done or has failed, or for `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        progress = judge(job.info())
        if progress.done or progress.failure is not None:
            return progress
        if time.monotonic() >= deadline:
            return progress._replace(failure=f"not done after {timeout:g} s: {progress.text}")
        show(progress)
        time.sleep(_POLL_INTERVAL)
