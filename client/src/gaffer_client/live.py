"""`LiveLookup`: a copy of what the lookups of a cluster know, kept current by their events."""

import threading
from collections.abc import Sequence
from contextlib import closing
from typing import Any, Self

from gaffer_client.backoff import Backoff
from gaffer_client.cluster import ClusterMap
from gaffer_client.errors import GafferClientError, MalformedAnswer, Unreachable
from gaffer_client.eventsource import Watcher
from gaffer_client.responses import JobAnswer, JobsAnswer, NodesAnswer, SessionsAnswer
from gaffer_client.topology import OutOfStep, Topology
from gaffer_client.transport import Transport, with_query

WATCH_TIMEOUT = 10.0  # seconds
HEARTBEAT = 5.0  # seconds between the signs of life that a lookup is asked for
IDLE_TIMEOUT = 3 * HEARTBEAT
_GRACE = 1.0  # seconds that the others have once a lookup has sent its map


class LiveLookup:
    """Answers the questions of Lookup from memory; `Lookup.watch` makes one.

    A question about one job costs a look into a dictionary, unless something about its nodes has changed since.
    Answers are shared: copy one before you change it. They have no ages, which no event tells.

    Lookups whose connection is lost are `unreachable`, and tried again and again; what they said last counts only when
    all are lost, and then all answers are `stale`. A lookup that has just started is `warming`: while no other has a
    full map, what it said before counts, too, and answers are `stale`. To be used from any thread, and closed.
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
        """End the connections; what is known stays, as stale."""
        for follower in self._followers:
            follower.close()

    @property
    def urls(self) -> list[str]:
        """The addresses of the lookups."""
        return self._map.urls

    @property
    def failures(self) -> dict[str, GafferClientError]:
        """Why a lookup is not connected, for each that is not."""
        with self._lock:
            return dict(self._shared.failures)

    def wait(self, timeout: float = WATCH_TIMEOUT) -> bool:
        """Wait until each lookup has sent its map or failed; whether there is any map.

        That is `timeout` seconds at most, and 1 s at most once one has sent its map.
        """
        with self._lock:
            if self._shared.news.wait_for(lambda: self._map.is_known or self._shared.has_settled(), timeout):
                self._shared.news.wait_for(self._shared.has_settled, min(timeout, _GRACE))
            return self._map.is_known

    def find_job(self, name: str) -> JobAnswer:
        """The nodes that have the job `session.name`; no sources when it is unknown."""
        answer = self._map.kept_answer(name)
        if answer is not None:
            return answer
        with self._lock:
            return self._map.find_job(name)

    def find_session(self, sessionid: str) -> JobsAnswer:
        """The jobs of a session and the nodes that have them; no jobs when it is unknown."""
        with self._lock:
            return self._map.find_session(sessionid)

    def jobs(self) -> JobsAnswer:
        """All jobs and the nodes that have them."""
        with self._lock:
            return self._map.jobs()

    def sessions(self, node: str | None = None) -> SessionsAnswer:
        """All sessions with their jobs, or those of the nodes with that name."""
        with self._lock:
            return self._map.sessions(node)

    def nodes(self) -> NodesAnswer:
        """All nodes."""
        with self._lock:
            return self._map.nodes()


class _Shared:
    """The map of the cluster behind its lock, as followers feed it from their threads."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.news = threading.Condition()
        self.map = ClusterMap(urls)
        self.failures: dict[str, GafferClientError] = {}  # of those that are not connected

    def handle(self, url: str, event: str, message: Any, position: str) -> None:
        """An event of a lookup; raises OutOfStep."""
        fresh = Topology() if event == "snapshot" else None
        if fresh is not None:
            fresh.handle(event, message)  # takes a while, in which others go on with the map before
        with self.news:
            if fresh is not None:
                self.map.put(url, fresh, position)
            else:
                self.map.handle(url, event, message, position)
            self.news.notify_all()

    def opened(self, url: str) -> None:
        """There is a connection."""
        with self.news:
            self.failures.pop(url, None)
            self.map.set_connected(url, True)

    def lost(self, url: str, why: GafferClientError) -> None:
        """There is none any more, or still none."""
        with self.news:
            self.failures[url] = why
            self.map.set_connected(url, False)
            self.news.notify_all()

    def has_settled(self) -> bool:
        """Whether each lookup has sent its map or failed; called with the lock held."""
        return all(self.map.has_map_of(url) or url in self.failures for url in self.map.urls)


class _Follower:
    """Follows one lookup in a thread of its own, and begins anew when its events don't fit."""

    def __init__(self, transport: Transport, shared: _Shared) -> None:
        self._transport = transport
        self._shared = shared
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._watcher = self._new_watcher()
        self._thread = threading.Thread(target=self._run, name=f"events of {transport.url}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End, and wait for that."""
        with self._lock:
            self._ended.set()
            self._watcher.stop()
        self._thread.join()

    def _new_watcher(self) -> Watcher:
        path = with_query("/events", {"heartbeat": f"{HEARTBEAT:g}"})
        return Watcher.over(
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
