"""Input and output of a process on a node, for `gaffer send`, `recv` and `attach`."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import Final

from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import Exit, UsageError
from gaffer_client.cli.output import OutputWriter, age, print_json, print_json_line, warn
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.processes import chosen_process
from gaffer_client.errors import Forbidden, GafferClientError, NotFound, Unreachable
from gaffer_client.iochannel import READ, WRITE, IOChannel
from gaffer_client.processes import Process

RECONNECT: Final = 60.0  # seconds: a gafferd that hangs is replaced after 10, and its keeper waits 5 between attempts
_QUIET = 1.0  # seconds of reconnecting that are not worth a message
_PIECE = 64 * 1024  # bytes read from standard input at once
_END = b"."
_STDIN = ("stdin", "ttin")


def send(context: Context, args: Arguments) -> int:
    word = args.required("<data>")
    with context.server() as server:
        target = chosen_process(context, args, server, args.required("<process>"))
        if word == "-":
            pieces = _typed_lines() if sys.stdin.isatty() else _pieces()
        else:
            pieces = iter([(word if args.flag("--no-newline") else f"{word}\n").encode()])
        write(target.process, args.text("--stream") or target.stream, pieces)
    if context.json:
        print_json({"ok": True})
    return Exit.OK


def write(process: Process, stream: str | None, pieces: Iterable[bytes]) -> None:
    """Write to an input of a process, each piece once, also if the node is restarted meanwhile."""
    with ExitStack() as stack:
        try:
            channel = stack.enter_context(
                _opened(process, None if stream in _STDIN else stream, WRITE, None, _Notice())
            )
            put: Callable[[bytes], object] = channel.write
        except Forbidden:  # a key with the scope `control` alone can't open channels
            put = partial(process.send, stream=stream or "stdin")
        for piece in pieces:
            put(piece)


def recv(context: Context, args: Arguments) -> int:
    stream = args.text("<stream>")
    with context.server() as server:
        target = chosen_process(context, args, server, args.required("<process>"))
        if stream and target.stream:
            raise UsageError(f"two streams given: {target.stream} and {stream}")
        notice = _Notice()
        with _opened(target.process, stream or target.stream, READ, args.text("--tail"), notice) as channel:
            _show(context, args, channel, notice)
    return Exit.OK


def attach(context: Context, args: Arguments) -> int:
    with context.server() as server:
        target = chosen_process(context, args, server, args.required("<process>"))
        stream, notice = args.text("--stream") or target.stream, _Notice()
        with _opened(target.process, stream, READ | WRITE, args.text("--tail"), notice) as channel:
            if sys.stdin.isatty():
                print(f"attached to process {target.process.pid}; press Ctrl-C to detach", file=sys.stderr)
            threading.Thread(target=_forward, args=(channel,), name="standard input", daemon=True).start()
            try:
                _show(context, args, channel, notice)
            except KeyboardInterrupt:
                if not sys.stdin.isatty():
                    raise
                print("\ndetached", file=sys.stderr)
    return Exit.OK


class _Notice:
    """Says that a connection is being opened again, if that takes long."""

    def __init__(self) -> None:
        self.was_lost = False
        self._lost_at = 0.0
        self._timer: threading.Timer | None = None

    def lost(self, error: GafferClientError) -> None:
        self.was_lost = True
        self._lost_at = time.monotonic()
        self._timer = threading.Timer(_QUIET, warn, [f"{error.message}; reconnecting"])
        self._timer.daemon = True
        self._timer.start()

    def resumed(self) -> None:
        self.close()
        away = time.monotonic() - self._lost_at
        if away > _QUIET:
            warn(f"reconnected after {age(away * 1000)}")

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


@contextmanager
def _opened(process: Process, stream: str | None, mode: int, tail: str | None, notice: _Notice) -> Iterator[IOChannel]:
    with (
        closing(notice),
        IOChannel(
            process.server.transport,
            process.pid,
            stream,
            mode=mode,
            tail=tail,
            reconnect=RECONNECT,
            on_lost=notice.lost,
            on_resumed=notice.resumed,
        ) as channel,
    ):
        yield channel


def _forward(channel: IOChannel) -> None:
    """Send standard input to a process."""
    for piece in _pieces():
        try:
            channel.write(piece)
        except GafferClientError as error:
            if channel.end_reason or error is channel.failure:
                return
            if not isinstance(error, Unreachable):
                warn(error.message)
                return
            warn(f"{error.message}: it is unknown whether {len(piece)} bytes of input were accepted")


def _show(context: Context, args: Arguments, channel: IOChannel, notice: _Notice) -> None:
    """Show the output of a process until its end."""
    writer = OutputWriter(raw=args.flag("--raw"))
    lost = 0
    try:
        for data in channel:
            if channel.lost > lost:
                why = "they were read too slowly, or not kept until this command was connected again"
                warn(f"{channel.lost - lost} bytes of output were lost: {why}")
                lost = channel.lost
            if context.json:
                print_json_line({"data": data.decode(errors="replace")})
            else:
                writer.write(data)
    except NotFound as error:
        if not notice.was_lost:
            raise
        warn(f"{error.message}; it ended while the connection was lost, and its last output may be missing")
    if not context.json:
        writer.write(b"", final=True)


def _typed_lines() -> Iterator[bytes]:
    """Yield the lines typed at a terminal up to one with a single dot."""
    for line in sys.stdin.buffer:
        if line.strip() == _END:
            return
        yield line


def _pieces() -> Iterator[bytes]:
    """Yield standard input as it arrives."""
    while data := os.read(sys.stdin.fileno(), _PIECE):
        yield data
