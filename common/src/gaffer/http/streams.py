"""Standard streams of a process: R-70 follows an output, R-71 writes to an input."""

from gaffer.http.access import Scope
from gaffer.http.bodies import Done
from gaffer.http.feed_formats import Output
from gaffer.http.feed_handler import OFFSET_HEADER, FeedHandler
from gaffer.http.feeds import LONGPOLL, FeedQuery, FollowQuery
from gaffer.http.operations import BYTES, EVENTS, operation
from gaffer.http.routes import Route
from gaffer.process import Process
from gaffer.streams import Ring


class Stream(FeedHandler):
    """An output or input of a process."""

    @operation(
        bytes,
        query=FollowQuery,
        media=(BYTES, EVENTS),
        headers={OFFSET_HEADER: "Of a longpoll: the `after` that continues it."},
    )
    async def get(self) -> None:
        """Follow an output, from now on unless the query says where to begin.

        `after=OFFSET` begins at a byte, `tail=N` or `tail=Nb` that many lines or bytes back. Output that is not kept
        any more is told as an event `gap` with `{"from", "to"}`, in server-sent events alone. A client that is slow
        loses output, the process waits for none.

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
            start = _unserved(process, label, ring) if query.kind == LONGPOLL else ring.end
        await self.follow(query, ring, start, Output(label), served=lambda end: _mark_served(process, label, end))

    @operation(Done, body=bytes, body_media=BYTES, errors=(403, 410, 503))
    def post(self) -> None:
        """Write the body as it is to `stdin` (or `ttin`, its other name) or to a custom stream."""
        self.manager.send(self.process.pid, self.body, self.params["label"])
        self.done()


def _unserved(process: Process, label: str, ring: Ring) -> int:
    offset = process.last_write_offsets.get(label, ring.end)
    return offset if offset >= ring.start else ring.end


def _mark_served(process: Process, label: str, end: int) -> None:
    if process.last_write_offsets.get(label, end) < end:
        del process.last_write_offsets[label]


ROUTES = [Route("/streams/{pid}/{label}", Stream, {"GET": Scope.READ, "POST": Scope.CONTROL})]
