"""`gaffer load` on several nodes: on each of them, or with its processes spread over them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from gaffer_client.cli.commands.apps import taken_ports
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import CommandFailed, Exit, UsageError
from gaffer_client.cli.members import Choice, Tally, Target, ask_each, failure_document
from gaffer_client.cli.output import print_json, print_json_line, printable, table
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.places import app_name
from gaffer_client.cli.procfile_app import Application, choose_ports, concurrency, open_application
from gaffer_client.cli.table import Command
from gaffer_client.errors import GafferClientError
from gaffer_client.fleet import Member
from gaffer_client.lookup import Lookup
from gaffer_client.node import Server
from gaffer_client.spreading import spread

_ALIVE = "alive"


def load(context: Context, args: Arguments, command: Command) -> int:
    """Print the plan, and load the application onto the nodes; with --dry-run, only print the plan."""
    session = app_name(args, args.text("<name>"))
    if args.text("--app") or session.endswith(".json") or "/" in session or session == "-":
        raise UsageError("only a Procfile is loaded onto several nodes", hint="load JSON files onto one node at a time")
    app = open_application(args)
    start = False if args.flag("--nostart") else None
    tally = Tally(context)
    with context.lookup() as lookup:
        plan = _plan(args, app, session, Choice(context, args, lookup), lookup)
        numbers = {member.key: each for member, each in plan}
        for each in numbers.values():  # mistakes are reported before a node is asked
            app.describe(each, choose_ports("auto", app, each), session)
        _show_plan(context, app, plan, dry_run=args.flag("--dry-run"))
        if args.flag("--dry-run"):
            return Exit.OK

        def ask(server: Server, target: Target) -> Mapping[str, int]:
            mine = numbers[target.member.key]
            chosen = choose_ports(args.text("--port"), app, mine, lambda: taken_ports(server, session), whole=True)
            server.load_all(app.describe(mine, chosen, session), session, start=start)
            return mine

        targets = [Target(member, ()) for member, _ in plan]
        for target, outcome in ask_each(context, lookup, targets, ask, total=context.timeout):
            document = {"node": target.member.name, "origin": target.member.url, "app": session}
            if isinstance(outcome, GafferClientError | CommandFailed):
                tally.failed(target.member, outcome)
                if context.json:
                    print_json_line({**document, "ok": False, "error": failure_document(outcome)})
                continue
            tally.succeeded()
            if context.json:
                print_json_line({**document, "ok": True, "numprocesses": outcome})
            else:
                done = "loaded" if start is False else "loaded and started"
                print(printable(f"{target.member.name}: {done} {session}"), flush=True)
    return tally.status


_Plan = list[tuple[Member, Mapping[str, int]]]


def _plan(args: Arguments, app: Application, session: str, choice: Choice, lookup: Lookup) -> _Plan:
    """Return the nodes, each with the number of processes of each type."""
    numbers = app.numbers(concurrency(args.words("--concurrency"), app.types))
    totals = {**numbers, **concurrency(args.words("--spread"), app.types)}
    members = [member for member in choice.members() if member.status == _ALIVE]
    if not members:
        raise CommandFailed("no chosen node is in service", hint="`gaffer lookup:nodes` shows their states")
    listed = lookup.jobs()["jobs"]
    holders = {source["name"] for job in listed if job["name"].startswith(f"{session}.") for source in job["sources"]}
    if holders:
        raise CommandFailed(
            f"{session} is already loaded on {', '.join(sorted(holders))}; nothing was loaded",
            hint=f"`gaffer unload {session} --cluster` removes it; use another name to keep both",
        )
    if not args.words("--spread"):
        return [(member, numbers) for member in members]
    running: Counter[str] = Counter()
    for job in listed:
        for source in job["sources"]:
            running[Member.of(source["node_info"]).key] += len(source["pids"])
    plan = spread(totals, {member.key: running[member.key] for member in members})
    return [(member, plan[member.key]) for member in members if any(plan[member.key].values())]


def _show_plan(context: Context, app: Application, plan: _Plan, *, dry_run: bool) -> None:
    if context.json:
        if dry_run:
            print_json({"plan": [_planned(member, numbers) for member, numbers in plan]})
        return
    rows: list[Sequence[object]] = [(member.name, *(numbers[name] for name in app.types)) for member, numbers in plan]
    sums = [sum(numbers[name] for _, numbers in plan) for name in app.types]
    print(table(("NODE", *app.types), [*rows, ("(all)", *sums)]), flush=True)


def _planned(member: Member, numbers: Mapping[str, int]) -> dict[str, Any]:
    return {"node": member.name, "origin": member.url, "numprocesses": dict(numbers)}
