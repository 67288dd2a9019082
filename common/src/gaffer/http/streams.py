"""Standard streams of a process: R-70 follows an output, R-71 writes to an input."""

from contextlib import aclosing

from tornado.iostream import StreamClosedError

from gaffer.http.access import Scope
from gaffer.http.feeds import EventStream, Feed, FeedQuery
from gaffer.http.node import NodeHandler
from gaffer.http.routes import Route
from gaffer.process import Process
from gaffer.streams import Ring

_OFFSET_HEADER = "X-Gaffer-Offset"


class Stream(NodeHandler):
    """An output or input of a process."""

    _feed: Feed | None = None

    async def get(self) -> None:
        """Follow an output: `feed` is longpoll (default), continuous or eventsource.

        `heartbeat` is in seconds, 60 unless given, or false for none.
        `after=OFFSET` begins at a byte, `tail=N` or `tail=Nb` that many lines or bytes back.

        longpoll answers the next output and, in X-Gaffer-Offset, the `after` that continues it. When the client says
        nothing it begins where the output stood at the last write to stdin, so that a write and then a longpoll give
        the reply; once a longpoll has served that, and when it left the ring, it begins now. A heartbeat ends a
        longpoll that has `after`, because it could not send the header any more after an empty line.
        """
        process, label = self.process, self.params["label"]
        ring = process.ring(label)
        query = FeedQuery.of(self)
        start = query.start_in(ring)
        if start is None:
            start = _unserved(process, label, ring) if query.kind == "longpoll" else ring.end
        self._feed = feed = Feed(ring, start, query.heartbeat)
        self.application.feeds.add(feed)
        self.set_header("Content-Type", "application/octet-stream")
        try:
            if query.kind == "longpoll":
                await self._longpoll(feed, process, label, ends_at_heartbeat=query.after is not None)
            elif query.kind == "continuous":
                await self._continuous(feed)
            else:
                await self._eventsource(feed, label)
        except StreamClosedError:
            pass
        finally:
            self.application.feeds.discard(feed)

    def head(self, *args: str, **kwargs: str) -> None:
        self.process.ring(self.params["label"])
        self.set_header("Content-Type", "application/octet-stream")

    def post(self) -> None:
        """Write the body as it is to `stdin` (or `ttin`, its other name) or to a custom stream."""
        self.manager.send(self.process.pid, self.body, self.params["label"])
        self.done()

    def on_connection_close(self) -> None:
        super().on_connection_close()
        if self._feed is not None:
            self._feed.end()

    async def _longpoll(self, feed: Feed, process: Process, label: str, *, ends_at_heartbeat: bool) -> None:
        under_way = False
        async with aclosing(feed.steps()) as steps:
            async for chunk in steps:
                if chunk is not None:
                    _mark_served(process, label, chunk.end)
                    self.write(chunk.data)
                    break
                if ends_at_heartbeat:
                    break
                self.write(b"\n")
                await self.flush()
                under_way = True
        if not under_way:
            self.set_header(_OFFSET_HEADER, str(feed.offset))

    async def _continuous(self, feed: Feed) -> None:
        await self.flush()
        async with aclosing(feed.steps()) as steps:
            async for chunk in steps:
                self.write(chunk.data if chunk is not None else b"\n")
                await self.flush()

    async def _eventsource(self, feed: Feed, label: str) -> None:
        self.set_header("Content-Type", "text/event-stream")
        await self.flush()
        events = EventStream(label)
        async with aclosing(feed.steps()) as steps:
            async for chunk in steps:
                self.write(events.format(chunk) if chunk is not None else EventStream.HEARTBEAT)
                await self.flush()


def _unserved(process: Process, label: str, ring: Ring) -> int:
    offset = process.last_write_offsets.get(label, ring.end)
    return offset if offset >= ring.start else ring.end


def _mark_served(process: Process, label: str, end: int) -> None:
    if process.last_write_offsets.get(label, end) < end:
        del process.last_write_offsets[label]


ROUTES = [Route("/streams/{pid}/{label}", Stream, {"GET": Scope.READ, "POST": Scope.CONTROL})]
