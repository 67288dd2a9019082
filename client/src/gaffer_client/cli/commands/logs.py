"""`logs`: what the log files of a job hold."""

import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from typing import TYPE_CHECKING, TypedDict, TypeVar

from gaffer.runtime.options import Option
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import Exit, UsageError
from gaffer_client.cli.jobnames import chosen_jobs, suggesting
from gaffer_client.cli.output import Palette, print_json_line, printable, warn
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.since import parse_age, parse_time
from gaffer_client.cli.table import Command
from gaffer_client.errors import GafferClientError
from gaffer_client.jobs import Job

if TYPE_CHECKING:
    from gaffer_client.logs import LogPiece

T = TypeVar("T")

_STREAMS = ("out", "err")
_TAIL = "100"
_AMOUNT = re.compile(r"[0-9]{1,15}b?")
_MAX_QUEUED = 1000  # lines waiting to be printed; when full, reading pauses
_MAX_LINE = 64 * 1024  # bytes of a line that is shown as one


def logs(context: Context, args: Arguments) -> int:
    choice, follows, wanted = chosen_logs(args), args.flag("--follow"), chosen_lines(args)
    plain = args.flag("--plain") and not context.json
    if plain and args.text("--grep") is not None:
        raise UsageError("--plain and --grep are mutually exclusive", hint="--plain shows bytes, not lines")
    dated = arrival_times(args)
    with ExitStack() as stack:
        server = stack.enter_context(context.server())
        jobs = chosen_jobs(context, args, server, args.words("<job>"))
        stack.enter_context(suggesting(*jobs))

        def read(job: Job) -> "Iterator[LogPiece]":
            return job.logs(**choice, follow=follows, on_lost=lambda error: _warn_lost(server.url, error))

        if plain:
            for piece in chain.from_iterable(map(read, jobs)):
                sys.stdout.buffer.write(piece.data)
                sys.stdout.buffer.flush()
            return Exit.OK

        def lines_of(job: Job) -> Iterator[tuple[Job, int, str, str]]:
            return ((job, *line) for line in lines(read(job), warn))

        palette = Palette(sys.stdout)
        sources = list(map(lines_of, jobs))
        for job, number, name, line in _merged(sources) if follows and len(jobs) > 1 else chain.from_iterable(sources):
            if not wanted(line):
                continue
            if context.json:
                at = {"at": round(time.time(), 3)} if dated else {}
                print_json_line({**at, "job": job.name, "slot": number, "stream": name, "line": line})
            else:
                at_ = f"{time.strftime('%H:%M:%S')} " if dated else ""
                label = f"{job.display_name}.{number}"
                print(palette.paint(label, f"{at_}{label} | ") + printable(line), flush=True)
    return Exit.OK


def arrival_times(args: Arguments) -> bool:
    """Return whether to show when lines arrive; raise UsageError unless they are followed."""
    if args.flag("--timestamps") and not args.flag("--follow"):
        raise UsageError("--timestamps needs --follow", hint="the `log_format` of a job puts times into its log files")
    return args.flag("--timestamps")


def chosen_lines(args: Arguments) -> Callable[[str], bool]:
    """Return the test for the lines that --grep chooses; raise UsageError for an invalid pattern."""
    pattern = args.text("--grep")
    if pattern is None:
        return lambda line: True
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--grep: {pattern!r} is not a regular expression: {error}") from None
    return lambda line: compiled.search(line) is not None


def _merged(sources: "Iterable[Iterator[T]]") -> "Iterator[T]":
    """Yield what the sources yield, in the order of arrival; raise the first error of one."""
    waiting: queue.Queue[T | Exception | None] = queue.Queue(_MAX_QUEUED)

    def read(source: "Iterator[T]") -> None:
        try:
            for item in source:
                waiting.put(item)
            waiting.put(None)
        except GafferClientError as error:
            waiting.put(error)

    threads = [threading.Thread(target=read, args=(source,), daemon=True) for source in sources]
    for thread in threads:
        thread.start()
    left = len(threads)
    while left:
        item = waiting.get()
        if isinstance(item, Exception):
            raise item
        if item is None:
            left -= 1
        else:
            yield item


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
    if tail != "all" and not _AMOUNT.fullmatch(tail):
        hint = "use a number of lines (20) or of bytes (4096b), or `all`"
        raise UsageError(f"--tail: {tail!r} is not an amount of a log", hint=hint)
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
            "Show what the log files of jobs hold",
            logs,
            "node",
            "<job>...",
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
                Option("--grep=PATTERN", "show only lines that match a regular expression"),
                Option("-t, --timestamps", "with --follow: show the time at which each line arrived here"),
                Option("--plain", "show the bytes of the files, without the names of processes"),
            ),
            details=f"""
                {job_help} The job need not be running, or exist any more. Each line follows the name of the process,
                NAME.SLOT, as in `ps`. Older output comes first; several jobs are shown one after the other, or as their
                output arrives with --follow. A lost connection is reopened where it was.
            """,
            examples=("logs shop.web", "logs shop.web --since=10m --stream=err", "logs 'shop.*' -f -n 0 --grep=error"),
            uses=("--procfile", "--directory"),
        ),
    )
