"""Small helpers under their documented names, most of them imported from other modules."""

import time

from gaffer.jobs.names import parse_job_name
from gaffer.jobs.words import substitute_env
from gaffer.processes.stats import bytes2human
from gaffer.runtime.accounts import check_gid, check_uid
from gaffer.runtime.daemonize import daemonize, getcwd, setproctitle_
from gaffer.runtime.signals import parse_signal_value
from gaffer.runtime.sockets import bind_sockets, hostname, is_ipv6, is_ssl, parse_address
from gaffer.runtime.tls import parse_ssl_options

__all__ = [
    "bind_sockets",
    "bytes2human",
    "bytestring",
    "check_gid",
    "check_uid",
    "daemonize",
    "from_nanotime",
    "getcwd",
    "hostname",
    "is_ipv6",
    "is_ssl",
    "nanotime",
    "ord_",
    "parse_address",
    "parse_job_name",
    "parse_signal_value",
    "parse_ssl_options",
    "setproctitle_",
    "substitute_env",
]


def bytestring(s: str) -> str:
    """Return `s` unchanged; on Python 3 there is nothing to convert."""
    return s


def ord_(c: int | str | bytes) -> int:
    """Return the code of a character; an int, such as an element of a bytes object, is returned unchanged."""
    return c if isinstance(c, int) else ord(c)


def nanotime(s: float | None = None) -> int:
    """Return `s` seconds in nanoseconds, by default the current wall-clock time."""
    return time.time_ns() if s is None else round(s * 1_000_000_000)


def from_nanotime(n: int) -> float:
    """Return `n` nanoseconds in seconds."""
    return n / 1_000_000_000
