"""Our ends of a process's pipes, on the loop: `Output` fills a ring, `Input` writes data from many writers."""

import asyncio
import fcntl
import logging
import os
import secrets
import stat
import struct
import termios
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from gaffer.errors import ProcessError
from gaffer.loop import exit_soon
from gaffer.streams.journal import RELEASE, Journal, StreamKeeper, open_journal
from gaffer.streams.log_files import LogFile
from gaffer.streams.recording import Recording, read_pipe
from gaffer.streams.rings import LARGEST_LIMIT, READ_SIZE, Ring, Source

log = logging.getLogger("gaffer.streams.pipes")

INPUT_LIMIT = 16 * 1024 * 1024  # maximum bytes queued for a process's input
_ROOM = 256 * 1024  # queued bytes at which a waiting writer resumes
_FAST = 32e6  # bytes per second from which a stream counts as fast
_STREAK = 64  # consecutive measurements, each over READ_SIZE bytes or more, that make a stream fast
_USUAL_PIPE = 64 * 1024  # default capacity of a pipe in bytes (pipe(7))
_LARGE_PIPE = 256 * 1024  # capacity for a fast stream; a user's pipes share a budget of 64 MiB
_CALM = 1.0  # seconds after which the pipe of a stream that is no longer fast is shrunk
_REST = 0.001  # seconds
_READS = 4  # maximum reads before yielding to the loop
_LAST_READS = 64  # maximum reads of what a pipe still holds when its process has exited
_FRESH = 0.25  # seconds
_ATTENTION = 5.0  # seconds that a stream counts as followed after a reader has caught up
_PATIENCE = 15.0  # seconds until readers of an earlier gafferd must be back and have caught up


class Output:
    """The reading end of a pipe. Appends the data to `ring` and `log`; the log may hold it back. Closes `fd`.

    With a `recording` the data takes the way by its journal.

    A process that writes many small pieces would wake us for each one, which slows both down. So a fast stream gets a
    larger pipe while it is fast, and reading pauses briefly when an iteration of the loop yields little data.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        fd: int,
        ring: Ring,
        log: LogFile | None = None,
        recording: Recording | None = None,
    ) -> None:
        self._loop = loop
        self._fd: int | None = fd
        self._log = log
        self._recording = recording
        self._receive = read_pipe if recording is None else recording.read
        self._held = False  # by the log
        self._rest: asyncio.TimerHandle | None = None
        self._pace = Pace()
        self._large: bool | None = False  # None when the system refuses
        self._fast_at = 0.0
        self._calming: asyncio.TimerHandle | None = None
        self._retention = Retention(
            ring.limit, ring.end, ring.start, awaits=recording is not None and recording.followed
        )
        self.ring = ring
        if ring.start < ring.end:
            ring.limit = LARGEST_LIMIT  # until the first data
        if log is not None:
            log.on_room = self._go_on
        loop.add_reader(fd, self._readable)

    def _readable(self) -> None:
        before, now = self.ring.end, self._loop.time()
        self.ring.limit = self._retention.limit(before, now, followed=self.ring.watchers > 0)
        if self._recording is not None:
            self._recording.follow(self._retention.is_followed(now))
        for _ in range(_READS):
            if not self._read() or self._held:
                break
        if self._fd is None or self._held:
            return
        if self._recording is not None and self._recording.is_behind:
            self._pause()  # there was no memory for it
            return
        if self._pace.is_fast(self.ring.end - before, now):
            self._fast_at = now
            if self._large is False:
                self._enlarge()
            elif self._large and self.ring.end - before < READ_SIZE:
                self._pause()

    def _pause(self) -> None:
        assert self._fd is not None
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
        """Read once; return whether more data may be available."""
        if self._fd is None:
            return False
        try:
            data, is_full = self._receive(self._fd)
        except BlockingIOError:
            return False
        except ConnectionResetError:  # a socket whose peer closed it with unread data
            data, is_full = b"", False
        if not data:
            self._close(ended=True)
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
        """Read what is in the pipe, without waiting for more."""
        for _ in range(_LAST_READS):
            if not self._read():
                return

    def close(self) -> None:
        """Stop reading and close the ring."""
        self._close(ended=False)

    def release(self) -> None:
        """As `close`, for a gafferd that adopts the output: the log does not end."""
        self._close(ended=False, released=True)

    def _close(self, *, ended: bool, released: bool = False) -> None:
        if self._fd is not None:
            for timer in (self._rest, self._calming):
                if timer is not None:
                    timer.cancel()
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None
            self.ring.close()
            if self._recording is not None:
                self._recording.close(ended=ended)
            if self._log is not None:
                self._log.finish(released=released)


class Pace:
    """A detector of streams that have been fast for a while. No I/O."""

    def __init__(self) -> None:
        self._began = 0.0
        self._bytes = 0
        self._streak = 0

    def is_fast(self, size: int, now: float) -> bool:
        """Record that `size` bytes arrived at the time `now` (seconds); return whether the stream is fast."""
        self._bytes += size
        if self._bytes >= READ_SIZE:
            fast = self._bytes >= _FAST * (now - self._began)
            self._streak = self._streak + 1 if fast else 0
            self._began, self._bytes = now, 0
        return self._streak >= _STREAK


class Retention:
    """The limit of a ring: `usual` bytes, but at least the most recent data if the stream is being followed. No I/O.

    The system may delay any reader for a moment, in which a fast stream delivers more than is usually kept. And what an
    earlier gafferd kept, from offset `start` to `end`, stays for readers that come back soon. If it had some
    (`awaits`), what arrives until they have caught up stays too.
    """

    def __init__(self, usual: int, end: int = 0, start: int = 0, *, awaits: bool = False) -> None:
        self._usual = usual
        self._kept = end - start
        self._awaits = awaits
        self._awaited_until = None if self._kept else 0.0  # readers that come back; None until the first data
        self._followed_at = -_ATTENTION
        self._fresh = self._mark = end  # offsets; data after them is younger than 2 * _FRESH, and _FRESH
        self._marked_at = 0.0

    def limit(self, end: int, now: float, *, followed: bool) -> int:
        """Return the ring's limit for reads that begin at offset `end`; `followed`: a reader has read up to there."""
        if self._awaited_until is None:
            self._awaited_until = now + (_PATIENCE if self._awaits else _ATTENTION)
        if followed:
            self._followed_at = now
            self._awaits = False
        if now - self._marked_at >= _FRESH:
            self._fresh, self._mark, self._marked_at = self._mark, end, now
        limit = self._usual
        if now < self._awaited_until:
            limit = LARGEST_LIMIT if self._awaits else self._kept + self._usual
        if now - self._followed_at < _ATTENTION:
            limit = max(limit, end - self._fresh + _READS * READ_SIZE)
        return min(limit, LARGEST_LIMIT)

    def is_followed(self, now: float) -> bool:
        """Return whether a reader follows the stream, or is expected to come back."""
        return now - self._followed_at < _ATTENTION or (self._awaits and now < (self._awaited_until or 0.0))


