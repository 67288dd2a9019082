"""Channels, as `Manager.subscribe(topic)` returns them. Callbacks are called on the loop as `callback(event, message)`.

EVENTS                  all events; EVENTS:<pattern> those that the pattern matches
PROCESS:<pid or name>   the events of one process, or of the processes of a job
JOB:<name>              the events of a job
STATS:<pid or name>     the stats of one process, or of the processes of a job
STREAM:<pid>[.<label>]  all that a process writes, or one of its outputs
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

from gaffer.errors import BadRequest, TopicError
from gaffer.events import EventEmitter
from gaffer.jobs.names import JobName, parse_job_name, parse_pid
from gaffer.process import Process
from gaffer.processes.sampler import StatListener

Callback = Callable[..., Any]
Relay = Callable[[str, dict[str, Any]], Any]


class _Observable(Protocol):
    """The part of a manager that channels observe."""

    @property
    def events(self) -> EventEmitter: ...
    def get(self, name: JobName) -> object: ...
    def get_process(self, pid: int) -> Process: ...
    def monitor(self, listener: StatListener, name: int | JobName) -> None: ...
    def unmonitor(self, listener: StatListener, name: int | JobName) -> None: ...


_HINT = "use EVENTS, PROCESS:<pid or name>, JOB:<name>, STATS:<pid or name> or STREAM:<pid>[.<label>]"
_ALL = "."


# A source holds a listener once. Each channel therefore registers its own function for a callback, so that closing one
# channel does not affect another.


class EventChannel:
    """Events below a prefix (`job.shop.web`), which their names lose here (`spawn`); or all, under their full names."""

    def __init__(self, topic: str, events: EventEmitter, prefix: str = "", pattern: str = _ALL) -> None:
        self.topic = topic
        self._events = events
        self._prefix = prefix
        self._pattern = prefix or pattern
        self._bound: dict[tuple[str, Callback], Callback] = {}

    def bind(self, event: str, callback: Callback) -> None:
        """Call `callback(event, message)` for the event of that name."""
        self._bind(f"{self._prefix}.{event}" if self._prefix else event, callback)

    def unbind(self, event: str, callback: Callback) -> None:
        """Undo `bind`; unknown ones are ignored."""
        self._unbind(f"{self._prefix}.{event}" if self._prefix else event, callback)

    def bind_all(self, callback: Callback) -> None:
        """Call `callback(event, message)` for every event of the channel."""
        self._bind(self._pattern, callback)

    def unbind_all(self, callback: Callback) -> None:
        """Undo `bind_all`; unknown ones are ignored."""
        self._unbind(self._pattern, callback)

    def close(self) -> None:
        """Undo all bindings."""
        for pattern, callback in tuple(self._bound):
            self._unbind(pattern, callback)

    def _bind(self, pattern: str, callback: Callback) -> None:
        listener = self._relay(callback) if self._prefix else partial(callback)
        self._events.subscribe(pattern, self._bound.setdefault((pattern, callback), listener))

    def _unbind(self, pattern: str, callback: Callback) -> None:
        listener = self._bound.pop((pattern, callback), None)
        if listener is not None:
            self._events.unsubscribe(pattern, listener)

    def _relay(self, callback: Callback) -> Relay:
        def relay(name: str, message: dict[str, Any]) -> None:
            event = bare_event(name, self._prefix)
            if event is not None:
                callback(event, {**message, "event": event})

        return relay


class _Channel:
    """Callbacks that `attach` connects to a source and `detach` disconnects."""

    def __init__(self, topic: str, attach: Callable[[Callback], Any], detach: Callable[[Callback], Any]) -> None:
        self.topic = topic
        self._attach = attach
        self._detach = detach
        self._bound: dict[Callback, Callback] = {}

    def bind(self, callback: Callback) -> None:
        """Call `callback(event, message)` for all events; binding it again has no effect."""
        if callback not in self._bound:
            self._bound[callback] = partial(callback)
            self._attach(self._bound[callback])

    def unbind(self, callback: Callback) -> None:
        """Undo `bind`; unknown ones are ignored."""
        listener = self._bound.pop(callback, None)
        if listener is not None:
            self._detach(listener)

    def close(self) -> None:
        """Undo all bindings."""
        for callback in tuple(self._bound):
            self.unbind(callback)


class StatChannel(_Channel):
    """The stats of a process or of all processes of a job, ten times a second: `callback("STATS", stats)`."""


class StreamChannel(_Channel):
    """Output of a process: `callback(label, {"event", "name", "pid", "data"})`."""


Channel = EventChannel | StatChannel | StreamChannel


class Topic(NamedTuple):
    """A parsed topic. `kind` is EVENTS, PROCESS, JOB, STATS or STREAM; `target` the process (by its id), or the job.

    `detail` is the pattern of EVENTS, empty where none is given, and the label of STREAM, `.` for all; empty for the
    others.
    """

    kind: str
    target: int | JobName | None
    detail: str


def parse_topic(text: str) -> Topic:
    """The topic that `text` spells; raises TopicError, reason `bad_topic`."""
    kind, separator, target = text.partition(":")
    match kind:
        case "EVENTS" if target or not separator:
            return Topic(kind, None, target)
        case "PROCESS" | "STATS":
            return Topic(kind, _target(text, target), "")
        case "JOB":
            found = _target(text, target)
            if isinstance(found, JobName):
                return Topic(kind, found, "")
        case "STREAM":
            digits, _, label = target.partition(".")
            pid = parse_pid(digits)
            if pid is not None:
                return Topic(kind, pid, label or _ALL)
    raise TopicError(f"there is no topic {text!r}", hint=_HINT)


def _target(topic: str, text: str) -> int | JobName:
    try:
        return parse_pid(text) or parse_job_name(text)
    except BadRequest as error:
        raise TopicError(f"there is no topic {topic!r}: {error.message}", hint=_HINT) from None


def event_prefix(topic: Topic) -> str:
    """What the names of a topic's events begin with, and lose in it: `job.shop.web`; empty for EVENTS."""
    if topic.kind == "JOB":
        return f"job.{topic.target}"
    target = topic.target
    return f"proc.{target.display if isinstance(target, JobName) else target}" if topic.kind == "PROCESS" else ""


