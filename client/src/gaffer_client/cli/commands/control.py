"""The commands of `gafferctl`: each sends one request to one node."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gaffer.jobs.names import parse_pid, split_job_name
from gaffer.runtime.options import Option
from gaffer_client.cli.checking import checked_on_failure, items
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import Exit, UsageError
from gaffer_client.cli.jobnames import suggesting
from gaffer_client.cli.output import print_error, print_json, printable, table, warn
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.table import Command
from gaffer_client.jobs import Job
from gaffer_client.naming import drift_lines, job_state
from gaffer_client.progress import details_of, retry_text, rollout_text

if TYPE_CHECKING:
    from gaffer.schemas.reload import ReloadResult
    from gaffer.schemas.views import JobView


@contextmanager
def _named_job(context: Context, args: Arguments) -> Iterator[Job]:
    """Connect to the node, and yield the job that the arguments name."""
    with context.server() as server:
        job = Job(server, args.required("<name>"))
        with suggesting(job):
            yield job


def processes(context: Context, args: Arguments) -> int:
    with context.server() as server:
        found: list[str] | list[int] = server.running() if args.flag("--running") else server.processes()
    return _list(context, found, found)


def load_process(context: Context, args: Arguments) -> int:
    from gaffer_client.cli.jobfile import read_jobs  # imports msgspec

    jobs = read_jobs(args.required("<file>"))
    with context.server() as server:
        if jobs.single:
            server.add_process(jobs.descriptions[0], start=_start(args))
        else:
            server.load_all(jobs.descriptions, jobs.session(), start=_start(args))
    return _ok(context)


def add_process(context: Context, args: Arguments) -> int:
    with context.server() as server:
        server.add_process(_described(args), start=_start(args))
    return _ok(context)


def update_process(context: Context, args: Arguments) -> int:
    with context.server() as server:
        server.update_process(_described(args), start=_start(args))
    return _ok(context)


def get_process(context: Context, args: Arguments) -> int:
    with _named_job(context, args) as job:
        print_json(job.server.template(job.name))
    return Exit.OK


def del_process(context: Context, args: Arguments) -> int:
    with _named_job(context, args) as job:
        job.server.remove_process(job.name)
    return _ok(context)


def add(context: Context, args: Arguments) -> int:
    count = _count(args.text("<inc>"))
    with _named_job(context, args) as job:
        return _number(context, job.add(count))


def sub(context: Context, args: Arguments) -> int:
    count = _count(args.text("<inc>"))
    with _named_job(context, args) as job:
        return _number(context, job.sub(count))


def start(context: Context, args: Arguments) -> int:
    with _named_job(context, args) as job:
        job.start()
    return _ok(context)


def stop(context: Context, args: Arguments) -> int:
    if args.text("<inc>") is not None:
        return sub(context, args)
    with _named_job(context, args) as job:
        job.stop()
    return _ok(context)


def status(context: Context, args: Arguments) -> int:
    if args.text("<name>") is None:
        return _status_of_all(context)
    with _named_job(context, args) as job:
        answer = job.status()
        info = None if context.json else job.info()
    if info is None:
        print_json(answer)
        return Exit.OK
    print("active" if answer["active"] else "stopped")
    name = split_job_name(info["name"])[1]
    retry = retry_text(info)
    if info["reason"] or retry:
        state = job_state(info["state"], info["reason"])
        print(printable(f"{name} is {state}{f'; {retry}' if retry else ''}"))
    if rollout := rollout_text(info.get("rollout")):
        print(printable(rollout[0].upper() + rollout[1:]))
    for line in drift_lines(info):
        print(printable(line))
    return Exit.OK


def _status_of_all(context: Context) -> int:
    """Print a table of all jobs of the node."""
    with context.server() as server:
        document = server.transport.read("/jobs", query={"view": "info"})
        health = server.transport.read("/health")
    if context.json:
        print_json(document)
        return Exit.OK
    with checked_on_failure(server.transport, document, "JobListing"):
        jobs = items(document, "jobs")
        text = table(("JOB", "STATE", "RUNNING", "DETAILS"), map(_status_row, jobs))
    print(text if jobs else "No jobs are loaded.")
    with checked_on_failure(server.transport, health, "HealthInfo"):
        keeper = health.get("keeper")  # a node of an earlier version has none
        fault = keeper["error"] if keeper is not None else None
    if fault:
        warn(printable(fault))
    return Exit.OK


def _status_row(info: "JobView") -> tuple[object, ...]:
    return (
        info["name"],
        info["state"],
        f"{info['running']}/{info['max_processes']}",
        "; ".join(details_of(info)) or "-",
    )


def running(context: Context, args: Arguments) -> int:
    with _named_job(context, args) as job:
        answer = job.status()
    return _value(context, answer, answer["running"])


def numprocesses(context: Context, args: Arguments) -> int:
    with _named_job(context, args) as job:
        answer = job.status()
    return _value(context, answer, answer["numprocesses"])


def pids(context: Context, args: Arguments) -> int:
    with _named_job(context, args) as job:
        found = job.pids
    return _list(context, {"pids": found}, found)


def kill(context: Context, args: Arguments) -> int:
    target, signal = args.required("<name_or_pid>"), args.required("<signal>")
    with context.server() as server:
        if (pid := parse_pid(target)) is not None:
            server.send_signal(pid, signal)
        else:
            job = Job(server, target)
            with suggesting(job):
                server.send_signal(job.name, signal)
    return _ok(context)


def reload_config(context: Context, args: Arguments) -> int:
    dry_run = args.flag("--dry-run")
    with context.server() as server:
        result = server.reload_config(dry_run=dry_run)
    if context.json:
        print_json(result)
    else:
        would = "would " if dry_run else ""
        for line in _reloaded(result):
            print(printable(f"{would}{line}"))
        if not (result["changes"] or result["webhooks"] or result["failed"]):
            print("no changes of jobs and webhooks")
        if result["restart_required"]:
            print(printable(f"restart gafferd to apply {', '.join(result['restart_required'])}"))
        for warning in result["warnings"]:
            warn(f"{warning['path']}: {warning['message']}")
    for failure in result["failed"]:
        message = f"can't {failure['action']} {failure['job']}: {failure['message']}"
        print_error(context.program.name, message, failure["hint"])
    if not result["failed"]:
        return Exit.OK
    return Exit.PARTIAL if result["changes"] else Exit.FAILED


def _reloaded(result: "ReloadResult") -> Iterator[str]:
    """Yield a line for each change."""
    for change in result["changes"]:
        settings = f": {', '.join(change['settings'])}" if change["settings"] else ""
        restart = " (replaces its processes)" if change["restart"] else ""
        yield f"{change['action']} {change['job']}{settings}{restart}"
    for hook in result["webhooks"]:
        yield f"{hook['action']} webhook {hook['event']} of {hook['url']}"


def _start(args: Arguments) -> bool | None:
    """Return whether to start the job; None means the default of the description or the node."""
    if args.flag("--start") and args.flag("--nostart"):
        raise UsageError("--start and --nostart are mutually exclusive")
    return True if args.flag("--start") else False if args.flag("--nostart") else None


def _described(args: Arguments) -> dict[str, str]:
    return {"name": args.required("<name>"), "cmd": args.required("<cmd>")}


def _count(text: str | None) -> int:
    if text is None:
        return 1
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise UsageError(f"{text!r} is not a number of processes", hint="give 1 or more")
    return int(text)


def _ok(context: Context) -> int:
    return _value(context, {"ok": True}, "ok")


def _number(context: Context, number: int) -> int:
    return _value(context, {"numprocesses": number}, number)


def _value(context: Context, document: object, value: object) -> int:
    if context.json:
        print_json(document)
    else:
        print(value)
    return Exit.OK


def _list(context: Context, document: object, items: Sequence[object]) -> int:
    if context.json:
        print_json(document)
    else:
        for item in items:
            print(printable(item))
    return Exit.OK


_START_OPTIONS = (
    Option("--start", "start the job (default)"),
    Option("--nostart", "do not start the job"),
)

COMMANDS = (
    Command(
        "processes",
        "List jobs, or the pids of running processes",
        processes,
        "node",
        effect="read",
        options=(Option("--running", "list Gaffer's pids of the running processes"),),
        examples=("processes", "processes --running"),
    ),
    Command(
        "load_process",
        "Add jobs from a JSON file",
        load_process,
        "node",
        "<file>",
        effect="write",
        scope="define",
        options=_START_OPTIONS,
        aliases=("load",),
        details="""
            The file (- for stdin) contains one job description with at least `name` and `cmd`, or several as
            {"jobs": [...]}. Several jobs are added together: all or none.
        """,
        examples=("load_process web.json", "load_process - --nostart"),
    ),
    Command(
        "add_process",
        "Add a job",
        add_process,
        "node",
        "<name> <cmd>",
        effect="write",
        scope="define",
        options=_START_OPTIONS,
        examples=("add_process shop.web 'python server.py'",),
    ),
    Command(
        "update_process",
        "Replace a job",
        update_process,
        "node",
        "<name> <cmd>",
        effect="destructive",
        scope="define",
        options=_START_OPTIONS,
        details="The command becomes the whole description: all other settings return to their defaults.",
        examples=("update_process shop.web 'python server.py --verbose'",),
    ),
    Command(
        "get_process",
        "Print the description of a job as JSON",
        get_process,
        "node",
        "<name>",
        effect="read",
        examples=("get_process shop.web",),
    ),
    Command(
        "del_process",
        "Stop and remove a job",
        del_process,
        "node",
        "<name>",
        effect="destructive",
        scope="define",
        examples=("del_process shop.web",),
    ),
    Command(
        "start",
        "Start a job",
        start,
        "node",
        "<name>",
        effect="write",
        examples=("start shop.web",),
    ),
    Command(
        "stop",
        "Stop a job, or reduce its number of processes",
        stop,
        "node",
        "<name> [<inc>]",
        effect="destructive",
        examples=("stop shop.web", "stop shop.web 2"),
    ),
    Command(
        "add",
        "Increase the number of processes of a job",
        add,
        "node",
        "<name> [<inc>]",
        effect="write",
        examples=("add shop.web", "add shop.web 2"),
    ),
    Command(
        "sub",
        "Reduce the number of processes of a job",
        sub,
        "node",
        "<name> [<inc>]",
        effect="write",
        examples=("sub shop.web", "sub shop.web 2"),
    ),
    Command(
        "status",
        "Show whether a job is active or stopped, or the states of all jobs",
        status,
        "node",
        "[<name>]",
        effect="read",
        details="""
            The reason follows if the job waits, fails, is not ready or disabled, and the progress of a rolling restart.
            Without <name>, all jobs are listed with their states, running and configured processes, and reasons.
        """,
        examples=("status", "status shop.web"),
    ),
    Command(
        "running",
        "Show the number of running processes",
        running,
        "node",
        "<name>",
        effect="read",
        examples=("running shop.web",),
    ),
    Command(
        "numprocesses",
        "Show the number of configured processes",
        numprocesses,
        "node",
        "<name>",
        effect="read",
        examples=("numprocesses shop.web",),
    ),
    Command(
        "pids",
        "List Gaffer's pids of the processes of a job",
        pids,
        "node",
        "<name>",
        effect="read",
        examples=("pids shop.web",),
    ),
    Command(
        "kill",
        "Send a signal to all processes of a job or to one process",
        kill,
        "node",
        "<name_or_pid> <signal>",
        effect="destructive",
        details="<signal> is a name, with or without SIG, or a number.",
        examples=("kill shop.web HUP", "kill 12 9"),
    ),
    Command(
        "reload_config",
        "Apply the changes of the node's configuration file",
        reload_config,
        "node",
        effect="write",
        scope="define",
        options=(Option("--dry-run", "show what would change, and change nothing"),),
        details="""
            The node reads its configuration file again, and adds, removes, updates and scales jobs as the file has
            changed since the last time. The processes of other jobs go on. A file with a mistake changes nothing.

            The exit status is 5 if some of the changes can't be applied, and 1 if none can or the file is invalid. They
            are tried again at the next reload.
        """,
        examples=("reload_config", "reload_config --dry-run"),
    ),
)
