"""Websockets connected to a process: their life cycle, both directions of data, and the limits of each.

A client costs one cursor and one chunk in flight: the next chunk is read once the socket has accepted all of the last.
In the other direction, a message is read once the process has read most of the pending input.
"""

import asyncio
import struct
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

from tornado.iostream import StreamClosedError
from tornado.web import HTTPError
from tornado.websocket import WebSocketClosedError

from gaffer.api.node import NodeHandler
from gaffer.errors import GafferError, NotRedirected, ProcessError
from gaffer.http.access import AUTH, AuthRequired, Scope
from gaffer.http.feeds import FeedQuery
from gaffer.http.limits import STRANGER_BODY
from gaffer.http.rfc6455 import ServerSocket
from gaffer.process import Process
from gaffer.streams.process_streams import Stream
from gaffer.streams.rings import Chunk, Cursor

MAX_MESSAGE = 1024 * 1024  # bytes in one message of a client
AUTH_TIMEOUT = 10.0  # seconds within which an unauthenticated client must send a key
_MAX_KEY = 1024  # characters
PING_INTERVAL = 30.0  # seconds
PING_TIMEOUT = 60.0  # seconds without a sign of life from the client

_ENDED = (1000, "the process has exited")  # close code of RFC 6455 section 7.4.1
_PRIVATE = 4000  # the first close code for applications; 4404 corresponds to 404 in HTTP

_FIN, _TEXT, _BINARY = 0x80, 1, 2  # section 5.2


