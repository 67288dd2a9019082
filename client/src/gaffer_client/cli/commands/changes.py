"""`gaffer lookup`: live changes of the cluster."""

import queue
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from gaffer.runtime.options import Option
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import Exit
from gaffer_client.cli.output import Palette, print_json_line, printable, warn
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.table import Command
from gaffer_client.errors import GafferClientError

if TYPE_CHECKING:
    from gaffer_client.eventsource import Watcher
    from gaffer_client.lookup import Lookup

_MAX_QUEUED = 1000  # events waiting to be printed; when full, reading pauses


class _Update(NamedTuple):
    """An update from the lookup at `url`: an event, a lost connection, or the end of the stream."""

    url: str
    event: str | None = None
    message: Any = None
    error: GafferClientError | None = None
    ended: bool = False


def lookup(context: Context, args: Arguments) -> int:
    palette = Palette(sys.stdout, always=args.flag("--colorize"), never=args.flag("--no-color"))
    with context.lookup() as cluster, _followed(cluster) as updates:
        failures: dict[str, GafferClientError] = {}
        begun: set[str] = set()
        for each in updates:
            if each.event is None:
                _record_loss(each, failures, begun, cluster)
            elif each.event == "snapshot":
                if each.url in begun:
                    warn(f"{each.url} sent a new snapshot; earlier changes are not shown")
                begun.add(each.url)
            else:
                _show(context, each, palette, several=len(cluster.urls) > 1)
    return Exit.FAILED  # all streams have ended


def _record_loss(update: _Update, failures: dict[str, GafferClientError], begun: set[str], cluster: "Lookup") -> None:
    """Warn about a lost lookup; raise an error if no lookup could be reached at all."""
    if update.error is not None:
        failures[update.url] = update.error
    if set(failures) == set(cluster.urls) and not begun:
        from gaffer_client.lookup import no_response

        raise no_response(failures)
    why = update.error.message if update.error is not None else f"{update.url} closed the event stream"
    warn(why if update.ended else f"{why}; reconnecting")


def _show(context: Context, update: _Update, palette: Palette, *, several: bool) -> None:
    if context.json:
        origin = {"lookup": update.url} if several else {}
        print_json_line({**origin, **update.message})
        return
    if update.event == "add_node":  # has no name; `identify` follows immediately
        return
    message = update.message
    node = message.get("node") or message
    name = node.get("name") or "-"
    where = f"{update.url} " if several else ""
    line = f"{time.strftime('%H:%M:%S')} {where}{name} | {update.event} {_details(message)}"
    print(palette.paint(name, printable(line.rstrip())), flush=True)


def _details(message: Mapping[str, Any]) -> str:
    if "job_name" in message:
        pid = f" {message['pid']}" if "pid" in message else ""
        state = f" {message['state']}" if message.get("state") else ""
        reason = f": {message['reason']}" if message.get("reason") else ""
        return f"{message['job_name']}{pid}{state}{reason}"
    if "stale" in message:
        return str(message["stale"]).lower()
    if message.get("origin"):
        return f"{message['origin']} {message.get('reason') or message.get('status', '')}"
    return str(message.get("id", ""))


@contextmanager
def _followed(cluster: "Lookup") -> Iterator[Iterator[_Update]]:
    """Yield the events of all lookups in order of arrival."""
    waiting: queue.Queue[_Update] = queue.Queue(_MAX_QUEUED)
    closing = threading.Event()

    def put(update: _Update) -> None:
        while not closing.is_set():
            with suppress(queue.Full):
                waiting.put(update, timeout=0.1)
                return

    def follow(url: str, watcher: "Watcher") -> None:
        try:
            for event, message, _ in watcher.events():
                put(_Update(url, event, message))
            put(_Update(url, ended=True))
        except GafferClientError as error:
            put(_Update(url, error=error, ended=True))

    watchers = cluster.watchers(on_lost=lambda url, error: put(_Update(url, error=error)))
    threads = [
        threading.Thread(target=follow, args=pair, daemon=True) for pair in zip(cluster.urls, watchers, strict=True)
    ]
    for thread in threads:
        thread.start()
    try:
        yield _until_all_ended(waiting, len(threads))
    finally:
        closing.set()
        for watcher in watchers:
            watcher.stop()
        for thread in threads:
            thread.join()


def _until_all_ended(waiting: "queue.Queue[_Update]", number: int) -> Iterator[_Update]:
    while number:
        update = waiting.get()
        number -= update.ended
        yield update


COMMANDS = (
    Command(
        "lookup",
        "Show changes in the cluster as they happen",
        lookup,
        "lookup",
        effect="read",
        options=(
            Option("--colorize", "use colours even if the output is not a terminal"),
            Option("--no-color", "do not use colours"),
        ),
        details="""
            Prints one line per change: the node, the event (`identify`, `add_job`, `add_process`...), the job and the
            process. With several lookups, each line begins with the URL of the lookup. Lost connections are
            reopened, and missed changes are shown. Press Ctrl-C to exit.
        """,
        examples=("lookup", "lookup --json"),
    ),
)
