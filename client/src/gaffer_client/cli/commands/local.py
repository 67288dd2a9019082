"""`gaffer start`, `run` and `export`: Procfile commands that need no node."""

import io
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec

from gaffer.jobs.names import DEFAULT_SESSION
from gaffer.jobs.sections import ini_settings
from gaffer.process import ProcessConfig
from gaffer.processes.launch import environment
from gaffer.procfile import Procfile, add_ini_job, ini_document
from gaffer.runtime.options import Option
from gaffer_client.cli import one_off, ports
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import Exit, UsageError
from gaffer_client.cli.output import print_error, warn
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.procfile_app import (
    Application,
    app_name,
    choose_ports,
    concurrency,
    open_application,
    open_procfile,
)
from gaffer_client.cli.table import Command

_LISTEN = "0A"  # TCP_LISTEN in the tables of proc(5)


def start(context: Context, args: Arguments) -> int:
    from gaffer_client.cli.foreground import run_in_foreground  # imports the manager and its loop

    app = open_application(args)
    named = args.words("<type>")
    for name in named:
        app.check_type(name)
    selected = app.with_dependencies(named or app.types)
    numbers = app.numbers(concurrency(args.words("--concurrency"), app.types))
    running = {name: numbers[name] if name in selected else 0 for name in app.types}
    if not any(running.values()):
        raise UsageError("no processes to run", hint="give at least one type a process")
    chosen = choose_ports(args.text("--port"), app, running, _listening_ports)
    first, default = next(iter(chosen), None), ports.block(app.types, ports.BASE) or {}
    if first and args.text("--port") is None and "PORT" not in app.procfile.env and chosen[first] != default.get(first):
        warn(f"ports starting at {ports.BASE} are in use; {first} starts at port {chosen[first].rstrip('+')}")
    jobs = app.describe(running, chosen, DEFAULT_SESSION, foreground=True)
    configs = [ProcessConfig.from_dict(_without_absent(job, running)) for job in jobs if running[job["name"]]]
    return run_in_foreground(configs, verbose=args.flag("--verbose"), watch=not args.flag("--no-watch"))


def _without_absent(job: dict[str, Any], running: Mapping[str, int]) -> dict[str, Any]:
    """Return the description without types to come after that are to have no processes: nothing would become ready."""
    if "after" in job:
        job["after"] = [item for item in job["after"] if running[item.partition(":")[0]]]
    return job


