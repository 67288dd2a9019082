"""`gaffer status`, `info`, `stop`, `kill`, `commit`: jobs of a node and their processes."""

import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from gaffer.jobs.names import parse_pid
from gaffer.runtime.options import Option
from gaffer_client.cli.checking import checked_on_failure, items
from gaffer_client.cli.commands.rollouts import WAITING, Order, carry_out_each
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import Exit, UsageError
from gaffer_client.cli.jobnames import chosen_job, chosen_jobs, for_each_job, suggesting
from gaffer_client.cli.output import clock, ending, moment, print_json, printable, table
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.processes import chosen_process
from gaffer_client.cli.table import Command
from gaffer_client.naming import drift_lines, job_state
from gaffer_client.progress import Progress, details_of, readiness, retry_text, rollout_text

if TYPE_CHECKING:
    from gaffer.schemas.views import ExitInfo
    from gaffer_client.documents import ListedJob
    from gaffer_client.jobs import Job

_HEADINGS = ("NAME", "STATE", "UPTIME", "PORT", "OS PID", "RESTARTS", "LAST EXIT", "DETAILS")


def status(context: Context, args: Arguments) -> int:
    names = args.words("<job>")
    with context.server() as server:
        if names:
            document: Any = {"jobs": [_info(job) for job in chosen_jobs(context, args, server, names)]}
        else:
            document = server.transport.read("/jobs", query={"view": "info"})
        if context.json:
            print_json(document)
            return Exit.OK
        with checked_on_failure(server.transport, document, "JobListing"):
            jobs = items(document, "jobs")
            text = table(_HEADINGS, [row for job in jobs for row in status_rows(job)])
    print(text if jobs else "No jobs are loaded.")
    return Exit.OK


def _info(job: "Job") -> "ListedJob":
    with suggesting(job):
        return job.info()


def status_rows(info: "ListedJob") -> Iterator[tuple[object, ...]]:
    """Yield a row for each process of a job, the first one with what is true of the whole job; one row without any."""
    details = "; ".join(details_of(info)) or "-"
    of_job: tuple[object, ...] = info.get("restarts", 0), _exit(info.get("last_exit")), details
    running = [each for each in info["instances"] if each["pid"] is not None]
    if not running:
        yield info["name"], info["state"], "-", "-", "-", *of_job
    for each in running:
        slot = each.get("slot")
        name = f"{info['name']}.{slot}" if slot else f"{info['name']} (once)"
        port = each.get("port")
        up = clock(each.get("uptime") or 0)
        error = each.get("probe_error")
        yield name, each["state"], up, "-" if port is None else port, each["os_pid"], *of_job[:2], error or of_job[2]
        of_job = ("", "", "-")


def _exit(last: "ExitInfo | None") -> str:
    if last is None:
        return "-"
    if last["exit_code"] is None and last["uptime"] == 0:
        return "not started"
    at = last.get("at")
    return f"{ending(last['exit_code'], last['term_signal'])}{f', {moment(at)}' if at is not None else ''}"


def info(context: Context, args: Arguments) -> int:
    word = args.required("<job>")
    with context.server() as server:
        if parse_pid(word) is not None:
            return _show_process(context, chosen_process(context, args, server, word).process.info())
        found = _info(chosen_job(context, args, server, word))
    if context.json:
        print_json(found)
        return Exit.OK
    width = max(len(name) for name, _ in _facts(found))
    for name, value in _facts(found):
        print(printable(f"{name:<{width}}  {value}"))
    if any(each["pid"] is not None for each in found["instances"]):
        print()
        print(table(_HEADINGS[:5], [row[:5] for row in status_rows(found)]))
    return Exit.OK


