"""`gaffer lookup:list` and `lookup:history`: what single lookup servers know, which has no merged answer."""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gaffer.jobs.names import parse_job_name
from gaffer.runtime.options import Option
from gaffer_client.cli.commands.audit import chosen_part, entry_details, result_text
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import Exit
from gaffer_client.cli.output import abridged, moment, print_json, printable, table, warn
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.table import Command

if TYPE_CHECKING:
    from gaffer.schemas.lookup import ClusterEntry, LookupPeer, LookupPeers
    from gaffer_client.lookup import Lookup


def lookupds(context: Context, args: Arguments) -> int:
    with context.lookup() as lookup:
        answers = lookup.lookupds()
    if context.json:
        known = [{"url": url, "error": None, **answer} for url, answer in answers.items()]
        failed = [{"url": url, "error": error.message} for url, error in lookup.failures.items()]
        print_json({"lookups": [*known, *failed]})
        return Exit.OK
    _warn(lookup)
    rows = list(_peer_rows(answers))
    if rows:
        print(table(("LOOKUPD", "ACCORDING TO", "NODES", "NOT CONNECTED"), rows))
    for url, answer in answers.items():
        if answer["silent"]:
            print(printable(f"{url}: {answer['silent']} more nodes do not report their lookup servers"))
        if answer["left_off"]:
            print(printable(f"{url}: {answer['left_off']} more addresses are left out"))
    if not rows:
        print("No node has reported to which lookup servers it announces.")
    return Exit.OK


def _peer_rows(answers: "Mapping[str, LookupPeers]") -> "list[tuple[object, ...]]":
    """Return a row for each address and each different opinion about it."""
    opinions: dict[tuple[str, str, str], list[str]] = {}
    for url, answer in answers.items():
        for peer in answer["lookupds"]:
            key = peer["address"], f"{peer['connected']}/{peer['nodes']}", _missing(peer)
            opinions.setdefault(key, []).append(url)
    return [
        (address, abridged(urls, 2), nodes, missing) for (address, nodes, missing), urls in sorted(opinions.items())
    ]


def _missing(peer: "LookupPeer") -> str:
    named = [f"{node['name']} ({node['error'] or 'connecting'})" for node in peer["missing"]]
    more = peer["nodes"] - peer["connected"] - len(named)
    return ", ".join([*named[:2], *([f"+{len(named) - 2 + more}"] if len(named) - 2 + more > 0 else [])]) or "-"


def history(context: Context, args: Arguments) -> int:
    limit, since = chosen_part(args)
    job = args.text("<job>")
    name = str(parse_job_name(job)) if job is not None else ""
    with context.lookup() as lookup:
        answers = lookup.history(
            text=args.text("--match") or "",
            node=args.text("--about") or "",
            job=name,
            failed=args.flag("--failed"),
            limit=limit if since is None else sys.maxsize,
        )
    # The one that was started first knows most; nodes report the same to all of them.
    url, page = min(answers.items(), key=lambda answer: answer[1]["begun"])
    entries = [entry for entry in page["entries"] if since is None or entry["at"] >= since][:limit]
    if context.json:
        print_json({"url": url, **page, "entries": entries})
        return Exit.OK
    _warn(lookup)
    if entries:
        print(table(("WHEN", "NODE", "JOB", "WHAT", "CALLER", "RESULT", "DETAILS"), map(_entry_row, entries)))
    else:
        print("Nothing was recorded.")
    lost = f"; {page['dropped']} older entries are no longer kept" if page["dropped"] else ""
    print(printable(f"{url} has been recording since {moment(page['begun'])}{lost}."))
    return Exit.OK


def _entry_row(entry: "ClusterEntry") -> tuple[object, ...]:
    return (
        moment(entry["at"]),
        entry["node"] or "-",
        entry["job"] or "-",
        entry["what"],
        entry["caller"] or "-",
        result_text(entry["outcome"], entry["error"], entry["count"]),
        " ".join(entry_details(entry["pid"], entry["details"])),
    )


def _warn(lookup: "Lookup") -> None:
    for error in lookup.failures.values():
        warn(error.message)


COMMANDS: Sequence[Command] = (
    Command(
        "lookup:list",
        "List the lookup servers that the nodes announce to",
        lookupds,
        "lookup",
        effect="read",
        details="""
            NODES is how many nodes are connected, and how many announce there, as the nodes report to the lookups named
            in ACCORDING TO. Nodes that are not connected follow with the reason.
        """,
        examples=("lookup:list", "lookup:list --json"),
    ),
    Command(
        "lookup:history",
        "Show what happened in the cluster, as a lookup server has seen it",
        history,
        "lookup",
        "[<job>]",
        effect="read",
        options=(
            Option("--about=NODE", "only entries about the node with this name or id"),
            Option("--failed", "only what failed or was refused"),
            Option("--match=TEXT", "only entries with this text in a name, what happened or its details"),
            Option("--since=TIME", "only entries since then: a duration such as 30m or 2h, or 2026-01-31T06:00"),
            Option("--limit=N", "show at most N entries (default: 20)"),
        ),
        details="""
            Lists nodes that joined, left, fell silent or were drained, and what nodes report: failed exits, flapping,
            rollouts, and calls that changed something, newest first. No API key is needed, and nodes that are gone are
            included; CALLER is shown with the cluster key only. Of several lookups, the one that has recorded longest
            is shown. `gaffer history --cluster` asks the nodes themselves, which keep more.
        """,
        examples=("lookup:history", "lookup:history shop.web --failed --since=2h"),
    ),
)
