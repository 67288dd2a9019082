"""Websockets as defined by RFC 6455: handshakes, frames and close codes. All websockets of both daemons use them.

Tornado's implementation accepts unmasked frames, echoes any close code, and drops the connection without a close frame
where the RFC has a code for the failure. No extensions are negotiated.
"""

import base64
import binascii
import struct
from typing import Any, cast

from tornado.httputil import HTTPServerRequest
from tornado.util import _websocket_mask
from tornado.websocket import WebSocketHandler, WebSocketProtocol13, _WebSocketParams

from gaffer.errors import BadRequest, GafferError
from gaffer.http.base import Handler
from gaffer.http.http1 import list_items
from gaffer.http.stream import WireStream

_VERSION = "13"
_KEY_SIZE = 16  # bytes, section 4.1

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA  # section 5.2
_MASKED, _CONTROL, _SIZE = 0x80, 0x8, 0x7F
_MAX_CONTROL = 125  # bytes, section 5.5

_PROTOCOL_ERROR, _NOT_UTF8, _TOO_BIG = 1002, 1007, 1009  # section 7.4.1


class UpgradeRequired(GafferError):
    """The resource requires a websocket handshake."""

    errno = 426
    reason = "upgrade_required"


def check_handshake(request: HTTPServerRequest) -> None:
    """Raise UpgradeRequired, or BadRequest for an invalid key, unless the request opens a websocket (section 4.2.1)."""
    headers = request.headers
    upgrades = "websocket" in list_items(headers, "Upgrade") and "upgrade" in list_items(headers, "Connection")
    # HTTP/1.0 has no upgrades, RFC 9110 section 7.8.
    if request.method != "GET" or request.version == "HTTP/1.0" or not upgrades:
        raise UpgradeRequired(f"{request.path} is a websocket", hint="connect with a websocket client")
    version = headers.get("Sec-WebSocket-Version", "")
    if version != _VERSION:
        raise UpgradeRequired(f"unsupported websocket version {version[:20]!r}", hint="use version 13")
    key = headers.get("Sec-WebSocket-Key")
    if not key:
        raise BadRequest("missing header Sec-WebSocket-Key")
    try:
        is_valid = len(base64.b64decode(key, validate=True)) == _KEY_SIZE
    except (binascii.Error, ValueError):
        is_valid = False
    if not is_valid:
        raise BadRequest("invalid header Sec-WebSocket-Key", hint="send 16 random bytes in base64")


def is_close_code(code: int) -> bool:
    """Return whether a close code is registered or reserved for libraries and applications."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


class Protocol(WebSocketProtocol13):
    """The server's end of a connection."""

    stream: WireStream
    _opcode = _CONTINUATION  # of the message whose fragments are being read

    async def _receive_frame(self) -> None:
        first, second = await self._read_bytes(2)
        is_final, opcode, size = bool(first & self.FIN), first & self.OPCODE_MASK, second & _SIZE
        error = self._check_head(first, second, continues=self._fragmented_message_buffer is not None)
        if error is not None:
            self.fail(_PROTOCOL_ERROR, error)
            return
        if size == 126:
            (size,) = struct.unpack("!H", await self._read_bytes(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self._read_bytes(8))
        fragments = self._fragmented_message_buffer
        limit: int = cast(Any, self.handler).max_message_size  # grows when the client authenticates
        if size + len(fragments or b"") > limit and not opcode & _CONTROL:
            self.fail(_TOO_BIG, f"the message is larger than {limit} bytes")
            return
        mask = await self._read_bytes(4)
        data = _websocket_mask(mask, await self._read_bytes(size))
        if not opcode & _CONTROL:
            if opcode != _CONTINUATION:
                self._opcode = opcode
            if fragments is not None:
                fragments += data
            if not is_final:
                self._fragmented_message_buffer = bytearray(data) if fragments is None else fragments
                return
            if fragments is not None:
                data = bytes(fragments)
                self._fragmented_message_buffer = None
            opcode = self._opcode
        handling = self._handle_message(opcode, data)
        if handling is not None:
            await handling

    def _check_head(self, first: int, second: int, *, continues: bool) -> str | None:
        """Return the error in the first two bytes of a frame (section 5.2), None if they are valid."""
        opcode = first & self.OPCODE_MASK
        if first & self.RSV_MASK:
            return "a reserved bit is set"
        if opcode not in (_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG):
            return f"unknown opcode {opcode}"
        if not second & _MASKED:
            return "client frames must be masked"
        if opcode & _CONTROL:
            if not first & self.FIN:
                return "a control frame is fragmented"
            return "a control frame has more than 125 bytes" if second & _SIZE > _MAX_CONTROL else None
        if (opcode == _CONTINUATION) != continues:
            return "a new message starts before the end of another" if continues else "there is no message to continue"
        return None

    def _handle_message(self, opcode: int, data: bytes) -> Any:
        if self.client_terminated or opcode not in (_TEXT, _CLOSE):
            return super()._handle_message(opcode, data)
        if opcode == _CLOSE:
            self._handle_close(data)
            return None
        try:
            text = data.decode()
        except UnicodeDecodeError:
            self.fail(_NOT_UTF8, "a text message is not UTF-8")
            return None
        return self._run_callback(self.handler.on_message, text)

    def _handle_close(self, data: bytes) -> None:
        """Answer a close frame with its code (section 5.5.1)."""
        if data:
            if len(data) < 2 or not is_close_code(code := int.from_bytes(data[:2])):
                self.fail(_PROTOCOL_ERROR, "invalid close code")
                return
            try:
                self.close_code, self.close_reason = code, data[2:].decode()
            except UnicodeDecodeError:
                self.fail(_NOT_UTF8, "the reason of a close frame is not UTF-8")
                return
        self.client_terminated = True
        self.close(self.close_code)

    def fail(self, code: int, reason: str) -> None:
        """Fail the connection (section 7.1.7): send a close frame unless one was sent, and close."""
        self.client_terminated = True  # nothing more is read
        self.stream.read_available()
        self.close(code, reason)


class ServerSocket(Handler, WebSocketHandler):
    """A websocket handler, which answers an invalid handshake with the error body."""

    async def get(self, *args: Any, **kwargs: Any) -> None:
        check_handshake(self.request)
        self.open_args, self.open_kwargs = args, kwargs
        params = _WebSocketParams(
            ping_interval=self.ping_interval,
            ping_timeout=self.ping_timeout,
            max_message_size=self.max_message_size,
        )
        self.ws_connection = Protocol(self, False, params)
        await self.ws_connection.accept_connection(self)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        if status_code == UpgradeRequired.errno:
            self.set_header("Upgrade", "websocket")
            self.set_header("Sec-WebSocket-Version", _VERSION)
        super().write_error(status_code, **kwargs)