def _facts(found: "ListedJob") -> Iterator[tuple[str, object]]:
    """Yield what there is to know about a job."""
    config = found["config"]
    yield "Name", found["name"]
    yield "State", job_state(found["state"], found["reason"])
    yield "Command", " ".join([str(config.get("cmd", "")), *map(shlex.quote, map(str, config.get("args") or ()))])
    if config.get("cwd"):
        yield "Directory", config["cwd"]
    yield "Processes", f"{found['running']} of {found['max_processes']}"
    yield "Restarts", found.get("restarts", 0)
    if last := found.get("last_exit"):
        yield "Last exit", _exit(last)
    yield "Definition", found.get("generation", "?")
    if retry := retry_text(found):
        yield "Retry", retry
    if (next_run := found.get("next_run")) is not None:
        yield "Next run", moment(next_run)
    if rollout := rollout_text(found.get("rollout")):
        yield "Rollout", rollout
    for socket in found.get("sockets", ()):
        yield "Socket", " ".join(f"{key}={value}" for key, value in socket.items())
    for line in drift_lines(found):
        yield "Drift", line.partition(": ")[2]
    for name, command in sorted((config.get("action") or {}).items()):
        yield "Action", f"{name}: {command}"


def _show_process(context: Context, found: Mapping[str, Any]) -> int:
    if context.json:
        print_json(found)
        return Exit.OK
    facts = {
        "Process": found.get("pid"),
        "Job": found.get("job"),
        "OS pid": found.get("os_pid"),
        "State": "running" if found.get("active") else "ended",
        "Command": " ".join([str(found.get("cmd", "")), *map(shlex.quote, map(str, found.get("args") or ()))]),
        "Since": moment(float(found.get("create_time") or 0)),
        "Outputs": ", ".join(map(str, found.get("redirect_output") or ())) or "not redirected",
        "Input": "open" if found.get("redirect_input") else "not redirected",
    }
    for name, value in facts.items():
        print(printable(f"{name:<8} {value}"))
    return Exit.OK


def start(context: Context, args: Arguments) -> int:
    return start_jobs(context, args, args.words("<job>"))


def start_jobs(context: Context, args: Arguments, names: list[str]) -> int:
    """Start jobs on a node."""

    def send(job: "Job") -> Mapping[str, Any]:
        job.start()
        return {"ok": True}

    order = Order(send, lambda before: readiness, "Starting", "Started")
    return carry_out_each(context, args, names, order, waits=args.flag("--wait"))


def stop(context: Context, args: Arguments) -> int:
    names = args.words("<job>")
    pids = [word for word in names if parse_pid(word) is not None]
    if pids:
        if len(pids) < len(names) or args.flag("--wait"):
            raise UsageError(
                "pids can't be mixed with jobs or --wait", hint="stop jobs and processes one after the other"
            )
        with context.server() as server:
            for word in pids:
                chosen_process(context, args, server, word).process.stop()
        _done(context, f"Stopping {', '.join(pids)}; their jobs replace them")
        return Exit.OK

    def send(job: "Job") -> Mapping[str, Any]:
        job.stop()
        return {"ok": True}

    order = Order(send, lambda before: _stopped, "Stopping", "Stopped")
    return carry_out_each(context, args, names, order, waits=args.flag("--wait"))


def _stopped(info: "ListedJob") -> Progress:
    left = sum(1 for each in info["instances"] if each["pid"] is not None)
    if info["active"]:
        return Progress("started again", failure="it was started again")
    return Progress(f"{left} process{'' if left == 1 else 'es'} left", done=not left)


def kill(context: Context, args: Arguments) -> int:
    word, signal = args.required("<job>"), args.required("<signal>")
    if parse_pid(word) is not None or word.rpartition(".")[2].isdecimal():
        with context.server() as server:
            process = chosen_process(context, args, server, word).process
            process.kill(signal)
            _done(context, f"Sent {signal} to process {process.pid}")
        return Exit.OK

    def act(job: "Job") -> None:
        job.kill(signal)
        _done(context, f"Sent {signal} to the processes of {job.name}")

    return for_each_job(context, args, [word], act)


def commit(context: Context, args: Arguments) -> int:
    timeout, env = commitment(args)
    with context.server() as server:
        job = chosen_job(context, args, server, args.required("<job>"))
        with suggesting(job):
            pid = job.commit(timeout, env)
    if context.json:
        print_json({"pid": pid})
    else:
        print(f"Process {pid} of {job.name} runs once")
    return Exit.OK


