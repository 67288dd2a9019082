"""`LiveLookup`: a copy of the state of a cluster's lookups, updated by their events."""

import threading
from collections.abc import Sequence
from contextlib import closing
from typing import Any, Self

from gaffer_client.backoff import Backoff
from gaffer_client.cluster import ClusterMap
from gaffer_client.errors import GafferClientError, MalformedAnswer, Unreachable
from gaffer_client.eventsource import LookupWatcher
from gaffer_client.responses import JobAnswer, JobsAnswer, NodesAnswer, SessionsAnswer
from gaffer_client.topology import OutOfStep, Topology
from gaffer_client.transport import Transport, with_query

WATCH_TIMEOUT = 10.0  # seconds
HEARTBEAT = 5.0  # requested heartbeat interval in seconds
IDLE_TIMEOUT = 3 * HEARTBEAT
_GRACE = 1.0  # seconds to wait for the others once a lookup has sent its snapshot


class LiveLookup:
    """Answers the queries of Lookup from memory; created by `Lookup.watch`.

    A query about one job is a dictionary lookup unless its nodes have changed since the last one. Responses are shared:
    copy them before modifying. They contain no ages, which events do not report.

    Lookups whose connection is lost are `unreachable` and are reconnected; their last state is used only if all are
    lost, and responses are then `stale`. A lookup that has just started is `warming`: while no other one has a full
    snapshot, its earlier state is used as well, and responses are `stale`. Thread-safe. Close it after use.
    """

    def __init__(self, transports: Sequence[Transport]) -> None:
        self._shared = _Shared([transport.url for transport in transports])
        self._map = self._shared.map
        self._lock = self._shared.news
        self._followers = [_Follower(transport, self._shared) for transport in transports]
        for follower in self._followers:
            follower.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the current state is kept and marked stale."""
        for follower in self._followers:
            follower.close()

    @property
    def urls(self) -> list[str]:
        """The URLs of the lookups."""
        return self._map.urls

    @property
    def failures(self) -> dict[str, GafferClientError]:
        """The error of each lookup that is not connected, by URL."""
        with self._lock:
            return dict(self._shared.failures)

    def wait(self, timeout: float = WATCH_TIMEOUT) -> bool:
        """Wait until each lookup has sent its snapshot or failed; return whether there is any snapshot.

        Waits up to `timeout` seconds, and up to 1 s once one lookup has sent its snapshot.
        """
        with self._lock:
            if self._shared.news.wait_for(lambda: self._map.is_known or self._shared.has_settled(), timeout):
                self._shared.news.wait_for(self._shared.has_settled, min(timeout, _GRACE))
            return self._map.is_known

    def find_job(self, name: str) -> JobAnswer:
        """Return the nodes that have the job `session.name`; `sources` is empty if it is unknown."""
        answer = self._map.kept_answer(name)
        if answer is not None:
            return answer
        with self._lock:
            return self._map.find_job(name)

    def find_session(self, sessionid: str) -> JobsAnswer:
        """Return the jobs of a session and the nodes that have them; `jobs` is empty if it is unknown."""
        with self._lock:
            return self._map.find_session(sessionid)

    def jobs(self) -> JobsAnswer:
        """Return all jobs and the nodes that have them."""
        with self._lock:
            return self._map.jobs()

    def sessions(self, node: str | None = None) -> SessionsAnswer:
        """Return all sessions with their jobs, or those of the nodes named `node`."""
        with self._lock:
            return self._map.sessions(node)

    def nodes(self) -> NodesAnswer:
        """Return all nodes."""
        with self._lock:
            return self._map.nodes()


class _Shared:
    """The map of the cluster and its lock, updated by the threads of the followers."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.news = threading.Condition()
        self.map = ClusterMap(urls)
        self.failures: dict[str, GafferClientError] = {}  # by URL, while not connected

    def handle(self, url: str, event: str, message: Any, position: str) -> None:
        """Process an event of a lookup; raise OutOfStep."""
        fresh = Topology() if event == "snapshot" else None
        if fresh is not None:
            fresh.handle(event, message)  # slow, so outside the lock
        with self.news:
            if fresh is not None:
                self.map.put(url, fresh, position)
            else:
                self.map.handle(url, event, message, position)
            self.news.notify_all()

    def opened(self, url: str) -> None:
        """Record that a lookup is connected."""
        with self.news:
            self.failures.pop(url, None)
            self.map.set_connected(url, True)

    def lost(self, url: str, why: GafferClientError) -> None:
        """Record that a lookup is not connected."""
        with self.news:
            self.failures[url] = why
            self.map.set_connected(url, False)
            self.news.notify_all()

    def has_settled(self) -> bool:
        """Return whether each lookup has sent its snapshot or failed; called with the lock held."""
        return all(self.map.has_map_of(url) or url in self.failures for url in self.map.urls)


class _Follower:
    """Follows one lookup in a separate thread, and starts over if its events are inconsistent."""

    def __init__(self, transport: Transport, shared: _Shared) -> None:
        self._transport = transport
        self._shared = shared
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._watcher = self._new_watcher()
        self._thread = threading.Thread(target=self._run, name=f"events of {transport.url}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread and wait for its end."""
        with self._lock:
            self._ended.set()
            self._watcher.stop()
        self._thread.join()

    def _new_watcher(self) -> LookupWatcher:
        path = with_query("/events", {"heartbeat": f"{HEARTBEAT:g}"})
        return LookupWatcher.over(
            self._transport,
            path,
            idle_timeout=IDLE_TIMEOUT,
            patient=True,
            on_open=lambda: self._shared.opened(self._transport.url),
            on_lost=self._lost,
        )

    def _lost(self, error: GafferClientError | None) -> None:
        url = self._transport.url
        self._shared.lost(url, error or Unreachable(f"{url} closed the event stream", url=url))

    def _run(self) -> None:
        backoff = Backoff()
        while not self._ended.is_set():
            error: GafferClientError | None = None
            try:
                with closing(self._watcher.events()) as events:
                    for event, message, position in events:
                        self._shared.handle(self._transport.url, event, message, position)
                        backoff.reset()
            except OutOfStep as mistake:
                error = MalformedAnswer(f"{self._transport.url}: {mistake}", url=self._transport.url)
            except GafferClientError as failure:
                error = failure
            self._lost(error)
            with self._lock:
                if not self._ended.is_set():
                    self._watcher = self._new_watcher()
            self._ended.wait(backoff.next())
