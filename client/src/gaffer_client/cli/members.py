"""Commands on several nodes: which nodes and jobs they mean, confirmation, and what became of each node."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from gaffer.errors import GafferError, did_you_mean
from gaffer.jobs.names import check_name
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import CommandFailed, Exit, UsageError
from gaffer_client.cli.jobnames import chosen_jobs, qualified, suggesting
from gaffer_client.cli.output import print_error, print_json_line, printable, warn
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.processes import chosen_process, names_process
from gaffer_client.cli.table import Command
from gaffer_client.errors import GafferClientError, MalformedAnswer, NotFound, Unreachable
from gaffer_client.fleet import Member, ask_all
from gaffer_client.node import Server

if TYPE_CHECKING:
    from gaffer.schemas.lookup import AgedNodeInfo
    from gaffer_client.live import LiveLookup
    from gaffer_client.lookup import Lookup

ALL_JOBS = "*"
_SHOWN = 8  # names of nodes in a question

T = TypeVar("T")
Failure = GafferClientError | CommandFailed


class Target(NamedTuple):
    """A node and the qualified names of the jobs on it that a command means."""

    member: Member
    jobs: tuple[str, ...]


def show_plan(context: Context, node: str, url: str, verb: str, job: str | None = None) -> None:
    """Print what would be done on a node, or there to a job or a process."""
    if context.json:
        print_json_line({"node": node, "origin": url, **({"job": job} if job else {}), "would": verb})
    else:
        print(printable(": ".join([node, *([job] if job else []), f"would {verb}"])), flush=True)


def chosen_node(context: Context, args: Arguments, names: Sequence[str]) -> Target:
    """Return the one node that is chosen, with the jobs and processes that `names` mean; raise NotFound without one."""
    found: list[str] = []
    with context.server() as server:
        for name in names:
            if names_process(name):
                chosen_process(context, args, server, name).process.info()
                found.append(name)
                continue
            for job in chosen_jobs(context, args, server, [name]):
                with suggesting(job):
                    job.info()
                found.append(job.name)
        return Target(Member(context.node_name(server), server.url, None, {}, "alive"), tuple(found))


class Choice:
    """The nodes of the cluster that the arguments of a command choose; asks the lookups, and warns about them."""

    def __init__(self, context: Context, args: Arguments, lookup: "Lookup | LiveLookup", *, warns: bool = True) -> None:
        self._warns = warns
        self._context = context
        self._args = args
        self._lookup = lookup
        self._names = args.words("--node")
        self._labels = [_label(text) for text in args.words("--label")]
        self._warned: set[str] = set()
        self._warming = False

    def members(self) -> list[Member]:
        """Return all chosen nodes; raise CommandFailed if there is none."""
        named = self._named()
        if named is None:
            answer = self._lookup.nodes()
            self._note(answer)
            named = self._fitting(answer["nodes"])
        if not named:
            text = "no node has these labels" if self._labels else "the lookups know no node"
            raise self._nothing(text, "run `gaffer lookup:nodes` to list the nodes and their labels")
        return named

    def targets(self, names: Sequence[str]) -> list[Target]:
        """Return the nodes that have jobs, each with its jobs: `session.job`, `job` or `session.*`, `*` for all.

        A node that was chosen by its name is a target even if no lookup lists the job on it. Raises CommandFailed if no
        node has any of the jobs.
        """
        named = self._named()
        found: dict[str, tuple[Member, list[str]]] = {}
        for name in names:
            listed = self._find(name)
            members = {member.key: member for member, _ in listed}
            if named is not None:
                members = {member.key: member for member in named}
                if not name.endswith(ALL_JOBS):
                    listed = [(member, self._qualified(name)) for member in named]
            for member, job in listed:
                if member.key in members:
                    jobs = found.setdefault(member.key, (member, []))[1]
                    jobs += [job] if job not in jobs else []
        if not found:
            shown = ", ".join(names)
            where = " with these labels" if self._labels else ""
            text = f"no node{where} has {'a job' if shown == ALL_JOBS else shown}"
            listing = (
                "nodes` to list the nodes and their labels" if self._labels else "jobs` to list the jobs of all nodes"
            )
            raise self._nothing(text, self._meant(names) or f"run `gaffer lookup:{listing}")
        chosen = [Target(member, tuple(jobs)) for member, jobs in found.values()]
        return sorted(chosen, key=lambda target: target.member[:2])

    def _meant(self, names: Sequence[str]) -> str | None:
        """Return a hint with a job or session that the lookups know for the first of the names that they don't."""
        known = [job["name"] for job in self._lookup.jobs()["jobs"]]
        sessions = {name.partition(".")[0] for name in known}
        for name in names:
            if name == ALL_JOBS:
                continue
            if name.endswith(f".{ALL_JOBS}"):
                missing, among = name.removesuffix(f".{ALL_JOBS}"), sessions
            else:
                missing, among = self._qualified(name), set(known)
            if missing not in among:
                return did_you_mean(missing, sorted(among))
        return None

    def _qualified(self, name: str) -> str:
        return str(qualified(self._context, self._args, name))

    def _find(self, name: str) -> list[tuple[Member, str]]:
        """Return the nodes with the labels that have these jobs, each with the name of one."""
        if name == ALL_JOBS:
            answer = self._lookup.jobs()
            jobs = {job["name"]: job["sources"] for job in answer["jobs"]}
        elif name.endswith(f".{ALL_JOBS}"):
            answer = self._lookup.find_session(check_name(name.removesuffix(f".{ALL_JOBS}"), "session"))
            jobs = {job["name"]: job["sources"] for job in answer["jobs"]}
        else:
            name = self._qualified(name)
            one = self._lookup.find_job(name)
            self._note(one)
            return [(member, name) for member in self._fitting(source["node_info"] for source in one["sources"])]
        self._note(answer)
        return [
            (member, job)
            for job, sources in jobs.items()
            for member in self._fitting(source["node_info"] for source in sources)
        ]

    def _named(self) -> list[Member] | None:
        """Return the nodes given by name or id that have the labels, or None if none are given."""
        if not self._names:
            return None
        answer = self._lookup.nodes()
        self._note(answer)
        found = []
        for name in dict.fromkeys(self._names):
            fitting = [node for node in answer["nodes"] if name in (node["name"], node.get("id"))]
            if not fitting:
                hint = did_you_mean(name, [node["name"] for node in answer["nodes"]])
                raise CommandFailed(
                    f"no node is named {name}",
                    hint=hint or "run `gaffer lookup:nodes` to list the nodes",
                    status=Exit.UNREACHABLE if self._warming else Exit.NOT_FOUND,
                )
            found += self._fitting(fitting)
        return found

    def _fitting(self, nodes: "Iterable[AgedNodeInfo]") -> list[Member]:
        members = [Member.of(node) for node in nodes]
        return [member for member in members if all(member.labels.get(key) == value for key, value in self._labels)]

    def _note(self, answer: Any) -> None:
        """Warn, once, about lookups that do not respond and about an answer that may be out of date."""
        warnings = [failure.message for failure in self._lookup.failures.values()]
        self._warming = answer.get("warming", False)
        if self._warming:
            warnings.append("gaffer_lookupd has just started: some nodes may be missing")
        elif answer.get("stale"):
            warnings.append("many nodes became unreachable at once: the list of nodes may be out of date")
        for text in warnings if self._warns else ():
            if text not in self._warned:
                self._warned.add(text)
                warn(text)

    def _nothing(self, text: str, hint: str) -> CommandFailed:
        if self._warming:
            return CommandFailed(f"{text} yet", status=Exit.UNREACHABLE)
        return CommandFailed(text, hint=hint, status=Exit.NOT_FOUND)


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise UsageError(f"--label: {text!r} is not a label", hint="write KEY=VALUE, such as --label zone=a")
    return key, value


