"""Base of handlers that respond with a feed."""

from collections.abc import Callable
from typing import Any, TypeVar

from tornado.iostream import StreamClosedError

from gaffer.api.node import NodeHandler
from gaffer.http.feed_formats import HEARTBEAT, HEARTBEAT_EVENT, Format
from gaffer.http.feeds import CONTINUOUS, EVENTSOURCE, LONGPOLL, Feed, FeedQuery
from gaffer.streams.rings import Piece, Source

P = TypeVar("P", bound=Piece)

OFFSET_HEADER = "X-Gaffer-Offset"
_EVENT_STREAM = "text/event-stream"


class FeedHandler(NodeHandler):
    """A handler whose response ends with its source, with the node, or when the client disconnects.

    At most one piece is in flight to a client: the next one is read once the last has been passed to the kernel.
    """

    _feed: Feed[Any] | None = None

    async def follow(
        self,
        query: FeedQuery,
        source: Source[P],
        start: int,
        form: Format[P],
        *,
        resumable: bool = True,
        served: Callable[[int], Any] = lambda end: None,
    ) -> None:
        """Send the data of `source` from `start` on, after a gap if the query resumes at a position in another source.

        A longpoll returns the position to resume at in a header if the feed is `resumable`, and calls `served` with it.
        A heartbeat ends a longpoll with `after`, because after an empty line the header can't be sent any more.
        """
        self.set_header("Content-Type", _EVENT_STREAM if query.kind == EVENTSOURCE else form.media)
        self.set_header("Cache-Control", "no-store, no-transform")  # proxies that compress a feed delay it
        if self.request.method == "HEAD":
            return
        self._feed = feed = Feed(source, start, query.heartbeat)
        is_elsewhere = query.is_elsewhere(source)
        self.application.feeds.add(feed)
        try:
            if query.kind == LONGPOLL:
                gap = form.plain_gap(0, start) if is_elsewhere else b""
                if gap:
                    self.write(gap)
                else:
                    await self._longpoll(feed, form, ends_at_heartbeat=query.after is not None)
                if resumable and not self._headers_written:
                    self.set_header(OFFSET_HEADER, str(source.position(feed.offset)))
                served(feed.offset)
            elif query.kind == CONTINUOUS:
                await self._stream(feed, form.plain, HEARTBEAT, form.plain_gap(0, start) if is_elsewhere else b"")
            else:
                gap = form.event_gap(0, start) if is_elsewhere else b""
                await self._stream(feed, form.events, HEARTBEAT_EVENT, gap)
                self.write(form.last_events(feed.offset))
        except StreamClosedError:
            pass
        finally:
            self.application.feeds.discard(feed)
            feed.close()

    def on_connection_close(self) -> None:
        super().on_connection_close()
        if self._feed is not None:
            self._feed.end()

    async def _longpoll(self, feed: Feed[P], form: Format[P], *, ends_at_heartbeat: bool) -> None:
        while (content := await feed.next(form.plain, form.longpoll_size)) is not None:
            if content:
                self.write(content)
                return
            if ends_at_heartbeat:
                return
            self.write(HEARTBEAT)
            await self.flush()

    async def _stream(self, feed: Feed[P], write: Callable[[P], bytes], heartbeat: bytes, first: bytes) -> None:
        self.write(first)
        await self.flush()
        # Keep no reference to the piece while it is in flight: there may be a thousand clients that don't read.
        while self._write_next(await feed.next(write), heartbeat):
            await self.flush()

    def _write_next(self, content: bytes | None, heartbeat: bytes) -> bool:
        if content is None:
            return False
        self.write(content or heartbeat)
        return True
