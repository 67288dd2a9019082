"""`Lookup`: asks the lookups of a cluster, all at once, which node runs what."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypeVar

from gaffer.schemas.lookup import JobSource, JobsResponse, NodesResponse, SessionsResponse, SourcesResponse
from gaffer_client import composing
from gaffer_client.errors import GafferClientError, ServerError, StatusError, Unreachable
from gaffer_client.eventsource import Watcher
from gaffer_client.live import HEARTBEAT, IDLE_TIMEOUT, WATCH_TIMEOUT, LiveLookup
from gaffer_client.merge import Merged, View, bridged, merge
from gaffer_client.panel import GRACE, LATE, Panel
from gaffer_client.responses import JobAnswer, JobsAnswer, NodesAnswer, SessionsAnswer
from gaffer_client.transport import Transport, path_of, unreachable, with_query

if TYPE_CHECKING:
    from gaffer_client.event_socket import LookupSocket

DEFAULT_TIMEOUT = 5.0
REMEMBERED = 256  # answers that are kept for the time when nobody answers; those that were asked for longest ago go

T = TypeVar("T")

_JobsOf = Callable[[Any], Mapping[str, list[JobSource]]]


class _Reply(NamedTuple):
    view: View
    document: Mapping[str, Any]

    @property
    def is_good(self) -> bool:
        return not self.view.stale


class Lookup:
    """The lookups at `urls`, as one.

    Every question goes to all of them, and their answers are merged: what the lookup that is furthest says about a
    node counts. Answers are the documents of the matching route of gaffer_lookupd, with
    `lookups: {"agree": [url], "unreachable": [url]}` added: those whose own answer is the merged one, and those that
    gave none (`failures` says why). `stale` is true when the answer may be out of date; `epoch` and `seq`, which
    belong to one lookup, are left out when several are asked.

    A lookup that hangs holds up no question that another answers: after the first good answer the others have 0.2 s,
    and those that let it pass are not awaited for the next 30 s. A lookup that has just started is `warming`: while no
    other has a good answer, what it said before it stopped is merged with what it has heard since, marked stale.

    When nobody can be reached, `stale="answer"` repeats the last answer to the same question, marked stale, and
    `stale="raise"` raises Unreachable, as for a question that was never answered. Other errors are raised when none
    of the lookups answers, the one of the first.

    `api_key` is sent to each: the cluster key, where readers need one. `cacert`, `certfile` and `keyfile` are PEM
    files for https; `timeout` is in seconds. Not for use by several threads at once; see `watch`.
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
    ) -> None:
        if stale not in ("answer", "raise"):
            raise ValueError(f"stale={stale!r}: say answer or raise")
        transports = [
            Transport(
                url,
                api_key=api_key,
                cacert=cacert,
                certfile=certfile,
                keyfile=keyfile,
                insecure=True,  # nodes show lookupd the same key over plain http, and it runs as a user of its own
                timeout=timeout,
            )
            for url in ([urls] if isinstance(urls, str) else urls)
        ]
        self._transports = {transport.url: transport for transport in transports}
        if not self._transports:
            raise ValueError("a Lookup needs at least one address")
        self._panel: Panel[_Reply] = Panel(self._transports)
        self._timeout = timeout
        self._repeats = stale == "answer"
        self._views: OrderedDict[str, dict[str, View]] = OrderedDict()  # what each said last when it was not warming
        self._last: OrderedDict[str, tuple[Merged, dict[str, Any]]] = OrderedDict()
        self.failures: dict[str, GafferClientError] = {}

    @property
    def urls(self) -> list[str]:
        """The addresses that are asked."""
        return list(self._transports)

    def close(self) -> None:
        """Close the connections; the next question opens them again."""
        self._panel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def watch(self, timeout: float = WATCH_TIMEOUT) -> LiveLookup:
        """Keep a copy of what they know, current by their events, which answers the same questions without asking.

        Returns when each of them has sent its map or failed once, at the latest after `timeout` seconds; raises what
        a question raises when none has. The copy is to be closed.
        """
        live = LiveLookup([transport.again() for transport in self._transports.values()])
        try:
            if not live.wait(timeout):
                raise nobody_answered(live.failures or {url: _no_map(url, timeout) for url in live.urls})
        except BaseException:
            live.close()
            raise
        return live

    def watchers(self, on_lost: Callable[[str, GafferClientError | None], object] | None = None) -> list[Watcher]:
        """For each lookup a Watcher of its changes, of which the first is the whole map.

        `on_lost(url, error)` is called before it connects again.
        """
        path = with_query("/events", {"heartbeat": f"{HEARTBEAT:g}"})
        several = len(self._transports) > 1
        return [
            Watcher.over(
                transport,
                path,
                idle_timeout=IDLE_TIMEOUT,
                patient=several,
                on_lost=None if on_lost is None else partial(on_lost, url),
            )
            for url, transport in self._transports.items()
        ]

    def sockets(self, *, ping_interval: float = 15.0) -> "list[LookupSocket]":
        """For each lookup a websocket on which it tells its changes; to be started, and closed.

        One that is silent for `ping_interval` seconds is pinged (LP-44).
        """
        from gaffer_client.event_socket import LookupSocket  # brings in what websockets need

        return [LookupSocket(transport.again(), ping_interval=ping_interval) for transport in self._transports.values()]

    def nodes(self) -> NodesAnswer:
        """All nodes (LP-33)."""
        return composing.nodes_answer(*self._ask("/nodes", NodesResponse, lambda document: {}))

    def sessions(self, node: str | None = None) -> SessionsAnswer:
        """All sessions with their jobs (LP-34), or those of the nodes with that name (LP-35)."""
        path = "/sessions" if node is None else path_of("sessions", node)
        return composing.sessions_answer(*self._ask(path, SessionsResponse, _jobs_of_sessions))

    def jobs(self) -> JobsAnswer:
        """All jobs and the nodes that have them (LP-36)."""
        return composing.jobs_answer(*self._ask("/jobs", JobsResponse, _jobs_of_list))

    def find_job(self, name: str) -> JobAnswer:
        """The nodes that have the job `session.name` (LP-37); no sources when it is unknown."""
        merged, rest = self._ask(
            "/findJob", SourcesResponse, lambda document: {name: document["sources"]}, query={"name": name}
        )
        return composing.job_answer(merged, rest, name)

    def find_session(self, sessionid: str) -> JobsAnswer:
        """The jobs of a session and the nodes that have them (LP-38); no jobs when it is unknown."""
        found = self._ask("/findSession", JobsResponse, _jobs_of_list, query={"sessionid": sessionid})
        return composing.jobs_answer(*found)

    def opinions(self, name: str) -> dict[str, View | GafferClientError]:
        """What each of them says: all nodes that it knows, and which have the job `name`; or why it says nothing."""
        replies = self._replies(
            "/findJob", SourcesResponse, lambda document: {name: document["sources"]}, {"name": name}, grace=LATE
        )
        return {url: reply.view if isinstance(reply, _Reply) else reply for url, reply in replies.items()}

    def _ask(
        self, path: str, shape: type[Any], jobs_of: _JobsOf, query: Mapping[str, str] | None = None
    ) -> tuple[Merged, dict[str, Any]]:
        """Ask all; the merged content, and the rest of the answer to put it in."""
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
        """What lookups said to the question when they were not warming; remembers what they say now."""
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
        """The answer of each; `with_nodes` with all nodes that it knows, which merging needs."""

        deadline = time.monotonic() + self._timeout

        def fetch(transport: Transport) -> _Reply:
            ask_nodes = partial(transport.get, "/nodes", NodesResponse, deadline=deadline)
            # The nodes come first, so that a node is at least as far in the second answer as in the first.
            nodes = ask_nodes() if with_nodes and path != "/nodes" else None
            document = transport.get(path, shape, query=query, deadline=deadline)
            if nodes is None and path != "/nodes" and document.get("warming"):
                nodes = ask_nodes()  # which nodes are back, to know what replaces the earlier answer
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
        """The last answer to a question that nobody answers now."""
        refused = any(isinstance(e, StatusError) and not isinstance(e, ServerError) for e in self.failures.values())
        if refused or not self._repeats or question not in self._last:
            raise nobody_answered(self.failures)
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


def nobody_answered(failures: Mapping[str, GafferClientError]) -> GafferClientError:
    """The error for lookups of which none answers, from why each did not."""
    errors = list(failures.values())
    if len(errors) == 1:
        return errors[0]
    for error in errors:
        if not isinstance(error, Unreachable):
            return error
    return Unreachable("; ".join(error.message for error in errors), url=", ".join(failures))


def _no_map(url: str, timeout: float) -> GafferClientError:
    return unreachable(url, f"no map within {timeout:g} s")
