"""Applications as units of systemd and as a file for compose, as far as these can express them."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from gaffer.errors import quoted
from gaffer.jobs.config import JobConfig
from gaffer.jobs.ordering import Dependency, dependencies
from gaffer.jobs.words import needs_shell
from gaffer_client.cli.errors import UsageError
from gaffer_client.cli.output import warn
from gaffer_client.cli.procfile_app import Application

# Settings that every job has, or that say nothing about how it runs.
_COMMON = frozenset(
    {
        "name",
        "cmd",
        "args",
        "shell",
        "env",
        "cwd",
        "numprocesses",
        "port",
        "endpoints",
        "redirect_output",
        "labels",
        "logs",
    }
)
_Lines = Callable[[Any], str]


def _signal(value: object) -> str:
    text = str(value)
    return text if text.isdecimal() or text.startswith("SIG") else f"SIG{text}"


def _limit(value: object) -> str:
    return str(value).replace("unlimited", "infinity")


_POLICIES = {"always": "always", "on-failure": "on-failure", "never": "no"}
_SYSTEMD: Mapping[str, _Lines] = {
    "uid": lambda value: f"User={value}",
    "gid": lambda value: f"Group={value}",
    "umask": lambda value: f"UMask={value}",
    "nice": lambda value: f"Nice={value}",
    "graceful_timeout": lambda value: f"TimeoutStopSec={value:g}",
    "stop_signal": lambda value: f"KillSignal={_signal(value)}",
    "reload_signal": lambda value: f"ExecReload=/bin/kill -s {value} $MAINPID",
    "kill_group": lambda value: "KillMode=control-group" if value else "KillMode=process",
    "backoff": lambda value: f"RestartSec={value:g}",
    "max_memory": lambda value: f"MemoryMax={value}",
    "max_lifetime": lambda value: f"RuntimeMaxSec={value:g}",
    "before_start": lambda value: f"ExecStartPre=/bin/sh -c {_quoted(value, command=True)}",
    "after_exit": lambda value: f"ExecStopPost=/bin/sh -c {_quoted(value, command=True)}",
    "restart": lambda value: f"Restart={_POLICIES[value]}",
    "kind": lambda value: "Type=oneshot" if value == "once" else "Type=exec",
    **{
        f"rlimit_{name}": lambda value, name=name: f"Limit{name.upper()}={_limit(value)}"  # type: ignore[misc]
        for name in ("as", "core", "cpu", "data", "fsize", "memlock", "nofile", "nproc", "stack")
    },
}
"""The line of a unit for a setting of a job."""


def units(app: Application, session: str, jobs: Mapping[str, Any]) -> dict[str, str]:
    """Return the units of systemd for an application, by file name: a template for each type, and a target."""
    instances = {name: list(_instances(session, name, job)) for name, job in jobs.items()}
    files = {}
    for name, job in jobs.items():
        others = [unit for other in _others(job, session) for unit in instances.get(other.job.name, ())]
        files[f"{session}-{name}@.service"] = _service(app, session, name, job, others)
        _warn_lost(name, job, (*_SYSTEMD, "after"))
    wanted = " ".join(unit for units in instances.values() for unit in units)
    files[f"{session}.target"] = "\n".join(
        ["[Unit]", f"Description={session}", f"Wants={wanted}", "", "[Install]", "WantedBy=multi-user.target", ""]
    )
    return files


def _instances(session: str, name: str, job: Mapping[str, Any]) -> Iterator[str]:
    """Yield the instances of the template of a type: they are named after their port, or else numbered."""
    port = str(job.get("port") or "").removesuffix("+")
    first = int(port) if port.isdecimal() else 1
    for number in range(first, first + job["numprocesses"]):
        yield f"{session}-{name}@{number}.service"


def _service(app: Application, session: str, name: str, job: Mapping[str, Any], others: Sequence[str]) -> str:
    lines = ["[Unit]", f"Description={session} {name} %i", f"PartOf={session}.target"]
    if others:
        lines.append(f"After={' '.join(others)}")
    lines += ["", "[Service]", f"ExecStart=/bin/sh -c {_quoted(_command_line(app, name, job), command=True)}"]
    lines.append(f"WorkingDirectory={job['cwd'].replace('%', '%%')}")
    if str(job.get("port") or "").removesuffix("+").isdecimal():
        lines.append("Environment=PORT=%i")
    lines += [f"Environment={_quoted(f'{key}={value}')}" for key, value in (job.get("env") or {}).items()]
    lines += [_SYSTEMD[key](value) for key, value in job.items() if key in _SYSTEMD]
    if "restart" not in job and job.get("kind") != "once":
        lines.append("Restart=always")
    lines += ["", "[Install]", f"WantedBy={session}.target", ""]
    for line in lines:
        if not line.isprintable():
            message = f"{name}: a unit can't hold {quoted(line)}"
            raise UsageError(message, hint="use --format=json, or a value without control characters")
    return "\n".join(lines)


def _quoted(text: str, *, command: bool = False) -> str:
    """Return `text` as one word of a unit; a variable in a `command` is one of the shell, not of systemd."""
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    text = "".join(char if char.isprintable() else _escaped(char) for char in text)
    return '"' + (text.replace("$", "$$") if command else text) + '"'


def _escaped(char: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in char.encode())


_DEPENDS = {"completed": "service_completed_successfully"}


def as_compose(app: Application, session: str, jobs: Mapping[str, Any]) -> str:
    """Return an application as a file for compose; the image is built in its directory."""
    import yaml

    services = {}
    for name, job in jobs.items():
        services[name] = service = _compose_service(app, session, name, job)
        if others := [each for each in _others(job, session) if each.job.name in jobs]:
            service["depends_on"] = {
                each.job.name: {"condition": _DEPENDS.get(each.condition, "service_started")} for each in others
            }
        known = ("uid", "gid", "graceful_timeout", "stop_signal", "restart", "max_memory", "after", "kind")
        _warn_lost(name, job, known)
    return str(yaml.safe_dump({"name": session.lower(), "services": services}, sort_keys=False, allow_unicode=True))


def _compose_service(app: Application, session: str, name: str, job: Mapping[str, Any]) -> dict[str, Any]:
    env = {key: str(value).replace("$", "$$") for key, value in (job.get("env") or {}).items()}
    service: dict[str, Any] = {
        "build": ".",
        "command": ["sh", "-c", _command_line(app, name, job).replace("$", "$$")],
        "environment": env,
        "restart": "no" if job.get("kind") == "once" else _POLICIES[job.get("restart") or "always"],
        "deploy": {"replicas": job["numprocesses"]},
    }
    port = str(job.get("port") or "").removesuffix("+")
    if port.isdecimal():
        env["PORT"] = port
        last = int(port) + job["numprocesses"] - 1
        if job.get("endpoints") != []:  # it listens
            service["ports"] = [f"{port}:{port}" if last <= int(port) else f"{port}-{last}:{port}"]
    if job.get("uid") is not None:
        service["user"] = ":".join(str(job[key]) for key in ("uid", "gid") if job.get(key) is not None)
    if "stop_signal" in job:
        service["stop_signal"] = _signal(job["stop_signal"])
    if "graceful_timeout" in job:
        service["stop_grace_period"] = f"{job['graceful_timeout']:g}s"
    if job.get("max_memory"):
        service["mem_limit"] = job["max_memory"]
    return service


def _others(job: Mapping[str, Any], session: str) -> Iterator[Dependency]:
    """Yield the types of the application that a job comes after."""
    for each in dependencies(job.get("after") or (), session):
        if each.job.session == session:
            yield each


def _command_line(app: Application, name: str, job: Mapping[str, Any]) -> str:
    """Return the command of a type for a shell, which it replaces if it is a simple one."""
    lines = dict(app.procfile.processes())
    config = JobConfig.from_dict(job, lax=True)
    line = lines.get(name) or (config.cmd if config.shell else " ".join([config.cmd, *map(shlex.quote, config.args)]))
    return line if needs_shell(line) else f"exec {line}"


def _warn_lost(name: str, job: Mapping[str, Any], known: Sequence[str]) -> None:
    lost = [key for key in job if key not in _COMMON and key not in known]
    if lost:
        warn(f"{name}: this format has nothing for {', '.join(lost)}")