class ProcessSocket(NodeHandler, ServerSocket):
    """A websocket that follows an output of a process, writes to it, or both.

    The application settings `websocket_ping_interval`, `websocket_ping_timeout` (seconds) and
    `websocket_max_message_size` (bytes) change its limits.
    """

    target: Process
    _output: Cursor[Chunk] | None = None
    _is_elsewhere = False  # the position to resume at belongs to another output
    _input: Stream | None = None
    _end_of_input: Cursor[Any] | None = None
    _running: asyncio.Task[None] | None = None
    _pings: asyncio.TimerHandle | None = None
    _held = False  # waiting for the process to read; no sign of life can be received
    _leaving = False
    _is_first = True  # message of the client
    _has_written = False  # or tried to
    _deadline: asyncio.TimerHandle | None = None  # for the key of an unauthenticated client
    _refusing: asyncio.Task[None] | None = None

    # Overridden by subclasses

    def choose(self) -> None:
        """Call `follow` and `write_to` for the chosen streams; raises GafferError if there are none."""
        raise NotImplementedError

    def welcome(self) -> None:
        """Send what comes before the output, if anything. Raises StreamClosedError."""

    def send_output(self, chunk: Chunk) -> Awaitable[None]:
        """Send a chunk of output; returns as `send`."""
        raise NotImplementedError

    def send_gap(self, start: int, end: int) -> None:
        """Report the loss of the output between two offsets, if the protocol can express it."""

    def find_key(self, message: bytes) -> str | None:
        """Return the key or the token of a cookie in the first message; None if it contains none."""
        if self.grant.elevate is None or not message.startswith(AUTH.encode()):
            return None
        return message.decode(errors="replace").removeprefix(AUTH)

    def confirm(self, message: bytes) -> None:
        """Confirm a message whose key was accepted."""

    def try_handle(self, message: bytes) -> bool:
        """Handle a message that needs no waiting and no response; return whether it was handled."""
        return False

    async def handle(self, message: bytes) -> None:
        """Handle a message; raises GafferError to end the connection."""
        raise NotImplementedError

    def report(self, error: GafferError) -> Awaitable[None]:
        """Send an error that is not the response to a message; returns as `send`."""
        raise NotImplementedError

    # Used by subclasses

    def follow(self, label: str) -> None:
        """Send the output `label`, starting at the position in the query."""
        ring, query = self.target.ring(label), FeedQuery.of(self)
        self._output = Cursor(ring, query.start_in(ring))
        self._is_elsewhere = query.is_elsewhere(ring)

    def write_to(self, label: str) -> None:
        """Let the client write to the stream `label`."""
        self._input = self.target.streams[label]
        if self._input.input is not None:
            self._end_of_input = Cursor(self._input.input.life)

    def try_write(self, data: bytes) -> bool:
        """Write to the process if the client may and there is room; return whether the data was written."""
        stream = self._input
        if (
            stream is None
            or stream.input is None
            or not stream.input.has_room
            or Scope.CONTROL not in self.grant.scopes
        ):
            return False
        stream.write(data)
        self._note_input()
        return True

    async def write_input(self, data: bytes, at: int | None = None) -> None:
        """Write to the process once it has read most of the pending input. Raises GafferError.

        With `at` only if its input has accepted exactly this number of bytes; else ProcessError 409 `input_moved`.
        """
        try:
            self.grant.require(Scope.CONTROL)
        except GafferError as error:
            self._note_input(error)
            raise
        if self._input is None:
            raise NotRedirected(
                403, "forbidden_write", "the process has no input to write to", hint="set redirect_input in the job"
            )
        if self._input.input is not None:
            self._held = True
            try:
                await self._input.input.room()
            finally:
                self._held = False
                self._last_sign = self._now
        if at is not None and self._input.accepted != at:
            raise ProcessError(409, "input_moved", f"the input has accepted {self._input.accepted} bytes, not {at}")
        self._input.write(data)
        self._note_input()

    def _note_input(self, error: GafferError | None = None) -> None:
        """Have the first write audited."""
        if not self._has_written:
            self._has_written = True
            self.application.auditor.input(self, error)

    def send(self, data: bytes) -> Awaitable[None]:
        """Send a message, as text if it is UTF-8; the awaitable is done once the socket has accepted it.

        Both the call and the awaitable raise StreamClosedError. The awaitable need not be awaited.
        """
        connection = self.ws_connection
        if connection is None or connection.is_closing() or connection.stream is None:
            raise StreamClosedError
        return connection.stream.write(_message(data))

    # Hooks of Tornado

    @property
    def ping_interval(self) -> float:
        return 0  # Tornado's pings would time out while the process does not read

    @property
    def max_message_size(self) -> int:
        return int(self.settings.get("websocket_max_message_size", MAX_MESSAGE)) if self.grant.scopes else STRANGER_BODY

    async def open(self) -> None:
        self.set_nodelay(True)
        self._last_sign = self._now
        self._await_sign()
        if self.grant.scopes:
            await self._begin()
        else:
            self._deadline = asyncio.get_running_loop().call_later(AUTH_TIMEOUT, self._auth_timed_out)

    def on_message(self, message: str | bytes) -> Awaitable[None] | None:
        self._last_sign = self._now
        if self.ws_connection is None:  # closed on this side
            return None
        data = message.encode() if isinstance(message, str) else message
        is_first, self._is_first = self._is_first, False
        key = self.find_key(data) if is_first else None
        if key is not None:
            return self._handle(data, key)
        if not self.grant.scopes:
            return self._fail(_auth_required())
        return None if self.try_handle(data) else self._handle(data)

    def on_pong(self, data: bytes) -> None:
        self._last_sign = self._now

    def on_close(self) -> None:
        if self._pings is not None:
            self._pings.cancel()
        if self._running is not None:
            self._running.cancel()
        self._stop_waiting()

    # Life

    async def _begin(self) -> None:
        try:
            self.target = self.process
            self._check_grant()
            self.choose()
        except (GafferError, HTTPError) as error:
            await self._fail(self.error_of(error, 400))
        else:
            with suppress(StreamClosedError):
                self.welcome()
            self._running = asyncio.create_task(self._run())

    async def _authenticate(self, key: str, message: bytes) -> None:
        """Verify a key, or the token for the cookie of the handshake; end the connection if it is invalid."""
        verify = self.grant.elevate or self.application.policy.verify
        grant = verify(key) if len(key) <= _MAX_KEY else None
        if grant is None:
            error = _auth_required()
            self.application.auditor.login_refused(self, error)
            await self._fail(error)
            return
        self._stop_waiting()
        self.adopt(grant)
        if self._running is None:
            await self._begin()
        else:
            self._check_grant()
        if self._running is not None:
            self.confirm(message)

    def _check_grant(self) -> None:
        self.grant.require(Scope.READ)
        self.grant.require_session(self.target.job.session)

    def _auth_timed_out(self) -> None:
        self._refusing = asyncio.create_task(self._fail(_auth_required()))

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _await_sign(self) -> None:
        after = self.settings.get("websocket_ping_interval", PING_INTERVAL)
        self._pings = asyncio.get_running_loop().call_later(after, self._check)

    def _check(self) -> None:
        timeout = self.settings.get("websocket_ping_timeout", PING_TIMEOUT)
        if not self._held and self._now - self._last_sign > timeout:
            self.close(_PRIVATE + 408, "no answer to pings")
            return
        with suppress(WebSocketClosedError):
            self.ping()
            self._await_sign()

    async def _handle(self, message: bytes, key: str | None = None) -> None:
        try:
            await (self.handle(message) if key is None else self._authenticate(key, message))
        except GafferError as error:
            await self._fail(error)
        except StreamClosedError:
            pass

    async def _run(self) -> None:
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.application.feeds.add(self)
        try:
            with suppress(StreamClosedError):
                if self._output is not None and self._is_elsewhere:
                    self.send_gap(0, self._output.offset)
                while self._output is not None and (chunk := await self._output.next()) is not None:
                    if chunk.gap:
                        self.send_gap(chunk.offset - chunk.gap, chunk.offset)
                    sent = self.send_output(chunk)
                    del chunk  # keep no reference: there may be a thousand clients that don't read
                    # Do not wait for a client that keeps up, or a burst of output would make it fall behind.
                    if self._is_behind:
                        await sent
                if self._end_of_input is not None:
                    await self._end_of_input.next()
            self.close(*(self.application.farewell() if self._leaving else _ENDED))
        finally:
            self.application.feeds.discard(self)
            self.finished.set_result(None)

    @property
    def _is_behind(self) -> bool:
        stream = self.ws_connection.stream if self.ws_connection is not None else None
        return stream is None or stream.writing()

    def end(self) -> None:
        """Close the connection after sending what is available."""
        self._leaving = True
        for cursor in (self._output, self._end_of_input):
            if cursor is not None:
                cursor.end()

    async def _fail(self, error: GafferError) -> None:
        with suppress(StreamClosedError):
            await self.report(error)
        self.close(_PRIVATE + error.errno, error.reason)


def _auth_required() -> AuthRequired:
    return AuthRequired(
        "missing or unknown key or token", hint="send `AUTH:KEY` as the first message, or the key in a header"
    )


def _message(data: bytes) -> bytes:
    """Return an encoded frame (RFC 6455 section 5.2). Tornado would create a task for each message."""
    opcode = _TEXT if _is_text(data) else _BINARY
    size = len(data)
    if size < 126:
        head = struct.pack("!BB", _FIN | opcode, size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", _FIN | opcode, 126, size)
    else:
        head = struct.pack("!BBQ", _FIN | opcode, 127, size)
    return head + data


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
