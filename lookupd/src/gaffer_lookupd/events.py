"""`GET /events`: the changes of the registry as server-sent events, resumable without a gap.

A follower is a position in the kept changes and takes one part at a time, however slow it is. When the changes that
come next for it are no longer kept, it gets the whole map again.
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

HEARTBEAT = 15.0  # seconds between signs of life, where the client doesn't say

_MIN_HEARTBEAT, _MAX_HEARTBEAT = 0.1, 3600.0

_COMMENT = b":\n\n"


class EventsQuery(Struct, kw_only=True):
    """Parameters of `GET /events`.

    since: `EPOCH:SEQ`, the id of the last event that the client has; a Last-Event-ID header goes before it. heartbeat:
    seconds of silence before an empty comment is sent.
    """

    since: Annotated[str, Meta(pattern="^$|^[0-9A-Za-z]{1,64}:[0-9]{1,18}$")] = ""
    heartbeat: Annotated[float, Meta(ge=_MIN_HEARTBEAT, le=_MAX_HEARTBEAT)] = HEARTBEAT


class EventsHandler(LookupHandler):
    """What changes, as it changes."""

    _cursor: Cursor[Records[Change]] | None = None

    @operation(bytes, media=EVENTS, query=EventsQuery)
    async def get(self) -> None:
        """Follow all changes as server-sent events, whose ids are `EPOCH:SEQ`.

        Without `?since=EPOCH:SEQ` or a Last-Event-ID header, and whenever the changes after that are no longer known,
        the first event is `snapshot`: the nodes, each with its `jobs`, and what else queries say. Every further event
        is one change: `add_node` (no name yet: just before `identify`), `identify`, `update_node`, `remove_node`,
        `add_job`, `remove_job`, `add_process`, `update_process`, `remove_process`, `forget_node` (a tombstone is gone)
        and `stale`. After `heartbeat` seconds of silence (15) a comment is sent.
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
        self.set_header("Cache-Control", "no-store, no-transform")  # proxies that compress a feed hold it back

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
            await asyncio.sleep(0)  # a client that reads fast would leave no pause
            head = b""
        await self.send(b"\n")

    def _format(self, change: Change) -> bytes:
        name, data = change.message["event"].encode(), change.to_json()
        return b"event: %b\nid: %b\ndata: %b\n\n" % (name, self._id(change.seq), data)

    def _id(self, seq: int) -> bytes:
        return b"%b:%d" % (self.application.registry.epoch.encode(), seq)

    def _start(self) -> int | None:
        """The position that the client goes on from; None when it has none, or one that can't be gone on from."""
        since = self.get_query_argument("since", "")
        given = Position.parse(since)
        if since and (given is None or not given.epoch):
            raise BadRequest(
                f"since={since!r} can't be used", reason="bad_value", hint="give the id of the last event, EPOCH:SEQ"
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
            hint = f"give {_MIN_HEARTBEAT:g} to {_MAX_HEARTBEAT:g} seconds"
            raise BadRequest(f"heartbeat={text!r} can't be used", reason="bad_value", hint=hint)
        return seconds