def _resize(fd: int | None, size: int) -> bool:
    """Set the capacity of a pipe to `size` bytes; return whether that succeeded."""
    try:
        return fd is not None and fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size) == size
    except (AttributeError, OSError):  # unsupported system, budget exhausted, or a socket
        return False


class Input:
    """The writing end of a pipe or a socket. Data of different calls is never interleaved (IO-12). Closes `fd`.

    `life` is an empty source that closes when nothing more can be written, so that a cursor can wait for that. With a
    `keeper`, which holds `fd` as `name`, the queue is a journal, kept as `NAME.journal`; `adopted` is that of an
    earlier gafferd, whose queue goes on. Data of another thread that is written before there is a journal is in it once
    the loop has run.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        fd: int,
        keeper: StreamKeeper | None = None,
        *,
        name: str = "stdin",
        adopted: int | None = None,
    ) -> None:
        self.life: Source[Any] = Source()
        self._loop = loop
        self._fd: int | None = fd
        self._keeper, self._name = keeper, name
        self._is_socket = stat.S_ISSOCK(os.fstat(fd).st_mode)
        self._journal = open_journal(adopted, name) if adopted is not None else None
        self._begins = keeper is not None and adopted is None
        self._lock = threading.Lock()
        self._queue: deque[memoryview] = deque()
        self._waiting = self._accepted = 0
        self._busy = False
        self._less = asyncio.Event()  # set when the queue has shrunk
        if self._journal is not None:
            self._accepted = self._journal.accepted
            self._waiting = self._accepted - self._journal.end
            self._flush()

    def write(self, data: bytes) -> None:
        """Queue `data`, from any thread.

        Raises ProcessError: 410 `stream_closed` if the process no longer reads, 503 `stream_full` if the queue is full
        or there is no memory for it.
        """
        is_here = _runs_here(self._loop)
        with self._lock:
            if self._fd is None:
                raise ProcessError(410, "stream_closed", "the process has closed its input")
            if self._waiting + len(data) > INPUT_LIMIT:
                raise ProcessError(503, "stream_full", "the process does not read its input", hint="try again later")
            if self._begins and is_here:
                self._begin()
            if self._journal is None:
                self._queue.append(memoryview(data))
            else:
                self._store(self._journal, data)
            self._waiting += len(data)
            self._accepted += len(data)
        if is_here:
            self._flush()
        else:
            self._loop.call_soon_threadsafe(self._flush)

    @property
    def accepted(self) -> int:
        """The number of bytes written since the start of the process, delivered or not."""
        return self._accepted

    @property
    def delivered(self) -> int:
        """The number of bytes that are in the pipe or were read from it."""
        return self._accepted - self._waiting

    @property
    def waiting(self) -> int:
        """The number of queued bytes, not counting what is in the pipe."""
        return self._waiting

    @property
    def has_room(self) -> bool:
        """Whether the input is open and its queue is nearly empty."""
        return self._fd is not None and self._waiting <= _ROOM

    async def room(self) -> None:
        """Wait until it has room. Call it on the loop.

        Raises ProcessError 410 `stream_closed` if the process no longer reads.
        """
        while self._waiting > _ROOM:
            self._less.clear()
            await self._less.wait()
        if self._fd is None:
            raise ProcessError(410, "stream_closed", "the process has closed its input")

    def close(self) -> None:
        """Close the pipe; queued data is lost."""
        keeper = self._keeper
        self.release()
        if keeper is not None and not self._is_socket:  # a socket is still read
            keeper.drop(self._name)  # else the process would not see the end

    def release(self) -> None:
        """Close our end of the pipe; what is queued in a journal waits for a gafferd that adopts it."""
        with self._lock:
            fd, self._fd = self._fd, None
            journal, self._journal = self._journal, None
            self._keeper, self._begins = None, False
            self._queue.clear()
            self._waiting = 0
        self._less.set()
        self.life.close()
        if fd is not None:
            if self._busy:
                self._loop.remove_writer(fd)
            os.close(fd)
        if journal is not None:
            journal.close()

    def _begin(self) -> None:
        """Make the journal, and move to it what is queued."""
        assert self._keeper is not None
        self._begins = False
        try:
            journal = Journal.create(self._name, secrets.token_hex(8))
            for data in self._queue:
                journal.accept(data)
        except OSError as error:
            log.warning("input won't outlive gafferd: %s", error.strerror)
            return
        self._queue.clear()
        self._keeper.keep(f"{self._name}.journal", journal.fileno())
        self._journal = journal

    def _store(self, journal: Journal, data: bytes) -> None:
        try:
            journal.accept(data)
        except OSError as error:
            message = f"no memory for the input: {error.strerror}"
            raise ProcessError(503, "stream_full", message, hint="try again later") from None

    def _flush(self) -> None:
        with self._lock:
            fd = self._fd
            if fd is None:
                return
            if self._begins:
                self._begin()
            try:
                if self._journal is None:
                    self._write_queue(fd)
                else:
                    self._deliver(self._journal, fd)
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

    def _write_queue(self, fd: int) -> None:
        while self._queue:
            written = os.write(fd, self._queue[0])
            self._waiting -= written
            if written < len(self._queue[0]):
                self._queue[0] = self._queue[0][written:]
            else:
                self._queue.popleft()

    def _deliver(self, journal: Journal, fd: int) -> None:
        while journal.end < journal.accepted:
            self._waiting -= journal.deliver(fd, is_socket=self._is_socket)
            if journal.end - journal.start >= RELEASE:
                # The pipe or socket shares the memory of what the process has not read.
                question = termios.TIOCOUTQ if self._is_socket else termios.FIONREAD
                unread = struct.unpack("i", fcntl.ioctl(fd, question, bytes(4)))[0]
                journal.release(journal.end - unread)


def _runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether this is called on the loop, which then need not be woken up."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


class Tap:
    """A subscription that calls `callback(data)` on the loop with all new data in `ring`, until the ring closes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Ring, callback: Callable[[bytes], Any]) -> None:
        self._loop = loop
        self._ring = ring
        self._callback = callback
        self._offset = ring.end
        self._handle: asyncio.Handle | None = None
        ring.watch(self._wake)

    def close(self) -> None:
        """Stop; undelivered data is discarded."""
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
        # Deliver everything now: by the next iteration, more may arrive than the ring keeps.
        while self._offset < self._ring.end:
            chunk = self._ring.read(self._offset)
            self._offset = chunk.end
            # The callback is foreign code: an exception must not stop us reading the pipe.
            try:
                self._callback(chunk.data)
            except (SystemExit, KeyboardInterrupt) as error:
                exit_soon(self._loop, error)
            except BaseException:
                log.exception("a listener of a stream failed")
