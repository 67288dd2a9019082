"""`gaffer start`, `run` and `export`: what is done with a Procfile without a node."""

import sys
from collections.abc import Mapping
from configparser import ConfigParser
from typing import Any, TextIO

import msgspec

from gaffer.config import ProcessConfig
from gaffer.launch import environment
from gaffer.procfile import Procfile
from gaffer.rules import did_you_mean
from gaffer_client.cli import one_off
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import Exit, UsageError
from gaffer_client.cli.output import print_error
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.procfile_app import app_name, choose_ports, concurrency, describe, open_procfile
from gaffer_client.cli.table import Command, Option


def start(context: Context, args: Arguments) -> int:
    from gaffer_client.cli.foreground import run_in_foreground  # brings in the manager and its loop

    procfile, jobs = _described(args)
    types = list(dict.fromkeys(args.words("<type>"))) or list(jobs)
    for name in types:
        _check_type(name, procfile)
    # Processes get the environment of the shell, and no stdin: there is one terminal for all.
    env = _environment(procfile)
    chosen = [{**jobs[name], "env": env, "os_env": True, "redirect_input": False} for name in jobs if name in types]
    if not any(job["numprocesses"] for job in chosen):
        raise UsageError("there is nothing to run", hint="give one type at least one process")
    return run_in_foreground([ProcessConfig.from_dict(job) for job in chosen], verbose=args.flag("--verbose"))


def run(context: Context, args: Arguments) -> int:
    words = args.words("<args>")
    if not words:
        raise UsageError("there is no command to run", hint="such as `gaffer run python manage.py migrate`")
    copies = _copies(args.words("--concurrency"))
    procfile = open_procfile(args)
    env = environment(ProcessConfig("run", words[0], env=_environment(procfile), os_env=True), {})
    try:
        return one_off.run_command(words, procfile.root, env, copies)
    except OSError as error:
        print_error(context.program.name, f"can't run {error.filename}: {error.strerror}")
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
    procfile, jobs = _described(args)
    name = args.text("<name>")
    if name is not None:
        _check_type(name, procfile)
        jobs = {name: jobs[name]}
    path = args.text("--out")
    if path is None:
        _write(sys.stdout, format_, args, procfile, jobs, name)
    else:
        with open(path, "w", encoding="utf-8") as file:
            _write(file, format_, args, procfile, jobs, name)
    return Exit.OK


def _write(
    file: TextIO, format_: str, args: Arguments, procfile: Procfile, jobs: Mapping[str, Any], name: str | None
) -> None:
    if format_ == "json":
        document = jobs[name] if name is not None else {"jobs": list(jobs.values())}
        file.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")
    else:
        _as_ini(procfile, app_name(args, None), jobs).write(file)


def _as_ini(procfile: Procfile, app: str, jobs: Mapping[str, Any]) -> ConfigParser:
    """The jobs as sections of a gafferd configuration; they run as `gaffer load` would run them."""
    config = procfile.as_configparser({name: job["numprocesses"] for name, job in jobs.items()})
    for name, _ in procfile.processes():
        if name not in jobs:
            config.remove_section(f"process:{app}:{name}")
            config.remove_section(f"env:{app}:{name}")
            continue
        job, section = jobs[name], config[f"process:{app}:{name}"]
        section["cwd"] = job["cwd"]
        section["port"] = job["port"]
        section["redirect_output"] = ", ".join(job["redirect_output"])
        if "endpoints" in job:
            section["endpoints"] = ", ".join(job["endpoints"]) or "none"
    return config


def _described(args: Arguments) -> tuple[Procfile, dict[str, dict[str, Any]]]:
    """The Procfile, and the descriptions of its types by their names."""
    procfile = open_procfile(args)
    types = [name for name, _ in procfile.processes()]
    numbers = concurrency(args.words("--concurrency"), types)
    ports = choose_ports(args.text("--port"), types, numbers)
    return procfile, {job["name"]: job for job in describe(procfile, numbers, ports)}


def _check_type(name: str, procfile: Procfile) -> None:
    types = [known for known, _ in procfile.processes()]
    if name not in types:
        raise UsageError(
            f"the Procfile has no type {name!r}", hint=did_you_mean(name, types) or f"its types are {', '.join(types)}"
        )


_CONCURRENCY = Option(
    "-c SPEC, --concurrency=SPEC",
    "how many processes of each type, as type=number,type=number (default: 1 each)",
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
        options=(_CONCURRENCY, _PORT, Option("-v, --verbose", "show all events, not only spawn and exit")),
        details="""
            Runs all types of the Procfile, or those that are named, in the application's folder with the variables of
            the shell and of its .env, and shows what they write. Processes that end are started again.

            Each type has 100 ports of its own, from 8000 on in the order of the Procfile; a process finds its port in
            PORT. Standard input is empty.

            Ctrl-C stops all of them, a second Ctrl-C kills them at once.
        """,
        aliases=("dev:start",),
    ),
    Command(
        "run",
        "Run a command once in the environment of an application",
        run,
        "nobody",
        "[<args>...]",
        options=(Option("-c NUMBER, --concurrency=NUMBER", "how many of it to run at once (default: 1)", repeat=True),),
        details="""
            Runs the command in the application's folder with the variables of the shell and of its .env, on this
            terminal, and ends with its exit status. All words after the command are its own, options too.
        """,
        aliases=("dev:run",),
        passes_on=True,
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
    ),
)
