"""Log files of jobs."""

import re
import time
from collections.abc import Sequence
from contextlib import aclosing
from datetime import datetime
from functools import partial
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from tornado.iostream import StreamClosedError

from gaffer.api.log_feed import MAX_LOGS, Events, LogFeed, Plain, Reading
from gaffer.api.node import NodeHandler
from gaffer.api.rollouts import Flag
from gaffer.errors import BadRequest, InvalidValue
from gaffer.http.access import Scope
from gaffer.http.base import NotFound
from gaffer.http.feeds import Heartbeat, Tail, TailSize, parse_heartbeat, parse_tail
from gaffer.http.operations import EVENTS, TEXT, operation
from gaffer.http.routes import Route
from gaffer.jobs import rules
from gaffer.jobs.names import NAME_PATTERN, JobName, parse_job_name
from gaffer.streams.log_names import LogName
from gaffer.streams.log_store import LogStore, LogUnreadable
from gaffer.streams.position import PATTERN, Position

OFFSET_HEADER, GAP_HEADER = "X-Gaffer-Offset", "X-Gaffer-Gap"

_UNIX_TIME = 1e9  # seconds: larger numbers are a time since 1970, smaller ones an age
_NAME = NAME_PATTERN.removeprefix("^").removesuffix("$")
_JOB = rf"{_NAME}\.{_NAME}"
_JOBS = rf"{_JOB}(?:,{_JOB})*"
_LABEL = rf"(?:{_JOB}\.)?(?:0|[1-9][0-9]{{0,5}})\.(?:out|err)"
_POSITION = rf"(?:(?:{_LABEL})@)?{PATTERN}"
_POSITIONS = f"{_POSITION}(?:,{_POSITION})*"
_STREAMS = "(?:out|err)(?:,(?:out|err))?"
_SLOTS = "(?:0|[1-9][0-9]{0,5})(?:,(?:0|[1-9][0-9]{0,5}))*"

_RFC_3339 = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:[Zz]|[+ -][0-9]{2}:[0-9]{2})"
_SINCE = rf"[0-9]{{1,10}}(?:\.[0-9]{{1,9}})?(?:ms|[smh])?|{_RFC_3339}"


Streams = Annotated[str, Meta(pattern=f"^{_STREAMS}$", description="`out`, `err`, or `out,err`.")]
Slots = Annotated[str, Meta(pattern=f"^{_SLOTS}$", description="Slots, such as `1,2`; 0 for processes that run once.")]
Positions = Annotated[
    str,
    Meta(
        pattern=f"^{_POSITIONS}$",
        description="Position to start at: an offset in bytes, or the X-Gaffer-Offset or event id of a response.",
    ),
]
Since = Annotated[
    str, Meta(pattern=f"^(?:{_SINCE})$", description="Start at an age such as `90` or `5m`, or a time (RFC 3339).")
]


_HINTS = {
    "stream": "use out, err, or out,err",
    "slot": "use numbers separated by commas",
    "job": "use names such as shop.web, separated by commas",
}


class LogsQuery(msgspec.Struct):
    """Which logs to return, and from where on; by default everything that is kept."""

    stream: Streams = "out"
    slot: Slots | None = None
    offset: Positions | None = None
    since: Since | None = None
    tail: TailSize | None = None
    follow: Annotated[Flag, Meta(description="`true`: continue with what is added.")] = "false"
    feed: Annotated[
        Literal["continuous", "eventsource"],
        Meta(description="`continuous`: plain text; `eventsource`: server-sent events, also by the header Accept."),
    ] = "continuous"
    encoding: Annotated[
        Literal["text", "base64"],
        Meta(description="Encoding of the data in server-sent events; base64 preserves every byte."),
    ] = "text"
    heartbeat: Heartbeat = "true"


class LogsOfJobsQuery(LogsQuery, kw_only=True):
    """Which logs of which jobs to return, and from where on; by default everything that is kept."""

    job: Annotated[str, Meta(pattern=f"^{_JOBS}$", description="Qualified names of jobs, such as `shop.web,shop.api`.")]


