"""The config of a job: `JobConfig` and `FlappingInfo`, validated when made and frozen afterwards.

The fields of `JobConfig` are the schema: each names the rule that checks and normalises its value, so JSON, INI,
YAML and Python keywords share one set of names, defaults and messages.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self, TypeVar

from gaffer.errors import QUOTED, ConfigError, InvalidValue, Problem, did_you_mean, quoted
from gaffer.jobs import rules
from gaffer.jobs.rules import FlappingInfo
from gaffer.jobs.words import SplitError, Word, parse_words, substitute_env

T = TypeVar("T")


def setting(rule: rules.Rule, default: Any = dataclasses.MISSING, *, live: bool = False, factory: Any = None) -> Any:
    """A field of JobConfig; `live` ones apply to running processes without a restart (design rule 2)."""
    metadata = {"rule": rule, "live": live}
    if factory is not None:
        return field(default_factory=factory, metadata=metadata, kw_only=True)
    if default is dataclasses.MISSING:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata, kw_only=True)


@dataclass(frozen=True)
class JobConfig:
    """The settings of one job. Raises ConfigError with every mistake at once.

    Times are in seconds. `uid` and `gid` are names or numbers. See the reference of the settings for each key.
    """

    name: str = setting(rules.job_name)
    """The name of the job."""
    cmd: str = setting(rules.command)
    """The command line. `$VAR` and `${VAR}` outside single quotes are replaced from the environment of the process."""
    args: Sequence[str] = setting(rules.words, ())
    """Further arguments, after those in `cmd`, with variables replaced likewise."""
    env: Mapping[str, str] = setting(rules.variables, factory=dict)
    """Variables for the process; they win over all others."""
    uid: int | str | None = setting(rules.user_or_group, None)
    """The user to run as; that of the manager unless given."""
    gid: int | str | None = setting(rules.user_or_group, None)
    """The group to run as; that of `uid` when that is given."""
    cwd: str | None = setting(rules.optional_text, None)
    """The folder to run in; the manager's unless given."""
    detach: bool = setting(rules.boolean, False)
    """Run in a session of its own and survive the manager, which supervises it while it lives itself."""
    shell: bool = setting(rules.boolean, False)
    """Run `cmd` unchanged by `sh -c`, which replaces the variables."""
    os_env: bool = setting(rules.boolean, False)
    """Pass the manager's own environment on. Files (INI) have true for a default."""
    numprocesses: int = setting(rules.count, 1, live=True)
    """The number of processes to keep running."""
    redirect_output: Sequence[str] = setting(rules.outputs, ())
    """The labels of stdout and stderr for readers; an output without a label can't be read."""
    redirect_input: bool = setting(rules.boolean, False)
    """Make stdin writable."""
    custom_streams: Sequence[str] = setting(rules.extra_streams, ())
    """Further pipes in both directions, which the process finds at descriptors 3, 4 and so on."""
    custom_channels: Sequence[Any] = setting(rules.channels, ())
    """Open handles to pass on after those; in Python only."""
    logs: bool = setting(rules.boolean, True)
    """Write the output to log files, if the manager has a log directory."""
    log_max_bytes: int = setting(rules.size, 10 * 1024**2)
    """The size at which a log file is rotated."""
    log_backups: int = setting(rules.backups, 3)
    """The number of rotated files to keep."""
    graceful_timeout: float = setting(rules.seconds, 30.0, live=True)
    """Seconds from SIGTERM to SIGKILL."""
    drain_timeout: float = setting(rules.seconds, 0.0, live=True)
    """Seconds that a process stays, announced as draining, before it is stopped."""
    kill_group: bool = setting(rules.boolean, True, live=True)
    """Signal the whole process group, and end the group when its leader exits."""
    priority: int | None = setting(rules.optional_whole, None, live=True)
    """Jobs of a file start in ascending order; those without a priority start last."""
    flapping: FlappingInfo | None = setting(rules.flapping_policy, None, live=True)
    """When to pause a crash loop and when to give up; unset, never."""
    start: bool = setting(rules.boolean, True, live=True)
    """Start the job when it is loaded."""
    startsecs: float = setting(rules.seconds, 1.0, live=True)
    """A process with at least this uptime, in seconds, is replaced at once when it ends; others after a pause."""
    backoff: float = setting(rules.seconds, 0.1, live=True)
    """Seconds before the first restart attempt; doubled for each further one."""
    backoff_max: float = setting(rules.seconds, 30.0, live=True)
    """The longest pause between attempts, in seconds."""
    port: str | None = setting(rules.port_plan, None)
    """The variable PORT of each process; a PORT in `env` wins."""
    endpoints: Sequence[str] | None = setting(rules.endpoint_list, None)
    """The endpoints to announce of each process; `http:$PORT` when it has a port."""
    labels: Mapping[str, str] = setting(rules.variables, factory=dict, live=True)
    """Free-form labels of the job, shown in its info."""

    def __post_init__(self) -> None:
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values, problems = _check(given, "$", lax=False, known=tuple(_FIELDS))
        if problems:
            raise ConfigError(problems)
        for key, value in values.items():
            object.__setattr__(self, key, value)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], *, path: str = "$", lax: bool = False) -> Self:
        """Make a config from a JSON object; `lax` accepts strings for all types, as in INI files.

        Raises ConfigError, which is a ValueError, with every mistake and its place below `path`.
        """
        values, problems = _check(config, path, lax)
        if problems:
            raise ConfigError(problems)
        return cls._from_checked(values)

    @classmethod
    def _from_checked(cls, values: Mapping[str, Any]) -> Self:
        made = object.__new__(cls)
        for f in dataclasses.fields(cls):
            object.__setattr__(made, f.name, values[f.name] if f.name in values else _default_of(f))
        return made

    def to_dict(self) -> dict[str, Any]:
        """Every setting as JSON types, without the channels that live only in this process."""
        result: dict[str, Any] = {}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if f.name == "custom_channels":
                continue
            if isinstance(value, FlappingInfo):
                value = value.to_dict()
            elif isinstance(value, tuple):
                value = list(value)
            elif isinstance(value, Mapping):
                value = dict(value)
            result[f.name] = value
        return result

    def replace(self, **changes: Any) -> Self:
        """A copy with some settings changed. Raises ConfigError when they don't fit, TypeError for unknown ones."""
        for key in changes:
            if key not in _FIELDS:
                raise TypeError(f"a process has no setting {key!r}")
        current = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values, problems = _check(changes, "$", lax=False, known=tuple(_FIELDS), base=current)
        if problems:
            raise ConfigError(problems)
        return self._from_checked(values)

    def get(self, key: str, default: T | None = None) -> Any | T | None:
        """The setting `key`, or `default` when there is no such setting."""
        return getattr(self, key) if key in PROCESS_KEYS else default

    def __getitem__(self, key: str) -> Any:
        if key not in PROCESS_KEYS:
            raise KeyError(key)
        return getattr(self, key)

    def __contains__(self, key: object) -> bool:
        return key in PROCESS_KEYS

    def __iter__(self) -> Iterator[str]:
        return iter(PROCESS_KEYS)

    def __repr__(self) -> str:
        """The settings that are not the default; the values of variables may be secrets and are left out."""
        given = [repr(self.name), repr(self.cmd)]
        for f in dataclasses.fields(self)[2:]:
            value = getattr(self, f.name)
            default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
            if value != default and not (not value and not default):
                given.append(f"{f.name}=<{len(value)} variables>" if f.name == "env" else f"{f.name}={value!r}")
        return f"{type(self).__name__}({', '.join(given)})"

    __hash__ = None  # type: ignore[assignment]

    def needs_restart(self, other: "JobConfig") -> bool:
        """Whether processes launched with `self` must be replaced for `other` to apply."""
        return any(
            getattr(self, f.name) != getattr(other, f.name) for f in dataclasses.fields(self) if not f.metadata["live"]
        )

    def command(self) -> list[str]:
        """The words to execute, before variables are replaced (TPL-02, TPL-03)."""
        return [*(word.text for word in self._words), *self.args]

    def arguments(self, env: Mapping[str, str]) -> list[str]:
        """The words to execute, with variables replaced from `env` (TPL-26)."""
        return [
            *(word.expand(env) for word in self._words),
            *(substitute_env(word, env) for word in self.args),
        ]

    @functools.cached_property
    def _words(self) -> list[Word]:
        return parse_words(self.cmd)

    def port_of(self, slot: int) -> int | None:
        """Return the fixed port of slot `slot` (from 1), or None if it has none or gets one when started.

        A PORT in `env` wins: it is the port of every process of the job.
        """
        if "PORT" in self.env:
            return rules.port_number(self.env["PORT"])
        if self.port is None or self.port == "auto":
            return None
        return int(self.port.rstrip("+")) + slot - 1

    def endpoints_of(self, port: int | None) -> list["EndpointSpec"]:
        """The endpoints of an instance whose PORT is `port`; `http:$PORT` when a port is set and no endpoints are."""
        items = self.endpoints if self.endpoints is not None else (("http:$PORT",) if port else ())
        result = []
        for item in items:
            name, _, number = item.partition(":")
            chosen = int(number) if number.isdecimal() else port
            if chosen:
                result.append(EndpointSpec(name, chosen))
        return result


