"""`gaffer lookup`: changes in the cluster, as they happen."""

import queue
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from gaffer.runtime.options import Option
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import Exit
from gaffer_client.cli.output import Palette, print_json_line, printable, warn
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.table import Command
from gaffer_client.errors import GafferClientError
from gaffer_client.eventsource import Watcher
from gaffer_client.lookup import Lookup, nobody_answered

_WAITING = 1000  # events that may wait to be printed; then nothing more is read


class _News(NamedTuple):
    """What was heard of the lookup at `url`: an event, or that it was lost, or ended for good."""

    url: str
    event: str | None = None
    message: Any = None
    error: GafferClientError | None = None
    ended: bool = False


def lookup(context: Context, args: Arguments) -> int:
    palette = Palette(sys.stdout, always=args.flag("--colorize"), never=args.flag("--no-color"))
    with context.lookup() as cluster, _followed(cluster) as news:
        failures: dict[str, GafferClientError] = {}
        begun: set[str] = set()
        for each in news:
            if each.event is None:
                _record_loss(each, failures, begun, cluster)
            elif each.event == "snapshot":
                if each.url in begun:
                    warn(f"{each.url} has a new map; changes before it are not shown")
                begun.add(each.url)
            else:
                _show(context, each, palette, several=len(cluster.urls) > 1)
    return Exit.FAILED  # all of them have ended


def _record_loss(news: _News, failures: dict[str, GafferClientError], begun: set[str], cluster: Lookup) -> None:
    """Say that a lookup was lost; raises when none is left, or none was there."""
    if news.error is not None:
        failures[news.url] = news.error
    if set(failures) == set(cluster.urls) and not begun:
        raise nobody_answered(failures)
    why = news.error.message if news.error is not None else f"{news.url} ended its events"
    warn(why if news.ended else f"{why}; trying again")


def _show(context: Context, news: _News, palette: Palette, *, several: bool) -> None:
    if context.json:
        origin = {"lookup": news.url} if several else {}
        print_json_line({**origin, **news.message})
        return
    if news.event == "add_node":  # without a name: `identify` follows at once
        return
    message = news.message
    node = message.get("node") or message
    name = node.get("name") or "-"
    where = f"{news.url} " if several else ""
    line = f"{time.strftime('%H:%M:%S')} {where}{name} | {news.event} {_details(message)}"
    print(palette.paint(name, printable(line.rstrip())), flush=True)


def _details(message: Mapping[str, Any]) -> str:
    if "job_name" in message:
        pid = f" {message['pid']} {message['state']}" if "pid" in message else ""
        return f"{message['job_name']}{pid}"
    if "stale" in message:
        return str(message["stale"]).lower()
    if message.get("origin"):
        return f"{message['origin']} {message.get('reason') or message.get('status', '')}"
    return str(message.get("id", ""))


@contextmanager
def _followed(cluster: Lookup) -> Iterator[Iterator[_News]]:
    """The events of all lookups, in the order in which they arrive."""
    waiting: queue.Queue[_News] = queue.Queue(_WAITING)
    closing = threading.Event()

    def put(news: _News) -> None:
        while not closing.is_set():
            with suppress(queue.Full):
                waiting.put(news, timeout=0.1)
                return

    def follow(url: str, watcher: Watcher) -> None:
        try:
            for event, message, _ in watcher.events():
                put(_News(url, event, message))
            put(_News(url, ended=True))
        except GafferClientError as error:
            put(_News(url, error=error, ended=True))

    watchers = cluster.watchers(on_lost=lambda url, error: put(_News(url, error=error)))
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


def _until_all_ended(waiting: "queue.Queue[_News]", number: int) -> Iterator[_News]:
    while number:
        news = waiting.get()
        number -= news.ended
        yield news


COMMANDS = (
    Command(
        "lookup",
        "Show changes in the cluster as they happen",
        lookup,
        "lookup",
        options=(
            Option("--colorize", "use colours even where the output is no terminal"),
            Option("--no-color", "use no colours"),
        ),
        details="""
            A line for each change: the node, what happened (`identify`, `add_job`, `add_process`...), and to which job
            and process. With several lookups, each line begins with the URL of its lookup. A lost connection is
            opened again, and the changes since then are shown. Press Ctrl-C to exit.
        """,
        examples=("lookup", "lookup --json"),
    ),
)
