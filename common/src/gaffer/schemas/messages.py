"""Wire messages of the lookup protocol, between a node and a lookupd: JSON objects over one websocket.

The six types of 0.5 (IDENTIFY, PING, REGISTER_JOB, UNREGISTER_JOB, REGISTER_PROCESS, UNREGISTER_PROCESS) require only
the fields they had then. A peer that sends an `id` with IDENTIFY numbers its changes with `seq`, a counter that starts
with the peer, and may send the other types too.

A lookupd that `reports` also takes REPORT, which people read: the node's other lookupds, notable events, and the states
of jobs with their reasons, at most once a second.

The limits apply to both ends: a node checks its configuration against them, so that lookupds never refuse its messages.

`decode_request` and `decode_reply` raise `MessageError`, whose `to_reply()` is the reply to an invalid message.
"""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta, Struct

from gaffer.errors import BadRequest
from gaffer.jobs.names import MAX_PROCESS_ENDPOINTS, is_host, is_origin
from gaffer.schemas.common import ProcessState
from gaffer.schemas.history import Kind, Outcome

PROTOCOL_VERSION = "0.1"

# The maximum size of a message from an identified node, and from one that has not identified itself yet.
MAX_MESSAGE_SIZE = 16 * 1024 * 1024
MAX_FIRST_MESSAGE_SIZE = 64 * 1024

# Limits for one node.
MAX_NODE_JOBS = 50_000
MAX_NODE_PROCESSES = 50_000
MAX_NODE_ENDPOINTS = 50_000

# Limits for all nodes together: nodes; jobs, processes and endpoints in total.
MAX_NODES = 20_000
MAX_ENTRIES = 1_000_000

MAX_ENDPOINT_NAME = 64
MAX_NODE_NAME = 255  # characters, as all string lengths here
MAX_LABELS = 64
MAX_LABEL_TEXT = 1024
MAX_LABELS_SIZE = 32 * 1024  # bytes of all labels as JSON

MAX_LINKS = 16  # lookupds of a node that it reports
MAX_REPORTED = 50  # events in a report, and that a node keeps for lookupds that miss them
MAX_REPORTED_JOBS = 500  # in a report
MAX_REASON = 200  # characters of the reason for the state of a job
MAX_DETAILS = 16
MAX_DETAIL = 500  # characters

MAX_INT = 2**63 - 1

MessageId = Annotated[str, Meta(max_length=1024)] | Annotated[int, Meta(ge=-MAX_INT, le=MAX_INT)]
JobNameText = Annotated[str, Meta(min_length=1, max_length=200)]
Number = Annotated[int, Meta(ge=0, le=MAX_INT)]
Text = Annotated[str, Meta(max_length=1024)]
Endpoints = Annotated[tuple["Endpoint", ...], Meta(max_length=MAX_PROCESS_ENDPOINTS)]
NodeName = Annotated[str, Meta(min_length=1, max_length=MAX_NODE_NAME)]
LabelText = Annotated[str, Meta(max_length=MAX_LABEL_TEXT)]
Labels = Annotated[dict[LabelText, LabelText], Meta(max_length=MAX_LABELS)]
Word = Annotated[str, Meta(max_length=200)]
Time = Annotated[float, Meta(ge=0, le=1e11)]  # seconds since 1970
Detail = Annotated[str, Meta(max_length=MAX_DETAIL)] | int | float | bool | None


def node_id(secret: str) -> str:
    """Return the public id of the node that holds `secret`: the first 32 hex digits of its SHA-256."""
    return hashlib.sha256(secret.encode()).hexdigest()[:32]


class Endpoint(Struct, frozen=True, gc=False):
    """An address that a process serves: `{"name": "http", "address": "10.0.0.7", "port": 8000}`.

    `address` is a host name or an IP address without scope.
    """

    name: Annotated[str, Meta(max_length=MAX_ENDPOINT_NAME)]
    address: Text
    port: Annotated[int, Meta(ge=0, le=65535)]

    def __post_init__(self) -> None:
        if not is_host(self.address):
            raise ValueError(f"address {self.address!r} is not a host name or an IP address without scope")


class Process(Struct, frozen=True, gc=False):
    """A process of a job as announced by a node; `pid` is Gaffer's, not the system's."""

    pid: Number
    state: ProcessState = "ready"
    endpoints: Endpoints = ()


class _Request(Struct, tag_field="type", omit_defaults=True):
    """The fields of every message of a node; the reply repeats `msgid`."""

    msgid: MessageId


