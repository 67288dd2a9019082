"""Parsing of the names of sessions, jobs and hosts, and of nodes' addresses.

A session or job name is `[A-Za-z0-9_][A-Za-z0-9_+-]{0,63}` and not all digits, so it never collides with a process id.
"""

import ipaddress
import re
from functools import lru_cache
from typing import NamedTuple

from gaffer.errors import BadRequest, quoted

DEFAULT_SESSION = "default"

MAX_PROCESS_ENDPOINTS = 64  # the limit that lookupds enforce

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_+-]{0,63}", re.ASCII)
_PID = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)
_SEPARATORS = "./:"

# The same rules as regular expressions for JSON Schema.
NAME_PATTERN = rf"^(?![0-9]+$){_NAME.pattern}$"
JOB_NAME_PATTERN = rf"^((?![0-9]+[./:]){_NAME.pattern}[./:])?(?![0-9]+$){_NAME.pattern}$"
PID_PATTERN = rf"^{_PID.pattern}$"

# The names of manager events. A job with such a name outside `default` would make `<session>.<name>` ambiguous.
EVENT_NAMES = frozenset(
    (
        "create load start start_failed adopt stop restart update delete unload "
        "spawn reap exit stop_pid stop_process flap kill ready not_ready not_live reload completed failed "
        "rollout rollout_done rollout_failed run_started run_skipped run_ended went_idle limit_exceeded "
        "port_in_use action_ended disabled enabled"
    ).split()
)


class JobName(NamedTuple):
    """A qualified job name; its `str()` is `session.name`."""

    session: str
    name: str

    def __str__(self) -> str:
        return f"{self.session}.{self.name}"

    @property
    def display(self) -> str:
        """The bare name in the default session, otherwise the qualified name."""
        return self.name if self.session == DEFAULT_SESSION else str(self)


def check_name(name: str, kind: str = "job") -> str:
    """Return `name` if it is a valid session or job name, otherwise raise BadRequest (reason `bad_name`)."""
    if not _NAME.fullmatch(name):
        raise BadRequest(
            f"{quoted(name)} is not a valid {kind} name",
            reason="bad_name",
            path="$.name",
            hint="use 1 to 64 of A-Z a-z 0-9 _ + -, starting with a letter, a digit or _",
        )
    if name.isdigit():
        raise BadRequest(
            f"the {kind} name {quoted(name)} consists of digits only and could be mistaken for a process id",
            reason="bad_name",
            path="$.name",
            hint="add a letter",
        )
    return name


def split_job_name(name: str, default: str = DEFAULT_SESSION) -> tuple[str, str]:
    """Split `session.name`, `session/name`, `session:name` or a bare name, without checking it."""
    for separator in _SEPARATORS:
        session, found, bare = name.partition(separator)
        if found:
            return session, bare
    return default, name


def parse_job_name(name: str, default: str = DEFAULT_SESSION) -> JobName:
    """Parse and check a job name; raises BadRequest (reason `bad_name`)."""
    session, bare = split_job_name(name, default)
    check_name(session, "session")
    check_name(bare)
    if session != DEFAULT_SESSION and bare in EVENT_NAMES:
        raise BadRequest(
            f"{quoted(bare)} is the name of an event and can't name a job outside the default session",
            reason="bad_name",
            path="$.name",
            hint="choose another name",
        )
    return JobName(session, bare)


def canonical_job_name(name: str) -> str:
    """Return `session.name` for a job name in any form, without checking it."""
    return ".".join(split_job_name(name))


# RFC 1123 section 2.1, plus the underscores that container platforms use. A name whose last label is numeric would be
# interpreted as an IPv4 address in an old notation, such as 2130706433 or 127.1.
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"(?:{_LABEL}\.)*(?!(?:[0-9]+|0[xX][0-9A-Fa-f]*)\Z){_LABEL}", re.ASCII)
_MAX_HOST_NAME = 253  # characters

_ORIGIN = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([1-9][0-9]{0,4}))?", re.ASCII)


@lru_cache(4096)
def is_host(text: str) -> bool:
    """Return whether `text` is an ASCII host name, or an IP address without scope and brackets."""
    if _HOST_NAME.fullmatch(text):
        return len(text) <= _MAX_HOST_NAME
    return is_ip(text)


def is_ip(text: str) -> bool:
    """Return whether `text` is an IP address without scope."""
    if "%" in text:  # a scope may be any text
        return False
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


@lru_cache(4096)
def is_origin(text: str) -> bool:
    """Return whether `text` is a node's public URL: `http(s)://host[:port]`, IPv6 addresses in brackets."""
    match = _ORIGIN.fullmatch(text)
    if match is None or int(match[2] or 1) > 65535:
        return False
    host = match[1]
    return ":" in host and is_host(host[1:-1]) if host.startswith("[") else is_host(host)


def parse_pid(text: str) -> int | None:
    """Return the process id in `text`, or None if it is not one."""
    return int(text) if _PID.fullmatch(text) else None
