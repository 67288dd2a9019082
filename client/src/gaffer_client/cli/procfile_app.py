"""The Procfile application of a command: its location, name, process types and job descriptions."""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gaffer.errors import ConfigError, InvalidValue, Problem, did_you_mean
from gaffer.jobs import ordering, rules
from gaffer.jobs.config import JobConfig, find_problems
from gaffer.jobs.names import JobName
from gaffer.jobs.words import SplitError
from gaffer.procfile import Procfile
from gaffer.runtime.ini import position
from gaffer_client.cli import ports
from gaffer_client.cli.companion import Companion, Entry, find_companion, read_companion
from gaffer_client.cli.errors import CommandFailed, UsageError
from gaffer_client.cli.output import warn
from gaffer_client.cli.parse import Arguments
from gaffer_client.cli.places import find_places

_USES_PORT = re.compile(r"\$(?:PORT\b|\{PORT\})")


@dataclass(frozen=True)
class Application:
    """The process types of a Procfile and of the companion file next to it, if there is one."""

    procfile: Procfile
    companion: Companion | None = None

    @cached_property
    def types(self) -> list[str]:
        """The names of all types: those of the Procfile, then those that only the companion has."""
        names = [name for name, _ in self.procfile.processes()]
        return names + [name for name, entry in self._entries.items() if name not in names and "cmd" in entry.settings]

    @property
    def root(self) -> str:
        """The directory of the application."""
        return self.procfile.root

    def check_type(self, name: str) -> None:
        """Raise UsageError if the application has no type `name`."""
        if name not in self.types:
            raise UsageError(
                f"the Procfile has no type {name!r}",
                hint=did_you_mean(name, self.types) or f"known types: {', '.join(self.types)}",
            )

    def numbers(self, given: Mapping[str, int]) -> dict[str, int]:
        """Return the number of processes of each type: `given`, that of the companion, or 1."""
        numbers = {}
        for name in self.types:
            try:
                configured = self._number(name)
            except InvalidValue:  # reported by `describe`
                configured = 1
            numbers[name] = given.get(name, configured)
        return numbers

    def _number(self, name: str) -> int:
        given = self._settings(name).get("numprocesses")
        return 1 if given is None else rules.count(given, True)

    def own_ports(self, numbers: Mapping[str, int]) -> dict[str, ports.Span | None]:
        """Return the ports of each type whose port the companion sets, None if they are chosen at start."""
        with_port = [name for name in self.types if "port" in self._settings(name)]
        return {name: ports.span({"port": self._settings(name)["port"]}, numbers[name]) for name in with_port}

    def with_dependencies(self, names: Iterable[str]) -> list[str]:
        """Return the types `names` and those that they come after, in the order of `types`."""
        wanted: set[str] = set()
        todo = list(names)
        while todo:
            name = todo.pop()
            if name not in wanted:
                wanted.add(name)
                todo += [other for item in self._after(name) if (other := item.partition(":")[0]) in self.types]
        return [name for name in self.types if name in wanted]

    def describe(
        self, numbers: Mapping[str, int], chosen: Mapping[str, str], session: str, *, foreground: bool = False
    ) -> list[dict[str, Any]]:
        """Return the job descriptions of all types, to run in the root directory as jobs of `session`.

        Types get the port in `chosen` unless the env sets PORT. Ports of `web` and of types that use theirs are
        announced. `foreground`: they run as commands of the shell do, with its variables. Raises ConfigError with all
        mistakes in the Procfile and its companion.
        """
        problems = [*self.companion.problems] if self.companion else []
        problems += self._unknown_types()
        jobs = []
        for name in self.types:
            try:
                job = self._job(name, chosen.get(name), foreground=foreground)
            except SplitError as error:
                problems.append(Problem(self.procfile.place(name), f"{name}: {error}", error.hint))
                continue
            job["numprocesses"] = numbers.get(name, 1)
            found = [*self._hidden(name), *find_problems(job, lax=True)]
            problems += [self._located(name, problem) for problem in found]
            if not found:
                jobs.append(self._normalized(name, job))
        problems += self._disorder(session, alone=foreground)
        if problems:
            raise ConfigError(sorted(problems, key=position))
        return jobs

    def _job(self, name: str, port: str | None, *, foreground: bool) -> dict[str, Any]:
        settings = self._settings(name)
        command = dict(self.procfile.processes()).get(name)
        job = self.procfile.as_dict(name) if command else {"name": name, **self.procfile.defaults(name)}
        cwd, env = settings.get("cwd"), settings.get("env")
        job["cwd"] = os.path.join(self.root, cwd) if isinstance(cwd, str) else self.root
        if not settings.get("detach"):
            job["redirect_output"] = ["out", "err"]
        if foreground:
            # Their stdin is a silent pipe: they can't share the terminal, and watchers such as tailwindcss and
            # esbuild exit at end of file.
            job |= {"os_env": True, "redirect_input": True}
        if isinstance(env, Mapping | None):
            # The PWD of the shell is the directory gaffer was run in.
            base = {"PWD": job["cwd"], **job["env"]} if foreground else dict(job["env"])
            if "port" in settings:
                base.pop("PORT", None)
            env = {**base, **(env or {}), **self.procfile.given}
        line = f"{command or ''} {settings.get('cmd', '')} {settings.get('args', '')}"
        if not (name == "web" or "port" in settings or _USES_PORT.search(line)):
            job["endpoints"] = []
        job |= {**settings, "cwd": job["cwd"], "env": env}
        if port is not None and not (isinstance(env, Mapping) and "PORT" in env):
            job["port"] = port
        return job

    def _normalized(self, name: str, job: dict[str, Any]) -> dict[str, Any]:
        """Return a valid description with the settings of the companion as JSON types."""
        values = JobConfig.from_dict(job, lax=True).to_dict()
        given = {key.partition(".")[0] for key in self._settings(name)}  # action.NAME belongs to action
        kept = {key: value for key, value in job.items() if key.partition(".")[0] not in given}
        return kept | {key: values[key] for key in values if key in given}

    def _hidden(self, name: str) -> list[Problem]:
        """Return a problem for each setting that has its place elsewhere, or that an option of the command hides."""
        settings = self._settings(name)
        problems = []
        try:
            self._number(name)
        except InvalidValue as wrong:
            problems.append(Problem("$.numprocesses", f"numprocesses: {wrong.message}", wrong.hint))
        if "name" in settings:
            problems.append(Problem("$.name", "name: the type has a name already", "remove it"))
        if "." in name or ":" in name:
            problems.append(Problem("$", "a type belongs to no other session", "leave out the session"))
        if name in dict(self.procfile.processes()):
            place = self.procfile.place(name)
            problems += [
                Problem(f"$.{key}", f"{key}: the command is on {place}", "change that line, or remove one of the two")
                for key in ("cmd", "args", "shell")
                if key in settings
            ]
        return problems

    def _unknown_types(self) -> Iterable[Problem]:
        for name, entry in self._entries.items():
            if name not in self.types:
                nearest = did_you_mean(name, self.types)
                hint = nearest or f"add cmd to define it here; known types: {', '.join(self.types)}"
                yield Problem(f"{entry.file}:{entry.line}", f"the Procfile has no type {name!r}", hint)

    def _disorder(self, session: str, *, alone: bool) -> Iterable[Problem]:
        """Yield a problem for each unknown type that another one comes after, and one for a cycle.

        `alone`: there are no jobs of other sessions.
        """
        graph = {
            JobName(session, name): [each.job for each in ordering.dependencies(self._after(name), session)]
            for name in self.types
        }
        for name, after in graph.items():
            for index, other in enumerate(after):
                if other.session != session and alone:
                    message, hint = f"after: {other} is a job of another application", "load both onto a node"
                elif other.session == session and other not in graph:
                    message = f"after: the Procfile has no type {other.name!r}"
                    hint = did_you_mean(other.name, self.types) or f"known types: {', '.join(self.types)}"
                else:
                    continue
                yield self._located(name.name, Problem(f"$.after[{index}]", message, hint))
        if cycle := ordering.find_cycle(graph):
            path = " -> ".join(name.name for name in cycle)
            problem = Problem("$.after", f"after: the types wait for each other: {path}", "remove one of them")
            yield self._located(cycle[0].name, problem)

    def _after(self, name: str) -> tuple[str, ...]:
        try:
            return ordering.job_list(self._settings(name).get("after"), True)
        except InvalidValue:  # reported by `describe`
            return ()

    def _located(self, name: str, problem: Problem) -> Problem:
        entry = self._entries.get(name)
        place = entry.place(problem.path) if entry else None
        if place is None and name in dict(self.procfile.processes()):
            place = self.procfile.place(name)
        elif place is None and entry:
            place = f"{entry.file}:{entry.line}"
        return Problem(place or self.procfile.procfile, f"{name}: {problem.message}", problem.hint)

    @property
    def _entries(self) -> Mapping[str, Entry]:
        return self.companion.entries if self.companion else {}

    def _settings(self, name: str) -> Mapping[str, Any]:
        entry = self._entries.get(name)
        return entry.settings if entry else {}


