"""`gaffer start`, `run` and `export`: Procfile commands that need no node."""

import io
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec

from gaffer.errors import did_you_mean
from gaffer.process import ProcessConfig
from gaffer.processes.launch import environment
from gaffer.procfile import Procfile, is_ini_value
from gaffer.runtime.options import Option
from gaffer_client.cli import one_off, ports
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import Exit, UsageError
from gaffer_client.cli.output import print_error, warn
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.procfile_app import app_name, choose_ports, concurrency, describe, open_procfile
from gaffer_client.cli.table import Command

_LISTEN = "0A"  # TCP_LISTEN in the tables of proc(5)


def start(context: Context, args: Arguments) -> int:
    from gaffer_client.cli.foreground import run_in_foreground  # imports the manager and its loop

    procfile = open_procfile(args)
    known = [name for name, _ in procfile.processes()]
    named = args.words("<type>")
    for name in named:
        _check_type(name, procfile)
    numbers = concurrency(args.words("--concurrency"), known)
    running = {name: numbers.get(name, 1) if name in named or not named else 0 for name in known}
    if not any(running.values()):
        raise UsageError("no processes to run", hint="give at least one type a process")
    chosen = choose_ports(
        args.text("--port"), known, running, lambda: ports.free_block(known, _listening_ports(), running)
    )
    if args.text("--port") is None and "PORT" not in procfile.env and chosen != ports.block(known, ports.BASE):
        warn(f"ports starting at {ports.BASE} are in use; {known[0]} starts at port {chosen[known[0]].rstrip('+')}")
    # Processes get the environment of the shell. Their stdin is a silent pipe: they can't share the terminal, and
    # watchers such as tailwindcss and esbuild exit at end of file.
    more = {"env": _environment(procfile), "os_env": True, "redirect_input": True}
    jobs = [{**job, **more} for job in describe(procfile, running, chosen) if not named or job["name"] in named]
    return run_in_foreground([ProcessConfig.from_dict(job) for job in jobs], verbose=args.flag("--verbose"))


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
    procfile = open_procfile(args)
    types = [name for name, _ in procfile.processes()]
    numbers = concurrency(args.words("--concurrency"), types)
    chosen = choose_ports(args.text("--port"), types, numbers)
    jobs = {job["name"]: job for job in describe(procfile, numbers, chosen)}
    name = args.text("<name>")
    if name is not None:
        _check_type(name, procfile)
        jobs = {name: jobs[name]}
    app = app_name(args, None)
    text = as_json(app, jobs, name) if format_ == "json" else as_ini(procfile, app, jobs)
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


def as_ini(procfile: Procfile, app: str, jobs: Mapping[str, Any]) -> str:
    """Return the jobs as sections of a gafferd configuration that behave as if loaded by `gaffer load`."""
    try:
        config = procfile.as_configparser({name: job["numprocesses"] for name, job in jobs.items()})
    except ValueError as error:
        raise UsageError(str(error), hint="use --format=json") from None
    for name, _ in procfile.processes():
        if name not in jobs:
            config.remove_section(f"process:{app}:{name}")
            config.remove_section(f"env:{app}:{name}")
            continue
        job, section = jobs[name], config[f"process:{app}:{name}"]
        if not is_ini_value(job["cwd"]):
            raise UsageError(f"the directory {job['cwd']!r} can't be written to an INI file", hint="use --format=json")
        section["cwd"] = job["cwd"]
        section["os_env"] = "false"
        if "port" in job:
            section["port"] = job["port"]
        section["redirect_output"] = ", ".join(job["redirect_output"])
        if "endpoints" in job:
            section["endpoints"] = ", ".join(job["endpoints"]) or "none"
    text = io.StringIO()
    config.write(text)
    return text.getvalue()


def _check_type(name: str, procfile: Procfile) -> None:
    types = [known for known, _ in procfile.processes()]
    if name not in types:
        raise UsageError(
            f"the Procfile has no type {name!r}", hint=did_you_mean(name, types) or f"known types: {', '.join(types)}"
        )


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
        options=(_CONCURRENCY, _PORT, Option("-v, --verbose", "show all events, not only spawn and exit")),
        details="""
            Runs all types of the Procfile, or the given ones, in the directory of the application with the variables
            of the shell and of its .env file, and shows their output. Processes that exit are restarted.

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
