"""`restart`, `reload` and `rollback`: replacing the processes of jobs, with progress until they are ready."""

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

from gaffer.runtime.options import Option
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import CommandFailed, UsageError
from gaffer_client.cli.jobnames import for_each_job
from gaffer_client.cli.output import StatusLine, print_json_line
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.table import Command
from gaffer_client.jobs import Job
from gaffer_client.progress import Progress, RolloutWatch, readiness

if TYPE_CHECKING:
    from gaffer_client.documents import ListedJob

_POLL_INTERVAL = 0.2  # seconds
_SETTLING = 0.5  # seconds before a reloaded process counts as ready: it may be about to exit or to fail its probe
_TIMEOUT = 300.0  # seconds
_MAX_DIGITS = 9  # of a generation

Judge = Callable[["ListedJob"], Progress]


class Order(NamedTuple):
    """A command for a job: `send` returns the response, `judge` the judge of its progress, from the info before it.

    `doing` and `done` describe it.
    """

    send: Callable[[Job], Mapping[str, Any]]
    judge: Callable[["ListedJob"], Judge]
    doing: str
    done: str


def restart(context: Context, args: Arguments) -> int:
    rolling, waits = manner(args)

    def send(job: Job) -> Mapping[str, Any]:
        job.restart(rolling=rolling)
        return {"ok": True}

    def judge(before: "ListedJob") -> Judge:
        return RolloutWatch("restart").judge if rolling else readiness

    order = Order(send, judge, "Restarting", "Restarted")
    return carry_out_each(context, args, args.words("<job>"), order, waits=waits)


def manner(args: Arguments) -> tuple[bool, bool]:
    """Return whether to restart a few processes at a time, and whether to wait until they are ready."""
    rolling = args.flag("--rolling")
    if args.flag("--wait") and args.flag("--no-wait"):
        raise UsageError("--wait and --no-wait are mutually exclusive")
    return rolling, args.flag("--wait") or (rolling and not args.flag("--no-wait"))


def reload(context: Context, args: Arguments) -> int:
    def send(job: Job) -> Mapping[str, Any]:
        job.reload()
        return {"ok": True}

    def judge(before: "ListedJob") -> Judge:
        return settled()

    order = Order(send, judge, "Reloading", "Reloaded")
    return carry_out_each(context, args, args.words("<job>"), order, waits=not args.flag("--no-wait"))


def rollback(context: Context, args: Arguments) -> int:
    to = generation(args.text("--to"))

    def send(job: Job) -> Mapping[str, Any]:
        return {"ok": True, "generation": job.rollback(to)}

    def judge(before: "ListedJob") -> Judge:
        return RolloutWatch("rollback", before.get("rollout")).judge

    order = Order(send, judge, "Rolling back", "Rolled back")
    return carry_out_each(context, args, [args.required("<job>")], order, waits=not args.flag("--no-wait"))


def carry_out_each(context: Context, args: Arguments, names: list[str], order: Order, *, waits: bool) -> int:
    """Carry out an order for one job after the other, and report each failure."""
    timeout = seconds(args.text("--timeout"))
    context.limit(timeout)
    return for_each_job(context, args, names, lambda job: _carry_out(context, job, order, timeout if waits else None))


def _carry_out(context: Context, job: Job, order: Order, timeout: float | None) -> None:
    """Send an order, and follow its progress for `timeout` seconds unless it is None."""
    judge = None if timeout is None else order.judge(job.info())
    answer = order.send(job)
    if judge is not None and timeout is not None:
        _follow(context, job, order, judge, timeout)
    elif context.json:
        print_json_line(answer)
    else:
        print(f"{order.doing} {job.name}")


