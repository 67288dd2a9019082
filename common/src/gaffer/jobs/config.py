"""The config of a job: `JobConfig` and `FlappingInfo`, validated when made and frozen afterwards.

The fields of `JobConfig` are the schema: each names the rule that checks and normalises its value, so JSON, INI,
YAML and Python keywords share one set of names, defaults and messages.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Self, TypeVar

from gaffer.errors import QUOTED, ConfigError, InvalidValue, Problem, did_you_mean, quoted
from gaffer.jobs import limits, listening, ordering, probing, rules
from gaffer.jobs import schedule as schedules
from gaffer.jobs.rules import FlappingInfo
from gaffer.jobs.words import SplitError, Word, parse_words, substitute_env
from gaffer.runtime.signals import parse_signal_value

T = TypeVar("T")


def setting(
    rule: rules.Rule,
    default: Any = dataclasses.MISSING,
    *,
    live: bool = False,
    factory: Any = None,
    example: str | None = None,
) -> Any:
    """A field of JobConfig; `live` ones apply to running processes without a restart (design rule 2).

    `example` is a value as written in a file, JSON for objects; None for a setting that only programs have.
    """
    metadata = {"rule": rule, "live": live, "example": example}
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

    name: str = setting(rules.job_name, example="web")
    """The name of the job."""
    cmd: str = setting(rules.command, example="python server.py --port $PORT")
    """The command line. `$VAR` and `${VAR}` outside single quotes are replaced from the environment of the process."""
    args: Sequence[str] = setting(rules.words, (), example="--verbose --name 'my app'")
    """Further arguments, after those in `cmd`, with variables replaced likewise."""
    env: Mapping[str, str] = setting(rules.variables, factory=dict, example='{"DEBUG": "1"}')
    """Variables for the process; they win over all others."""
    uid: int | str | None = setting(rules.user_or_group, None, example="www-data")
    """The user to run as; that of the manager unless given."""
    gid: int | str | None = setting(rules.user_or_group, None, example="www-data")
    """The group to run as; that of `uid` when that is given."""
    cwd: str | None = setting(rules.optional_text, None, example="/srv/shop")
    """The folder to run in; the manager's unless given."""
    detach: bool = setting(rules.boolean, False, example="true")
    """Run in a session of its own and survive the manager, which supervises it while it lives itself."""
    shell: bool = setting(rules.boolean, False, example="true")
    """Run `cmd` unchanged by `sh -c`, which replaces the variables."""
    os_env: bool = setting(rules.boolean, False, example="true")
    """Pass the manager's own environment on. Files (INI) have true for a default."""
    numprocesses: int = setting(rules.count, 1, live=True, example="4")
    """The number of processes to keep running."""
    redirect_output: Sequence[str] = setting(rules.outputs, (), example="out, err")
    """The labels of stdout and stderr for readers; an output without a label can't be read."""
    redirect_input: bool = setting(rules.boolean, False, example="true")
    """Make stdin writable."""
    custom_streams: Sequence[str] = setting(rules.extra_streams, (), example="control")
    """Further pipes in both directions, which the process finds at descriptors 3, 4 and so on."""
    custom_channels: Sequence[Any] = setting(rules.channels, ())
    """Open handles to pass on after those; in Python only."""
    logs: bool = setting(rules.boolean, True, example="false")
    """Write the output to log files, if the manager has a log directory."""
    log_max_bytes: int = setting(rules.size, 10 * 1024**2, example="64M")
    """The size at which a log file is rotated."""
    log_backups: int = setting(rules.backups, 3, example="10")
    """The number of rotated files to keep."""
    log_format: str = setting(rules.log_format, "raw", example="timestamps")
    """The format of the log files."""
    graceful_timeout: float = setting(rules.seconds, 30.0, live=True, example="90s")
    """Seconds from SIGTERM to SIGKILL."""
    drain_timeout: float = setting(rules.seconds, 0.0, live=True, example="5s")
    """Seconds that a process stays, announced as draining, before it is stopped."""
    kill_group: bool = setting(rules.boolean, True, live=True, example="false")
    """Signal the whole process group, and end the group when its leader exits."""
    priority: int | None = setting(rules.optional_whole, None, live=True, example="1")
    """Jobs of a file start in ascending order; those without a priority start last."""
    flapping: FlappingInfo | None = setting(rules.flapping_policy, None, live=True, example="4, 10, 30, 5")
    """When to pause a crash loop and when to give up; unset, never."""
    start: bool | str = setting(rules.start_mode, True, live=True, example="on-connection")
    """Start the job when it is loaded; `on-connection` starts its processes on the first connection to its sockets."""
    startsecs: float = setting(rules.seconds, 1.0, live=True, example="5s")
    """Seconds after which a process without a `ready` probe is ready. One that lived so long is replaced at once."""
    backoff: float = setting(rules.seconds, 0.1, live=True, example="500ms")
    """Seconds before the first restart attempt; doubled for each further one."""
    backoff_max: float = setting(rules.seconds, 30.0, live=True, example="5m")
    """The longest pause between attempts, in seconds."""
    env_file: Sequence[str] = setting(rules.paths, (), example="base.env, secrets.env")
    """Files with variables for the process, read at each start; later ones win, `env` wins over all."""
    stop_signal: str = setting(rules.signal_name, "TERM", live=True, example="QUIT")
    """The signal that asks a process to exit; SIGKILL follows after `graceful_timeout`."""
    reload_signal: str | None = setting(rules.optional_signal, None, live=True, example="HUP")
    """The signal that makes a process read its configuration again; unset, a reload replaces the process."""
    umask: str | None = setting(rules.umask, None, example="027")
    """The file mode creation mask, umask(2)."""
    nice: int | None = setting(rules.niceness, None, example="5")
    """The scheduling priority, setpriority(2); negative values need privileges."""
    rlimit_as: str | None = setting(limits.resource_limit, None, example="8589934592")
    """The largest address space, in bytes."""
    rlimit_core: str | None = setting(limits.resource_limit, None, example="unlimited")
    """The largest core file, in bytes."""
    rlimit_cpu: str | None = setting(limits.resource_limit, None, example="3600")
    """The CPU time, in seconds."""
    rlimit_data: str | None = setting(limits.resource_limit, None, example="1073741824")
    """The largest data segment, in bytes."""
    rlimit_fsize: str | None = setting(limits.resource_limit, None, example="1073741824")
    """The largest file that the process may create, in bytes."""
    rlimit_memlock: str | None = setting(limits.resource_limit, None, example="65536")
    """The memory that may be locked, in bytes."""
    rlimit_nofile: str | None = setting(limits.resource_limit, None, example="4096:65536")
    """The number of open descriptors."""
    rlimit_nproc: str | None = setting(limits.resource_limit, None, example="512")
    """The number of processes of the user."""
    rlimit_stack: str | None = setting(limits.resource_limit, None, example="16777216")
    """The largest stack, in bytes."""
    ready: str | None = setting(probing.probe, None, example="http:8000/health")
    """The probe that finds out whether a process is ready; without one it is ready after `startsecs`."""
    ready_interval: float = setting(rules.positive_seconds, 1.0, example="500ms")
    """Seconds between two `ready` probes."""
    ready_timeout: float = setting(rules.positive_seconds, 1.0, example="2s")
    """Seconds after which a `ready` probe fails."""
    ready_successes: int = setting(rules.at_least_one, 1, example="2")
    """Good `ready` probes in a row that make a process ready."""
    ready_failures: int = setting(rules.at_least_one, 3, example="5")
    """Failed `ready` probes in a row that make a ready process not ready."""
    start_timeout: float = setting(rules.seconds, 60.0, live=True, example="5m")
    """Seconds in which a process with a `ready` probe must be ready, else it is stopped and restarted."""
    live: str | None = setting(probing.probe, None, example="tcp:8000")
    """The probe that finds out whether a process still works; it is replaced if not."""
    live_interval: float = setting(rules.positive_seconds, 10.0, example="30s")
    """Seconds between two `live` probes."""
    live_timeout: float = setting(rules.positive_seconds, 1.0, example="5s")
    """Seconds after which a `live` probe fails."""
    live_failures: int = setting(rules.at_least_one, 3, example="5")
    """Failed `live` probes in a row that replace a process."""
    after: Sequence[str] = setting(ordering.job_list, (), live=True, example="db, cache:started, migrate:completed")
    """Jobs that must be ready, started or completed before this one starts; it is stopped before them."""
    kind: str = setting(rules.job_kind, "service", example="once")
    """Whether processes are kept running, or run to completion."""
    restart: str | None = setting(rules.restart_policy, None, live=True, example="on-failure")
    """Which processes are restarted when they end by themselves."""
    exit_codes: Sequence[int] = setting(rules.exit_codes, (0,), live=True, example="0, 3")
    """Exit codes that mean success."""
    max_restarts: int = setting(rules.restarts, 0, live=True, example="5")
    """Restarts in a row, each within 10 s, after which the job is given up; 0: no limit."""
    essential: bool = setting(rules.boolean, False, live=True, example="true")
    """End the manager, with the exit code of the job, when the job has completed or failed."""
    max_unavailable: int = setting(rules.at_least_one, 1, live=True, example="2")
    """Processes that a rolling restart may replace at a time."""
    surge: int = setting(rules.count, 0, live=True, example="1")
    """Additional processes that a rolling restart starts first, so that as many as before are ready at any time."""
    auto_rollback: bool = setting(rules.boolean, False, live=True, example="true")
    """Return to the previous definition when the processes of an update don't become ready."""
    max_memory: int = setting(rules.size, 0, live=True, example="512M")
    """The memory of a process and its descendants, in bytes, above which it is replaced; 0: no limit."""
    max_lifetime: float = setting(rules.seconds, 0.0, live=True, example="24h")
    """Seconds after which a process is replaced, less up to 10 % at random; 0: no limit."""
    socket: Sequence[str] = setting(listening.socket_list, (), example="tcp:127.0.0.1:8080, admin=unix:/run/shop.sock")
    """Listening sockets that the manager opens and passes to the processes, sd_listen_fds(3)."""
    idle_timeout: float = setting(rules.seconds, 0.0, live=True, example="10m")
    """Seconds without a connection after which an `on-connection` job stops its processes; 0: never."""
    schedule: str | None = setting(schedules.cron, None, live=True, example="*/5 * * * *")
    """When the processes run to completion, again and again."""
    timezone: str | None = setting(schedules.time_zone, None, live=True, example="Europe/Paris")
    """The time zone of `schedule`."""
    every: float = setting(schedules.interval, 0.0, live=True, example="30s")
    """Seconds from the start of one run to the start of the next; 0: no such runs."""
    overlap: str = setting(rules.overlap_policy, "skip", live=True, example="queue")
    """What to do when a run is due during another one."""
    missed: str = setting(rules.missed_policy, "skip", live=True, example="once")
    """What to do about runs that were due while the manager was down."""
    before_start: str | None = setting(rules.optional_command, None, live=True, example="python manage.py check")
    """A command to run before each start; unless it exits with 0, the process is not started."""
    after_exit: str | None = setting(
        rules.optional_command, None, live=True, example="sh -c 'echo $GAFFER_REASON >> exits.log'"
    )
    """A command to run after each exit, with GAFFER_EXIT_CODE and GAFFER_REASON in its environment."""
    action: Mapping[str, str] = setting(
        rules.actions, factory=dict, live=True, example='{"migrate": "python manage.py migrate"}'
    )
    """Commands to run on request as the user of the job, by name."""
    watch: Sequence[str] = setting(rules.globs, (), example="src/**/*.py, *.toml")
    """Files whose change restarts the job, in a foreman or a manager that watches files."""
    survive: bool = setting(rules.boolean, True, live=True, example="false")
    """Keep the processes when gafferd is killed or upgraded: with a keeper, the next gafferd continues with them."""
    orphans: str | None = setting(rules.orphan_policy, None, live=True, example="end")
    """What to do with processes that outlived both gafferd and its keeper."""
    port: str | None = setting(rules.port_plan, None, example="8000+")
    """The variable PORT of each process; a PORT in `env` wins."""
    endpoints: Sequence[str] | None = setting(rules.endpoint_list, None, example="http:$PORT, admin:9000")
    """The endpoints to announce of each process; `http:$PORT` when it has a port."""
    labels: Mapping[str, str] = setting(rules.variables, factory=dict, live=True, example='{"team": "shop"}')
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

    def backoff_after(self, failures: int) -> float:
        """Return the delay before the next start, in seconds, after a number of failures in a row (1 or more)."""
        return float(min(self.backoff * 2.0 ** min(failures - 1, 40), self.backoff_max))

    def needs_restart(self, other: "JobConfig") -> bool:
        """Whether processes launched with `self` must be replaced for `other` to apply."""
        return self is not other and any(
            getattr(self, f.name) != getattr(other, f.name) for f in dataclasses.fields(self) if not f.metadata["live"]
        )

    @functools.cached_property
    def launch_digest(self) -> str:
        """A digest of the settings that a running process depends on; a later version computes the same."""
        given = {
            f.name: sorted(value.items()) if isinstance(value, Mapping) else value
            for f in dataclasses.fields(self)
            if not f.metadata["live"]
            and f.name != "custom_channels"
            and (value := getattr(self, f.name)) != _default_of(f)
        }
        return hashlib.sha256(repr(sorted(given.items())).encode()).hexdigest()[:16]

    def command(self) -> list[str]:
        """The words to execute, before variables are replaced (TPL-02, TPL-03)."""
        return [*(word.text for word in self._words), *self.args]

    def arguments(self, env: Mapping[str, str]) -> list[str]:
        """The words to execute, with variables replaced from `env` (TPL-26)."""
        return [
            *(word.expand(env) for word in self._words),
            *(substitute_env(word, env) for word in self.args),
        ]

    def orphan_policy(self, launched: "JobConfig") -> Literal["adopt", "end"] | None:
        """Return what to do with an orphan that was started with the definition `launched`; None: `orphans` is unset.

        Its sockets can't be opened again while it listens on them, and the other ends of its streams are gone.
        """
        if launched.socket or launched.custom_streams or not self.survive:
            return "end"
        return None if self.orphans is None else "adopt" if self.orphans == "adopt" else "end"

    @property
    def runs_once(self) -> bool:
        """Whether its processes run to completion, once or by a schedule."""
        return self.kind == "once" or self.scheduled

    @property
    def scheduled(self) -> bool:
        """Whether a schedule starts its processes."""
        return self.schedule is not None or self.every > 0

    @property
    def demand(self) -> tuple[Any, ...]:
        """What calls for its processes."""
        return (self.start == rules.ON_CONNECTION, self.schedule, self.timezone, self.every)

    @property
    def restart_policy(self) -> str:
        """`restart`, or its default for this kind of job."""
        return self.restart or ("never" if self.runs_once else "always")

    @functools.cached_property
    def notifies(self) -> bool:
        """Whether its processes send notifications, sd_notify(3)."""
        probes = (probing.parse_probe(each) for each in (self.ready, self.live) if each is not None)
        return any(each.kind is probing.ProbeKind.NOTIFY for each in probes)

    @functools.cached_property
    def stop_signum(self) -> int:
        """The number of `stop_signal`."""
        return parse_signal_value(self.stop_signal)

    @property
    def reload_signum(self) -> int | None:
        """The number of `reload_signal`."""
        return None if self.reload_signal is None else parse_signal_value(self.reload_signal)

    @functools.cached_property
    def resource_limits(self) -> dict[str, str]:
        """The resource limits that are set, by the name of the resource in lower case, such as `nofile`."""
        prefix = "rlimit_"
        given = {name: getattr(self, name) for name in PROCESS_KEYS if name.startswith(prefix)}
        return {name.removeprefix(prefix): limit for name, limit in given.items() if limit is not None}

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
    for key, given in _with_actions(config).items():
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
            problems.append(Problem(f"{path}.{key}", f"{key} is missing", f"set {key} to the {_MISSING[key]}"))
    if ("cmd" in config or "shell" in config) and "cmd" in values and not values.get("shell"):
        try:
            parse_words(values["cmd"])
        except SplitError as error:
            problems.append(Problem(f"{path}.cmd", f"cmd: can't be split into words: {error}", error.hint))
    if not problems:
        values |= _quoted_arguments(values["cmd"], config.get("args"))
        problems.extend(_contradictions(values, path))
    return values, problems