_sends_logs = partial(
    operation,
    str,
    media=(TEXT, EVENTS),
    headers={
        OFFSET_HEADER: "Without `follow`: the `offset` that continues the response.",
        GAP_HEADER: "The bytes before the start, `FROM-TO`, that `offset` asks for and that are no longer kept.",
    },
    endless=True,
)


class LogsHandler(NodeHandler):
    """Base of the handlers of logs."""

    _feed: LogFeed | None = None

    async def send_logs(self, jobs: Sequence[JobName], slot: int | None = None, *, named: bool = False) -> None:
        """Send the logs of jobs, or of one of their slots; `named`: their labels have the name of the job."""
        store = self.manager.log_store
        if store is None:
            raise _no_logs("this node writes no log files", None)
        streams = self._choice("stream", _STREAMS, "out") or []
        slots = [str(slot)] if slot is not None else self._choice("slot", _SLOTS, None)
        self._feed = feed = LogFeed(
            store,
            list(map(str, jobs)),
            lambda name: name.stream in streams and (slots is None or str(name.slot) in slots),
            named=named,
        )
        self.application.feeds.add(feed)
        try:
            joinable = slots is None or len(slots) * len(streams) > 1
            await self._send(feed, store, jobs, joinable=joinable)
        except StreamClosedError:
            pass
        except LogUnreadable:
            if not self._headers_written:
                raise
            # The client must notice that the response is incomplete.
            if self.stream is not None:
                self.stream.close()
        finally:
            self.application.feeds.discard(feed)
            feed.close()

    async def _send(self, feed: LogFeed, store: LogStore, jobs: Sequence[JobName], *, joinable: bool) -> None:
        start = _Start.of(self)
        follows = self.flag("follow")
        names = await feed.find()
        found = {name.job for name in names}
        for job in jobs:
            if str(job) not in found:
                self._check_logged(job)
        if len(names) > MAX_LOGS:
            hint = f"add slot=1,2,... or stream=out for at most {MAX_LOGS} logs"
            raise BadRequest(f"too many logs: {len(names)}", reason="bad_value", hint=hint)
        gaps = await start.open(feed, store, names)
        labelled = len(names) > 1 or feed.named or (follows and joinable)
        form = self._form(feed, several=labelled)
        self.set_header("Content-Type", form.media)
        self.set_header("Cache-Control", "no-store, no-transform")  # proxies that compress a feed delay it
        if not follows and feed.readings:
            ends = [(reading.label, str(Position(reading.epoch, reading.until))) for reading in feed.readings]
            self.set_header(OFFSET_HEADER, _joined(ends, labelled=labelled))
        if gaps:
            ranges = [(reading.label, f"{first}-{last}") for reading, first, last in gaps]
            self.set_header(GAP_HEADER, _joined(ranges, labelled=labelled))
        if self.request.method == "HEAD":
            return
        if isinstance(form, Events):
            for reading, first, last in gaps:
                self.write(form.gap(reading, first, last))
        await self.flush()
        async with aclosing(feed.kept()) as kept:
            async for reading, chunk in kept:
                self.write(form.encode(reading, chunk))
                await self.flush()
        if follows:
            heartbeat = parse_heartbeat(self.get_query_argument("heartbeat", "true"))
            async with aclosing(feed.following(heartbeat if form.heartbeat else None)) as following:
                async for added in following:
                    self.write(form.encode(*added) if added is not None else form.heartbeat)
                    await self.flush()
        self.write(form.last(feed.readings))

    def _form(self, feed: LogFeed, *, several: bool) -> Plain | Events:
        by_header = "text/event-stream" in self.request.headers.get("Accept", "")
        kind = self.get_query_argument("feed", "eventsource" if by_header else "continuous")
        encoding = self.get_query_argument("encoding", "text")
        parse_heartbeat(self.get_query_argument("heartbeat", "true"))
        if kind not in ("continuous", "eventsource"):
            raise _invalid("feed", kind, "use continuous or eventsource")
        if encoding not in ("text", "base64") or (encoding == "base64" and kind != "eventsource"):
            raise _invalid("encoding", encoding, "use text, or base64 with feed=eventsource")
        return Events(feed, encoded=encoding == "base64") if kind == "eventsource" else Plain(several=several)

    def _choice(self, name: str, pattern: str, default: str | None) -> list[str] | None:
        value = self.get_query_argument(name, default)
        if value is None:
            return None
        if not re.fullmatch(pattern, value, re.ASCII):
            raise _invalid(name, value, _HINTS[name])
        return list(dict.fromkeys(value.split(",")))

    def _check_logged(self, job: JobName) -> None:
        """Raise NotFound if a job without log files does not exist, or is not to have any."""
        config = self.manager.get(job)
        if not config.logs:
            raise _no_logs(f"the output of {job} is not logged", "set `logs = on` in the job")
        if config.detach:
            raise _no_logs(f"the output of {job} is not logged", "a job with `detach` writes its own files")

    def on_connection_close(self) -> None:
        super().on_connection_close()
        if self._feed is not None:
            self._feed.end()


