"""Version 1 frames, the protocol of a process's websocket: `V1 TYPE ID` NUL BODY.

Both ends send `message` frames. The node replies to each with a `response` or an `error` of the same id. Other frames
have an id chosen by the node: for a message its end offset in the stream, for an error GENERAL.
"""

import re
from typing import NamedTuple, Self

import msgspec

from gaffer.errors import BadRequest

MESSAGE, RESPONSE, ERROR = TYPES = ("message", "response", "error")

GENERAL = "gaffer_error"  # the id of an error that is not a reply
OK = b"OK"  # the body of a response
ACCEPTED = "accepted"  # the id of the first response to a client that resumes

_HEAD = re.compile(rb"V1 (message|response|error) ([!-~]{1,128})", re.ASCII)


class Frame(NamedTuple):
    """A frame: `type` is one of TYPES, `id` 1 to 128 visible ASCII characters, `body` any bytes, including NUL."""

    type: str
    id: str
    body: bytes = b""

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the frame in a websocket message; raises BadRequest."""
        head, found, body = data.partition(b"\0")
        match = _HEAD.fullmatch(head)
        if match is None or not found:
            raise BadRequest("invalid frame", hint="send `V1 message ID`, a NUL byte, and the data")
        return cls(match[1].decode(), match[2].decode(), body)

    def encode(self) -> bytes:
        """Return the frame as a websocket message."""
        return b"V1 %b %b\0%b" % (self.type.encode(), self.id.encode(), self.body)


class FrameError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of an error frame. `error` is EINVAL, EPERM, ENOENT, CONFLICT, EIO or GAP, `errno` the HTTP status.

    `reason` is the error code of the HTTP API. CONFLICT means that the stream has accepted `to` bytes, another number
    than the id of a write says. GAP means that the client was too slow and lost the bytes of the stream from offset
    `from` up to `to`.
    """

    error: str
    errno: int
    message: str
    reason: str | None = None
    hint: str | None = None
    start: int | None = msgspec.field(default=None, name="from")
    to: int | None = None
