"""Hosts with a network of their own: namespaces on a switch, whose links can be cut, made lossy or moved apart.

Daemons run in a host by its `enter`. Unix sockets don't care for network namespaces: by them a test reaches every
daemon, whatever it does to the network. Needs root, iproute2, iptables and util-linux.
"""

import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

_SUBNET = "10.77"
_numbers = itertools.count(1)


class Host:
    """A network namespace with an `address`; `enter` are the words that run a command in it."""

    def __init__(self, switch: str, number: int) -> None:
        self.address = f"{_SUBNET}.{number // 250}.{number % 250 + 1}"
        self._switch = switch
        self._namespace = f"{switch}-{number}"
        self._port = f"port{number}"
        self.enter = ("nsenter", f"--net=/run/netns/{self._namespace}")
        _run("ip", "netns", "add", self._namespace)
        _batch(
            self._switch,
            f"link add {self._port} type veth peer name eth0 netns {self._namespace}",
            f"link set {self._port} master switch0 up",
        )
        _batch(self._namespace, "link set lo up", f"address add {self.address}/16 dev eth0", "link set eth0 up")

    def cut(self) -> None:
        """Nothing goes in or out any more; nobody is told."""
        _batch(self._switch, f"link set {self._port} down")

    def mend(self) -> None:
        """Undo `cut`."""
        _batch(self._switch, f"link set {self._port} up")

    def move(self, number: int) -> None:
        """To another switch, 0 to 2: hosts on different ones don't see each other."""
        _batch(self._switch, f"link set {self._port} master switch{number}")

    def drop(self, chain: Literal["INPUT", "OUTPUT"], *match: str) -> None:
        """Lose packets that come in or go out, those that match: `-p tcp --sport 4711`."""
        _run(*self.enter, "iptables", "-w", "-A", chain, *_not_loopback(chain), *match, "-j", "DROP")

    def lose(self, chain: Literal["INPUT", "OUTPUT"], share: float) -> None:
        """Lose a random share of the packets that come in or go out."""
        self.drop(chain, "-m", "statistic", "--mode", "random", "--probability", f"{share:g}")

    def lost(self, chain: Literal["INPUT", "OUTPUT"]) -> int:
        """How many packets were lost by `drop` and `lose` so far."""
        listing = _output(*self.enter, "iptables", "-w", "-nvxL", chain)
        return sum(int(line.split()[0]) for line in listing.splitlines() if " DROP " in line and "policy" not in line)

    def lose_nothing(self) -> None:
        """Undo `drop` and `lose`."""
        _run(*self.enter, "iptables", "-w", "-F")

    def connections_to(self, port: int) -> list[int]:
        """The local ports of the established TCP connections from here to this port of another host."""
        rows = [line.split() for line in _output(*self.enter, "cat", "/proc/net/tcp").splitlines()[1:]]
        return [
            int(local.partition(":")[2], 16)
            for _, local, remote, state, *_ in rows
            if state == "01" and int(remote.partition(":")[2], 16) == port
        ]

    def remove(self) -> None:
        """Take it down; what still runs in it keeps its namespace without a link."""
        _run("ip", "netns", "delete", self._namespace)


class Network:
    """Makes hosts. All are on one switch at first."""

    def __init__(self) -> None:
        self._switch = f"gaffer{os.getpid()}n{next(_numbers)}"
        self._hosts: list[Host] = []
        self._counter = itertools.count(1)
        _run("ip", "netns", "add", self._switch)
        for number in range(3):
            _batch(self._switch, f"link add switch{number} type bridge", f"link set switch{number} up")

    def host(self) -> Host:
        """A new host."""
        host = Host(self._switch, next(self._counter))
        self._hosts.append(host)
        return host

    def remove(self) -> None:
        """Take everything down."""
        for host in self._hosts:
            host.remove()
        _run("ip", "netns", "delete", self._switch)


@contextmanager
def network() -> Iterator[Network]:
    """A network until the block ends."""
    made = Network()
    try:
        yield made
    finally:
        made.remove()


def _not_loopback(chain: str) -> tuple[str, ...]:
    return ("!", "-i" if chain == "INPUT" else "-o", "lo")


def _batch(namespace: str, *commands: str) -> None:
    """Several commands of `ip` in a namespace by one process."""
    _run("ip", "-n", namespace, "-batch", "-", input="\n".join(commands))


def _run(*argv: str, input: str | None = None) -> None:
    _output(*argv, input=input)


def _output(*argv: str, input: str | None = None) -> str:
    done = subprocess.run(argv, input=input, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}{input or ''}"
    return done.stdout
