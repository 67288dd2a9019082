"""Checks of arguments to a manager."""

import re
from collections.abc import Mapping
from typing import Any

from gaffer.errors import BadRequest, BadValue, InvalidValue, quoted
from gaffer.jobs.names import DEFAULT_SESSION, JobName, parse_job_name, parse_pid, split_job_name
from gaffer.jobs.rules import Rule
from gaffer.process import ProcessConfig
from gaffer.processes.sampler import StatListener, Target
from gaffer.runtime.signals import parse_signal_value
from gaffer.schemas import bodies

_MAX_DIGITS = 18  # of a number of processes
_MAX_DISABLED = 10 * 366 * 86400  # seconds


def listener_and_target(one: Any, other: Any) -> tuple[StatListener, Target]:
    """A listener and its target, given in either order."""
    listener, name = (one, other) if callable(one) else (other, one)
    if not callable(listener):
        raise BadValue("monitor takes a listener and a job name or pid")
    if isinstance(name, int | JobName):
        return listener, name
    return listener, parse_pid(name) or JobName(*split_job_name(name))


def name_of(config: ProcessConfig, sessionid: str | None) -> JobName:
    """The name of the job that `config` describes; its session must not contradict `sessionid`.

    Raises BadRequest when it does, and TypeError for anything but a ProcessConfig.
    """
    if not isinstance(config, ProcessConfig):
        raise TypeError(
            f"expected a ProcessConfig, got {type(config).__name__} {config!r}: "
            + (
                "write ProcessConfig.from_dict(...)"
                if isinstance(config, Mapping)
                else "write ProcessConfig(name, cmd)"
            )
        )
    session, _ = split_job_name(config.name, "")
    if sessionid and session not in ("", sessionid):
        raise BadRequest(
            f"the job {quoted(config.name)} can't be in the session {sessionid!r}",
            path="$.name",
            hint="leave the session out of the name",
        )
    return parse_job_name(config.name, sessionid or DEFAULT_SESSION)


def scaled(current: int, n: int | str) -> int:
    """The number of processes after scaling by or to `n` (MGR-37)."""
    if isinstance(n, int) and not isinstance(n, bool):
        return max(0, current + n)
    if isinstance(n, str):
        sign, digits = (n[0], n[1:]) if n[:1] in ("+", "-", "=") else ("+", n)
        if digits.isascii() and digits.isdecimal() and len(digits) <= _MAX_DIGITS:
            number = int(digits)
            return number if sign == "=" else max(0, current + (number if sign == "+" else -number))
    raise BadValue(
        f"{quoted(n)} is not a way to scale",
        reason="bad_operation",
        hint='use a number, "+2", "-2" or "=2"',
        path="$.scale",
    )


def setting(name: str, rule: Rule, value: Any) -> Any:
    """The value of the argument `name`, checked by the rule of the job setting of that name; raises BadValue."""
    try:
        return rule(value, False)
    except InvalidValue as wrong:
        raise BadValue(f"{name}: {wrong.message}", path=f"$.{name}{wrong.path}", hint=wrong.hint) from None


def signal_number(sig: int | str) -> int:
    """The number of a signal, given as a number or a name."""
    try:
        return parse_signal_value(sig)
    except ValueError as error:
        raise BadValue(str(error), reason="bad_signal", hint="use a name such as TERM or its number") from None


def check_disabling(reason: str, seconds: float | None) -> None:
    """Raise BadValue unless a job can be disabled for this reason and that long."""
    if not isinstance(reason, str) or not re.fullmatch(bodies.REASON, reason):
        raise BadValue(
            "expected the reason why the job is disabled", path="$.reason", hint="give a line of 1 to 1000 characters"
        )
    if seconds is None:
        return
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= _MAX_DISABLED:
        hint = f"use seconds, up to {_MAX_DISABLED}, or leave it out to disable the job until it is enabled"
        raise BadValue(f"can't disable a job for {seconds!r} seconds", path="$.for", hint=hint)
