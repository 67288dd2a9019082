"""Websockets of a process: R-80 passes its output and input on as they are, R-81 and R-82 in frames.

A client costs a cursor and one chunk in flight: the next one is read when the socket has taken all of the one before.
The other way, a message is read when the process has read most of what waits for it.
"""

import asyncio
import struct
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, Literal

import msgspec
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from gaffer.errors import BadRequest, GafferError, NotRedirected, ProcessError
from gaffer.frames import ERROR, GENERAL, MESSAGE, OK, RESPONSE, Frame, FrameError
from gaffer.http.access import Scope
from gaffer.http.feeds import FeedQuery
from gaffer.http.node import NodeHandler
from gaffer.http.operations import operation
from gaffer.http.routes import Route
from gaffer.process import Process
from gaffer.process_streams import STDIN, Stream
from gaffer.streams import Chunk, Cursor

MAX_MESSAGE = 1024 * 1024  # bytes that a client may send at once
PING_INTERVAL = 30.0  # seconds
PING_TIMEOUT = 60.0  # seconds without a sign of the client

_NORMAL, _GOING_AWAY = 1000, 1001  # close codes, RFC 6455 section 7.4.1
_PRIVATE = 4000  # the first of those that are free for applications; 4404 means what 404 does in HTTP

_VERSION = "13"  # of the protocol, RFC 6455
_FIN, _TEXT, _BINARY = 0x80, 1, 2  # section 5.2

_READ, _WRITE = 1, 2  # the bits of `mode`

# How frames call the HTTP status of an error (STR-32); any other is EIO.
_NAMES = {400: "EINVAL", 403: "EPERM", 404: "ENOENT"}


class UpgradeRequired(GafferError):
    """The resource is a websocket."""

    errno = 426
    reason = "upgrade_required"


class StartQuery(msgspec.Struct):
    """Where the output begins: after an offset, or so many lines (`20`) or bytes (`4096b`) back. Else it begins now."""

    after: int | None = None
    tail: str | None = None


class ChannelQuery(StartQuery):
    """`mode`: 1 to read, 2 to write, 3 for both."""

    mode: Literal[1, 2, 3] = 3


class ProcessSocket(NodeHandler, WebSocketHandler):
    """A websocket that follows an output of a process, writes to it, or both.

    The application settings `websocket_ping_interval`, `websocket_ping_timeout` (seconds) and
    `websocket_max_message_size` (bytes) change its limits.
    """

    target: Process
    _output: Cursor[Chunk] | None = None
    _input: Stream | None = None
    _end_of_input: Cursor[Any] | None = None
    _running: asyncio.Task[None] | None = None
    _pings: asyncio.TimerHandle | None = None
    _held = False  # by the process, until it reads; meanwhile no sign of the client can come in
    _leaving = False

    # What each kind does in its own way

    def choose(self) -> None:
        """Say what to `follow` and `write_to`; raises GafferError when there is nothing."""
        raise NotImplementedError

    def pass_on(self, chunk: Chunk) -> Awaitable[None]:
        """Send a piece of output, like `send`."""
        raise NotImplementedError

    def take_at_once(self, message: bytes) -> bool:
        """Do what a message wants, if there is nothing to wait for or to say; whether it was done."""
        return False

    async def take(self, message: bytes) -> None:
        """Do what a message wants; raises GafferError to end the connection."""
        raise NotImplementedError

    def tell(self, error: GafferError) -> Awaitable[None]:
        """Send an error that answers no message, like `send`."""
        raise NotImplementedError

    # What they do it with

    def follow(self, label: str) -> None:
        """Send the output `label` from where the query says."""
        ring = self.target.ring(label)
        self._output = Cursor(ring, FeedQuery.of(self).start_in(ring))

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

    async def get(self) -> None:
        headers = self.request.headers
        connection = [option.strip().lower() for option in headers.get("Connection", "").split(",")]
        wanted = headers.get("Upgrade", "").lower() == "websocket" and "upgrade" in connection
        if self.request.method != "GET" or not wanted or headers.get("Sec-WebSocket-Version") != _VERSION:
            raise UpgradeRequired(f"{self.request.path} is a websocket", hint="connect with a websocket client")
        if not headers.get("Sec-WebSocket-Key"):
            raise BadRequest("the header Sec-WebSocket-Key is missing")
        await WebSocketHandler.get(self)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        if status_code == UpgradeRequired.errno:
            self.set_header("Upgrade", "websocket")
            self.set_header("Sec-WebSocket-Version", _VERSION)
        super().write_error(status_code, **kwargs)

    def check_origin(self, origin: str) -> bool:
        return True  # the gate has checked it

    @property
    def ping_interval(self) -> float:
        return 0  # Tornado's pings would close a connection while the process holds it

    @property
    def max_message_size(self) -> int:
        return int(self.settings.get("websocket_max_message_size", MAX_MESSAGE))

    async def open(self) -> None:
        self.set_nodelay(True)
        self._heard = self._now
        self._await_sign()
        try:
            self.target = self.process
            self.choose()
        except (GafferError, HTTPError) as error:
            await self._fail(self.error_of(error, 400))
        else:
            self._running = asyncio.create_task(self._run())

    def on_message(self, message: str | bytes) -> Awaitable[None] | None:
        self._heard = self._now
        if self.ws_connection is None:  # closed from here, and the client doesn't know it yet
            return None
        data = message.encode() if isinstance(message, str) else message
        return None if self.take_at_once(data) else self._take(data)

    def on_pong(self, data: bytes) -> None:
        self._heard = self._now

    def on_close(self) -> None:
        if self._pings is not None:
            self._pings.cancel()
        if self._running is not None:
            self._running.cancel()

    # Life

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

    async def _take(self, message: bytes) -> None:
        try:
            await self.take(message)
        except GafferError as error:
            await self._fail(error)
        except StreamClosedError:
            pass

    async def _run(self) -> None:
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.application.feeds.add(self)
        try:
            with suppress(StreamClosedError):
                while self._output is not None and (chunk := await self._output.next()) is not None:
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
            await self.tell(error)
        self.close(_PRIVATE + error.errno, error.reason)