class JobLogsHandler(LogsHandler):
    """The log files of a job."""

    @_sends_logs(query=LogsQuery, errors=(LogUnreadable,))
    async def get(self) -> None:
        """Return what the log files of the job hold, over all rotated files; `follow=true` continues as they grow.

        The job need not be running, nor exist any more while it has files. Each slot and stream is a log with its own
        offsets, which count from the first byte ever written; an offset that is no longer kept starts at the oldest
        byte, and the gap is reported in X-Gaffer-Gap or as an event `gap` with `{"log", "from", "to"}`. `tail=N` or
        `tail=Nb` starts that number of lines or bytes back, `since` at a time: with `log_format = raw` up to a quarter
        of a second earlier, and for older output up to a tenth of its age.

        By default all slots are returned, of several logs the older piece first. A position in several logs is a list
        of `SLOT.STREAM@EPOCH:OFFSET`; a plain offset needs a single log. Server-sent events have the name
        `SLOT.STREAM`, the text as data, and such a list as their id, which Last-Event-ID or `offset` continues.
        """
        await self.send_logs([self.job])


class LogsOfJobsHandler(LogsHandler):
    """The log files of several jobs."""

    @_sends_logs(query=LogsOfJobsQuery, errors=(LogUnreadable, 404))
    async def get(self) -> None:
        """Return the logs of several jobs as those of one, the older piece first; at most 100 logs.

        Everything is as for the logs of one job, but a log is called `SESSION.JOB.SLOT.STREAM` in events, gaps and
        positions. Each of the jobs must exist or have files.
        """
        jobs = list(map(parse_job_name, self._choice("job", _JOBS, "") or ()))
        if len(jobs) > MAX_LOGS:
            raise BadRequest(f"too many jobs: {len(jobs)}", reason="bad_value", hint=f"name at most {MAX_LOGS}")
        for job in jobs:
            self.grant.require_session(job.session)
        await self.send_logs(jobs, named=True)


class PidLogsHandler(LogsHandler):
    """The log files of a process."""

    @_sends_logs(query=LogsQuery, errors=(LogUnreadable,))
    async def get(self) -> None:
        """Return the logs of the slot of the process, as for its job. They include those of earlier processes."""
        process = self.process
        await self.send_logs([process.job], process.slot)