class Identify(_Request, tag="IDENTIFY"):
    """The first message: the identity of the node.

    `origin` is the public URL of the node, `http(s)://host[:port]`; `version` that of the protocol. `id` is permanent;
    `proof` is the secret that it is a hash of (see `node_id`). `incarnation` increases each time the node starts.
    `reconnect_window` is the last known time (seconds) over which nodes that lost this lookupd reconnect.
    """

    name: NodeName
    origin: Text
    version: Text
    id: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    incarnation: Number = 0
    labels: Labels = {}
    proof: Annotated[str, Meta(min_length=1, max_length=1024)] | None = None
    reconnect_window: Annotated[float, Meta(ge=0, le=86400)] | None = None

    def __post_init__(self) -> None:
        if not is_origin(self.origin):
            raise ValueError(f"origin {self.origin!r} is not http(s)://host[:port] without an IPv6 scope")


class Ping(_Request, tag="PING"):
    """A heartbeat; `seq` is the number of the node's last change."""

    seq: Number | None = None


class _Change(_Request):
    """A change to the node's table; `seq` is one more than that of the previous change."""

    job_name: JobNameText
    seq: Number | None = None


class RegisterJob(_Change, tag="REGISTER_JOB"):
    """A job was added to the node."""


class UnregisterJob(_Change, tag="UNREGISTER_JOB"):
    """A job was removed, with its processes."""


class _ProcessChange(_Request):
    job_name: JobNameText
    pid: Number
    seq: Number | None = None
    state: ProcessState = "ready"
    endpoints: Endpoints = ()

    @property
    def process(self) -> Process:
        return Process(self.pid, self.state, self.endpoints)


class RegisterProcess(_ProcessChange, tag="REGISTER_PROCESS"):
    """A process was started."""


class UpdateProcess(_ProcessChange, tag="UPDATE_PROCESS"):
    """The state or the endpoints of a process changed."""


class UnregisterProcess(_ProcessChange, tag="UNREGISTER_PROCESS"):
    """A process has exited, or accepts no more work."""


class LookupLink(Struct, frozen=True, gc=False):
    """The connection of a node to one of its lookupds, which has been as it is since `since`, in seconds since 1970.

    `address` is `http(s)://host[:port]`; `epoch` is that of the lookupd when it last answered.
    """

    address: Text
    connected: bool
    since: Time
    epoch: Annotated[str, Meta(max_length=64)] | None = None
    error: Text | None = None

    def __post_init__(self) -> None:
        if not is_origin(self.address):
            raise ValueError(f"address {self.address!r} is not http(s)://host[:port] without an IPv6 scope")


class ReportedEvent(Struct, frozen=True, omit_defaults=True):
    """An entry of the history of a node, without addresses; see AuditEntry."""

    at: Time
    kind: Kind
    action: Word
    outcome: Outcome = "ok"
    route: Word | None = None
    caller: Word | None = None
    job: JobNameText | None = None
    pid: Number | None = None
    error: Word | None = None
    count: Annotated[int, Meta(ge=1, le=MAX_INT)] = 1
    details: Annotated[dict[Word, Detail], Meta(max_length=MAX_DETAILS)] = {}


class JobReport(Struct, frozen=True, gc=False):
    """The state of a job as its node derives it (see JobState), and why; `expected` processes should run now."""

    state: Annotated[str, Meta(pattern="^[a-z_]{1,32}$")]
    reason: Annotated[str, Meta(max_length=MAX_REASON)] | None = None
    expected: Number = 0


class Report(_Request, tag="REPORT"):
    """What people want to know about the node.

    now: the clock of the node, in seconds since 1970, to which its other times relate. lookupds: all lookupds that it
    announces to; null if unchanged. events: notable events in order, numbered since the start of the node; `first` is
    the number of the first. What the lookupd has already is ignored. jobs: the jobs whose state has changed, by their
    qualified names; all jobs, in several reports if they are many, follow each SNAPSHOT.
    """

    now: Time
    lookupds: Annotated[list[LookupLink], Meta(max_length=MAX_LINKS)] | None = None
    events: Annotated[list[ReportedEvent], Meta(max_length=MAX_REPORTED)] = []
    first: Number = 0
    jobs: Annotated[dict[JobNameText, JobReport], Meta(max_length=MAX_REPORTED_JOBS)] = {}


class Snapshot(_Request, tag="SNAPSHOT"):
    """The complete table of the node as of change `seq`: the processes of each job, by its qualified name."""

    seq: Number
    jobs: dict[JobNameText, list[Process]]
    draining: bool = False


class Drain(_Request, tag="DRAIN"):
    """The node is about to stop its processes and must get no more work; numbered like other changes."""

    seq: Number | None = None


class Leave(_Request, tag="LEAVE"):
    """The node disconnects on purpose; numbered like other changes."""

    seq: Number | None = None


Request = (
    Identify
    | Ping
    | RegisterJob
    | UnregisterJob
    | RegisterProcess
    | UpdateProcess
    | UnregisterProcess
    | Snapshot
    | Drain
    | Leave
    | Report
)


class Ok(Struct, omit_defaults=True):
    """The reply to an accepted message; `resync` requests a SNAPSHOT from the node.

    The reply to a PING includes `reconnect_window` if it has changed with the size of the cluster.
    """

    ok: Literal[True]
    msgid: MessageId
    resync: bool = False
    reconnect_window: float | None = None