def bare_event(name: str, prefix: str) -> str | None:
    """The name that an event below `prefix` has in a topic, `spawn`; None for one that is not of the topic.

    `proc.shop` also matches the events of jobs in a session called shop.
    """
    event = name.removeprefix(prefix + ".") if prefix else name
    return None if prefix and "." in event else event


def open_channel(manager: _Observable, topic: str) -> Channel:
    """The channel of `topic`; raises TopicError for one that can't be, else as `Manager.subscribe`."""
    parsed = parse_topic(topic)
    target = parsed.target
    if parsed.kind == "STREAM" and isinstance(target, int):
        return _stream_channel(manager, topic, target, parsed.detail)
    if parsed.kind == "STATS" and target is not None:
        return _stat_channel(manager, topic, target)
    return EventChannel(topic, manager.events, event_prefix(parsed), parsed.detail or _ALL)


def _stat_channel(manager: _Observable, topic: str, target: int | JobName) -> StatChannel:
    manager.get_process(target) if isinstance(target, int) else manager.get(target)  # raises if unknown
    return StatChannel(
        topic,
        lambda callback: manager.monitor(callback, target),
        lambda callback: manager.unmonitor(callback, target),
    )


def _stream_channel(manager: _Observable, topic: str, pid: int, label: str) -> StreamChannel:
    process = manager.get_process(pid)
    if label != _ALL or not process.rings:
        process.ring(label)  # raises if unknown
    return StreamChannel(
        topic,
        lambda callback: process.monitor_io(label, callback),
        lambda callback: process.unmonitor_io(label, callback),
    )
