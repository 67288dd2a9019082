"""Input and output of a process on a node, for `gaffer send`, `recv` and `attach`."""

import os
import sys
import threading
from collections.abc import Iterator

from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import Exit, UsageError
from gaffer_client.cli.output import OutputWriter, print_json, print_json_line, warn
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.processes import chosen_process
from gaffer_client.errors import GafferClientError
from gaffer_client.iochannel import READ, WRITE, IOChannel

_PIECE = 64 * 1024  # bytes read from standard input at once
_END = b"."


def send(context: Context, args: Arguments) -> int:
    word = args.required("<data>")
    with context.server() as server:
        target = chosen_process(context, args, server, args.required("<process>"))
        stream = args.text("--stream") or target.stream or "stdin"
        if word == "-":
            for piece in _typed_lines() if sys.stdin.isatty() else _pieces():
                target.process.send(piece, stream)
        else:
            target.process.send(word if args.flag("--no-newline") else f"{word}\n", stream)
    if context.json:
        print_json({"ok": True})
    return Exit.OK


def recv(context: Context, args: Arguments) -> int:
    stream = args.text("<stream>")
    with context.server() as server:
        target = chosen_process(context, args, server, args.required("<process>"))
        if stream and target.stream:
            raise UsageError(f"two streams given: {target.stream} and {stream}")
        with IOChannel(
            server.transport, target.process.pid, stream or target.stream, mode=READ, tail=args.text("--tail")
        ) as channel:
            _show(context, args, channel)
    return Exit.OK


def attach(context: Context, args: Arguments) -> int:
    with context.server() as server:
        target = chosen_process(context, args, server, args.required("<process>"))
        stream = args.text("--stream") or target.stream
        with IOChannel(
            server.transport, target.process.pid, stream, mode=READ | WRITE, tail=args.text("--tail")
        ) as channel:
            if sys.stdin.isatty():
                print(f"attached to process {target.process.pid}; press Ctrl-C to detach", file=sys.stderr)
            threading.Thread(target=_forward, args=(channel,), name="standard input", daemon=True).start()
            try:
                _show(context, args, channel)
            except KeyboardInterrupt:
                if not sys.stdin.isatty():
                    raise
                print("\ndetached", file=sys.stderr)
    return Exit.OK


def _forward(channel: IOChannel) -> None:
    """Send standard input to a process."""
    try:
        for piece in _pieces():
            channel.write(piece)
    except GafferClientError as error:
        if not channel.end_reason:
            warn(error.message)


def _show(context: Context, args: Arguments, channel: IOChannel) -> None:
    """Show the output of a process until its end."""
    writer = OutputWriter(raw=args.flag("--raw"))
    lost = 0
    for data in channel:
        if channel.lost > lost:
            warn(f"{channel.lost - lost} bytes of output were lost: they were read too slowly")
            lost = channel.lost
        if context.json:
            print_json_line({"data": data.decode(errors="replace")})
        else:
            writer.write(data)
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