class Welcome(Struct):
    """The reply to the IDENTIFY of a node with an `id`.

    `ttl` (seconds) is the lease of the node, `interval` (seconds) the interval of its PINGs; `epoch` changes each time
    lookupd starts; `reconnect_window` is the time (seconds) over which nodes spread when they reconnect; `reports`:
    lookupd takes REPORT.
    """

    ok: Literal[True]
    msgid: MessageId
    ttl: float
    interval: float
    epoch: str
    reconnect_window: float
    reports: bool


class Refusal(Struct):
    """The reply to a refused message; the connection stays open."""

    errno: int
    reason: str
    msgid: MessageId | None = None


class Reply(Struct, frozen=True):
    """Any reply as decoded by a node; `errno` is 0 if the message was accepted."""

    msgid: MessageId | None = None
    ok: bool = False
    errno: int = 0
    reason: str | None = None
    resync: bool = False
    ttl: float | None = None
    interval: Annotated[float, Meta(gt=0)] | None = None
    epoch: str | None = None
    reconnect_window: Annotated[float, Meta(ge=0)] | None = None
    reports: bool = False


def check_node_name(name: str) -> str:
    """Return the name of a node if lookupds accept it; raises BadRequest (`bad_node_name`)."""
    if not 1 <= len(name) <= MAX_NODE_NAME or not name.isprintable():
        raise BadRequest(
            f"invalid node name {_shortened(name)}",
            reason="bad_node_name",
            hint=f"use 1 to {MAX_NODE_NAME} printable characters",
        )
    return name


def check_origin(origin: str) -> str:
    """Return the public URL of a node if lookupds accept it; raises BadRequest (`bad_origin`)."""
    if not is_origin(origin):
        raise BadRequest(
            f"invalid address of this node: {_shortened(origin)}",
            reason="bad_origin",
            hint="use http(s)://HOST[:PORT] with a host name or an IP address without scope",
        )
    return origin


def check_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels of a node if lookupds accept them; raises BadRequest (`bad_labels`)."""
    checked = dict(labels)
    try:
        msgspec.convert(checked, Labels)
        size = len(encode(checked))
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise BadRequest(
            f"invalid labels: {error}",
            reason="bad_labels",
            hint=f"use at most {MAX_LABELS} labels, with names and values of at most {MAX_LABEL_TEXT} characters",
        ) from None
    if size > MAX_LABELS_SIZE:
        raise BadRequest(f"the labels take {size} bytes", reason="bad_labels", hint=f"use at most {MAX_LABELS_SIZE}")
    return checked


def _shortened(text: str, limit: int = 80) -> str:
    return repr(text if len(text) <= limit else f"{text[:limit]}...")


class MessageError(BadRequest):
    """An invalid message; `reason` is `invalid_json`, `invalid_message` or `invalid_message_type`."""

    reason = "invalid_message"

    def __init__(self, message: str, *, reason: str | None = None, msgid: MessageId | None = None) -> None:
        super().__init__(message, reason=reason)
        self.msgid = msgid

    def to_reply(self) -> Refusal:
        """Return the reply that reports the error."""
        return Refusal(self.errno, self.reason, self.msgid)


encode = msgspec.json.Encoder().encode

_requests: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_replies = msgspec.json.Decoder(Reply)
_UNREADABLE = (msgspec.DecodeError, RecursionError)
_TYPES = {kind.__struct_config__.tag for kind in get_args(Request)}


def decode_request(text: str | bytes) -> Request:
    """Decode a message of a node; raises MessageError."""
    try:
        return _requests.decode(text)
    except _UNREADABLE as error:
        raise _diagnose(text, error) from None


def decode_reply(text: str | bytes) -> Reply:
    """Decode a reply of a lookupd; raises MessageError."""
    try:
        return _replies.decode(text)
    except _UNREADABLE as error:
        raise MessageError(f"not a reply of a lookupd: {error}") from None


def _diagnose(text: str | bytes, error: Exception) -> MessageError:
    try:
        message: Any = msgspec.json.decode(text)
    except _UNREADABLE as not_json:
        return MessageError(f"not JSON: {not_json}", reason="invalid_json")
    if not isinstance(message, dict):
        return MessageError("not a JSON object", reason="invalid_json")
    try:
        msgid: MessageId = msgspec.convert(message.get("msgid"), MessageId)
    except msgspec.ValidationError as bad_id:
        return MessageError(f"`msgid` is missing or not a string: {bad_id}")
    kind = message.get("type")
    if not isinstance(kind, str):
        return MessageError("`type` is missing or not a string", msgid=msgid)
    if kind not in _TYPES:
        return MessageError(f"unknown message type {kind!r}", reason="invalid_message_type", msgid=msgid)
    return MessageError(f"{kind}: {error}", msgid=msgid)
