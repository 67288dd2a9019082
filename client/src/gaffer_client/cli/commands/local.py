"""`gaffer start`, `run` and `export`: commands for a Procfile that need no node."""

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
    from gaffer_client.cli.foreground import run_in_foreground  # brings in the manager and its loop

    procfile = open_procfile(args)
    known = [name for name, _ in procfile.processes()]
    named = args.words("<type>")
    for name in named:
        _check_type(name, procfile)
    numbers = concurrency(args.words("--concurrency"), known)
    running = {name: numbers.get(name, 1) if name in named or not named else 0 for name in known}
    if not any(running.values()):
        raise UsageError("there is nothing to run", hint="give one type at least one process")
    chosen = choose_ports(
        args.text("--port"), known, running, lambda: ports.free_block(known, _listening_ports(), running)
    )
    if args.text("--port") is None and "PORT" not in procfile.env and chosen != ports.block(known, ports.BASE):
        warn(f"ports from {ports.BASE} on are in use; {known[0]} gets those from {chosen[known[0]].rstrip('+')} on")
    # Processes get the environment of the shell, and a stdin that stays silent: there is one terminal for all, and
    # watchers (tailwindcss, esbuild) end at the end of their stdin.
    more = {"env": _environment(procfile), "os_env": True, "redirect_input": True}
    jobs = [{**job, **more} for job in describe(procfile, running, chosen) if not named or job["name"] in named]
    return run_in_foreground([ProcessConfig.from_dict(job) for job in jobs], verbose=args.flag("--verbose"))


def _listening_ports() -> list[ports.Span]:
    """The TCP ports on which something on this host listens, proc(5)."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError), open(table) as file:  # no IPv6, or no /proc
            rows = [line.split() for line in file.readlines()[1:]]
            found |= {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == _LISTEN}
    return [(port, port) for port in found]


def run(context: Context, args: Arguments) -> int:
    words = args.words("<args>")
    if not words:
        raise UsageError("there is no command to run", hint="such as `gaffer run python manage.py migrate`")
    copies = _copies(args.words("--concurrency"))
    procfile = open_procfile(args)
    env = environment(ProcessConfig("run", "run", env=_environment(procfile), os_env=True), {})
    try:
        return one_off.run_command(words, procfile.root, env, copies)
    except OSError as error:
        is_type = len(words) == 1 and words[0] in dict(procfile.processes())
        hint = f"that is a type of the Procfile: use `gaffer start {words[0]}`" if is_type else None
        print_error(context.program.name, f"can't run {error.filename}: {error.strerror}", hint)
        return one_off.NOT_FOUND if isinstance(error, FileNotFoundError) else one_off.NOT_EXECUTABLE


def _environment(procfile: Procfile) -> dict[str, str]:
    return {"PWD": procfile.root, **procfile.env}  # the shell's own PWD is where gaffer was called


def _copies(words: list[str]) -> int:
    """How many of a one-off command: a plain number, or `name=number` as for other commands."""
    text = words[-1].rpartition("=")[2] if words else "1"
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= 1000):
        raise UsageError(f"{words[-1]!r} is not a number of processes", hint="write -c 2")
    return int(text)


def export(context: Context, args: Arguments) -> int:
    format_ = args.text("--format") or ("json" if context.json else "ini")
    if format_ not in ("ini", "json"):
        raise UsageError(f"there is no format {format_!r}", hint="use ini or json")
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
    """The jobs as descriptions, each with its session; the type `name` alone, not in a list."""
    qualified = {key: {**job, "name": f"{app}.{key}"} for key, job in jobs.items()}
    document = qualified[name] if name is not None else {"jobs": list(qualified.values())}
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def as_ini(procfile: Procfile, app: str, jobs: Mapping[str, Any]) -> str:
    """The jobs as sections of a gafferd configuration; they run as `gaffer load` would run them."""
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
            raise UsageError(f"an INI file can't hold the folder {job['cwd']!r}", hint="use --format=json")
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
            f"the Procfile has no type {name!r}", hint=did_you_mean(name, types) or f"its types are {', '.join(types)}"
        )


_CONCURRENCY = Option(
    "-c SPEC, --concurrency=SPEC",
    "how many processes of each type, as type=number,type=number or all=number (default: 1 each)",
    repeat=True,
)
_PORT = Option("-p PORT, --port=PORT", "the first port of the first type, or auto for any free ports (default: 8000)")

COMMANDS = (
    Command(
        "start",
        "Run an application here, in the foreground",
        start,
        "nobody",
        "[<type>...]",
        options=(_CONCURRENCY, _PORT, Option("-v, --verbose", "show all events, not only spawns and exits")),
        details="""
            Runs all types of the Procfile, or the given ones, in the application's folder with the variables of the
            shell and of its .env, and shows their output. Processes that exit are started again.

            Each type has 100 ports of its own in the order of the Procfile, from 8000 on or the next free block when
            these are in use; a process finds its port in PORT. A PORT in the env wins. Standard input stays open and
            silent.

            Ctrl-C stops all processes, a second Ctrl-C kills them at once.
        """,
        aliases=("dev:start",),
        examples=("start", "start web worker", "start -c web=2,worker=3", "start -e production.env -p 9000"),
        uses=("--procfile", "--directory", "--env"),
    ),
    Command(
        "run",
        "Run a command once in the environment of an application",
        run,
        "nobody",
        "[<args>...]",
        options=(
            Option("-c NUMBER, --concurrency=NUMBER", "number of copies to run at once (default: 1)", repeat=True),
        ),
        details="""
            Runs the command in the application's folder with the variables of the shell and of its .env, on this
            terminal, and ends with its exit status. All words after the command are its own, options too.
        """,
        aliases=("dev:run",),
        passes_on=True,
        examples=("run python manage.py migrate", "-e production.env run ./task --verbose"),
        uses=("--procfile", "--directory", "--env"),
    ),
    Command(
        "export",
        "Write an application as a configuration of gafferd, or as JSON",
        export,
        "nobody",
        "[<name>]",
        options=(
            _CONCURRENCY,
            _PORT,
            Option("--format=FORMAT", "ini, to include in a configuration, or json, for `gaffer load` (default: ini)"),
            Option("--out=FILE", "write to this file"),
        ),
        details="<name> is the type to write, by default all of them. It runs as `gaffer load` would run it.",
        examples=("export --out=shop.ini", "export --format=json --out=shop.json", "export web -c web=3"),
        uses=("--procfile", "--directory", "--env"),
    ),
)
