"""`logs`: what the log files of a job hold."""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypedDict

from gaffer.runtime.options import Option
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import Exit, UsageError
from gaffer_client.cli.jobnames import chosen_job
from gaffer_client.cli.output import Palette, print_json_line, printable, warn
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.since import parse_age, parse_time
from gaffer_client.cli.table import Command
from gaffer_client.errors import GafferClientError

if TYPE_CHECKING:
    from gaffer_client.logs import LogPiece

_STREAMS = ("out", "err")
_TAIL = "100"
_MAX_LINE = 64 * 1024  # bytes of a line that is shown as one


def logs(context: Context, args: Arguments) -> int:
    choice = chosen_logs(args)
    with context.server() as server:
        job = chosen_job(context, args, server, args.required("<job>"))
        pieces = job.logs(
            **choice,
            follow=args.flag("--follow"),
            on_lost=lambda error: _warn_lost(server.url, error),
        )
        if args.flag("--plain") and not context.json:
            for piece in pieces:
                sys.stdout.buffer.write(piece.data)
                sys.stdout.buffer.flush()
            return Exit.OK
        palette = Palette(sys.stdout)
        for number, name, line in lines(pieces, warn):
            if context.json:
                print_json_line({"job": job.name, "slot": number, "stream": name, "line": line})
            else:
                label = f"{job.display_name}.{number}"
                print(palette.paint(label, f"{label} | ") + printable(line), flush=True)
    return Exit.OK


class ChosenLogs(TypedDict):
    """Which logs of a job to read, and from where on; see `Job.logs`."""

    streams: Sequence[str]
    slots: Sequence[int] | None
    since: str | float | None
    tail: str | None


def chosen_logs(args: Arguments) -> ChosenLogs:
    """Return which logs the arguments choose; raise UsageError."""
    stream, slot = args.text("--stream"), args.text("--slot")
    if stream is not None and stream not in _STREAMS:
        raise UsageError(f"--stream: {stream!r} is not a stream of a log", hint="use out or err")
    if slot is not None and not (slot.isascii() and slot.isdecimal() and len(slot) < 7):
        raise UsageError(f"--slot: {slot!r} is not a slot", hint="use a number, as in the names that `ps` shows")
    since = _since(args.text("--since"))
    tail = args.text("--tail") or (_TAIL if since is None else "all")
    return {
        "streams": _STREAMS if stream is None else (stream,),
        "slots": None if slot is None else (int(slot),),
        "since": since,
        "tail": None if tail == "all" else tail,
    }


def _since(text: str | None) -> str | float | None:
    """Return an age unchanged, which the node subtracts from its own time, and other times in seconds since 1970."""
    return text if text is None or parse_age(text) is not None else parse_time(text)


def lines(pieces: "Iterator[LogPiece]", on_gap: Callable[[str], object]) -> Iterator[tuple[int, str, str]]:
    """Yield whole lines, each with its slot and stream; call `on_gap` with a text about lines that are missing."""
    unfinished: dict[tuple[int, str], bytes] = {}
    for piece in pieces:
        if piece.lost:
            on_gap(f"{piece.lost} bytes of the log {piece.slot}.{piece.stream} are no longer kept")
        key = piece.slot, piece.stream
        *whole, rest = (unfinished.pop(key, b"") + piece.data).split(b"\n")
        if len(rest) > _MAX_LINE:
            whole, rest = [*whole, rest], b""
        for line in whole:
            yield *key, line.removesuffix(b"\r").decode(errors="replace")
        if rest:
            unfinished[key] = rest
    for key, rest in unfinished.items():
        yield *key, rest.decode(errors="replace")


def _warn_lost(url: str, error: GafferClientError | None) -> None:
    warn(f"{error.message if error is not None else f'{url} closed the connection'}; reconnecting")


def commands(job_help: str) -> tuple[Command, ...]:
    """Return the commands for a program; `job_help` says which jobs <job> can be."""
    return (
        Command(
            "logs",
            "Show what the log files of a job hold",
            logs,
            "node",
            "<job>",
            effect="read",
            on_several="fleet_feeds:logs",
            options=(
                Option("-f, --follow", "continue with new output until interrupted"),
                Option(
                    "-n N, --tail=N", f"start N lines, or Nb bytes, back in each log; `all`: at the oldest ({_TAIL})"
                ),
                Option("--since=TIME", "start at an age such as 90s, 5m or 2h, or a time such as 2026-11-29T10:15"),
                Option("--stream=STREAM", "show only `out` or `err`"),
                Option("--slot=SLOT", "show only the processes of this slot; 0: processes that run once"),
                Option("--plain", "show the bytes of the files, without the names of processes"),
            ),
            details=f"""
                {job_help} The job need not be running, or exist any more. Each line follows the name of the process,
                NAME.SLOT, as in `ps`; older output comes first. A lost connection is reopened where it was.
            """,
            examples=("logs shop.web", "logs shop.web --since=10m --stream=err", "logs shop.web -f -n 0"),
            uses=("--procfile", "--directory"),
        ),
    )