class RawSocket(ProcessSocket):
    """Output and input of a process as they are."""

    @operation(status=101, query=StartQuery, errors=(UpgradeRequired,))
    async def get(self) -> None:
        """Connect to a process: messages are written to its stdin, its first output is sent.

        An error is sent as JSON, then the connection is closed, except when it only means that nothing can be written:
        the process has no redirect_input, or the key not the scope `control`.
        Output that is UTF-8 comes as text, other output as binary. A client that reads too slowly loses output without
        a notice, for which there is no room.
        """
        await super().get()

    def choose(self) -> None:
        process = self.target
        if process.redirect_output:
            self.follow(process.redirect_output[0])
        if STDIN in process.streams:
            self.write_to(STDIN)
        elif not process.redirect_output:
            raise _not_redirected(process)

    def pass_on(self, chunk: Chunk) -> Awaitable[None]:
        return self.send(chunk.data)

    def take_at_once(self, message: bytes) -> bool:
        return self.write_at_once(message)

    async def take(self, message: bytes) -> None:
        try:
            await self.write_input(message)
        except GafferError as error:
            if error.errno != 403:
                raise
            await self.tell(error)

    def tell(self, error: GafferError) -> Awaitable[None]:
        return self.send(error.to_json())


class FramedSocket(ProcessSocket):
    """Streams of a process in frames."""

    @operation(status=101, query=ChannelQuery, errors=(UpgradeRequired,))
    async def get(self) -> None:
        """Connect to a process: its stdin and first output, or the output or custom stream of the path.

        Writing needs the scope `control`; without it, each frame is answered with the error EPERM. The id of a frame of
        output is the `after` that goes on behind it.
        """
        await super().get()

    def choose(self) -> None:
        process = self.target
        mode = self.get_query_argument("mode", "3")
        if mode not in ("1", "2", "3"):
            raise BadRequest(f"mode={mode!r} can't be used", reason="bad_value", hint="1 reads, 2 writes, 3 does both")
        wanted = int(mode)
        if "stream" in self.params:
            label = self.params["stream"]
            stream = process.streams.get(label)
            if stream is None:
                known = ", ".join(process.streams) or "none"
                raise ProcessError(
                    404, "io_not_found", f"{process.name} has no stream {label!r}", hint=f"it has {known}"
                )
            readable, writable = [label] * (stream.ring is not None), [label] * stream.writable
        else:
            readable, writable = process.redirect_output[:1], [label for label in (STDIN,) if label in process.streams]
        if wanted & _READ and readable:
            self.follow(readable[0])
        if wanted & _WRITE and writable:
            self.write_to(writable[0])
        if self._output is None and self._input is None:
            raise _not_redirected(process)

    def pass_on(self, chunk: Chunk) -> Awaitable[None]:
        if chunk.gap:
            lost = FrameError(
                error="GAP",
                errno=410,
                message=f"{chunk.gap} bytes were lost",
                start=chunk.offset - chunk.gap,
                to=chunk.offset,
            )
            self._tell(GENERAL, lost)
        return self.send(Frame(MESSAGE, str(chunk.end), chunk.data).encode())

    async def take(self, message: bytes) -> None:
        try:
            frame = Frame.decode(message)
        except BadRequest as error:
            await self.tell(error)
            return
        try:
            if frame.type != MESSAGE:
                raise BadRequest(
                    f"a client sends no {frame.type}", hint="send `V1 message ID`, a NUL byte, and the data"
                )
            await self.write_input(frame.body)
        except GafferError as error:
            await self._tell(frame.id, _frame_error(error))
        else:
            await self.send(Frame(RESPONSE, frame.id, OK).encode())

    def tell(self, error: GafferError) -> Awaitable[None]:
        return self._tell(GENERAL, _frame_error(error))

    def _tell(self, id: str, error: FrameError) -> Awaitable[None]:
        return self.send(Frame(ERROR, id, msgspec.json.encode(error)).encode())


def _not_redirected(process: Process) -> NotRedirected:
    return NotRedirected(
        403,
        "forbidden_write",
        f"what was asked of {process.name} is not redirected",
        hint="set redirect_output or redirect_input in the job",
    )


def _frame_error(error: GafferError) -> FrameError:
    name = _NAMES.get(error.errno, "EIO")
    return FrameError(
        error=name,
        errno=error.errno if name != "EIO" else 500,
        message=error.message,
        reason=error.reason,
        hint=error.hint,
    )


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


ROUTES = [
    Route("/wstreams/{pid}", RawSocket, {"GET": Scope.READ}),
    Route("/{pid:digits}/channel", FramedSocket, {"GET": Scope.READ}),
    Route("/{pid:digits}/channel/{stream}", FramedSocket, {"GET": Scope.READ}),
]
