"""Schemas of the audit of a node: calls that change something, and what happens without a call."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypedDict

from msgspec import Meta

from gaffer.schemas.common import Later

AUDIT = "audit"
"""The name of the event with each entry. It is sent only to subscribers that name it."""

Kind = Literal["call", "command", "input", "login", "node", "job"]
Outcome = Literal["ok", "failed", "refused", "abandoned"]


class AuditEntry(TypedDict):
    """A call, or something that happened to the node or a job. Values that do not apply are null."""

    at: Annotated[float, Meta(description="In seconds since 1970; of a call, when it was answered.")]
    kind: Annotated[
        Kind,
        Meta(
            description="`call`: an HTTP request. `command`: a command on a channel. `input`: a websocket began to"
            " write to a process. `login`: a wrong key or token in a websocket. `node`: a reload, start or stop of the"
            " daemon. `job`: a notable event of a job."
        ),
    ]
    action: Annotated[str, Meta(description="The HTTP method, the command, or the event.")]
    route: Annotated[str | None, Meta(description="The pattern of the path.")]
    caller: Annotated[
        str | None,
        Meta(description="`key:ID`, `uid:N` of a user on this host, `signal`, or `unknown`."),
    ]
    address: Annotated[str | None, Meta(description="An IP address, or `unix`.")]
    session: str | None
    job: Annotated[str | None, Meta(description="The qualified name.")]
    pid: Annotated[int | None, Meta(description="Gaffer's pid.")]
    outcome: Annotated[
        Outcome,
        Meta(
            description="`refused`: the caller lacks the permission. `abandoned`: the caller did not await the answer."
        ),
    ]
    status: Annotated[int | None, Meta(description="The HTTP status.")]
    error: Annotated[str | None, Meta(description="The error code.")]
    duration: Annotated[float | None, Meta(description="Seconds until the answer began.")]
    count: Annotated[int, Meta(ge=1, description="The number of similar calls that the entry stands for.")]
    details: Annotated[dict[str, Any], Meta(description="Short parts of the request, without secrets.")]


class HistoryEntry(AuditEntry):
    """An entry with its number; later entries have higher ones."""

    id: int


class DescribedEntry(HistoryEntry):
    """An entry as it is listed."""

    what: Later[Annotated[str, Meta(description="What happened, in the words of the command line.")]]


class HistoryPage(TypedDict):
    """Entries of the history, newest first."""

    entries: list[DescribedEntry]
    next: Annotated[int | None, Meta(description="The `before` that continues the list; null at its end.")]


_JOB = "/jobs/{sid}/{job}"
_WORDS = {
    "POST /jobs/{sid}": "load",
    f"PUT {_JOB}": "update",
    f"DELETE {_JOB}": "unload",
    f"POST {_JOB}/state": "start or stop",
    f"POST {_JOB}/numprocesses": "scale",
    f"POST {_JOB}/signal": "signal",
    f"POST {_JOB}/commit": "commit",
    "DELETE /{pid:digits}": "stop a process",
    "POST /{pid:digits}/signal": "signal a process",
    "POST /auth/session": "log in",
    "DELETE /auth/session": "log out",
    "POST /drain": "drain",
    "DELETE /drain": "undrain",
    **{f"POST {_JOB}/{verb}": verb for verb in ("restart", "reload", "disable", "enable", "rollback")},
}
_STATES = {"0": "stop", "1": "start"}  # of a call to change the state of a job
_EVENTS = {("node", "start"): "node started", ("node", "stop"): "node stopped", ("job", "exit"): "failed exit"}


def describe(kind: Kind, action: str, route: str | None, details: Mapping[str, Any]) -> str:
    """Return what happened in the words of the command line; see AuditEntry for the arguments."""
    if route == f"{_JOB}/state" and str(details.get("state")) in _STATES:
        return _STATES[str(details["state"])]
    if route is None:
        return _EVENTS.get((kind, action), action.replace("_", " "))
    return _WORDS.get(f"{action} {route}", f"{action} {route}")


def new_entry(
    at: float,
    kind: Kind,
    action: str,
    *,
    route: str | None = None,
    caller: str | None = None,
    address: str | None = None,
    session: str | None = None,
    job: str | None = None,
    pid: int | None = None,
    outcome: Outcome = "ok",
    status: int | None = None,
    error: str | None = None,
    duration: float | None = None,
    count: int = 1,
    details: dict[str, Any] | None = None,
) -> AuditEntry:
    """Return an entry; see AuditEntry for the arguments."""
    return {
        "at": round(at, 3),
        "kind": kind,
        "action": action,
        "route": route,
        "caller": caller,
        "address": address,
        "session": session,
        "job": job,
        "pid": pid,
        "outcome": outcome,
        "status": status,
        "error": error,
        "duration": round(duration, 4) if duration is not None else None,
        "count": count,
        "details": details or {},
    }