class _Start:
    """Where to start: at `positions` by label (of the only log without one), a time, a tail, or the oldest byte."""

    def __init__(self, positions: dict[str, Position] | None, since: float | None, tail: Tail | None) -> None:
        self._positions = positions
        self._since = since
        self._tail = tail

    @classmethod
    def of(cls, handler: NodeHandler) -> "_Start":
        """Parse the query; raises BadRequest (`bad_value`)."""
        offset = handler.request.headers.get("Last-Event-ID") or handler.get_query_argument("offset", None)
        since, tail = handler.get_query_argument("since", None), handler.get_query_argument("tail", None)
        if handler.get_query_argument("offset", None) is not None and (since, tail) != (None, None):
            raise BadRequest(
                "`offset` excludes `since` and `tail`", reason="bad_value", hint="use `offset`, or the other two"
            )
        moment, size = None if since is None else parse_since(since, time.time()), parse_tail(tail)
        return cls(None if offset is None else _parse_positions(offset), moment, size)

    async def open(self, feed: LogFeed, store: LogStore, names: list[LogName]) -> list[tuple[Reading, int, int]]:
        """Add a reading of each log to the feed; return the gaps before them, from and to."""
        gaps = []
        if self._positions is not None and "" in self._positions and len(names) > 1:
            labels = ", ".join(map(feed.label, names[:10]))
            hint = f"add slot=N, or start with the log, as in {feed.label(names[0])}@OFFSET"
            raise BadRequest(f"`offset` needs a single log; there are {labels}", reason="bad_value", hint=hint)
        for name in names:
            log = store.log(name)
            extent = await log.extent()
            start = extent.start
            if self._positions is not None:
                found = self._positions.get(feed.label(name)) or self._positions.get("")
                if found is not None:
                    elsewhere = found.epoch != "" and (found.epoch != extent.epoch or found.offset > extent.end)
                    if found.offset > extent.end and not elsewhere:
                        raise _invalid("offset", str(found), f"use at most {extent.end}, the current end")
                    wanted = 0 if elsewhere else found.offset
                    start = max(start, wanted)
            else:
                wanted = start
                if self._since is not None:
                    start = max(start, await log.offset_since(self._since, feed.is_over))
                if self._tail is not None:
                    size = self._tail.size
                    back = (
                        extent.end - size if self._tail.in_bytes else await log.offset_of_tail_lines(size, feed.is_over)
                    )
                    start = max(start, back)
            reading = Reading(log, feed.label(name), extent.epoch, start, max(start, extent.end))
            feed.readings.append(reading)
            if self._positions is not None and found is not None and wanted < extent.start:
                gaps.append((reading, wanted, extent.start))
        return gaps


def parse_since(text: str, now: float) -> float:
    """Return the wall-clock time that `text` stands for: an age in seconds or with a unit, a Unix time, or RFC 3339.

    Raises BadRequest (`bad_value`).
    """
    try:
        if re.fullmatch(_RFC_3339, text, re.ASCII):
            # A plus sign that was not encoded in the URL arrives as a space.
            zoned = re.sub(r" ([0-9]{2}:[0-9]{2})$", r"+\1", text)
            return datetime.fromisoformat(zoned.upper()).timestamp()
        if re.fullmatch(_SINCE, text, re.ASCII):
            seconds = float(text) if text[-1].isdigit() else rules.seconds(text, True)
            return seconds if seconds >= _UNIX_TIME else now - seconds
    except (ValueError, OverflowError, InvalidValue):
        pass
    raise _invalid("since", text, "use an age such as 90 or 5m, or a time such as 2026-11-29T10:15:00Z")


def _parse_positions(text: str) -> dict[str, Position]:
    found: dict[str, Position] = {}
    for item in text.split(",", MAX_LOGS + 1):
        label, _, position = item.rpartition("@")
        parsed = Position.parse(position)
        if parsed is None or label in found or not re.fullmatch(f"(?:{_LABEL})?", label, re.ASCII):
            raise _invalid("offset", text[:100], "use a number of bytes, or the X-Gaffer-Offset or id of a response")
        found[label] = parsed
    return found


def _joined(items: list[tuple[str, str]], *, labelled: bool) -> str:
    return ",".join(f"{label}@{value}" if labelled else value for label, value in items)


def _invalid(name: str, value: str, hint: str) -> BadRequest:
    return BadRequest(f"invalid value {name}={value!r}", reason="bad_value", hint=hint)


def _no_logs(message: str, hint: str | None) -> NotFound:
    return NotFound(message, reason="no_logs", hint=hint)


ROUTES = [
    Route("/logs", LogsOfJobsHandler, {"GET": Scope.READ}),
    Route("/jobs/{sid}/{job}/logs", JobLogsHandler, {"GET": Scope.READ}),
    Route("/{pid:digits}/logs", PidLogsHandler, {"GET": Scope.READ}),
]
