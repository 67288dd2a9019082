"""A text stream written by a thread, so that a stalled reader or a slow disk does not block the program."""

import io
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

LIMIT = 1024 * 1024  # maximum queued bytes
FLUSH_TIMEOUT = 1.0  # seconds to wait for the reader at the end

Write = Callable[[bytes], object]


class _Text(NamedTuple):
    """Data of so many lines, preceded by a report of the loss of others."""

    data: bytes
    lines: int
    reported: int


class BackgroundWriter(io.TextIOBase):
    """A text stream whose writes return at once; a thread, started by `start` or the first write, calls `write_bytes`.

    Call `start` early: without memory, threading.Thread.start may wait for ever, see gaffer.runtime.workers.

    When LIMIT bytes are queued, further text is dropped and its lines are counted in `lost_lines`, as they are when
    `write_bytes` raises OSError. `report(lines)` returns a line about dropped lines, written before the next text.
    """

    def __init__(self, write_bytes: Write, report: Callable[[int], str], limit: int = LIMIT) -> None:
        self.lost_lines = 0
        self._write_bytes = write_bytes
        self._report = report
        self._limit = limit
        self._unreported = 0
        self._queue: deque[_Text] = deque()
        self._size = 0  # bytes queued or being written
        self._stuck = False  # nothing was written since a flush timed out
        # Reentrant: a finalizer, which may run anywhere, may log.
        self._changed = threading.Condition(threading.RLock())
        self._thread: threading.Thread | None = None

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        """Queue `text`; it is written or dropped as a whole. Callable from any thread."""
        data = text.encode(errors="backslashreplace")
        with self._changed:
            if self._size + len(data) > self._limit:
                self._lose(data.count(b"\n"))
                return len(text)
            lines, reported, self._unreported = data.count(b"\n"), self._unreported, 0
            if reported:
                data = self._report(reported).encode() + data
            self._queue.append(_Text(data, lines, reported))
            self._size += len(data)
            if self._thread is None:
                self._start()
            self._changed.notify_all()
        return len(text)

    def flush(self) -> None:
        """Wait up to FLUSH_TIMEOUT until all is written; not at all if nothing was written since a flush timed out."""
        with self._changed:
            timeout = 0.0 if self._stuck else FLUSH_TIMEOUT
            self._stuck = not self._changed.wait_for(lambda: not self._size, timeout)

    def start(self) -> None:
        """Start the thread unless it runs."""
        with self._changed:
            if self._thread is None:
                self._start()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="log", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no memory or process for a thread: write synchronously
            self._write_waiting()
        else:
            self._thread = thread

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue)
            self._write_waiting()

    def _write_waiting(self) -> None:
        with self._changed:
            texts = list(self._queue)
            self._queue.clear()
        data = b"".join(text.data for text in texts)
        try:
            self._write_bytes(data)
            lost: list[_Text] = []
        except OSError:
            lost = texts
        with self._changed:
            self._size -= len(data)
            self._stuck = False
            for text in lost:
                self._lose(text.lines)
                self._unreported += text.reported
            self._changed.notify_all()

    def _lose(self, lines: int) -> None:
        self.lost_lines += lines
        self._unreported += lines


def write_fully(descriptor: int, data: bytes) -> None:
    """Write all of `data`, even if another process has made the descriptor non-blocking; raises OSError."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()