def commitment(args: Arguments) -> tuple[float | None, dict[str, str] | None]:
    """Return the time in which a process that runs once is to end, and its variables; raise UsageError."""
    env = {}
    for word in args.words("--var"):
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise UsageError(f"--var: {word!r} is not NAME=VALUE")
        env[name] = value
    return _graceful_timeout(args.text("--graceful-timeout")), env or None


def _graceful_timeout(text: str | None) -> float | None:
    if text is None:
        return None
    from gaffer_client.cli.since import parse_age

    seconds = parse_age(text)
    if seconds is None:
        raise UsageError(f"--graceful-timeout: {text!r} is not a duration", hint="use a duration such as 10, 30s or 2m")
    return seconds


def _done(context: Context, text: str) -> None:
    if context.json:
        print_json({"ok": True})
    else:
        print(printable(text))


_JOB_HELP = "<job> is SESSION.NAME, the NAME of a type of the application in this directory, or SESSION.* for all jobs."
_USES = ("--procfile", "--directory")
_WAIT = Option("--wait", "return when it is done")

COMMANDS = (
    Command(
        "status",
        "Show the jobs of a node and their processes",
        status,
        "node",
        "[<job>...]",
        effect="read",
        on_several="fleet:status",
        details=f"""
            {_JOB_HELP} Without <job>, all jobs of the node are shown.

            Each process has a row with its state, and the first one of a job shows how often its processes ended and
            were replaced, how the last one ended, and in DETAILS why it waits or fails, the progress of a rollout, and
            drift: how the job differs from the files that it comes from.
        """,
        examples=("status", "status shop.web", "status 'shop.*' --json"),
        uses=_USES,
    ),
    Command(
        "info",
        "Show all about a job or a process",
        info,
        "node",
        "<job>",
        effect="read",
        on_several="fleet:info",
        aliases=("ps:info",),
        details="""
            <job> is SESSION.NAME, the NAME of a type of the application in this directory, or the pid that Gaffer gave
            a process. Use --json for all settings.
        """,
        examples=("info shop.web", "info web --json", "info 12"),
        uses=_USES,
    ),
    Command(
        "ps:start",
        "Start jobs on a node",
        start,
        "node",
        "<job>...",
        effect="write",
        on_several="fleet:start",
        options=(_WAIT, *WAITING[1:]),
        details=f"{_JOB_HELP} `gaffer start SESSION.NAME` does the same.",
        examples=("ps:start web", "ps:start 'shop.*' --wait --timeout=60"),
        uses=_USES,
    ),
    Command(
        "stop",
        "Stop jobs, or single processes, on a node",
        stop,
        "node",
        "<job>...",
        effect="destructive",
        on_several="fleet:stop",
        options=(_WAIT, *WAITING[1:]),
        aliases=("ps:stop",),
        details=f"""
            {_JOB_HELP} The processes are stopped gracefully, and the job keeps their number. A pid that Gaffer gave
            stops this process; its job replaces it.
        """,
        examples=("stop shop.web", "stop 'shop.*' --wait", "stop 12"),
        uses=_USES,
    ),
    Command(
        "kill",
        "Send a signal to the processes of a job, or to one process",
        kill,
        "node",
        "<job> <signal>",
        effect="destructive",
        on_several="fleet:kill",
        aliases=("ps:kill",),
        details=f"""
            {_JOB_HELP} A single process is NAME.SLOT, as `ps` shows it, or the pid that Gaffer gave it. <signal> is a
            name, with or without SIG, or a number.
        """,
        examples=("kill shop.web HUP", "kill web.2 TERM", "kill 12 9"),
        uses=_USES,
    ),
    Command(
        "commit",
        "Run one more process of a job, once",
        commit,
        "node",
        "<job>",
        effect="write",
        on_several="fleet_actions:commit",
        options=(
            Option("--var=NAME=VALUE", "set a variable of the process; may be repeated", repeat=True),
            Option("--graceful-timeout=TIME", "the time to end after SIGTERM (default: that of the job)"),
        ),
        details="""
            <job> is SESSION.NAME, or the NAME of a type of the application in this directory. The process is not
            replaced when it ends, and does not count towards the number of processes of the job. Prints its pid.
        """,
        examples=("commit shop.worker", "commit worker --var QUEUE=mail --graceful-timeout=30s"),
        uses=_USES,
    ),
)
