"""Frames of version 1, in which the channel of a process speaks over a websocket (STR-31): `V1 TYPE ID` NUL BODY.

Both ends send `message`. The node answers each with a `response` or an `error` of the same id. What is no answer has an
id of the node: the offset in the stream after a message, GENERAL for an error.
"""

import re
from typing import NamedTuple, Self

import msgspec

from gaffer.errors import BadRequest

MESSAGE, RESPONSE, ERROR = TYPES = ("message", "response", "error")

GENERAL = "gaffer_error"  # the id of an error that answers no message
OK = b"OK"  # the body of a response

_HEAD = re.compile(rb"V1 (message|response|error) ([!-~]{1,128})", re.ASCII)


class Frame(NamedTuple):
    """`type` is one of TYPES; `id` is of 1 to 128 visible ASCII characters; `body` may hold any bytes, NUL too."""

    type: str
    id: str
    body: bytes = b""

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The frame in one message of a websocket; raises BadRequest."""
        head, found, body = data.partition(b"\0")
        match = _HEAD.fullmatch(head)
        if match is None or not found:
            raise BadRequest("the message is no frame", hint="send `V1 message ID`, a NUL byte, and the data")
        return cls(match[1].decode(), match[2].decode(), body)

    def encode(self) -> bytes:
        """The message of a websocket."""
        return b"V1 %b %b\0%b" % (self.type.encode(), self.id.encode(), self.body)


class FrameError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of an error. `error` is EINVAL, EPERM, ENOENT, EIO or GAP, `errno` the HTTP status that goes with it.

    `reason` is the code that the HTTP API has for it. A GAP tells that the bytes of the stream from offset `from` up to
    `to` were lost to this client, because it read too slowly.
    """

    error: str
    errno: int
    message: str
    reason: str | None = None
    hint: str | None = None
    start: int | None = msgspec.field(default=None, name="from")
    to: int | None = None
