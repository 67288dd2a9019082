"""Streams of a process: following an output, and writing to an input."""

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

FORMATS = {"text": Output, "base64": EncodedOutput}


class StreamQuery(FollowQuery):
    """How to follow an output."""

    encoding: Annotated[
        Literal["text", "base64"],
        Meta(description="Encoding of the data in server-sent events; base64 preserves every byte."),
    ] = "text"


class StreamHandler(FeedHandler):
    """An output or input of a process."""

    writes_input = True

    @operation(
        bytes,
        query=StreamQuery,
        media=(BYTES, EVENTS),
        headers={OFFSET_HEADER: "For a longpoll: the `after` that continues it."},
    )
    async def get(self) -> None:
        """Follow an output, by default from its current end.

        `after=EPOCH:OFFSET` resumes at a byte; `tail=N` or `tail=Nb` starts that number of lines or bytes back. Output
        that is no longer retained is reported as an event `gap` with `{"from", "to"}`, but only in server-sent events.
        The same happens for an `after` of another output or an earlier run of the node, which gets all retained output.
        A slow client loses output; the process never waits for it.

        The concatenated data of server-sent events are the output as UTF-8 text with `\\n` for each line ending, or its
        bytes with `encoding=base64`.

        A longpoll returns the next output and, in X-Gaffer-Offset, the `after` that continues it. Without `after` and
        `tail` it starts at the end of the output at the time of the last write to stdin, so that a write followed by a
        longpoll returns the reply. After a longpoll has returned it, or when it is no longer retained, the start is the
        current end. A heartbeat ends a longpoll with `after`, because the header can't be sent after an empty line.
        """
        process, label = self.process, self.params["label"]
        ring = process.ring(label)
        query = FeedQuery.of(self)
        encoding = self.get_query_argument("encoding", "text")
        if encoding not in FORMATS or (encoding != "text" and query.kind != EVENTSOURCE):
            raise BadRequest(
                f"invalid value encoding={encoding!r}",
                reason="bad_value",
                hint="use text, or base64 with feed=eventsource; other feeds send raw bytes",
            )
        start = query.start_in(ring)
        if start is None:
            start = _unserved(process, label, ring) if query.kind == LONGPOLL else ring.end
        form = FORMATS[encoding](label, ring.epoch)
        await self.follow(query, ring, start, form, served=lambda end: _mark_served(process, label, end))

    @operation(Done, body=bytes, body_media=BYTES, errors=(403, 410, 503))
    def post(self) -> None:
        """Write the body unchanged to `stdin` (also called `ttin`) or to a custom stream.

        The header `X-Gaffer-Accepted` is the number of bytes that the stream has accepted since the start of the
        process, from all clients; an empty body only reports it.
        """
        process, label = self.process, self.params["label"]
        self.manager.send(process.pid, self.body, label)
        self.set_header("X-Gaffer-Accepted", str(process.writable(label).accepted))
        self.done()


def _unserved(process: Process, label: str, ring: Ring) -> int:
    offset = process.last_write_offsets.get(label, ring.end)
    return offset if offset >= ring.start else ring.end


def _mark_served(process: Process, label: str, end: int) -> None:
    if process.last_write_offsets.get(label, end) < end:
        del process.last_write_offsets[label]


ROUTES = [Route("/streams/{pid}/{label}", StreamHandler, {"GET": Scope.READ, "POST": Scope.CONTROL})]
