"""Listening sockets that the service manager opened and passed to this program, sd_listen_fds(3)."""

import os
import socket
from collections.abc import MutableMapping
from typing import NamedTuple

from gaffer.errors import ConfigError, Problem
from gaffer.runtime.sockets import address_of

_FIRST = 3  # the first passed descriptor; the others follow it
_PID, _COUNT, _NAMES = "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"
_MAX = 1024

_HINT = "pass stream sockets: `ListenStream=` with `Accept=no` in a systemd socket unit"


class PassedSocket(NamedTuple):
    """A listening socket; `name` is its name in LISTEN_FDNAMES, empty if it has none."""

    name: str
    socket: socket.socket

    @property
    def address(self) -> str:
        """The address it listens on, as in `gaffer.runtime.sockets.parse_address`."""
        return address_of(self.socket)


def take_sockets(environ: MutableMapping[str, str]) -> list[PassedSocket]:
    """Return the sockets that `environ` describes, and remove its variables: they are for this process alone.

    Children do not inherit the sockets. Raises ConfigError for a wrong number of sockets, and for descriptors that are
    not TCP or unix stream sockets that listen.
    """
    pid, count, names = (environ.pop(variable, "") for variable in (_PID, _COUNT, _NAMES))
    if pid != str(os.getpid()):
        return []
    if not (count.isdecimal() and count.isascii() and int(count) <= _MAX):
        raise ConfigError([Problem(_COUNT, f"expected a number of sockets up to {_MAX}, got {count!r}", _HINT)])
    descriptors = range(_FIRST, _FIRST + int(count))
    labels = names.split(":") if names else [""] * len(descriptors)
    if len(labels) != len(descriptors):
        raise ConfigError([Problem(_NAMES, f"expected {count} names separated by colons, got {names!r}", _HINT)])
    passed, problems = [], []
    for descriptor, label in zip(descriptors, labels, strict=True):
        try:
            passed.append(PassedSocket(label, _listener(descriptor)))
        except OSError as error:
            problems.append(Problem(f"descriptor {descriptor} of {_COUNT}", f"can't be used: {error.strerror}", _HINT))
        except ValueError as error:
            problems.append(Problem(f"descriptor {descriptor} of {_COUNT}", str(error), _HINT))
    if problems:
        for each in passed:
            each.socket.close()
        raise ConfigError(problems)
    return passed


def _listener(descriptor: int) -> socket.socket:
    """Return the non-blocking socket of a descriptor; raises ValueError if it doesn't listen, and OSError."""
    os.set_inheritable(descriptor, False)
    sock = socket.socket(fileno=descriptor)
    if sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX) or sock.type != socket.SOCK_STREAM:
        fault = "is not a TCP or unix stream socket"
    elif not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        fault = "is a socket that does not listen"
    else:
        sock.setblocking(False)
        return sock
    sock.close()
    raise ValueError(fault)
