"""Our ends of a process's pipes, on the loop: `Output` fills a ring, `Input` writes what many writers give it."""

import asyncio
import fcntl
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from gaffer.errors import ProcessError
from gaffer.streams.log_files import LogFile
from gaffer.streams.rings import READ_SIZE, Ring, Source

log = logging.getLogger("gaffer.streams.pipes")

INPUT_LIMIT = 16 * 1024 * 1024  # bytes that may wait for a process to read its input
_ROOM = 256 * 1024  # bytes that wait for it when a patient writer goes on
_FAST = 32e6  # bytes a second that make a stream a fast one
_STREAK = 64  # times in a row that it was as fast with READ_SIZE bytes or more
_USUAL_PIPE = 64 * 1024  # bytes that a pipe holds (pipe(7))
_LARGE_PIPE = 256 * 1024  # bytes that the pipe of a fast stream may hold; a user's pipes share a budget of 64 MiB
_CALM = 1.0  # seconds after which a stream that is not fast any more gives that back
_REST = 0.001  # seconds
_READS = 4  # reads at most before the loop gets its turn
_SPARSE_READ = 256  # bytes, for which the interpreter has memory of its own
_LAST_READS = 64  # reads at most of what a pipe still holds when its process has ended
_FRESH = 0.25  # seconds
_FRESH_LIMIT = 16 * 1024 * 1024  # bytes that a ring keeps of what came in them
_ATTENTION = 5.0  # seconds that a stream counts as followed since somebody had read all of it