class EndpointSpec(NamedTuple):
    """A named port of an instance."""

    name: str
    port: int


_FIELDS = {f.name: f for f in dataclasses.fields(JobConfig)}

# The keys of a description; channels are open handles that only a program can pass on (TPL-19).
PROCESS_KEYS: tuple[str, ...] = tuple(name for name in _FIELDS if name != "custom_channels")


def find_problems(config: Any, path: str = "$", *, lax: bool = False) -> list[Problem]:
    """Every mistake in a process description, each with its place below `path`; empty when it is fine."""
    return _check(config, path, lax)[1]


def _check(
    config: Any,
    path: str,
    lax: bool,
    known: tuple[str, ...] = PROCESS_KEYS,
    base: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], list[Problem]]:
    """The values of the settings in `config`, over those of `base`, which are checked already; and every mistake."""
    if not isinstance(config, Mapping):
        return {}, [Problem(path, f"expected an object that describes a process, got {quoted(config)}")]
    values: dict[str, Any] = dict(base or {})
    problems: list[Problem] = []
    for key, given in config.items():
        if key not in known:
            problems.append(
                Problem(
                    f"{path}.{str(key)[:QUOTED]}",
                    f"unknown key {quoted(key)}",
                    did_you_mean(str(key), PROCESS_KEYS),
                )
            )
            continue
        if given is None:
            given = _default_of(_FIELDS[key])
        try:
            values[key] = _FIELDS[key].metadata["rule"](given, lax)
        except InvalidValue as wrong:
            problems.append(Problem(f"{path}.{key}{wrong.path}", f"{key}: {wrong.message}", wrong.hint))
    for key in ("name", "cmd"):
        if key not in config and base is None:
            problems.append(Problem(f"{path}.{key}", f"{key} is missing", f"say what {_MISSING[key]}"))
    if ("cmd" in config or "shell" in config) and "cmd" in values and not values.get("shell"):
        try:
            parse_words(values["cmd"])
        except SplitError as error:
            problems.append(Problem(f"{path}.cmd", f"cmd: can't be split into words: {error}", error.hint))
    if not problems:
        values |= _quoted_arguments(values["cmd"], config.get("args"))
        problems.extend(_contradictions(values, path))
    return values, problems