def confirmed(context: Context, args: Arguments, command: Command, what: str, members: Sequence[Member]) -> bool:
    """Ask whether to do something destructive on several nodes; return whether it may be done.

    Without a terminal --yes is required; raises UsageError without it.
    """
    if command.effect != "destructive" or len(members) < 2 or args.flag("--yes"):
        return True
    names = [member.name for member in members]
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    question = printable(f"{what} on {len(names)} nodes ({shown})")
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{question} needs a confirmation", hint="use --yes, or --dry-run to see what would be done")
    print(f"{question}? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    print("Nothing was done.", file=sys.stderr)
    return False


def ask_each(
    context: Context,
    lookup: "Lookup",
    targets: Sequence[Target],
    ask: Callable[[Server, Target], T],
    *,
    total: float | None = None,
) -> Iterator[tuple[Target, T | Failure]]:
    """Yield what `ask` returns for each target, or its error, as they arrive.

    All exchanges with a node take at most `total` seconds together, if it is given. The API key is sent only to nodes
    that the user trusts.
    """

    def visit(target: Target) -> T | CommandFailed:
        try:
            with context.announced_server(target.member.url, lookup) as server:
                if total is not None:
                    server.transport.deadline = time.monotonic() + total
                return ask(server, target)
        except CommandFailed as error:
            return error
        except GafferError as error:  # an invalid name
            return CommandFailed(error.message, hint=error.hint, status=Exit.USAGE)

    for target, outcome in ask_all(targets, visit):
        if isinstance(outcome, UsageError):  # of the configuration, the same for all nodes
            raise outcome
        yield target, outcome


class Tally:
    """Counts what succeeded and what failed, reports failures, and gives the exit status."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._successes = 0
        self._failures: list[Failure] = []

    def succeeded(self) -> None:
        """Count a success."""
        self._successes += 1

    def failed(self, member: Member, failure: Failure, job: str | None = None) -> None:
        """Count and report a failure on a node."""
        self._failures.append(failure)
        about = f"{member.name}: {job}" if job else member.name
        print_error(self._context.program.name, f"{about}: {failure.message}", failure.hint)

    @property
    def status(self) -> int:
        """The exit status: 5 if only some have failed."""
        if not self._failures:
            return Exit.OK
        if self._successes:
            return Exit.PARTIAL
        if all(isinstance(failure, Unreachable | MalformedAnswer) for failure in self._failures):
            return Exit.UNREACHABLE
        if all(isinstance(failure, NotFound) for failure in self._failures):
            return Exit.NOT_FOUND
        return Exit.FAILED


def failure_document(failure: Failure) -> dict[str, Any]:
    """Return the error of a node as a JSON document."""
    reason = failure.reason if isinstance(failure, GafferClientError) else "failed"
    return {"error": reason, "message": failure.message, "hint": failure.hint}
