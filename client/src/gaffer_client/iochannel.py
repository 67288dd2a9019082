"""`IOChannel`: input and output of one process over a websocket."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Self

import msgspec

from gaffer.errors import GafferError
from gaffer.schemas.frames import ACCEPTED, ERROR, GENERAL, MESSAGE, RESPONSE, Frame, FrameError
from gaffer.streams.position import Position
from gaffer_client.connection import Connection
from gaffer_client.errors import (
    ConnectionLost,
    Forbidden,
    GafferClientError,
    MalformedAnswer,
    NotFound,
    ServerError,
    StatusError,
    Unreachable,
    status_error,
)
from gaffer_client.transport import Transport, path_of

READ, WRITE = 1, 2  # the bits of `mode`
_STDIN = "stdin"

KEPT = 1024 * 1024  # bytes of buffered output
FULL_TIMEOUT = 20.0  # seconds to wait for a reader before the oldest output is dropped; the node waits 60 s for us
_PIECE = 256 * 1024  # bytes per write
_NEXT_ATTEMPT = 0.1  # seconds between two attempts to reconnect
_MOVED = 409  # the input has accepted more than expected
_RETURNING = (1001, 1012)  # close codes of a node that stops, and of one that is upgraded


class _Pending:
    """A write that was sent over `connection` and not answered yet."""

    def __init__(self, id: str, data: bytes, connection: Connection, offset: int | None) -> None:
        self.id = id
        self.data = data
        self.connection = connection
        self.offset = offset  # where the input must be, so that what was sent twice is written once
        self.repeated = False

    def encode(self) -> bytes:
        """Return its frame."""
        id = self.id if self.offset is None else f"{self.id}@{self.offset}"
        return Frame(MESSAGE, id, self.data).encode()


class IOChannel:
    """Reads the output of process `pid` and writes to its input, over a separate connection.

    The default streams are the first output and standard input; `stream` selects another output, or a custom stream for
    both directions. `mode` is READ, WRITE or both. Output starts now, or with the last lines (`tail=20`) or bytes
    (`tail="4096b"`), or at the stream position `after`.

    Thread-safe. Output that is not read for a long time is dropped, here or on the node; `lost` counts the dropped
    bytes. Pass `offset` as `after` to resume after the last output, even after a restart of the node, in which case
    the channel starts with all available output.

    With `reconnect` a lost connection is opened again for up to this number of seconds, as when the node is upgraded or
    restarted by its keeper: output continues where it ended, and a write that was not answered is repeated unless the
    node had accepted it. If other clients wrote meanwhile, this is not known, and the write fails. `on_lost(error)` is
    called before that and `on_resumed()` after it, in another thread; `error` is why the connection ended. `read` and
    `write` raise NotFound if the process ended meanwhile.

    Raises NotFound if the process or stream does not exist, and Forbidden if the stream is not redirected or the key
    does not permit access; these errors may also be raised by the first `read` or `write`.
    """

    def __init__(
        self,
        transport: Transport,
        pid: int,
        stream: str | None = None,
        *,
        mode: int = READ | WRITE,
        tail: int | str | None = None,
        after: str | int | None = None,
        reconnect: float = 0.0,
        on_lost: Callable[[GafferClientError], object] = lambda error: None,
        on_resumed: Callable[[], object] = lambda: None,
    ) -> None:
        self.pid = pid
        self._stream = stream
        self.lost = 0
        self.offset: str | None = None
        self._ids = count(1)
        self._output: deque[bytes] = deque()
        self._kept = 0
        self._answers: dict[str, GafferClientError | None] = {}
        self._expected: _Pending | None = None
        self._accepted: int | None = None  # bytes that the stream has accepted, None until the connection reports it
        self._failure: GafferClientError | None = None
        self._ended = False
        self._reconnecting = False
        self._reader, self._read_at = 0, 0.0  # the thread that reads, and when it last did
        self._writes_alone = False  # the pending write is of the thread that reads, or nobody reads
        self._news = threading.Condition()
        self._writing = threading.Lock()
        self._transport = transport
        self._path = path_of(pid, "channel", *(() if stream is None else (stream,)))
        self._reconnect = reconnect
        self._on_lost, self._on_resumed = on_lost, on_resumed
        self._query = {"mode": str(mode), **({"resumable": "true"} if reconnect else {})}
        start = {"tail": tail, "after": after}
        self._start = {name: str(value) for name, value in start.items() if value is not None}
        self._read_only = False
        if reconnect:
            process = self._find_process()
            self._os_pid = process.get("os_pid")
            self._read_only = stream in process.get("redirect_output", ()) or (
                stream in (None, _STDIN) and not process.get("redirect_input", True)
            )
        try:
            self._connection = self._connect()
        except ConnectionLost:
            if not reconnect:
                raise
            self._connection = self._connect()
        self._thread = threading.Thread(target=self._receive, name=f"channel of process {pid}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[bytes]:
        """Iterate over the output until its end."""
        return iter(self.read, b"")

    @property
    def end_reason(self) -> str:
        """The reason why the node closed the channel; empty while it is open."""
        return self._connection.close_reason

    @property
    def failure(self) -> GafferClientError | None:
        """The error that has ended the channel, which `read` and `write` raise."""
        return self._failure

    def read(self, timeout: float | None = None) -> bytes:
        """Return the next output, or empty bytes once the process or the node has ended.

        Raises TimeoutError after `timeout` seconds without output, and Unreachable if the connection is lost.
        """
        with self._news:
            self._reader, self._read_at = threading.get_ident(), time.monotonic()
            self._await(lambda: bool(self._output), timeout)
            if not self._output:
                return b""
            data = self._output.popleft()
            self._kept -= len(data)
            self._news.notify_all()
            return data

    def write(self, data: bytes | str, timeout: float | None = None) -> None:
        """Write to the process; return once the node has accepted all data.

        Raises Forbidden if the process has no writable input, TimeoutError if it does not read its input for
        `timeout` seconds, and Unreachable if the process or the connection ends first.
        """
        data = data.encode() if isinstance(data, str) else data
        if self._read_only:
            raise Forbidden(
                f"process {self.pid} has no input {self._stream or _STDIN!r} to write to",
                url=self._connection.url,
                errno=403,
                reason="forbidden_write",
                hint="set redirect_input in the job",
            )
        if not self._writing.acquire(timeout=-1 if timeout is None else timeout):
            raise TimeoutError(f"another thread has been writing for {timeout} s")
        try:
            for start in range(0, len(data), _PIECE):
                self._write(data[start : start + _PIECE], timeout)
        finally:
            self._writing.release()

    def close(self) -> None:
        """Close the connection; a `read` in another thread returns."""
        with self._news:
            self._ended = True
            connection = self._connection
            self._news.notify_all()
        connection.close()
        if not self._reconnecting:  # a node that hangs would delay this
            self._thread.join()

    def _write(self, data: bytes, timeout: float | None) -> None:
        id = str(next(self._ids))
        with self._news:
            if self._reconnect:  # a lost connection needs to know what came before
                self._await(lambda: self._accepted is not None, timeout)
            connection = self._connection
            recently = time.monotonic() - self._read_at < FULL_TIMEOUT
            self._writes_alone = not recently or self._reader == threading.get_ident()
            pending = self._expected = _Pending(id, data, connection, self._accepted)
            frame = pending.encode()
            self._news.notify_all()
        try:
            try:
                connection.send(frame)
            except Unreachable:
                if not self._reconnect:
                    raise
            with self._news:
                self._await(lambda: id in self._answers, timeout)
                if id not in self._answers:
                    why = self.end_reason or "the channel was closed"
                    raise Unreachable(f"write incomplete: {why}", url=self._connection.url)
                error = self._answers[id]
        finally:
            with self._news:
                self._expected = None
                self._answers.pop(id, None)
        if error is not None:
            raise error

    def _await(self, is_here: Callable[[], bool], timeout: float | None) -> None:
        """Wait until `is_here()` or the end of the channel. Called with the lock held."""
        if not self._news.wait_for(lambda: is_here() or self._ended, timeout):
            raise TimeoutError(f"no data within {timeout} s")
        if not is_here() and self._failure is not None:
            raise self._failure

    # The receiving thread

    def _receive(self) -> None:
        while (failure := self._receive_until_end()) is not None:
            if not self._reconnect or self._failure is not None or not isinstance(failure, Unreachable):
                break
            self._on_lost(failure)
            if not self._connect_again():
                break
            self._on_resumed()
        with self._news:
            self._failure = self._failure or failure
            self._ended = True
            self._news.notify_all()

    def _receive_until_end(self) -> GafferClientError | None:
        """Handle messages until the end of the connection; return its failure, None for a regular end."""
        connection = self._connection
        try:
            while (message := connection.receive()) is not None:
                self._handle(message)
        except GafferClientError as error:
            return error
        if self._reconnect and connection.close_code in _RETURNING:
            why = f"{connection.url} closed the connection: {connection.close_reason or connection.close_code}"
            return Unreachable(why, url=connection.url)
        return None

    def _connect(self, deadline: float = math.inf) -> Connection:
        """Open a connection; output begins after the last that was received."""
        start = self._start if self.offset is None else {"after": self.offset}
        return Connection(self._transport, self._path, {**self._query, **start}, deadline=deadline)

    def _find_process(self, deadline: float = math.inf) -> dict[str, Any]:
        """Return the description of the process: a node that was stopped may have given its pid to another one."""
        with self._transport.clone() as transport:
            return transport.get(path_of(self.pid), dict[str, Any], deadline=deadline)

    def _connect_again(self) -> bool:
        """Open the connection again; return whether that succeeded in time."""
        deadline = time.monotonic() + self._reconnect
        self._reconnecting = True
        while not self._ended:
            try:
                connection = self._reconnected(deadline)
                break
            except (Unreachable, ServerError) as error:
                if time.monotonic() >= deadline:
                    why = f"the connection was lost, and not opened again within {self._reconnect:g} s"
                    self._failure = Unreachable(f"{why}: {error.message}", url=error.url, hint=error.hint)
                    return False
            except GafferClientError as error:
                self._failure = error
                return False
            with self._news:
                self._news.wait_for(lambda: self._ended, _NEXT_ATTEMPT)
        else:
            return False
        with self._news:
            lost, self._connection = self._connection, connection
            self._accepted = None
            self._reconnecting = False
            ended = self._ended
        lost.close()
        if ended:
            connection.close()
        return not ended

    def _reconnected(self, deadline: float) -> Connection:
        """Return a new connection to the same process; raise NotFound if it has ended."""
        connection = self._connect(deadline)
        try:
            if self._find_process(deadline).get("os_pid") != self._os_pid:
                raise NotFound(f"process {self.pid} has ended, and its id is used again", url=connection.url, errno=404)
        except GafferClientError:
            connection.close()
            raise
        return connection

    def _resume(self, accepted: int) -> _Pending | None:
        """Settle the write that a lost connection left unanswered; return it if it must be repeated.

        Called with the lock held.
        """
        self._accepted = accepted
        pending = self._expected
        if pending is None or pending.connection is self._connection:
            return None
        pending.connection = self._connection
        pending.repeated = True
        return self._compare(pending, accepted)

    def _compare(self, pending: _Pending, accepted: int) -> _Pending | None:
        """Settle a write, of which the lost connection may still bring a copy; return it if it must be repeated."""
        assert pending.offset is not None
        if accepted == pending.offset or not pending.repeated:
            pending.offset = accepted
            return pending
        lost = Unreachable("the connection was lost while other clients wrote", url=self._connection.url)
        self._answers[pending.id] = None if accepted == pending.offset + len(pending.data) else lost
        return None

    def _handle(self, message: str | bytes) -> None:
        try:
            frame = Frame.decode(message.encode() if isinstance(message, str) else message)
            if frame.type == MESSAGE and Position.parse(frame.id) is None:
                raise ValueError(frame.id)
            error = msgspec.json.decode(frame.body, type=FrameError) if frame.type == ERROR else None
            accepted = _accepted(frame) if frame.type == RESPONSE and self._reconnect else None
        except (GafferError, msgspec.DecodeError, RecursionError, ValueError):
            url = self._connection.url
            raise MalformedAnswer(f"{url} sent an invalid channel frame", url=url) from None
        again = None
        with self._news:
            pending = self._expected
            if error is not None and error.errno == _MOVED and error.to is not None and pending is not None:
                self._accepted = error.to
                again = self._compare(pending, error.to) if self._names(frame.id, pending) else None
            elif error is not None:
                self._handle_error(frame.id, error)
            elif accepted is not None and frame.id == ACCEPTED:
                again = self._resume(accepted)
            elif frame.type == RESPONSE:
                self._accepted = accepted
                self._answer(frame.id, None)
            elif frame.body:
                self._keep(frame.body, frame.id)
            else:
                self.offset = frame.id  # where the output begins
            self._news.notify_all()
        if again is not None:
            self._connection.send(again.encode())

    def _keep(self, data: bytes, offset: str) -> None:
        # The response to a write may follow the output, which nobody reads until the write has returned.
        self._news.wait_for(
            lambda: self._kept < KEPT or (self._expected and self._writes_alone) or self._ended, FULL_TIMEOUT
        )
        has_room = self._kept < KEPT
        self.offset = offset
        self._output.append(data)
        self._kept += len(data)
        while not has_room and self._kept > KEPT and len(self._output) > 1:
            dropped = len(self._output.popleft())
            self._kept -= dropped
            self.lost += dropped

    def _handle_error(self, id: str, error: FrameError) -> None:
        if error.start is not None and error.to is not None:
            self.lost += error.to - error.start
            return
        body = {"error": error.reason or error.error, "message": error.message, "hint": error.hint}
        failure = status_error(error.errno, body, self._connection.url)
        if id == GENERAL:
            self._failure = failure
        else:
            self._answer(id, failure)

    def _answer(self, id: str, error: StatusError | None) -> None:
        pending = self._expected
        if pending is not None and self._names(id, pending):
            self._answers[pending.id] = error

    @staticmethod
    def _names(id: str, pending: _Pending) -> bool:
        return id.partition("@")[0] == pending.id


def _accepted(frame: Frame) -> int:
    """Return the number in a response; raise ValueError."""
    return int(frame.body.rpartition(b" ")[2])
