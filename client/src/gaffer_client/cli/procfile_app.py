"""The Procfile application of a command: its location, name and job descriptions."""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gaffer.errors import BadRequest, ConfigError, did_you_mean
from gaffer.jobs.names import check_name
from gaffer.jobs.words import SplitError
from gaffer.procfile import Procfile
from gaffer_client.cli import ports
from gaffer_client.cli.errors import CommandFailed, UsageError
from gaffer_client.cli.output import warn
from gaffer_client.cli.parse import Arguments

_USES_PORT = re.compile(r"\$(?:PORT\b|\{PORT\})")


def app_name(args: Arguments, name: str | None) -> str:
    """Return the session of an application: `name`, or the name of its directory if `name` is None or `.`."""
    if name not in (None, "."):
        return check_name(str(name), "session")
    root, _ = _places(args)
    folder = os.path.basename(root)
    try:
        return check_name(folder, "session")
    except BadRequest as error:
        raise UsageError(
            f"the directory name is not a valid application name: {error.message}", hint="give a name"
        ) from None


def open_procfile(args: Arguments) -> Procfile:
    """Open the Procfile selected by the options -f, -d and -e; raise UsageError if it can't be read."""
    root, path = _places(args)
    files, variables = [], {}
    for item in args.words("--env"):
        key, equals, value = item.partition("=")
        if _is_env_file(item):
            files.append(item)
        elif all(map(_is_env_file, listed := item.split(","))):
            files += listed
        elif equals and key:
            variables[key] = value
        else:
            missing = next(path for path in listed if not _is_env_file(path))
            raise UsageError(f"no such env file: {missing}", hint="give -e a file or KEY=VALUE")
    try:
        procfile = Procfile(path, root, files, variables=variables)
    except FileNotFoundError as error:
        raise UsageError(
            f"no such file: {error.filename}", hint="use -f for the path of the Procfile, or -d for its directory"
        ) from None
    except OSError as error:
        hint = f"make it readable: chmod u+r {error.filename}"
        raise UsageError(
            f"can't read {error.filename}: {error.strerror}", hint=hint if isinstance(error, PermissionError) else None
        ) from None
    except ConfigError as error:
        raise UsageError(f"{error.path}: {error.message}", hint=error.hint) from None
    for problem in procfile.warnings:
        warn(f"{problem.path}: {problem.message}")
    if not list(procfile.processes()):
        raise UsageError(f"{path} defines no process types", hint="write lines such as `web: python server.py`")
    return procfile


def concurrency(words: Iterable[str], types: Iterable[str]) -> dict[str, int]:
    """Parse comma-separated `type=number` settings; raise UsageError if one is invalid.

    `all=number` applies to the types that are not named, as in foreman.
    """
    known = list(types)
    numbers: dict[str, int] = {}
    others: dict[str, int] = {}
    for item in (part.strip() for word in words for part in word.split(",")):
        name, equals, number = item.partition("=")
        if not equals or not (number.isascii() and number.isdecimal()):
            raise UsageError(f"{item!r} is not a valid concurrency", hint="write type=number,type=number")
        if name == "all" and name not in known:
            others = dict.fromkeys(known, int(number))
        elif name not in known:
            raise UsageError(
                f"the Procfile has no type {name!r}",
                hint=did_you_mean(name, known) or f"known types: {', '.join(known)}",
            )
        else:
            numbers[name] = int(number)
    return {**others, **numbers}


def choose_ports(
    wanted: str | None,
    types: list[str],
    numbers: Mapping[str, int],
    find_free: Callable[[], Mapping[str, str] | None] | None = None,
) -> Mapping[str, str]:
    """Return the `port` setting of each type: from the base port `wanted`, `auto`, or as in foreman (see `ports`).

    `find_free()` returns the block to use if `wanted` is None, or None if no ports are left; by default, the first
    block is used. Raises UsageError if `wanted` is invalid, and CommandFailed if there are not enough ports.
    """
    if wanted == "auto":
        return dict.fromkeys(types, "auto")
    for name, number in numbers.items():
        if number > ports.PER_TYPE:
            raise UsageError(f"{name}={number} exceeds the {ports.PER_TYPE} ports of a type", hint="use --port auto")
    chosen: Mapping[str, str] | None
    if wanted is None:
        chosen = find_free() if find_free else ports.block(types, ports.BASE)
    elif wanted.isascii() and wanted.isdecimal() and 0 < int(wanted) <= ports.HIGHEST:
        chosen = ports.block(types, int(wanted))
    else:
        raise UsageError(f"{wanted!r} is not a port", hint="give a number, or auto for any free port")
    if chosen is None:
        raise CommandFailed(f"not enough ports: {len(types)} types need {ports.PER_TYPE} each", hint="use --port auto")
    return chosen


def describe(procfile: Procfile, numbers: Mapping[str, int], chosen: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the job descriptions of all types, to run in the root directory of the application.

    Each type gets a port unless the env sets PORT. Ports of `web` and of types whose command uses $PORT are announced.
    """
    jobs = []
    for name, command in procfile.processes():
        try:
            job = procfile.as_dict(name, numbers)
        except SplitError as error:
            raise UsageError(f"{procfile.place(name)}: {name}: {error}", hint=error.hint) from None
        job |= {"cwd": procfile.root, "redirect_output": ["out", "err"]}
        if "PORT" not in procfile.env:
            job["port"] = chosen[name]
        if name != "web" and not _USES_PORT.search(command):
            job["endpoints"] = []
        jobs.append(job)
    return jobs


def _is_env_file(path: str) -> bool:
    return os.path.exists(path) and not os.path.isdir(path)  # also a pipe: -e <(command)


def _places(args: Arguments) -> tuple[str, str]:
    """Return the root directory of the application and the path of its Procfile."""
    given, directory = args.text("--procfile"), args.text("--directory")
    path = os.path.abspath(given or os.path.join(directory or ".", "Procfile"))
    if directory or (os.path.exists(path) and not os.path.isfile(path)):  # a pipe has no directory: -f <(command)
        return os.path.abspath(directory or "."), path
    return os.path.dirname(path), path
