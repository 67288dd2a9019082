"""`gaffer start` and `gaffer run`: an application, or a command in its environment, on this host."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from gaffer.jobs.names import DEFAULT_SESSION
from gaffer.process import ProcessConfig
from gaffer.processes.launch import environment
from gaffer.procfile import Procfile
from gaffer_client.cli import one_off, ports
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import Exit, UsageError
from gaffer_client.cli.output import print_error, print_json_line, printable, warn
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.procfile_app import choose_ports, concurrency, open_application, open_procfile

_LISTEN = "0A"  # TCP_LISTEN in the tables of proc(5)


def start(context: Context, args: Arguments) -> int:
    from gaffer_client.cli.foreground import run_in_foreground  # imports the manager and its loop

    jobs = _described(args)
    return run_in_foreground(
        list(map(ProcessConfig.from_dict, jobs)), verbose=args.flag("--verbose"), watch=not args.flag("--no-watch")
    )


def plan(context: Context, args: Arguments) -> int:
    """Show which processes `start` would run."""
    for job in _described(args):
        number, port = job["numprocesses"], (job.get("env") or {}).get("PORT") or job.get("port")
        if context.json:
            print_json_line({"job": job["name"], "would": "start", "numprocesses": number, "port": port})
        else:
            at = f" at port {str(port).removesuffix('+')}" if port else ""
            print(printable(f"{job['name']}: would start {number} process{'' if number == 1 else 'es'}{at}"))
    return Exit.OK


def _described(args: Arguments) -> list[dict[str, Any]]:
    """Return the jobs that are to run in the foreground."""
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
    return [_without_absent(job, running) for job in jobs if running[job["name"]]]


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
