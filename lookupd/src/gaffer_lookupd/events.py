"""`GET /events`: the changes of the registry as server-sent events, resumable without gaps.

A follower is a position in the log of changes and gets one part at a time, however slow it is. If its next changes are
no longer in the log, it gets the complete registry again.
"""

import asyncio
from typing import Annotated

from msgspec import Meta, Struct
from tornado.iostream import StreamClosedError

from gaffer.errors import BadRequest
from gaffer.http.operations import EVENTS, operation
from gaffer.streams.position import Position
from gaffer.streams.rings import Cursor, Records
from gaffer_lookupd.application import LookupHandler
from gaffer_lookupd.changes import Change
from gaffer_lookupd.queries import in_parts

HEARTBEAT = 15.0  # default seconds between heartbeats

_MIN_HEARTBEAT, _MAX_HEARTBEAT = 0.1, 3600.0

_COMMENT = b":\n\n"


class EventsQuery(Struct, kw_only=True):
    """Parameters of `GET /events`.

    since: `EPOCH:SEQ`, the id of the last event that the client has; a Last-Event-ID header takes precedence.
    heartbeat: seconds of silence after which an empty comment is sent.
    """

    since: Annotated[str, Meta(pattern="^$|^[0-9A-Za-z]{1,64}:[0-9]{1,18}$")] = ""
    heartbeat: Annotated[float, Meta(ge=_MIN_HEARTBEAT, le=_MAX_HEARTBEAT)] = HEARTBEAT


class EventsHandler(LookupHandler):
    """The feed of changes."""

    _cursor: Cursor[Records[Change]] | None = None

    @operation(bytes, media=EVENTS, query=EventsQuery)
    async def get(self) -> None:
        """Follow all changes as server-sent events, whose ids are `EPOCH:SEQ`.

        Without `?since=EPOCH:SEQ` or a Last-Event-ID header, or if the changes since then are no longer available, the
        first event is `snapshot`: the nodes, each with its `jobs`, and the metadata of queries. Every further event is
        one change: `add_node` (precedes `identify` and has no name), `identify`, `update_node`, `remove_node`,
        `add_job`, `remove_job`, `update_job` (another state or reason), `add_process`, `update_process`,
        `remove_process`, `forget_node` (a tombstone was discarded) and `stale`. After `heartbeat` seconds of silence
        (default: 15) a comment is sent.
        """
        changes, heartbeat = self.application.changes, self._heartbeat()
        start = self._start()
        self._cursor = cursor = Cursor(changes, start)
        self._set_media()
        self.follow()
        try:
            await self.flush()
            if start is None:
                await self._send_snapshot(cursor)
            while True:
                try:
                    async with asyncio.timeout(heartbeat):
                        records = await cursor.next()
                except TimeoutError:
                    await self.send(_COMMENT)
                    continue
                if records is None:
                    return
                if records.gap:
                    await self._send_snapshot(cursor)
                    continue
                for part in in_parts(map(self._format, records.items)):
                    await self.send(part)
        except StreamClosedError:
            pass
        finally:
            self.application.readers.leave(self)

    def head(self, *args: str, **kwargs: str) -> None:
        self._heartbeat()
        self._start()
        self._set_media()

    def _set_media(self) -> None:
        self.set_header("Content-Type", EVENTS)
        self.set_header("Cache-Control", "no-store, no-transform")  # compressing proxies would delay the feed

    def on_connection_close(self) -> None:
        super().on_connection_close()
        if self._cursor is not None:
            self._cursor.end()

    async def _send_snapshot(self, cursor: Cursor[Records[Change]]) -> None:
        cursor.offset = self.application.changes.end
        parts = self.application.queries.snapshot()
        head = b"event: snapshot\nid: %b\n" % self._id(cursor.offset)
        for part in parts:
            await self.send(b"%bdata: %b\n" % (head, part))
            await asyncio.sleep(0)  # a fast client would otherwise block the loop
            head = b""
        await self.send(b"\n")

    def _format(self, change: Change) -> bytes:
        name, data = change.message["event"].encode(), change.to_json()
        return b"event: %b\nid: %b\ndata: %b\n\n" % (name, self._id(change.seq), data)

    def _id(self, seq: int) -> bytes:
        return b"%b:%d" % (self.application.registry.epoch.encode(), seq)

    def _start(self) -> int | None:
        """Return the position from which the client resumes, or None if it has none or can't resume."""
        since = self.get_query_argument("since", "")
        given = Position.parse(since)
        if since and (given is None or not given.epoch):
            raise BadRequest(
                f"invalid since={since!r}", reason="bad_value", hint="use the id of the last event, EPOCH:SEQ"
            )
        position = Position.parse(self.request.headers.get("Last-Event-ID", "")) or given
        if position is None or position.epoch != self.application.registry.epoch:
            return None
        changes = self.application.changes
        return position.offset if changes.start <= position.offset <= changes.end else None

    def _heartbeat(self) -> float:
        text = self.get_query_argument("heartbeat", str(HEARTBEAT))
        try:
            seconds = float(text)
        except ValueError:
            seconds = -1.0
        if not _MIN_HEARTBEAT <= seconds <= _MAX_HEARTBEAT:
            hint = f"use {_MIN_HEARTBEAT:g} to {_MAX_HEARTBEAT:g} seconds"
            raise BadRequest(f"invalid heartbeat={text!r}", reason="bad_value", hint=hint)
        return seconds