def _follow(context: Context, job: Job, order: Order, judge: Judge, timeout: float) -> None:
    """Show the progress of an order until it is done; raise CommandFailed if it fails or takes too long."""
    started = time.monotonic()
    shown: Any = None
    with closing(StatusLine()) as line:
        while True:
            info = job.info()
            progress, took = judge(info), time.monotonic() - started
            if context.json and (state := _without_times(info)) != shown:
                shown = state
                print_json_line(info)
            if progress.failure is not None:
                raise CommandFailed(
                    f"{order.doing.lower()} {job.name} failed: {progress.failure}",
                    hint=f"`{context.program.name} exits {job.name} --verbose` shows the output of its last processes",
                )
            if progress.done:
                break
            if took >= timeout:
                raise CommandFailed(
                    f"{order.doing.lower()} {job.name} is not done after {timeout:g} s: {progress.text}",
                    hint="the node goes on with it; use --timeout to wait longer",
                )
            if not context.json:
                line.show(f"{order.doing} {job.name}: {progress.text}")
            time.sleep(min(_POLL_INTERVAL, timeout - took))
        if not context.json:
            line.show(f"{order.done} {job.name} in {took:.1f} s: {progress.text}")


def _without_times(info: "ListedJob") -> Any:
    """Return what makes the info of a job differ from the one shown before."""
    instances = [{**each, "uptime": None} for each in info["instances"]]
    return {**info, "instances": instances}


def settled() -> Judge:
    """Return a judge that waits until the processes are ready some time after the order."""
    since = time.monotonic()

    def judge(info: "ListedJob") -> Progress:
        progress = readiness(info)
        return progress._replace(done=progress.done and time.monotonic() - since >= _SETTLING)

    return judge


def generation(text: str | None) -> int | None:
    """Return the number of a definition, or None if none is given; raise UsageError."""
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS):
        raise UsageError(f"--to: {text!r} is not a generation", hint="use a number that `definitions` shows")
    return int(text)


def seconds(text: str | None) -> float:
    """Return how long to wait for processes to become ready; raise UsageError."""
    try:
        seconds = _TIMEOUT if text is None else float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86400:
        raise UsageError(f"--timeout: {text!r} is not a valid number of seconds", hint="use 0 to 86400")
    return seconds


WAITING = (
    Option("--no-wait", "return immediately"),
    Option("--timeout=SECONDS", f"give up waiting after SECONDS and exit with status 1 (default: {_TIMEOUT:g})"),
)


def commands(job_help: str) -> tuple[Command, ...]:
    """Return the commands for a program; `job_help` says which jobs <job> can be."""
    uses = ("--procfile", "--directory")
    return (
        Command(
            "restart",
            "Replace the processes of jobs",
            restart,
            "node",
            "<job>...",
            effect="destructive",
            on_several="fleet:restart",
            options=(
                Option("--rolling", "replace a few processes at a time, the next ones when the new ones are ready"),
                Option("--wait", "return when all new processes are ready; implied by --rolling"),
                *WAITING,
            ),
            details=f"""
                {job_help} The number of processes stays. A job that has completed or failed is started.

                A rolling restart replaces as many processes at a time as `max_unavailable` and `surge` of the job
                allow. It stops when a new process exits or does not become ready; the others stay. The reason is shown
                and the exit status is 1. Interrupting this command does not stop the restart.
            """,
            examples=("restart shop.web", "restart shop.web shop.worker --rolling", "restart web --wait --timeout=60"),
            uses=uses,
        ),
        Command(
            "reload",
            "Make the processes of jobs reload their configuration",
            reload,
            "node",
            "<job>...",
            effect="write",
            on_several="fleet:reload",
            options=WAITING,
            details=f"""
                {job_help} Sends the `reload_signal` of the job to its processes, and returns when they are ready
                again. The processes of a job without a reload signal are replaced.

                To apply a changed configuration file of gafferd, use `gafferctl reload_config`.
            """,
            examples=("reload shop.web", "reload shop.web shop.api --no-wait"),
            uses=uses,
        ),
        Command(
            "rollback",
            "Return to an earlier definition of a job",
            rollback,
            "node",
            "<job>",
            effect="write",
            on_several="fleet:rollback",
            options=(
                Option("--to=N", "the generation to return to (default: the one before the current)"),
                *WAITING,
            ),
            details=f"""
                {job_help} The node keeps the last 10 definitions of a job; `definitions` lists them. Processes are
                replaced a few at a time, as by a rolling restart. The earlier definition becomes a new generation.
            """,
            examples=("rollback shop.web", "rollback shop.web --to=3"),
            uses=uses,
        ),
    )
