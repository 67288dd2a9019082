"""A websocket of a process: its life, its two directions, and the bounds of both.

A client costs a cursor and one chunk in flight: the next one is read when the socket has taken all of the one before.
The other way, a message is read when the process has read most of what waits for it.
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
from gaffer.errors import GafferError, NotRedirected
from gaffer.http.access import AUTH, AuthRequired, Scope
from gaffer.http.feeds import FeedQuery
from gaffer.http.limits import STRANGER_BODY
from gaffer.http.rfc6455 import ServerSocket
from gaffer.process import Process
from gaffer.streams.process_streams import Stream
from gaffer.streams.rings import Chunk, Cursor

MAX_MESSAGE = 1024 * 1024  # bytes that a client may send at once
AUTH_TIMEOUT = 10.0  # seconds that a client that is not known has to send a key
_MAX_KEY = 1024  # characters
PING_INTERVAL = 30.0  # seconds
PING_TIMEOUT = 60.0  # seconds without a sign of the client

_NORMAL, _GOING_AWAY = 1000, 1001  # close codes, RFC 6455 section 7.4.1
_PRIVATE = 4000  # the first of those that are free for applications; 4404 means what 404 does in HTTP

_FIN, _TEXT, _BINARY = 0x80, 1, 2  # section 5.2


class ProcessSocket(NodeHandler, ServerSocket):
    """A websocket that follows an output of a process, writes to it, or both.

    The application settings `websocket_ping_interval`, `websocket_ping_timeout` (seconds) and
    `websocket_max_message_size` (bytes) change its limits.
    """

    target: Process
    _output: Cursor[Chunk] | None = None
    _is_elsewhere = False  # the client wanted to resume at a position that is not of this output
    _input: Stream | None = None
    _end_of_input: Cursor[Any] | None = None
    _running: asyncio.Task[None] | None = None
    _pings: asyncio.TimerHandle | None = None
    _held = False  # by the process, until it reads; meanwhile no sign of the client can come in
    _leaving = False
    _is_first = True  # of the client's messages
    _deadline: asyncio.TimerHandle | None = None  # for the key of a client that is not known
    _refusing: asyncio.Task[None] | None = None

    # What each kind does in its own way

    def choose(self) -> None:
        """Say what to `follow` and `write_to`; raises GafferError when there is nothing."""
        raise NotImplementedError

    def pass_on(self, chunk: Chunk) -> Awaitable[None]:
        """Send a piece of output, like `send`."""
        raise NotImplementedError

    def pass_on_gap(self, start: int, end: int) -> None:
        """Tell that the client lost the output between two offsets, if there is a way to."""

    def key_in(self, message: bytes) -> str | None:
        """The key, or the token of a cookie, that a first message presents; None when it presents none."""
        if self.grant.elevate is None or not message.startswith(AUTH.encode()):
            return None
        return message.decode(errors="replace").removeprefix(AUTH)

    def confirm(self, message: bytes) -> None:
        """Answer a message whose key was accepted."""

    def handle_at_once(self, message: bytes) -> bool:
        """Do what a message wants, if there is nothing to wait for or to say; whether it was done."""
        return False

    async def handle(self, message: bytes) -> None:
        """Do what a message wants; raises GafferError to end the connection."""
        raise NotImplementedError

    def report(self, error: GafferError) -> Awaitable[None]:
        """Send an error that answers no message, like `send`."""
        raise NotImplementedError

    # What they do it with

    def follow(self, label: str) -> None:
        """Send the output `label` from where the query says."""
        ring, query = self.target.ring(label), FeedQuery.of(self)
        self._output = Cursor(ring, query.start_in(ring))
        self._is_elsewhere = query.is_elsewhere(ring)

    def write_to(self, label: str) -> None:
        """Let the client write to the stream `label`."""
        self._input = self.target.streams[label]
        if self._input.input is not None:
            self._end_of_input = Cursor(self._input.input.life)

    def write_at_once(self, data: bytes) -> bool:
        """Write to the process if it may be done and it has room; whether that is so."""
        stream = self._input
        if (
            stream is None
            or stream.input is None
            or not stream.input.has_room
            or Scope.CONTROL not in self.grant.scopes
        ):
            return False
        stream.write(data)
        return True

    async def write_input(self, data: bytes) -> None:
        """Write to the process, once it has read most of what waits for it. Raises GafferError."""
        self.grant.require(Scope.CONTROL)
        if self._input is None:
            raise NotRedirected(
                403, "forbidden_write", "the process can't be written to", hint="set redirect_input in the job"
            )
        if self._input.input is not None:
            self._held = True
            try:
                await self._input.input.room()
            finally:
                self._held = False
                self._heard = self._now
        self._input.write(data)

    def send(self, data: bytes) -> Awaitable[None]:
        """Send a message, as text if it is UTF-8; what it returns is done when the socket has taken that.

        Both raise StreamClosedError, and one may be left alone.
        """
        connection = self.ws_connection
        if connection is None or connection.is_closing() or connection.stream is None:
            raise StreamClosedError
        return connection.stream.write(_message(data))

    # Hooks of Tornado

    @property
    def ping_interval(self) -> float:
        return 0  # Tornado's pings would close a connection while the process holds it

    @property
    def max_message_size(self) -> int:
        return int(self.settings.get("websocket_max_message_size", MAX_MESSAGE)) if self.grant.scopes else STRANGER_BODY

    async def open(self) -> None:
        self.set_nodelay(True)
        self._heard = self._now
        self._await_sign()
        if self.grant.scopes:
            await self._begin()
        else:
            self._deadline = asyncio.get_running_loop().call_later(AUTH_TIMEOUT, self._refuse_late)

    def on_message(self, message: str | bytes) -> Awaitable[None] | None:
        self._heard = self._now
        if self.ws_connection is None:  # closed from here, and the client doesn't know it yet
            return None
        data = message.encode() if isinstance(message, str) else message
        is_first, self._is_first = self._is_first, False
        key = self.key_in(data) if is_first else None
        if key is not None:
            return self._handle(data, key)
        if not self.grant.scopes:
            return self._fail(_auth_required())
        return None if self.handle_at_once(data) else self._handle(data)

    def on_pong(self, data: bytes) -> None:
        self._heard = self._now

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
            self._running = asyncio.create_task(self._run())

    async def _authenticate(self, key: str, message: bytes) -> None:
        """Take a key, or the token of the cookie that the handshake presented; end the connection for a wrong one."""
        verify = self.grant.elevate or self.application.policy.verify
        grant = verify(key) if len(key) <= _MAX_KEY else None
        if grant is None:
            await self._fail(_auth_required())
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

    def _refuse_late(self) -> None:
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
        if not self._held and self._now - self._heard > timeout:
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
                    self.pass_on_gap(0, self._output.offset)
                while self._output is not None and (chunk := await self._output.next()) is not None:
                    if chunk.gap:
                        self.pass_on_gap(chunk.offset - chunk.gap, chunk.offset)
                    sent = self.pass_on(chunk)
                    del chunk  # there may be a thousand clients that don't read
                    # A client that keeps up gets all there is at once, or it would fall behind a burst of output.
                    if self._is_behind:
                        await sent
                if self._end_of_input is not None:
                    await self._end_of_input.next()
            self.close(*((_GOING_AWAY, "the node stops") if self._leaving else (_NORMAL, "the process has ended")))
        finally:
            self.application.feeds.discard(self)
            self.finished.set_result(None)

    @property
    def _is_behind(self) -> bool:
        stream = self.ws_connection.stream if self.ws_connection is not None else None
        return stream is None or stream.writing()

    def end(self) -> None:
        """Close the connection once it has all there is."""
        self._leaving = True
        for cursor in (self._output, self._end_of_input):
            if cursor is not None:
                cursor.end()

    async def _fail(self, error: GafferError) -> None:
        with suppress(StreamClosedError):
            await self.report(error)
        self.close(_PRIVATE + error.errno, error.reason)


def _auth_required() -> AuthRequired:
    return AuthRequired("the key or token is missing or unknown", hint="send `AUTH:KEY` first, or the key as a header")


def _message(data: bytes) -> bytes:
    """A message as it goes over the wire (RFC 6455 section 5.2). Tornado would make a task for each."""
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
