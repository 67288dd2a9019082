"""`Lookup`: queries all lookups of a cluster in parallel."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypeVar

from gaffer.schemas.lookup import (
    ClusterHistoryPage,
    JobSource,
    JobsResponse,
    LookupPeers,
    NodesResponse,
    SessionsResponse,
    SourcesResponse,
)
from gaffer_client import composing
from gaffer_client.errors import GafferClientError, ServerError, StatusError, Unreachable
from gaffer_client.eventsource import LookupWatcher, Watcher
from gaffer_client.live import HEARTBEAT, IDLE_TIMEOUT, WATCH_TIMEOUT, LiveLookup
from gaffer_client.merge import Merged, View, bridged, merge
from gaffer_client.panel import GRACE, LATE, Panel
from gaffer_client.responses import JobAnswer, JobsAnswer, NodesAnswer, SessionsAnswer
from gaffer_client.transport import Sender, Transport, path_of, unreachable, with_query

if TYPE_CHECKING:
    from gaffer_client.event_socket import LookupSocket

DEFAULT_TIMEOUT = 5.0
HISTORY_LIMIT = 5000  # entries that a lookup returns at most
REMEMBERED = 256  # responses kept for when no lookup responds; the least recently used ones are dropped

T = TypeVar("T")

_JobsOf = Callable[[Any], Mapping[str, list[JobSource]]]


class _Reply(NamedTuple):
    view: View
    document: Mapping[str, Any]

    @property
    def is_good(self) -> bool:
        return not self.view.stale


class Lookup:
    """A client for the lookups at `urls`.

    Each query is sent to all lookups, and their responses are merged: for each node, the lookup with the latest state
    of that node is used. Responses are the documents of the matching routes of gaffer_lookupd, plus
    `lookups: {"agree": [url], "unreachable": [url]}`: the lookups whose own response equals the merged one, and those
    that did not respond (see `failures`). `stale` is true if the response may be out of date. `epoch` and `seq`,
    which belong to a single lookup, are left out if there are several.

    A lookup that hangs does not delay the others: after the first good response, the rest have 0.2 s, and lookups that
    miss this deadline are not waited for during the next 30 s. A lookup that has just started is `warming`: while no
    other lookup has a good response, its responses from before the restart are merged with its current ones and
    marked stale.

    If no lookup is reachable, `stale="answer"` returns the last response to the same query, marked stale;
    `stale="raise"` raises Unreachable, as does a query without an earlier response. If all lookups fail in other ways,
    the error of the first one is raised.

    `api_key` is sent to each lookup: the cluster key, if readers need one. `cacert`, `certfile` and `keyfile` are PEM
    files for https; `timeout` is in seconds. Not thread-safe; see `watch`.
    """

    def __init__(
        self,
        urls: Iterable[str] | str,
        *,
        stale: Literal["answer", "raise"] = "answer",
        api_key: str | None = None,
        cacert: str | None = None,
        certfile: str | None = None,
        keyfile: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        sender: Callable[[Transport], Sender] | None = None,
    ) -> None:
        if stale not in ("answer", "raise"):
            raise ValueError(f"stale={stale!r}: use answer or raise")
        transports = [
            Transport(
                url,
                api_key=api_key,
                cacert=cacert,
                certfile=certfile,
                keyfile=keyfile,
                insecure=True,  # nodes send the same key over plain http, and lookupd runs as another user
                timeout=timeout,
                sender=sender,
            )
            for url in ([urls] if isinstance(urls, str) else urls)
        ]
        self._transports = {transport.url: transport for transport in transports}
        if not self._transports:
            raise ValueError("at least one address is required")
        self._panel: Panel[Any] = Panel(self._transports)
        self._timeout = timeout
        self._repeats = stale == "answer"
        self._views: OrderedDict[str, dict[str, View]] = OrderedDict()  # the last views that were not warming
        self._last: OrderedDict[str, tuple[Merged, dict[str, Any]]] = OrderedDict()
        self.failures: dict[str, GafferClientError] = {}

    @property
    def urls(self) -> list[str]:
        """The URLs of the lookups."""
        return list(self._transports)

    def transport(self, url: str) -> Transport:
        """Return a new transport for the lookup at `url`, one of `urls`; close it after use."""
        return self._transports[url].clone()

    def close(self) -> None:
        """Close the connections; the next query reopens them."""
        self._panel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def watch(self, timeout: float = WATCH_TIMEOUT) -> LiveLookup:
        """Return a live copy of the cluster state, updated by events, which answers the same queries from memory.

        Waits until each lookup has sent its snapshot or failed once, up to `timeout` seconds. Raises the same errors as
        a query if none has sent one. Close the copy after use.
        """
        live = LiveLookup([transport.clone() for transport in self._transports.values()])
        try:
            if not live.wait(timeout):
                raise no_response(live.failures or {url: _no_map(url, timeout) for url in live.urls})
        except BaseException:
            live.close()
            raise
        return live

    def watchers(self, on_lost: Callable[[str, GafferClientError | None], object] | None = None) -> list[Watcher]:
        """Return a Watcher of the changes of each lookup; the first event is a snapshot.

        `on_lost(url, error)` is called before each reconnection.
        """
        path = with_query("/events", {"heartbeat": f"{HEARTBEAT:g}"})
        several = len(self._transports) > 1
        return [
            LookupWatcher.over(
                transport,
                path,
                idle_timeout=IDLE_TIMEOUT,
                patient=several,
                on_lost=None if on_lost is None else partial(on_lost, url),
            )
            for url, transport in self._transports.items()
        ]

    def sockets(self, *, ping_interval: float = 15.0) -> "list[LookupSocket]":
        """Return a websocket for the changes of each lookup; start and close each one.

        A connection that is silent for `ping_interval` seconds is pinged.
        """
        from gaffer_client.event_socket import LookupSocket  # imports websockets

        return [LookupSocket(transport.clone(), ping_interval=ping_interval) for transport in self._transports.values()]

    def nodes(self) -> NodesAnswer:
        """Return all nodes."""
        return composing.nodes_answer(*self._ask("/nodes", NodesResponse, lambda document: {}))

    def sessions(self, node: str | None = None) -> SessionsAnswer:
        """Return all sessions with their jobs, or those of the nodes named `node`."""
        path = "/sessions" if node is None else path_of("sessions", node)
        return composing.sessions_answer(*self._ask(path, SessionsResponse, _jobs_of_sessions))

    def jobs(self) -> JobsAnswer:
        """Return all jobs and the nodes that have them."""
        return composing.jobs_answer(*self._ask("/jobs", JobsResponse, _jobs_of_list))

    def find_job(self, name: str) -> JobAnswer:
        """Return the nodes that have the job `session.name`; `sources` is empty if it is unknown."""
        merged, rest = self._ask(
            "/findJob", SourcesResponse, lambda document: {name: document["sources"]}, query={"name": name}
        )
        return composing.job_answer(merged, rest, name)

    def find_session(self, sessionid: str) -> JobsAnswer:
        """Return the jobs of a session and the nodes that have them; `jobs` is empty if it is unknown."""
        found = self._ask("/findSession", JobsResponse, _jobs_of_list, query={"sessionid": sessionid})
        return composing.jobs_answer(*found)

    def opinions(self, name: str) -> dict[str, View | GafferClientError]:
        """Return the view of each lookup (all nodes, and those with the job `name`), or its error."""
        replies = self._replies(
            "/findJob", SourcesResponse, lambda document: {name: document["sources"]}, {"name": name}, grace=LATE
        )
        return {url: reply.view if isinstance(reply, _Reply) else reply for url, reply in replies.items()}

    def history(
        self, *, text: str = "", node: str = "", job: str = "", failed: bool = False, limit: int = 500
    ) -> dict[str, ClusterHistoryPage]:
        """Return what each lookup has recorded of the cluster since its start, newest first, by its URL.

        `text` occurs in an entry, `node` is the name or id of a node, `job` the qualified name of a job; `failed`: only
        what failed or was refused. At most HISTORY_LIMIT entries are returned. Entries of several lookups are not
        merged: each has its own numbers and times.
        """
        query = {"q": text, "node": node, "job": job, "failed": "true" if failed else ""}
        given = {name: value for name, value in query.items() if value} | {"limit": str(min(limit, HISTORY_LIMIT))}
        return self._each(lambda transport: transport.get("/history", ClusterHistoryPage, query=given))

    def lookupds(self) -> dict[str, LookupPeers]:
        """Return the lookups that the nodes announce to, as they report to each lookup, by its URL."""
        return self._each(lambda transport: transport.get("/lookupds", LookupPeers))

    def _each(self, fetch: Callable[[Transport], T]) -> dict[str, T]:
        """Return the document of each lookup that responds, see `failures` for the others; raise if none does."""
        outcomes = self._panel.ask(fetch, lambda document: True, timeout=self._timeout, grace=LATE)
        self.failures = {url: outcome for url, outcome in outcomes.items() if isinstance(outcome, GafferClientError)}
        if len(self.failures) == len(outcomes):
            raise no_response(self.failures)
        return {url: outcome for url, outcome in outcomes.items() if not isinstance(outcome, GafferClientError)}

    def _ask(
        self, path: str, shape: type[Any], jobs_of: _JobsOf, query: Mapping[str, str] | None = None
    ) -> tuple[Merged, dict[str, Any]]:
        """Query all lookups; return the merged content and the other fields of the response."""
        several = len(self._transports) > 1
        outcomes = self._replies(path, shape, jobs_of, query, with_nodes=several)
        replies = [outcome for outcome in outcomes.values() if isinstance(outcome, _Reply)]
        self.failures = {url: outcome for url, outcome in outcomes.items() if isinstance(outcome, GafferClientError)}
        question = with_query(path, query)
        if not replies:
            return self._repeat(question)
        views = [reply.view for reply in replies]
        merged = merge(bridged(views, self._earlier(question, views)))
        rest = {} if several else dict(replies[0].document)
        rest["stale"] = merged.stale
        rest["warming"] = all(view.warming for view in views)
        rest["lookups"] = {"agree": merged.agree, "unreachable": list(self.failures)}
        _remember(self._last, question, (merged, rest))
        return merged, rest

    def _earlier(self, question: str, views: Sequence[View]) -> list[View]:
        """Return earlier views for the query, from when the lookups were not warming; store the current ones."""
        earlier = self._views.get(question, {})
        _remember(self._views, question, {**earlier, **{view.url: view for view in views if not view.warming}})
        return list(earlier.values())

    def _replies(
        self,
        path: str,
        shape: type[Any],
        jobs_of: _JobsOf,
        query: Mapping[str, str] | None,
        *,
        with_nodes: bool = True,
        grace: float = GRACE,
    ) -> dict[str, _Reply | GafferClientError]:
        """Return the response of each lookup; `with_nodes` adds all its nodes, which merging needs."""

        deadline = time.monotonic() + self._timeout

        def fetch(transport: Transport) -> _Reply:
            ask_nodes = partial(transport.get, "/nodes", NodesResponse, deadline=deadline)
            # Nodes first, so that each node is at least as recent in the second response as in the first.
            nodes = ask_nodes() if with_nodes and path != "/nodes" else None
            document = transport.get(path, shape, query=query, deadline=deadline)
            if nodes is None and path != "/nodes" and document.get("warming"):
                nodes = ask_nodes()  # to find which nodes are back and replace their earlier entries
            known = nodes or document
            view = View(
                url=transport.url,
                nodes=known.get("nodes", []),
                jobs=jobs_of(document),
                tombstones=known.get("tombstones", []),
                stale=document.get("stale", False),
                warming=document.get("warming", False),
            )
            return _Reply(view, document)

        return self._panel.ask(fetch, lambda reply: reply.is_good, timeout=self._timeout, grace=grace)

    def _repeat(self, question: str) -> tuple[Merged, dict[str, Any]]:
        """Return the last response to a query that no lookup responds to now."""
        refused = any(isinstance(e, StatusError) and not isinstance(e, ServerError) for e in self.failures.values())
        if refused or not self._repeats or question not in self._last:
            raise no_response(self.failures)
        merged, rest = self._last[question]
        self._last.move_to_end(question)
        return merged, {**rest, "stale": True, "lookups": {"agree": [], "unreachable": list(self.failures)}}


def _remember(kept: OrderedDict[str, T], question: str, answer: T) -> None:
    kept[question] = answer
    kept.move_to_end(question)
    if len(kept) > REMEMBERED:
        kept.popitem(last=False)


def _jobs_of_sessions(document: SessionsResponse) -> dict[str, list[JobSource]]:
    return {name: sources for session in document["sessions"] for name, sources in session["jobs"].items()}


def _jobs_of_list(document: JobsResponse) -> dict[str, list[JobSource]]:
    return {job["name"]: job["sources"] for job in document["jobs"]}


def no_response(failures: Mapping[str, GafferClientError]) -> GafferClientError:
    """Return the error to raise if no lookup responded, from the error of each."""
    errors = list(failures.values())
    if len(errors) == 1:
        return errors[0]
    for error in errors:
        if not isinstance(error, Unreachable):
            return error
    return Unreachable("; ".join(error.message for error in errors), url=", ".join(failures))


def _no_map(url: str, timeout: float) -> GafferClientError:
    return unreachable(url, f"no map within {timeout:g} s")
