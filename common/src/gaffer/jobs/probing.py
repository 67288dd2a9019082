"""Probes of a process: how they are written, and when their results change the verdict. Pure: no I/O, no clock."""

import math
import re
from enum import StrEnum
from typing import Any

from msgspec import Struct

from gaffer.errors import InvalidValue, quoted
from gaffer.jobs import rules

LOOPBACK = "127.0.0.1"


class ProbeKind(StrEnum):
    """What a probe does to find out whether a process works."""

    TCP = "tcp"  # connects
    HTTP = "http"  # sends GET; a status from 200 to 399 is good
    EXEC = "exec"  # runs a command; exit status 0 is good
    LOG = "log"  # searches each line of output
    NOTIFY = "notify"  # waits for READY=1, sd_notify(3)


class Question(StrEnum):
    """What a probe is to find out."""

    READY = "ready"
    LIVE = "live"


class Probe(Struct, frozen=True):
    """A parsed probe. `port` is None for that of the process; `argument` is the path, the command or the pattern."""

    kind: ProbeKind
    host: str = LOOPBACK
    port: int | None = None
    argument: str = ""


REPORT_INTERVAL = 1.0  # seconds between two reports that a process is still not ready

_ADDRESS = re.compile(
    r"(?:(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):)?(?P<port>[0-9]{1,5}|\$PORT|\$\{PORT\})", re.ASCII
)
_HINT = "use tcp:8000, http:8000/health, exec:COMMAND, log:REGEX or notify"


def parse_probe(text: str) -> Probe:
    """Parse `tcp:[HOST:]PORT`, `http:[HOST:]PORT/PATH`, `exec:COMMAND`, `log:REGEX` or `notify`.

    `tcp`, `http` and `http:/PATH` use the port of the process. Raises InvalidValue.
    """
    name, colon, rest = text.strip().partition(":")
    if name not in list(ProbeKind):
        raise InvalidValue(f"expected a probe, got {quoted(text)}", _HINT)
    kind = ProbeKind(name)
    match kind:
        case ProbeKind.NOTIFY:
            if colon:
                raise InvalidValue(f"expected notify alone, got {quoted(text)}", _HINT)
            return Probe(kind)
        case ProbeKind.EXEC | ProbeKind.LOG:
            if not rest.strip():
                what = "a command" if kind is ProbeKind.EXEC else "a regular expression"
                raise InvalidValue(f"expected {what} after {kind}:, got {quoted(text)}", _HINT)
            if kind is ProbeKind.LOG:
                _check_pattern(rest)
            return Probe(kind, argument=rest.strip() if kind is ProbeKind.EXEC else rest)
        case _:
            return _parse_address(kind, text, rest.removeprefix("//"))


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern.encode())
    except (re.error, OverflowError, RecursionError) as error:
        raise InvalidValue(f"invalid regular expression {quoted(pattern)}: {error}") from None


def _parse_address(kind: ProbeKind, text: str, rest: str) -> Probe:
    address, _, path = rest.partition("/") if kind is ProbeKind.HTTP else (rest, "", "")
    argument = f"/{path}" if kind is ProbeKind.HTTP else ""
    if re.search(r"[\s\x00-\x1f\x7f]", path):
        raise InvalidValue(f"blanks are not allowed in the path of a probe, got {quoted(text)}", "use %20 for a blank")
    if not address:
        return Probe(kind, argument=argument)
    match = _ADDRESS.fullmatch(address)
    if match is None or (match["port"].isdecimal() and not 1 <= int(match["port"]) <= 65535):
        raise InvalidValue(f"expected an address and a port, got {quoted(text)}", _HINT)
    port = int(match["port"]) if match["port"].isdecimal() else None
    return Probe(kind, (match["host"] or LOOPBACK).strip("[]"), port, argument)


def probe(value: Any, lax: bool) -> str | None:
    """`tcp:8000`, `http:8000/health`, `exec:COMMAND`, `log:REGEX` or `notify`; `tcp` and `http` alone use PORT."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise InvalidValue(f"expected a probe, got {quoted(value)}", _HINT)
    found = parse_probe(rules.text(value, lax))
    if found.kind is ProbeKind.EXEC:
        rules.optional_command(found.argument, lax)
    return value.strip()


class Verdict(Struct, frozen=True):
    """The answer to a question about a process: `error` says why it is bad."""

    good: bool
    error: str = ""


class Counter:
    """The results of the probes for one question, as a verdict that takes several results in a row to change.

    A process is not ready until `successes` probes in a row were good, and its failures are reported when their reason
    changes. It is taken to be live until `failures` probes in a row were bad.
    """

    def __init__(self, question: Question, successes: int = 1, failures: int = 1) -> None:
        self.good: bool | None = None  # None before the first verdict
        self._waits = question is Question.READY
        self._successes, self._failures = successes, failures
        self._in_a_row = 0  # good results if positive, bad ones if negative
        self._reported = ""
        self._reported_at = -math.inf

    def record(self, good: bool, error: str, now: float) -> Verdict | None:
        """Count a result at the time `now` in seconds; return the verdict if it is to be reported, else None.

        It is when it changes, and when the error of a process that is not ready changes, at most once a second.
        """
        self._in_a_row = max(self._in_a_row, 0) + 1 if good else min(self._in_a_row, 0) - 1
        if good:
            return self._report(Verdict(True), now) if not self.good and self._in_a_row >= self._successes else None
        if self._waits and not self.good:
            due = error != self._reported and now - self._reported_at >= REPORT_INTERVAL
            return self._report(Verdict(False, error), now) if due else None
        changes = self.good is not False and -self._in_a_row >= self._failures
        return self._report(Verdict(False, error), now) if changes else None

    def _report(self, verdict: Verdict, now: float) -> Verdict:
        self.good = verdict.good
        self._reported, self._reported_at = verdict.error, now
        return verdict
