"""The Procfile application that a command is about: where it is, what it is called, its job descriptions."""

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
    """The session of an application: `name`, or the name of its folder when that is None or `.`."""
    if name not in (None, "."):
        return check_name(str(name), "session")
    root, _ = _places(args)
    folder = os.path.basename(root)
    try:
        return check_name(folder, "session")
    except BadRequest as error:
        raise UsageError(f"the folder's name can't name the application: {error.message}", hint="give a name") from None


def open_procfile(args: Arguments) -> Procfile:
    """The Procfile that the options -f, -d and -e describe; raises UsageError."""
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
            raise UsageError(f"there is no env file {missing}", hint="-e takes a file, or a variable as KEY=VALUE")
    try:
        procfile = Procfile(path, root, files, variables=variables)
    except FileNotFoundError as error:
        raise UsageError(
            f"there is no file {error.filename}", hint="-f names the Procfile, -d the folder that it is in"
        ) from None
    except OSError as error:
        hint = f"make it readable by your user: chmod u+r {error.filename}"
        raise UsageError(
            f"can't read {error.filename}: {error.strerror}", hint=hint if isinstance(error, PermissionError) else None
        ) from None
    except ConfigError as error:
        raise UsageError(f"{error.path}: {error.message}", hint=error.hint) from None
    for problem in procfile.warnings:
        warn(f"{problem.path}: {problem.message}")
    if not list(procfile.processes()):
        raise UsageError(f"{path} names no process type", hint="write lines such as `web: python server.py`")
    return procfile


def concurrency(words: Iterable[str], types: Iterable[str]) -> dict[str, int]:
    """Read `type=number` settings, each word a comma list of them; raises UsageError.

    `all=number` is for the types that are not named, as in foreman.
    """
    known = list(types)
    numbers: dict[str, int] = {}
    others: dict[str, int] = {}
    for item in (part.strip() for word in words for part in word.split(",")):
        name, equals, number = item.partition("=")
        if not equals or not (number.isascii() and number.isdecimal()):
            raise UsageError(f"{item!r} is not a concurrency", hint="write type=number,type=number")
        if name == "all" and name not in known:
            others = dict.fromkeys(known, int(number))
        elif name not in known:
            raise UsageError(
                f"the Procfile has no type {name!r}",
                hint=did_you_mean(name, known) or f"its types are {', '.join(known)}",
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
    """The `port` setting of each type: from the base `wanted` on, `auto`, or by the foreman rule (see ports).

    `find_free()` returns the block for that rule, the first one by default, None when no ports are left. Raises
    UsageError, and CommandFailed when there are not enough ports.
    """
    if wanted == "auto":
        return dict.fromkeys(types, "auto")
    for name, number in numbers.items():
        if number > ports.PER_TYPE:
            raise UsageError(
                f"{name}={number} needs more ports than the {ports.PER_TYPE} of a type", hint="--port auto"
            )
    chosen: Mapping[str, str] | None
    if wanted is None:
        chosen = find_free() if find_free else ports.block(types, ports.BASE)
    elif wanted.isascii() and wanted.isdecimal() and 0 < int(wanted) <= ports.HIGHEST:
        chosen = ports.block(types, int(wanted))
    else:
        raise UsageError(f"{wanted!r} is not a port", hint="-p takes a number, or auto for any free port")
    if chosen is None:
        raise CommandFailed(
            f"there are no {ports.PER_TYPE} ports left for each of {len(types)} types", hint="--port auto"
        )
    return chosen


def describe(procfile: Procfile, numbers: Mapping[str, int], chosen: Mapping[str, str]) -> list[dict[str, Any]]:
    """The job descriptions of all types, to be run in the root of the application.

    Each type gets a port, unless the env has a PORT; it is announced for `web` and for types whose command uses $PORT.
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
    return os.path.exists(path) and not os.path.isdir(path)  # a pipe too: -e <(command)


def _places(args: Arguments) -> tuple[str, str]:
    """The root of the application and the path of its Procfile."""
    given, directory = args.text("--procfile"), args.text("--directory")
    path = os.path.abspath(given or os.path.join(directory or ".", "Procfile"))
    if directory or (os.path.exists(path) and not os.path.isfile(path)):  # a pipe has no folder: -f <(command)
        return os.path.abspath(directory or "."), path
    return os.path.dirname(path), path
