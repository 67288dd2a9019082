"""The audit: an event `audit` for each call that changes something, with its caller and its outcome.

What repeats is summarized, so that it can't push out other entries: calls of strangers for each address, calls of known
callers that fail in the same way, and writes to a process.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tornado.httputil import HTTPServerRequest
from tornado.web import RequestHandler

from gaffer.errors import GafferError
from gaffer.http.access import Facts, Grant, PeerKind
from gaffer.http.base import Handler, Routed, grant_of
from gaffer.http.connections import source_of
from gaffer.http.operations import TEXT, operation_of
from gaffer.http.server import peer_of
from gaffer.jobs.names import DEFAULT_SESSION, check_name, parse_job_name, parse_pid
from gaffer.runtime.repeats import PERIOD, Repeats
from gaffer.schemas.history import AUDIT, AuditEntry, Kind, Outcome, new_entry

if TYPE_CHECKING:
    from gaffer.http.routes import RouteTable
    from gaffer.manager import Manager

UNKNOWN = "unknown"
"""The caller of a request without a valid key, whose user is not known."""

_SAFE = frozenset(("GET", "HEAD", "OPTIONS"))
_METHODS = _SAFE | {"POST", "PUT", "PATCH", "DELETE"}
_MAX_SOURCES = 8  # addresses of strangers with an entry of their own a minute
_MAX_REPEATED = 64  # failures of known callers, and processes written to, with an entry of their own a minute
_MAX_TEXT = 200  # characters of a value
_MAX_ITEMS = 100  # of a list

# What is shown of a request: numbers and words that no secret is passed in.
_SHOWN = frozenset(
    (
        *("scale", "n", "numprocesses", "signal", "sig", "start", "rolling", "reset", "to", "timeout"),
        *("graceful_timeout", "for", "seconds", "reason", "scopes", "sessions", "dry_run"),
        *("count", "action", "id", "label", "stream"),
    )
)


class Auditor:
    """Publishes the entries of one API as events of the manager. Use it on the loop."""

    def __init__(self, manager: "Manager", routes: "RouteTable") -> None:
        self._manager = manager
        self._routes = routes
        self._strangers: Repeats[AuditEntry] = Repeats(_MAX_SOURCES)
        self._repeated: Repeats[AuditEntry] = Repeats(_MAX_REPEATED)
        self._timer: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Publish the remaining summaries."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._collect(all_periods=True)

    def call(self, handler: RequestHandler, *, abandoned: bool = False) -> None:
        """Record a request whose response begins, or whose caller has gone, unless it only reads.

        A request with a wrong key is always recorded.
        """
        request, status = handler.request, handler.get_status()
        method = request.method or ""
        if (method in _SAFE and not _has_wrong_key(request, status)) or _carries_messages(handler):
            return
        match = self._match(request)
        params = match.params if match is not None else {}
        document = handler.document if isinstance(handler, Handler) else {}
        session, job, pid = self._subject(params, document)
        error = handler.error if isinstance(handler, Handler) else None
        entry = self._entry(
            "call",
            method if method in _METHODS else "other",
            request,
            grant_of(request),
            route=match.route.pattern if match is not None else None,
            session=session,
            job=job,
            pid=pid,
            outcome="abandoned" if abandoned else _outcome(status),
            status=None if abandoned else status,
            error=error.reason if error is not None else None,
            duration=time.monotonic() - handler.began if isinstance(handler, Routed) else request.request_time(),
            details=_details(handler, params, document) if status not in (401, 415) else {},
        )
        is_input = isinstance(handler, Routed) and handler.writes_input
        self._publish(entry, request, grant_of(request), is_input=is_input)

    def command(
        self,
        request: HTTPServerRequest | None,
        grant: Grant,
        name: str,
        arguments: Mapping[str, Any],
        began: float,
        error: GafferError | None,
        *,
        is_input: bool,
    ) -> None:
        """Record a command of a channel that `request` opened."""
        config = arguments.get("config")
        document = {**config, **arguments} if isinstance(config, Mapping) else arguments
        params = {"sid": arguments.get("sessionid"), "name": arguments.get("name"), "pid": arguments.get("pid")}
        session, job, pid = self._subject(
            {name: str(value) for name, value in params.items() if isinstance(value, str | int)}, document
        )
        match = self._match(request) if request is not None else None
        entry = self._entry(
            "command",
            name,
            request,
            grant,
            route=match.route.pattern if match is not None else None,
            session=session,
            job=job,
            pid=pid,
            outcome=_outcome(error.errno if error is not None else 200),
            status=error.errno if error is not None else 200,
            error=error.reason if error is not None else None,
            duration=time.monotonic() - began,
            details=_shown(document),
        )
        self._publish(entry, request, grant, is_input=is_input)

    def input(self, handler: Routed, error: GafferError | None = None) -> None:
        """Record the first write of a websocket to a process."""
        self._record_socket("input", "write", handler, error)

    def login_refused(self, handler: Routed, error: GafferError) -> None:
        """Record a wrong key or token in a websocket."""
        self._record_socket("login", "AUTH", handler, error)

    def channel_refused(self, request: HTTPServerRequest | None, error: GafferError) -> None:
        """Record a wrong key or token in a channel that `request` opened."""
        match = self._match(request) if request is not None else None
        entry = self._entry(
            "login",
            "AUTH",
            request,
            Grant(frozenset()),
            route=match.route.pattern if match is not None else None,
            outcome=_outcome(error.errno),
            status=error.errno,
            error=error.reason,
        )
        self._publish(entry, request, Grant(frozenset()))

    def _record_socket(self, kind: Kind, action: str, handler: Routed, error: GafferError | None) -> None:
        match = self._match(handler.request)
        session, job, pid = self._subject(handler.params, {})
        entry = self._entry(
            kind,
            action,
            handler.request,
            handler.grant,
            route=match.route.pattern if match is not None else None,
            session=session,
            job=job,
            pid=pid,
            outcome=_outcome(error.errno if error is not None else 200),
            status=error.errno if error is not None else None,
            error=error.reason if error is not None else None,
            details=_shown(handler.params),
        )
        self._publish(entry, handler.request, handler.grant, is_input=kind == "input")

    def _entry(
        self, kind: Kind, action: str, request: HTTPServerRequest | None, grant: Grant, **values: Any
    ) -> AuditEntry:
        caller, address = _origin(request, grant)
        return new_entry(time.time(), kind, action, caller=caller, address=address, **values)

    def _match(self, request: HTTPServerRequest) -> Any:
        try:
            return self._routes.match(request.path)
        except GafferError:
            return None

    def _subject(
        self, params: Mapping[str, str], document: Mapping[str, Any]
    ) -> tuple[str | None, str | None, int | None]:
        """Return the session, the qualified job and the pid that a request names; None for what it does not."""
        pid = parse_pid(params["pid"]) if "pid" in params else None
        if pid is not None:
            process = self._manager.running.get(pid)
            return (process.job.session, str(process.job), pid) if process is not None else (None, None, pid)
        session = params.get("sid")
        name = params.get("name", params.get("job", document.get("name")))
        try:
            if isinstance(name, str):
                job = parse_job_name(name, session or DEFAULT_SESSION)
                return job.session, str(job), None
            if session is not None:
                return check_name(session, "session"), None, None
        except GafferError:  # not valid names, which may be of any length
            pass
        return None, None, None

    def _publish(
        self, entry: AuditEntry, request: HTTPServerRequest | None, grant: Grant, *, is_input: bool = False
    ) -> None:
        repeats: Repeats[AuditEntry] | None = None
        key: Any = None
        if not grant.scopes:
            repeats = self._strangers
            key = source_of(peer_of(request), str(request.remote_ip)) if request is not None else None
        elif is_input:
            repeats, key = self._repeated, (entry["caller"], entry["address"], entry["pid"], entry["outcome"])
        elif entry["outcome"] != "ok":
            what = (entry["action"], entry["route"], entry["session"], entry["job"], entry["error"])
            repeats, key = self._repeated, (entry["caller"], entry["address"], *what)
        if repeats is not None:
            loop = asyncio.get_running_loop()
            self._timer = self._timer or loop.call_later(PERIOD, self._again)
            if not repeats.admit(key, entry, loop.time()):
                return
        self._send(entry)

    def _again(self) -> None:
        self._timer = None
        self._collect()
        if not (self._strangers.idle and self._repeated.idle):
            self._timer = asyncio.get_running_loop().call_later(PERIOD, self._again)

    def _collect(self, *, all_periods: bool = False) -> None:
        now = self._manager.loop.time()
        for repeats in (self._strangers, self._repeated):
            for summary in repeats.collect(now, all_periods=all_periods):
                entry: AuditEntry = {**summary.last, "count": summary.count}
                if summary.mixed:
                    entry = {**entry, "caller": None, "address": None, "session": None, "job": None, "pid": None}
                self._send(entry)

    def _send(self, entry: AuditEntry) -> None:
        self._manager.events.publish_unlisted(AUDIT, {"event": AUDIT, **entry})


def _origin(request: HTTPServerRequest | None, grant: Grant) -> tuple[str, str | None]:
    """Return the caller and its address."""
    if request is None:
        return grant.caller or UNKNOWN, None
    peer = peer_of(request)
    address = "unix" if peer.kind is PeerKind.UNIX else str(request.remote_ip)
    if grant.caller is not None:
        return grant.caller, address
    forwarded = Facts.from_headers("", "", request.headers, peer).forwarded
    return (f"uid:{peer.uid}" if peer.uid is not None and not forwarded else UNKNOWN), address


def _has_wrong_key(request: HTTPServerRequest, status: int) -> bool:
    return status == 401 and Facts.from_headers("", "", request.headers, peer_of(request)).key is not None


def _carries_messages(handler: RequestHandler) -> bool:
    return isinstance(handler, Routed) and handler.carries_messages


def _outcome(status: int) -> Outcome:
    if status < 400:
        return "ok"
    return "refused" if status in (401, 403) else "failed"


def _details(handler: RequestHandler, params: Mapping[str, str], document: Mapping[str, Any]) -> dict[str, Any]:
    query = {name: values[-1].decode(errors="replace") for name, values in handler.request.query_arguments.items()}
    found = _shown({**query, **params, **document})
    if not isinstance(handler, Handler):
        return found
    described = operation_of(type(handler), handler.request.method or "")
    if described is not None and described.body_media == TEXT and handler.get_status() < 400:  # a known word
        found["state"] = handler.body.decode(errors="replace").strip()
    jobs = document.get("jobs")
    if isinstance(jobs, list):
        names = (each.get("name") for each in jobs[:_MAX_ITEMS] if isinstance(each, Mapping))
        found["jobs"] = [name[:_MAX_TEXT] for name in names if isinstance(name, str)]
    return {**found, **handler.noted}


def _shown(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that may be shown, shortened."""
    found: dict[str, Any] = {}
    for name in _SHOWN & values.keys():
        value = values[name]
        if isinstance(value, bool | int | float):
            found[name] = value
        elif isinstance(value, str):
            found[name] = value[:_MAX_TEXT]
        elif isinstance(value, list) and all(isinstance(each, str) for each in value):
            found[name] = [each[:_MAX_TEXT] for each in value[:_MAX_ITEMS]]
    return found
