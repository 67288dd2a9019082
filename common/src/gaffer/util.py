"""Small helpers under their documented names; most of them live where they are used."""

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
    """`s` itself: text needs no other form on Python 3."""
    return s


def ord_(c: int | str | bytes) -> int:
    """The number of a character; an element of a bytes object is one already."""
    return c if isinstance(c, int) else ord(c)


def nanotime(s: float | None = None) -> int:
    """`s` seconds in nanoseconds; the wall clock's time without an argument."""
    return time.time_ns() if s is None else round(s * 1_000_000_000)


def from_nanotime(n: int) -> float:
    """`n` nanoseconds in seconds."""
    return n / 1_000_000_000