def _quoted_arguments(cmd: str, args: Any) -> dict[str, Any]:
    """A text `args` that quotes a `$` becomes a part of `cmd`, because the words of a list have no quotes."""
    if isinstance(args, str) and any(word.quotes_dollar for word in parse_words(args)):
        return {"cmd": f"{cmd} {args}", "args": ()}
    return {}


def _default_of(setting: "dataclasses.Field[Any]") -> Any:
    """Return the value that null stands for: the default of the setting, or None if it has none."""
    if setting.default_factory is not dataclasses.MISSING:
        return setting.default_factory()
    return None if setting.default is dataclasses.MISSING else setting.default


_MISSING = {"name": "the job is called", "cmd": "to run"}


def _contradictions(values: Mapping[str, Any], path: str) -> Iterator[Problem]:
    port = values.get("port") if "PORT" not in values.get("env", {}) else None
    count = values.get("numprocesses", 1)
    if port and port.isdecimal() and count > 1:
        yield Problem(
            f"{path}.port",
            f"port: {count} processes can't share port {port}",
            f"write {port}+ to give each its own port from {port} on, or auto",
        )
    if port and port.endswith("+") and int(port[:-1]) + count - 1 > 65535:
        yield Problem(f"{path}.port", f"port: {count} ports from {port[:-1]} on go past 65535", "start lower")
    for label in sorted({*values.get("custom_streams", ())} & {*values.get("redirect_output", ())}):
        yield Problem(
            f"{path}.custom_streams",
            f"custom_streams: {label!r} is the label of an output already",
            "give each stream its own label",
        )
    if values.get("detach") and values.get("redirect_output"):
        yield Problem(
            f"{path}.redirect_output",
            "redirect_output: a detached process outlives the pipes it would write to",
            "leave redirect_output out, or let the program write to a file",
        )
    if (
        port is None
        and any("$" in item for item in values.get("endpoints") or ())
        and "PORT" not in values.get("env", {})
    ):
        yield Problem(
            f"{path}.endpoints",
            "endpoints: $PORT is used but no port is set",
            "add port = auto, 8000 or 8000+",
        )
