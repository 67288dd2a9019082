"""Write text to a stream that may be slow, such as a terminal or a pipe, from a thread, without blocking the loop."""

import asyncio
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TextIO

LIMIT = 1024 * 1024  # maximum queued characters; `put` drops text beyond
_BUSY = 128 * 1024  # queued characters above which `write` waits


class Printer:
    """A printer of text, in order. Use it on the loop.

    `on_broken(error)` is called once on the loop if the stream can no longer be written to, for instance because its
    reader or terminal is gone; later text is dropped.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, stream: TextIO, on_broken: Callable[[Exception], object]
    ) -> None:
        self.broken = False
        self._loop = loop
        self._on_broken = on_broken
        self._write_out = _writer(stream)
        self._news = threading.Condition()
        self._texts: deque[str] = deque()
        self._size = 0  # characters that are not written yet
        self._closed = False
        self._progress = asyncio.Event()
        self._ended = asyncio.Event()
        # A daemon thread: it may be stuck in a write when the program exits.
        self._thread = threading.Thread(target=self._print, name="gaffer-printer", daemon=True)
        self._thread.start()

    def put(self, text: str) -> bool:
        """Queue `text` for printing, or drop it and return False if too much is queued."""
        with self._news:
            if self._closed or self.broken:
                return True
            if self._size + len(text) > LIMIT:
                return False
            self._texts.append(text)
            self._size += len(text)
            self._news.notify()
            return True

    async def write(self, text: str) -> None:
        """Queue `text`, and wait while too much is queued."""
        self.put(text)
        while self._size > _BUSY and not self.broken:
            self._progress.clear()
            await self._progress.wait()

    async def close(self) -> None:
        """Print all queued text, then end the thread."""
        with self._news:
            self._closed = True
            self._news.notify()
        await self._ended.wait()
        self._thread.join()

    def _print(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._texts or self._closed)
                if not self._texts:
                    break
                text = "".join(self._texts)
                self._texts.clear()
            try:
                self._write_out(text)
            except (OSError, ValueError) as error:  # ValueError: the stream is closed
                self.broken = True
                self._call(partial(self._on_broken, error))
                break
            with self._news:
                self._size -= len(text)
            self._call(self._progress.set)
        self._call(self._progress.set)
        self._call(self._ended.set)

    def _call(self, callback: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:  # the loop was closed
            pass


def _writer(stream: TextIO) -> Callable[[str], object]:
    """Return a function that writes to `stream` past its buffer, which a stuck thread would keep locked at exit."""
    try:
        fd = stream.fileno()
    except OSError:  # no descriptor, as in tests and notebooks

        def write_text(text: str) -> None:
            stream.write(text)
            stream.flush()

        return write_text

    stream.flush()
    encoding = stream.encoding or "utf-8"

    def write_bytes(text: str) -> None:
        data = memoryview(text.encode(encoding, "replace"))
        while data:
            try:
                data = data[os.write(fd, data) :]
            except BlockingIOError:  # our parent made it non-blocking
                select.select([], [fd], [])

    return write_bytes
