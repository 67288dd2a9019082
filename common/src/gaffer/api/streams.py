"""Standard streams of a process: R-70 follows an output, R-71 writes to an input."""

from typing import Annotated, Literal

from msgspec import Meta

from gaffer.api.feed_handler import OFFSET_HEADER, FeedHandler
from gaffer.errors import BadRequest
from gaffer.http.access import Scope
from gaffer.http.feed_formats import EncodedOutput, Output
from gaffer.http.feeds import EVENTSOURCE, LONGPOLL, FeedQuery, FollowQuery
from gaffer.http.operations import BYTES, EVENTS, operation
from gaffer.http.routes import Route
from gaffer.process import Process
from gaffer.schemas.common import Done
from gaffer.streams.rings import Ring

_FORMATS = {"text": Output, "base64": EncodedOutput}


class StreamQuery(FollowQuery):
    """How to follow an output."""

    encoding: Annotated[
        Literal["text", "base64"], Meta(description="Of the data of server-sent events; base64 keeps every byte.")
    ] = "text"


class StreamHandler(FeedHandler):
    """An output or input of a process."""

    @operation(
        bytes,
        query=StreamQuery,
        media=(BYTES, EVENTS),
        headers={OFFSET_HEADER: "Of a longpoll: the `after` that continues it."},
    )
    async def get(self) -> None:
        """Follow an output, from now on unless the query says where to begin.

        `after=EPOCH:OFFSET` resumes at a byte, `tail=N` or `tail=Nb` begins that many lines or bytes back. Output that
        is no longer kept is reported as an event `gap` with `{"from", "to"}`, in server-sent events alone; so is an
        `after` of another output or an earlier life of the node, which gets all that is kept. A client that is slow
        loses output, the process waits for none.

        The data of server-sent events, put together, are the output as UTF-8 text with `\\n` for each line end. With
        `encoding=base64` they are its bytes.

        longpoll answers the next output and, in X-Gaffer-Offset, the `after` that continues it. When the client says
        nothing it begins where the output stood at the last write to stdin, so that a write and then a longpoll give
        the reply; once a longpoll has served that, and when it left the ring, it begins now. A heartbeat ends a
        longpoll that has `after`, because it could not send the header any more after an empty line.
        """
        process, label = self.process, self.params["label"]
        ring = process.ring(label)
        query = FeedQuery.of(self)
        encoding = self.get_query_argument("encoding", "text")
        if encoding not in _FORMATS or (encoding != "text" and query.kind != EVENTSOURCE):
            raise BadRequest(
                f"encoding={encoding!r} can't be used",
                reason="bad_value",
                hint="use text, or base64 with feed=eventsource; other feeds send the bytes",
            )
        start = query.start_in(ring)
        if start is None:
            start = _unserved(process, label, ring) if query.kind == LONGPOLL else ring.end
        form = _FORMATS[encoding](label, ring.epoch)
        await self.follow(query, ring, start, form, served=lambda end: _mark_served(process, label, end))

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


ROUTES = [Route("/streams/{pid}/{label}", StreamHandler, {"GET": Scope.READ, "POST": Scope.CONTROL})]