def _with_actions(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Collect the keys `action.NAME` in one object `action`."""
    found = {key: value for key, value in config.items() if isinstance(key, str) and key.startswith("action.")}
    if not found:
        return config
    given = config.get("action") or {}
    if not isinstance(given, Mapping):
        return {key: value for key, value in config.items() if key not in found}
    named = {key.removeprefix("action."): value for key, value in found.items() if value not in (None, "")}
    return {**{key: value for key, value in config.items() if key not in found}, "action": {**given, **named}}


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


_MISSING = {"name": "name of the job", "cmd": "command to run"}


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
    if values.get("detach") and not values.get("survive", True):
        yield Problem(
            f"{path}.survive",
            "survive: a detached process always survives gafferd",
            "leave out survive or detach",
        )
    yield from _contradictions_of_supervision(values, path)
    if port is None and any("$" in item for item in values.get("endpoints") or ()) and not _may_set_port(values):
        yield Problem(
            f"{path}.endpoints",
            "endpoints: $PORT is used but no port is set",
            "add port = auto, 8000 or 8000+",
        )


def _may_set_port(values: Mapping[str, Any]) -> bool:
    """Whether the environment may set PORT; what is in an env file is known at a start only."""
    return "PORT" in values.get("env", {}) or bool(values.get("env_file"))


def _contradictions_of_supervision(values: Mapping[str, Any], path: str) -> Iterator[Problem]:
    def problem(key: str, message: str, hint: str) -> Problem:
        return Problem(f"{path}.{key}", f"{key}: {message}", hint)

    port, count, surge = values.get("port"), values.get("numprocesses", 1), values.get("surge", 0)
    sockets = values.get("socket", ())
    if port and port.isdecimal() and surge and count == 1 and "PORT" not in values.get("env", {}):
        yield problem("surge", f"an additional process can't share port {port}", f"use port = {port}+ or auto")
    scheduled = values.get("schedule") is not None or values.get("every", 0) > 0
    if values.get("schedule") is not None and values.get("every", 0) > 0:
        yield problem("every", "the job has a schedule", "use either schedule or every")
    if (scheduled or values.get("kind") == "once") and values.get("restart") == "always":
        yield problem("restart", "a job that runs to completion can't always be restarted", "use on-failure or never")
    on_demand = values.get("start") == rules.ON_CONNECTION
    if on_demand and not sockets:
        yield problem("start", "on-connection needs a socket", "add socket = tcp:HOST:PORT or unix:PATH")
    if on_demand and (scheduled or values.get("kind") == "once"):
        yield problem("start", "on-connection is for services", "leave out kind and schedule")
    if values.get("idle_timeout", 0) > 0 and not on_demand:
        yield problem("idle_timeout", "has no effect without start = on-connection", "set start = on-connection")
    if sockets and values.get("custom_streams"):
        yield problem("socket", "sockets and custom streams both begin at descriptor 3", "use one of them")
    for item in values.get("after", ()):
        name = values.get("name", "")
        if item.partition(":")[0] == name:
            yield problem("after", f"{name} can't come after itself", "remove it")
    for key in ("ready", "live"):
        given = values.get(key)
        if given is None:
            continue
        probe = probing.parse_probe(given)
        by_port = probe.kind in (probing.ProbeKind.TCP, probing.ProbeKind.HTTP)
        if by_port and probe.port is None and not port and not _may_set_port(values):
            yield problem(key, f"{given} uses the port of the process, but it has none", "set port, or write the port")
        if key == "live" and probe.kind is probing.ProbeKind.LOG:
            yield problem(key, "a line of output can't show that a process still works", "use tcp, http or exec")
        if probe.kind is probing.ProbeKind.LOG and values.get("detach"):
            yield problem(key, "the output of a detached process is not read", "use tcp, http or exec")