class Output:
    """The reading end of a pipe; what comes goes into `ring`, and into `log`, which may hold it back. Closes `fd`.

    A writer of many small pieces would wake us for each of them, which slows both down. So a fast stream has a larger
    pipe as long as it is fast, and rests for a moment when a turn of the loop brings little.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, ring: Ring, log: LogFile | None = None) -> None:
        self._loop = loop
        self._fd: int | None = fd
        self._log = log
        self._held = False  # by the log
        self._rest: asyncio.TimerHandle | None = None
        self._pace = Pace()
        self._large: bool | None = False  # None when the system refuses
        self._fast_at = 0.0
        self._calming: asyncio.TimerHandle | None = None
        self._retention = Retention(ring.limit, ring.end)
        self.ring = ring
        if log is not None:
            log.on_room = self._go_on
        loop.add_reader(fd, self._readable)

    def _readable(self) -> None:
        before, now = self.ring.end, self._loop.time()
        self.ring.limit = self._retention.limit(before, now, followed=self.ring.watchers > 0)
        for _ in range(_READS):
            if not self._read() or self._held:
                break
        if self._fd is None or self._held:
            return
        if self._pace.is_fast(self.ring.end - before, now):
            self._fast_at = now
            if self._large is False:
                self._enlarge()
            elif self._large and self.ring.end - before < READ_SIZE:
                self._loop.remove_reader(self._fd)
                self._rest = self._loop.call_later(_REST, self._rested)

    def _enlarge(self) -> None:
        self._large = _resize(self._fd, _LARGE_PIPE) or None
        if self._large:
            self._calming = self._loop.call_later(_CALM, self._calm_down)

    def _calm_down(self) -> None:
        calm = self._loop.time() - self._fast_at >= _CALM
        self._large = not (calm and _resize(self._fd, _USUAL_PIPE))  # refused while it holds more
        self._calming = self._loop.call_later(_CALM, self._calm_down) if self._large else None

    def _read(self) -> bool:
        """Read once; whether there may be more."""
        if self._fd is None:
            return False
        try:
            data, is_full = _read(self._fd)
        except BlockingIOError:
            return False
        except ConnectionResetError:  # a socket whose peer is gone and did not read all
            data, is_full = b"", False
        if not data:
            self.close()
            return False
        self.ring.append(data)
        if self._log is not None and not self._log.put(data) and not self._held:
            self._held = True
            self._loop.remove_reader(self._fd)
        return is_full

    def _rested(self) -> None:
        self._rest = None
        if self._fd is not None and not self._held:
            self._loop.add_reader(self._fd, self._readable)
            self._readable()

    def _go_on(self) -> None:
        if self._held and self._fd is not None:
            self._held = False
            self._loop.add_reader(self._fd, self._readable)

    def read_available(self) -> None:
        """Read what is in the pipe now, without waiting for more."""
        for _ in range(_LAST_READS):
            if not self._read():
                return

    def close(self) -> None:
        """Stop reading and close the ring."""
        if self._fd is not None:
            for timer in (self._rest, self._calming):
                if timer is not None:
                    timer.cancel()
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None
            self.ring.close()


class Pace:
    """Tells whether a stream has been fast for a while. No I/O."""

    def __init__(self) -> None:
        self._began = 0.0
        self._bytes = 0
        self._streak = 0

    def is_fast(self, size: int, now: float) -> bool:
        """`size` bytes came at the time `now` (seconds)."""
        self._bytes += size
        if self._bytes >= READ_SIZE:
            fast = self._bytes >= _FAST * (now - self._began)
            self._streak = self._streak + 1 if fast else 0
            self._began, self._bytes = now, 0
        return self._streak >= _STREAK


class Retention:
    """Says how much a ring is to keep: `usual` bytes, and of a stream that somebody follows what came just now. No I/O.

    The system may let any reader wait for a moment, in which a fast stream brings more than is usually kept.
    """

    def __init__(self, usual: int, end: int = 0) -> None:
        self._usual = usual
        self._followed_at = -_ATTENTION
        self._fresh = self._mark = end  # offsets; what comes behind them is younger than twice _FRESH, and once
        self._marked_at = 0.0

    def limit(self, end: int, now: float, *, followed: bool) -> int:
        """The limit of the ring for the next reads, which begin at offset `end`; `followed` means read up to that."""
        if followed:
            self._followed_at = now
        if now - self._marked_at >= _FRESH:
            self._fresh, self._mark, self._marked_at = self._mark, end, now
        if now - self._followed_at >= _ATTENTION:
            return self._usual
        return max(self._usual, min(end - self._fresh + _READS * READ_SIZE, _FRESH_LIMIT))


def _read(fd: int) -> tuple[bytes, bool]:
    """Read from `fd`; also return whether there may be more.

    While there is no memory the read is a small one, because a stop waits for the end of the pipe.
    """
    size = READ_SIZE
    try:
        data = os.read(fd, size)
    except MemoryError:
        size = _SPARSE_READ
        data = os.read(fd, size)
    return data, len(data) == size


def _resize(fd: int | None, size: int) -> bool:
    """Let a pipe hold `size` bytes; return whether it does."""
    try:
        return fd is not None and fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size) == size
    except (AttributeError, OSError):  # another system, the user has too many large ones, or it is a socket
        return False


class Input:
    """The writing end of a pipe. One call's data is never mixed with another's (IO-12). Closes `fd`.

    `life` holds nothing and closes when nothing can be written any more, so that a cursor can wait for that.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int) -> None:
        self.life: Source[Any] = Source()
        self._loop = loop
        self._fd: int | None = fd
        self._lock = threading.Lock()
        self._queue: deque[memoryview] = deque()
        self._waiting = 0
        self._busy = False
        self._less = asyncio.Event()  # set when less waits than did

    def write(self, data: bytes) -> None:
        """Queue `data`, from any thread.

        Raises ProcessError: 410 `stream_closed` when the process no longer reads, 503 `stream_full` when it is so far
        behind that nothing more is taken.
        """
        with self._lock:
            if self._fd is None:
                raise ProcessError(410, "stream_closed", "the process has closed its input")
            if self._waiting + len(data) > INPUT_LIMIT:
                raise ProcessError(503, "stream_full", "the process does not read its input", hint="try again later")
            self._queue.append(memoryview(data))
            self._waiting += len(data)
        if _runs_here(self._loop):
            self._flush()
        else:
            self._loop.call_soon_threadsafe(self._flush)

    @property
    def waiting(self) -> int:
        """Bytes that the process has not read yet, without what the pipe holds."""
        return self._waiting

    @property
    def has_room(self) -> bool:
        """Whether the process reads, and has read most of what waits for it."""
        return self._fd is not None and self._waiting <= _ROOM

    async def room(self) -> None:
        """Wait until it has room. To be called on the loop.

        Raises ProcessError 410 `stream_closed` when the process no longer reads.
        """
        while self._waiting > _ROOM:
            self._less.clear()
            await self._less.wait()
        if self._fd is None:
            raise ProcessError(410, "stream_closed", "the process has closed its input")

    def close(self) -> None:
        """Close the pipe; what was not written is lost."""
        with self._lock:
            fd, self._fd = self._fd, None
            self._queue.clear()
            self._waiting = 0
        self._less.set()
        self.life.close()
        if fd is not None:
            if self._busy:
                self._loop.remove_writer(fd)
            os.close(fd)

    def _flush(self) -> None:
        with self._lock:
            fd = self._fd
            if fd is None:
                return
            try:
                while self._queue:
                    written = os.write(fd, self._queue[0])
                    self._waiting -= written
                    if written < len(self._queue[0]):
                        self._queue[0] = self._queue[0][written:]
                    else:
                        self._queue.popleft()
            except BlockingIOError:
                self._less.set()
                if not self._busy:
                    self._busy = True
                    self._loop.add_writer(fd, self._flush)
                return
            except BrokenPipeError:
                broken = True
            else:
                broken = False
            if self._busy:
                self._busy = False
                self._loop.remove_writer(fd)
        self._less.set()
        if broken:
            self.close()


def _runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether this is called on the loop, which then needs no waking."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


class Tap:
    """Calls `callback(data)` on the loop with all that comes into `ring` from now on, until it closes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Ring, callback: Callable[[bytes], Any]) -> None:
        self._loop = loop
        self._ring = ring
        self._callback = callback
        self._offset = ring.end
        self._handle: asyncio.Handle | None = None
        ring.watch(self._wake)

    def close(self) -> None:
        """Stop; what was not delivered yet is not delivered."""
        self._ring.unwatch(self._wake)
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _wake(self) -> None:
        if self._handle is None and self._offset < self._ring.end:
            self._handle = self._loop.call_soon(self._deliver)
        if self._ring.closed:
            self._ring.unwatch(self._wake)

    def _deliver(self) -> None:
        self._handle = None
        # All there is: at the next turn the pipe may bring more than the ring keeps.
        while self._offset < self._ring.end:
            chunk = self._ring.read(self._offset)
            self._offset = chunk.end
            # The callback is foreign code: it must not disturb the reading of the pipe.
            try:
                self._callback(chunk.data)
            except Exception:
                log.exception("a listener of a stream failed")