def open_application(args: Arguments) -> Application:
    """Open the Procfile selected by the options -f, -d and -e, and its companion.

    Raises UsageError if one of them can't be read, ConfigError if one is not valid text or YAML. Mistakes in the
    settings are reported by `Application.describe`.
    """
    procfile = open_procfile(args)
    folder = os.path.dirname(procfile.procfile) if os.path.isfile(procfile.procfile) else procfile.root
    path = find_companion(folder)
    try:
        app = Application(procfile, read_companion(path) if path else None)
    except OSError as error:
        raise _unreadable(error) from None
    for problem in app.companion.warnings if app.companion else ():
        warn(f"{problem.path}: {problem.message}")
    if not app.types:
        raise UsageError(
            f"{procfile.procfile} defines no process types", hint="write lines such as `web: python server.py`"
        )
    return app


def open_procfile(args: Arguments) -> Procfile:
    """Open the Procfile selected by the options -f, -d and -e; raise UsageError if it can't be read."""
    root, path = find_places(args)
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
        raise _unreadable(error) from None
    except ConfigError as error:
        raise UsageError(f"{error.path}: {error.message}", hint=error.hint) from None
    for problem in procfile.warnings:
        warn(f"{problem.path}: {problem.message}")
    return procfile


def _unreadable(error: OSError) -> UsageError:
    hint = f"make it readable: chmod u+r {error.filename}" if isinstance(error, PermissionError) else None
    return UsageError(f"can't read {error.filename}: {error.strerror}", hint=hint)


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
    app: Application,
    numbers: Mapping[str, int],
    taken: Callable[[], Iterable[ports.Span]] = lambda: (),
    *,
    whole: bool = False,
) -> Mapping[str, str]:
    """Return the `port` setting of each type: from the base port `wanted`, `auto`, or as in foreman (see `ports`).

    Types whose port the companion sets get one only if `wanted` is given. `taken()` returns the ports in use, which
    are avoided if `wanted` is None; with `whole`, all 100 ports of a type must be free, not only those of its
    processes. Raises UsageError if `wanted` is invalid, and CommandFailed if there are not enough ports.
    """
    if wanted == "auto":
        return dict.fromkeys(app.types, "auto")
    own = app.own_ports(numbers) if wanted is None else {}
    widths = {name: 0 if name in own else numbers[name] for name in app.types}
    for name, number in widths.items():
        if number > ports.PER_TYPE:
            raise UsageError(f"{name}={number} exceeds the {ports.PER_TYPE} ports of a type", hint="use --port auto")
    chosen: Mapping[str, str] | None
    if wanted is None:
        if whole:
            widths = {name: 0 if name in own else ports.PER_TYPE for name in app.types}
        chosen = ports.free_block(app.types, [*taken(), *filter(None, own.values())], widths)
    elif wanted.isascii() and wanted.isdecimal() and 0 < int(wanted) <= ports.HIGHEST:
        chosen = ports.block(app.types, int(wanted))
    else:
        raise UsageError(f"{wanted!r} is not a port", hint="give a number, or auto for any free port")
    if chosen is None:
        raise CommandFailed(
            f"not enough ports: {len(app.types)} types need {ports.PER_TYPE} each", hint="use --port auto"
        )
    return {name: port for name, port in chosen.items() if name not in own}


def _is_env_file(path: str) -> bool:
    return os.path.exists(path) and not os.path.isdir(path)  # also a pipe: -e <(command)