def _listening_ports() -> list[ports.Span]:
    """Return the TCP ports with listeners on this host, from proc(5)."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError), open(table) as file:  # no IPv6, or no /proc
            rows = [line.split() for line in file.readlines()[1:]]
            found |= {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == _LISTEN}
    return [(port, port) for port in found]


def run(context: Context, args: Arguments) -> int:
    words = args.words("<args>")
    if not words:
        raise UsageError("no command given", hint="for example `gaffer run python manage.py migrate`")
    copies = _copies(args.words("--concurrency"))
    procfile = open_procfile(args)
    env = environment(ProcessConfig("run", "run", os_env=True), _environment(procfile))
    try:
        return one_off.run_command(words, procfile.root, env, copies)
    except OSError as error:
        is_type = len(words) == 1 and words[0] in dict(procfile.processes())
        hint = f"this is a process type of the Procfile: use `gaffer start {words[0]}`" if is_type else None
        print_error(context.program.name, f"can't run {error.filename}: {error.strerror}", hint)
        return one_off.NOT_FOUND if isinstance(error, FileNotFoundError) else one_off.NOT_EXECUTABLE


def _environment(procfile: Procfile) -> dict[str, str]:
    return {"PWD": procfile.root, **procfile.env}  # the PWD of the shell is the directory gaffer was run in


def _copies(words: list[str]) -> int:
    """Return the number of copies: a plain number, or `name=number` as for other commands."""
    text = words[-1].rpartition("=")[2] if words else "1"
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= 1000):
        raise UsageError(f"{words[-1]!r} is not a number of processes", hint="use a number from 1 to 1000")
    return int(text)


def export(context: Context, args: Arguments) -> int:
    format_ = args.text("--format") or ("json" if context.json else "ini")
    if format_ not in ("ini", "json"):
        raise UsageError(f"unknown format {format_!r}", hint="use ini or json")
    app = open_application(args)
    name = args.text("<name>")
    if name is not None:
        app.check_type(name)
    numbers = app.numbers(concurrency(args.words("--concurrency"), app.types))
    session = app_name(args, None)
    described = app.describe(numbers, choose_ports(args.text("--port"), app, numbers), session)
    jobs = {job["name"]: job for job in described if name in (None, job["name"])}
    text = as_json(session, jobs, name) if format_ == "json" else as_ini(app, session, jobs)
    path = args.text("--out")
    if path is None:
        print(text, end="")
    else:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    return Exit.OK


def as_json(app: str, jobs: Mapping[str, Any], name: str | None) -> str:
    """Return the job descriptions as JSON, with qualified names; only the job `name`, not in a list, if given."""
    qualified = {key: {**job, "name": f"{app}.{key}"} for key, job in jobs.items()}
    document = qualified[name] if name is not None else {"jobs": list(qualified.values())}
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def as_ini(app: Application, session: str, jobs: Mapping[str, Any]) -> str:
    """Return the jobs as sections of a gafferd configuration that behave as if loaded by `gaffer load`."""
    document = ini_document()
    lines = dict(app.procfile.processes())
    try:
        for priority, name in enumerate(app.types):
            if name in jobs:
                job = {"priority": priority, "os_env": False, **jobs[name]}
                if name in lines:
                    job |= {"cmd": lines[name], "args": None}
                add_ini_job(document, f"{session}:{name}", ini_settings(job), job["env"])
    except ValueError as error:
        raise UsageError(str(error), hint="use --format=json") from None
    text = io.StringIO()
    document.write(text)
    return text.getvalue()


_CONCURRENCY = Option(
    "-c SPEC, --concurrency=SPEC",
    "number of processes of each type, as type=number,type=number or all=number (default: 1 each)",
    repeat=True,
)
_PORT = Option("-p PORT, --port=PORT", "the first port of the first type, or auto for any free port (default: 8000)")

COMMANDS = (
    Command(
        "start",
        "Run an application on this host, in the foreground",
        start,
        "none",
        "[<type>...]",
        effect="write",
        options=(
            _CONCURRENCY,
            _PORT,
            Option("--no-watch", "don't restart processes when the files that they watch change"),
            Option("-v, --verbose", "show all events, such as start and stop"),
        ),
        details="""
            Runs all types of the Procfile, or the given ones, in the directory of the application with the variables
            of the shell and of its .env file, and shows their output. Processes that exit are restarted.

            gaffer.yml or gaffer.ini next to the Procfile has settings of the types, such as `ready`, `after` and
            `watch`. A given type is run with the types it comes after, unless -c sets them to 0. When no process is
            left that could run, the command ends with the exit code of the first job that failed; an `essential` job
            ends it with its own.

            Each type gets a range of 100 ports, in the order of the Procfile, starting at 8000, or the next free block
            if these ports are in use. Each process gets its port in the variable PORT. A PORT set in an env file takes
            precedence. Standard input of the processes stays open without data.

            Ctrl-C stops all processes; a second Ctrl-C kills them at once.
        """,
        aliases=("dev:start",),
        examples=("start", "start web worker", "start -c web=2,worker=3", "start -e production.env -p 9000"),
        uses=("--procfile", "--directory", "--env"),
    ),
    Command(
        "run",
        "Run a command once in the environment of an application",
        run,
        "none",
        "[<args>...]",
        effect="write",
        options=(
            Option("-c NUMBER, --concurrency=NUMBER", "number of copies to run at once (default: 1)", repeat=True),
        ),
        details="""
            Runs the command in this terminal, in the directory of the application, with the variables of the shell and
            of its .env file, and exits with the status of the command. All arguments after the command, including
            options, are passed to it.
        """,
        aliases=("dev:run",),
        passes_on=True,
        examples=("run python manage.py migrate", "-e production.env run ./task --verbose"),
        uses=("--procfile", "--directory", "--env"),
    ),
    Command(
        "export",
        "Export an application as gafferd configuration or as JSON",
        export,
        "none",
        "[<name>]",
        effect="write",
        options=(
            _CONCURRENCY,
            _PORT,
            Option("--format=FORMAT", "ini for gafferd, or json for `gaffer load` (default: ini)"),
            Option("--out=FILE", "write to FILE"),
        ),
        details="<name> is the type to export (default: all types). Jobs run as if loaded by `gaffer load`.",
        examples=("export --out=shop.ini", "export --format=json --out=shop.json", "export web -c web=3"),
        uses=("--procfile", "--directory", "--env"),
    ),
)
