"""The terminal as a screen: keys and lines, restored whatever ends the program.

Inside the block the program has an alternate screen, without cursor and echo. SIGTERM and SIGHUP raise Ended, Ctrl-C
KeyboardInterrupt; Ctrl-Z stops the program on its ordinary screen.
"""

import os
import select
import signal
import sys
import termios
import tty
import unicodedata
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, Self

_ENTER = b"\x1b[?1049h\x1b[?25l"
_LEAVE = b"\x1b[0m\x1b[?25h\x1b[?1049l"
_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH, signal.SIGTSTP)

_SEQUENCES = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1bOA": "up",
    b"\x1bOB": "down",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\x1b[H": "home",
    b"\x1b[F": "end",
    b"\x1b[1~": "home",
    b"\x1b[4~": "end",
    b"\r": "enter",
    b"\n": "enter",
    b"\x1b": "escape",
}


class Ended(BaseException):
    """A signal ends the program; `status` is its exit status."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.status = 128 + signum


class Screen:
    """The controlling terminal on stdin and stdout; a context manager. `wake` makes `keys` return, from any thread."""

    def __init__(self) -> None:
        self._in = sys.stdin.fileno()
        self._out = sys.stdout.fileno()
        self._before: list[Any] = []
        self._handlers: dict[int, Any] = {}
        self._woken, self._waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def __enter__(self) -> Self:
        self._before = termios.tcgetattr(self._in)
        try:
            for signum in _SIGNALS:
                self._handlers[signum] = signal.signal(signum, self._on_signal)
            self._take()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)
        self._release()
        os.close(self._woken)
        os.close(self._waker)

    @property
    def size(self) -> tuple[int, int]:
        """The columns and lines of the terminal; 80 and 24 if it does not say."""
        try:
            columns, rows = os.get_terminal_size(self._out)
        except OSError:
            columns = rows = 0
        return columns or 80, rows or 24

    def wake(self) -> None:
        """Make `keys` return."""
        try:
            os.write(self._waker, b"\0")
        except OSError:  # full, so it is awake, or closed
            pass

    def keys(self, timeout: float) -> list[str]:
        """Return the pressed keys, after at most `timeout` seconds; raise EOFError when the terminal is gone."""
        ready, _, _ = select.select([self._in, self._woken], [], [], timeout)
        if self._woken in ready:
            os.read(self._woken, 4096)
        if self._in not in ready:
            return []
        try:
            data = os.read(self._in, 4096)
        except OSError:
            data = b""
        if not data:
            raise EOFError
        return list(split_keys(data))

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines, which must fit on the screen and have no control characters but colours."""
        text = "\x1b[H" + "\r\n".join(f"{line}\x1b[0m\x1b[K" for line in lines) + "\x1b[J"
        self._write(text.encode(sys.stdout.encoding or "utf-8", "replace"))

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGWINCH:
            self.wake()
        elif signum == signal.SIGTSTP:
            self._release()
            os.kill(os.getpid(), signal.SIGSTOP)
            self._take()
            self.wake()
        else:
            raise Ended(signum)

    def _take(self) -> None:
        tty.setcbreak(self._in, termios.TCSANOW)
        self._write(_ENTER)

    def _release(self) -> None:
        try:
            self._write(_LEAVE)
            termios.tcsetattr(self._in, termios.TCSANOW, self._before)
        except (OSError, termios.error):  # the terminal is gone
            pass

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._out, data) :]


def split_keys(data: bytes) -> Iterator[str]:
    """Yield the names of the keys that a terminal sent: `up`, `enter`, `q`; unknown sequences are ignored."""
    while data:
        for sequence, name in _SEQUENCES.items():
            if data.startswith(sequence) and (sequence != b"\x1b" or data == sequence):
                yield name
                data = data[len(sequence) :]
                break
        else:
            if data.startswith(b"\x1b"):
                return  # an unknown sequence, whose end is unknown as well
            if 32 <= data[0] < 127:
                yield chr(data[0])
            data = data[1:]


def width(text: str) -> int:
    """Return the number of columns that a printable text takes on a terminal."""
    return sum(map(_columns, text))


def fit(text: str, columns: int) -> str:
    """Return a printable text cut or filled with spaces to exactly so many columns."""
    taken = 0
    for index, char in enumerate(text):
        needed = _columns(char)
        if taken + needed > columns:
            return text[:index] + " " * (columns - taken)
        taken += needed
    return text + " " * (columns - taken)


def _columns(char: str) -> int:
    if char < "\u0300":
        return 1
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
