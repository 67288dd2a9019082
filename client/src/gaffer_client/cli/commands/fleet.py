"""What commands do with `--cluster`, `--node` or `--label`: the same on several nodes, with a line for each."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from gaffer_client.cli.commands import disabling, rollouts, scaling
from gaffer_client.cli.commands.rollouts import Judge
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import CommandFailed, Exit, UsageError
from gaffer_client.cli.members import (
    ALL_JOBS,
    Choice,
    Failure,
    Tally,
    Target,
    ask_each,
    chosen_node,
    confirmed,
    failure_document,
    show_plan,
)
from gaffer_client.cli.output import StatusLine, age, print_json, print_json_line, printable, table
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.places import app_name
from gaffer_client.cli.several import chooses_several_nodes
from gaffer_client.cli.table import Command
from gaffer_client.errors import GafferClientError, NotFound, StatusError, Unauthorized
from gaffer_client.fleet import Member, follow_progress
from gaffer_client.jobs import Job
from gaffer_client.live import WATCH_TIMEOUT, LiveLookup
from gaffer_client.lookup import Lookup
from gaffer_client.naming import urgency
from gaffer_client.node import Server
from gaffer_client.progress import Progress, RolloutWatch, details_of, readiness

if TYPE_CHECKING:
    from gaffer.schemas.lookup import JobSource
    from gaffer_client.documents import ListedJob

_READY = "ready"
T = TypeVar("T")
_POLL_INTERVAL = 0.1  # seconds
_LAST_ANSWER = 1.0  # seconds that the last answer may come after the limit of an order


Show = Callable[[Progress], object]
"""Shows the progress of an order."""


class Done(NamedTuple):
    """What became of a job: a text, further fields of the JSON document, and why the order has failed if it has."""

    text: str
    fields: Mapping[str, Any] = {}
    failure: str | None = None


class Order(NamedTuple):
    """An order for jobs: `verb` names it (`stop`), and `act` carries it out for one job.

    `act` is given a function that shows progress, and takes at most `limit` seconds, or without it as long as one
    answer. `one_by_one`, a node has to succeed before the next one. `verb_for` returns the verb for one of the jobs,
    for a plan.
    """

    verb: str
    jobs: Sequence[str]
    act: Callable[[Job, Member, Show], Done]
    limit: float | None = None
    one_by_one: bool = False
    verb_for: Callable[[str], str] | None = None


def start(context: Context, args: Arguments, command: Command) -> int:
    jobs = named_jobs(args)
    timeout = _limited(context, args)
    order = _simple("start", jobs, Job.start, "started")
    if not args.flag("--wait") or args.flag("--dry-run"):
        return carry_out(context, args, command, order)
    deadline = time.monotonic() + timeout
    with context.lookup() as lookup, lookup.watch(min(WATCH_TIMEOUT, context.timeout)) as live:
        targets = Choice(context, args, lookup).targets(jobs)
        status = carry_out(context, args, command, order)
        if status in (Exit.OK, Exit.PARTIAL):
            _await_ready(context, live, {job for target in targets for job in target.jobs}, timeout, deadline)
    return status


def _await_ready(context: Context, live: LiveLookup, jobs: set[str], timeout: float, deadline: float) -> None:
    """Wait until each job has a ready process on some node; raise CommandFailed at the deadline, after `timeout`."""
    while jobs:
        for name in sorted(jobs):
            for source in live.find_job(name)["sources"]:
                if any(process["state"] == _READY for process in source.get("processes", ())):
                    jobs.discard(name)
                    if context.json:
                        print_json_line({"node": source["name"], "job": name, "ready": True})
                    else:
                        print(printable(f"{name} is ready on {source['name']}"), flush=True)
                    break
        if jobs and time.monotonic() >= deadline:
            raise CommandFailed(
                f"no process of {', '.join(sorted(jobs))} is ready on any node after {timeout:g} s",
                hint=f"`{context.program.name} ps --cluster` shows why",
            )
        if jobs:
            time.sleep(_POLL_INTERVAL)


def stop(context: Context, args: Arguments, command: Command) -> int:
    return carry_out(context, args, command, _simple("stop", named_jobs(args), Job.stop, "stopping"))


def kill(context: Context, args: Arguments, command: Command) -> int:
    signal = args.required("<signal>")
    order = _simple("kill", named_jobs(args), lambda job: job.kill(signal), f"sent {signal}")
    return carry_out(context, args, command, order._replace(verb_for=lambda job: f"kill with {signal}"))


def unload(context: Context, args: Arguments, command: Command) -> int:
    name = args.text("<name>")
    jobs = [name] if name is not None and "." in name else [f"{app_name(args, name)}.{ALL_JOBS}"]
    order = _simple("unload", jobs, lambda job: job.server.unload(job.name), "unloaded")
    return carry_out(context, args, command, order)


def enable(context: Context, args: Arguments, command: Command) -> int:
    return carry_out(context, args, command, _simple("enable", named_jobs(args), Job.enable, "enabled"))


def disable(context: Context, args: Arguments, command: Command) -> int:
    reason, duration = disabling.terms(args)
    order = _simple("disable", named_jobs(args), lambda job: job.disable(reason, duration), "disabled")
    return carry_out(context, args, command, order)


def _simple(verb: str, jobs: Sequence[str], send: Callable[[Job], object], done: str) -> Order:
    def act(job: Job, member: Member, show: Show) -> Done:
        send(job)
        return Done(done)

    return Order(verb, jobs, act)


def restart(context: Context, args: Arguments, command: Command) -> int:
    rolling, waits = rollouts.manner(args)
    timeout = _limited(context, args)

    def act(job: Job, member: Member, show: Show) -> Done:
        judge: Judge = RolloutWatch("restart").judge if rolling else readiness
        job.restart(rolling=rolling)
        return _awaited(job, judge, timeout, show, "restarted") if waits else Done("restarting")

    verb = "restart --rolling" if rolling else "restart"
    limit = timeout if waits else None
    return carry_out(context, args, command, Order(verb, named_jobs(args), act, limit, one_by_one=rolling and waits))


def reload(context: Context, args: Arguments, command: Command) -> int:
    waits = not args.flag("--no-wait")
    timeout = _limited(context, args)

    def act(job: Job, member: Member, show: Show) -> Done:
        job.reload()
        return _awaited(job, rollouts.settled(), timeout, show, "reloaded") if waits else Done("reloading")

    return carry_out(context, args, command, Order("reload", named_jobs(args), act, timeout if waits else None))


def rollback(context: Context, args: Arguments, command: Command) -> int:
    waits, to = not args.flag("--no-wait"), rollouts.generation(args.text("--to"))
    timeout = _limited(context, args)

    def act(job: Job, member: Member, show: Show) -> Done:
        judge = RolloutWatch("rollback", job.info().get("rollout")).judge
        fields = {"generation": job.rollback(to)}
        done = _awaited(job, judge, timeout, show, "rolled back") if waits else Done("rolling back")
        return done._replace(fields=fields)

    return carry_out(context, args, command, Order("rollback", named_jobs(args), act, timeout if waits else None))


def _limited(context: Context, args: Arguments) -> float:
    """Return how long to wait for processes to become ready; no answer is awaited longer than that either."""
    timeout = rollouts.seconds(args.text("--timeout"))
    context.limit(timeout)
    return timeout


def _awaited(job: Job, judge: Judge, timeout: float, show: Show, done: str) -> Done:
    started = time.monotonic()
    progress = follow_progress(job, judge, timeout, show)
    if progress.failure is not None:
        raise CommandFailed(progress.failure)
    return Done(f"{done} in {time.monotonic() - started:.1f} s: {progress.text}")


def scale(context: Context, args: Arguments, command: Command) -> int:
    app, specs = scaling.changes(args)
    session = app or context.program.session(args)
    changes = {name if "." in name else f"{session}.{name}": change for name, change in specs}

    def act(job: Job, member: Member, show: Show) -> Done:
        number = job.scale(changes[job.name])
        return Done(scaling.outcome(job, job.name, number), {"numprocesses": number})

    verb = " ".join(["scale", *(f"{name}{change}" for name, change in specs)])
    order = Order(verb, list(changes), act, verb_for=lambda job: f"scale {changes[job]}")
    return carry_out(context, args, command, order)


def named_jobs(args: Arguments) -> list[str]:
    """Return the jobs that the arguments name, whatever the command calls them."""
    for name in ("<job>", "<jobs>", "<type>", "<name>", "<name_or_pid>"):
        value = args.values.get(name)
        if value:
            return [value] if isinstance(value, str) else list(value)
    raise UsageError("no job given", hint="name a job: SESSION.NAME, or SESSION.* for all jobs of a session")


def carry_out(context: Context, args: Arguments, command: Command, order: Order) -> int:
    """Carry out an order for all jobs on all chosen nodes; print a line for each, and return the exit status.

    Of one node only what would be done is shown: there commands send their orders themselves.
    """
    if not chooses_several_nodes(args):
        return _show_plan(context, order, [chosen_node(context, args, order.jobs)])
    tally = Tally(context)
    total = context.timeout if order.limit is None else order.limit + _LAST_ANSWER
    with context.lookup() as lookup:
        targets = Choice(context, args, lookup).targets(order.jobs)
        if args.flag("--dry-run"):
            return _show_plan(context, order, targets)
        what = f"{order.verb} {', '.join(order.jobs)}" if "=" not in order.verb else order.verb
        if not confirmed(context, args, command, what, [target.member for target in targets]):
            return Exit.FAILED
        if order.one_by_one:
            _one_by_one(context, lookup, order, targets, total, tally)
            return tally.status

        def ask(server: Server, target: Target) -> list[tuple[str, Done | Failure]]:
            return list(_on_node(server, target, order, lambda _job, _progress: None))

        for target, outcome in ask_each(context, lookup, targets, ask, total=total):
            _report(context, tally, target, outcome)
    return tally.status


def _on_node(
    server: Server, target: Target, order: Order, show: Callable[[str, Progress], object]
) -> Iterator[tuple[str, Done | Failure]]:
    """Carry out an order for the jobs of a node; yield what became of each."""
    gone: GafferClientError | None = None
    for index, name in enumerate(target.jobs):
        try:
            if gone is not None:
                raise gone
            yield name, order.act(Job(server, name), target.member, partial(show, name))
        except (StatusError, CommandFailed) as failure:
            if isinstance(failure, Unauthorized):  # the caller says how to get the key there
                raise
            yield name, failure
        except GafferClientError as failure:
            if index == 0:
                raise
            gone = failure  # what was done before is reported
            yield name, failure


def _one_by_one(
    context: Context, lookup: Lookup, order: Order, targets: Sequence[Target], total: float, tally: Tally
) -> None:
    """Carry out an order on one node after the other, with progress, and stop at the first failure."""
    for index, target in enumerate(targets):
        line = StatusLine()

        def show(job: str, progress: Progress, line: StatusLine = line, name: str = target.member.name) -> None:
            if not context.json:
                line.show(f"{name}: {job}: {progress.text}")

        def ask(
            server: Server, target: Target, show: Callable[[str, Progress], object] = show
        ) -> list[tuple[str, Done | Failure]]:
            return list(_on_node(server, target, order, show))

        [(_, outcome)] = ask_each(context, lookup, [target], ask, total=total)
        line.clear()
        if not _report(context, tally, target, outcome):
            rest = [each.member.name for each in targets[index + 1 :]]
            if rest:
                raise CommandFailed(
                    f"stopped after {target.member.name}; nothing was done on {', '.join(rest)}",
                    hint="the other nodes keep their processes: find the reason before you continue",
                    status=Exit.PARTIAL if tally.status == Exit.PARTIAL else Exit.FAILED,
                )


def _report(
    context: Context, tally: Tally, target: Target, outcome: list[tuple[str, Done | Failure]] | Failure
) -> bool:
    """Print what became of the jobs of a node; return whether all succeeded."""
    results: list[tuple[str, Done | Failure]]
    results = [(name, outcome) for name in target.jobs] if not isinstance(outcome, list) else outcome
    if not isinstance(outcome, list):
        tally.failed(target.member, outcome)
    for name, result in results:
        document = {"node": target.member.name, "origin": target.member.url, "job": name}
        if isinstance(result, Done) and result.failure is not None:
            document |= result.fields
            result = CommandFailed(result.failure)
        if isinstance(result, Done):
            tally.succeeded()
            if context.json:
                print_json_line({**document, "ok": True, **result.fields})
            else:
                print(printable(f"{target.member.name}: {name}: {result.text}"), flush=True)
            continue
        if result is not outcome:
            tally.failed(target.member, result, name)
        if context.json:
            print_json_line({**document, "ok": False, "error": failure_document(result)})
    return isinstance(outcome, list) and all(
        isinstance(result, Done) and result.failure is None for _, result in outcome
    )


def _show_plan(context: Context, order: Order, targets: Sequence[Target]) -> int:
    for target in targets:
        for name in target.jobs:
            verb = order.verb if order.verb_for is None else order.verb_for(name)
            show_plan(context, target.member.name, target.member.url, verb, name)
    return Exit.OK


# What the nodes report

_Found = list["ListedJob"]
_Row = tuple[tuple[float, str, str], tuple[object, ...]]  # what sorts it, and its cells


def ps(context: Context, args: Arguments, command: Command) -> int:
    """Show the jobs of the chosen nodes; of all applications unless one is given."""
    session = args.text("<name>")

    def ask(server: Server, target: Target) -> _Found:
        try:
            return server.list_jobs(session, stats=True)
        except NotFound:  # none of the session any more
            return []

    names = [ALL_JOBS if session is None else f"{session}.{ALL_JOBS}"]
    return _show(context, args, command, names, ask)


def status(context: Context, args: Arguments, command: Command) -> int:
    """Show jobs on the chosen nodes; all of them unless some are given."""
    if args.words("<job>"):
        return info(context, args, command)
    return _show(context, args, command, [ALL_JOBS], lambda server, _target: server.list_jobs(stats=True))


def info(context: Context, args: Arguments, command: Command) -> int:
    """Show jobs on the chosen nodes."""

    def ask(server: Server, target: Target) -> _Found:
        jobs = [Job(server, name) for name in target.jobs]
        return [{**job.info(), "stats": job.stats()} for job in jobs]

    return _show(context, args, command, named_jobs(args), ask)


def _show(
    context: Context,
    args: Arguments,
    command: Command,
    names: Sequence[str],
    ask: Callable[[Server, Target], _Found],
) -> int:
    """Print the jobs that the nodes report as a table, those that need attention first, or one JSON document.

    Of a node that does not answer, it is what the lookups know.
    """
    announced = _Announced()
    status, found = gather(context, args, names, "jobs", ask, announced)
    rows = [*announced.rows, *(_row(target.member, info) for target, jobs in found for info in jobs)]
    if rows and not context.json:
        header = ("NODE", "JOB", "STATE", "RUNNING", "RESTARTS", "CPU", "MEM", "DETAILS")
        print(table(header, [cells for _, cells in sorted(rows, key=itemgetter(0))]))
    elif status == Exit.OK and not context.json:
        print("No jobs are loaded.")
    return status


class _Announced:
    """The jobs of nodes that do not answer, as the lookups know them; `rows` are those of all such nodes."""

    def __init__(self) -> None:
        self.rows: list[_Row] = []
        self._sources: dict[str, list[tuple[str, JobSource]]] | None = None  # by node

    def __call__(self, lookup: Lookup, target: Target) -> list[dict[str, Any]]:
        """Return the jobs of a node as documents, and add their rows."""
        found = [each for each in self._of(lookup, target.member) if not target.jobs or each[0] in target.jobs]
        self.rows += [_announced_row(target.member, name, source) for name, source in found]
        keys = ("state", "reason", "expected", "processes", "age_ms")
        return [{"name": name, **{key: source.get(key) for key in keys}} for name, source in found]

    def _of(self, lookup: Lookup, member: Member) -> list[tuple[str, "JobSource"]]:
        if self._sources is None:
            self._sources = {}
            try:
                jobs = lookup.jobs()["jobs"]
            except GafferClientError:  # the lookup that named the node is gone as well
                jobs = []
            for job in jobs:
                for source in job["sources"]:
                    self._sources.setdefault(Member.of(source["node_info"]).key, []).append((job["name"], source))
        return self._sources.get(member.key, [])


def gather(
    context: Context,
    args: Arguments,
    names: Sequence[str],
    key: str,
    ask: Callable[[Server, Target], T],
    announced: Callable[[Lookup, Target], list[dict[str, Any]]] | None = None,
) -> tuple[int, list[tuple[Target, T]]]:
    """Ask the chosen nodes that have jobs, or all for `*`; return the exit status, and what each has answered.

    With --json, nothing is returned: the answers are printed as one document, as the `key` of each node. `announced`
    returns what the lookups know of a node that does not answer, which is added to its document.
    """
    tally = Tally(context)
    documents: dict[str, dict[str, Any]] = {}
    found: list[tuple[Target, T]] = []
    with context.lookup() as lookup:
        choice = Choice(context, args, lookup)
        targets = [Target(member, ()) for member in choice.members()] if names == [ALL_JOBS] else choice.targets(names)
        for target, outcome in ask_each(context, lookup, targets, ask, total=context.timeout):
            member = target.member
            document = documents[member.key] = {"node": member.name, "origin": member.url}
            if isinstance(outcome, GafferClientError | CommandFailed):
                tally.failed(member, outcome)
                document["error"] = failure_document(outcome)
                if announced is not None:
                    document["announced"] = announced(lookup, target)
                continue
            tally.succeeded()
            document[key] = outcome
            found.append((target, outcome))
    if context.json:
        print_json({"nodes": [documents[target.member.key] for target in targets if target.member.key in documents]})
        found = []
    return tally.status, found


def _row(member: Member, info: "ListedJob") -> _Row:
    stats = info.get("stats")
    cells = (
        member.name,
        info["name"],
        info["state"],
        f"{info['running']}/{info['max_processes']}",
        info.get("restarts", 0),
        _percent(stats and stats["cpu"]),
        _percent(stats and stats["mem"]),
        "; ".join(details_of(info)) or "-",
    )
    return (urgency(info["state"], info["reason"]), info["name"], member.name), cells


def _announced_row(member: Member, name: str, source: "JobSource") -> _Row:
    state, reason, expected = source.get("state"), source.get("reason"), source.get("expected")
    running = f"{len(source['pids'])}/{'?' if expected is None else expected}"
    details = "; ".join(filter(None, [reason, f"last heard {age(source.get('age_ms'))} ago"]))
    cells = (member.name, name, state or "?", running, "?", "-", "-", details)
    return (urgency(state or "", reason), name, member.name), cells


def _percent(value: object) -> str:
    return f"{value:.1f} %" if isinstance(value, int | float) else "-"
