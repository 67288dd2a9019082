"""Conflicts between the fixed ports of jobs on a node. No I/O."""

from collections.abc import Iterable

from gaffer.errors import Problem
from gaffer.jobs.config import JobConfig

_LAST = 65535


def conflict(config: JobConfig, count: int, others: Iterable[tuple[str, JobConfig, int]]) -> Problem | None:
    """Return the first port of `count` processes of a job that another job has, as a problem; None if there is none.

    `others` are the names of the other jobs, as the message may show them, their configs and numbers of processes. A
    job is not checked for a PORT that its `env` sets, nor for a port that is chosen at the start.
    """
    wanted = _ports(config, count)
    if not wanted or "PORT" in config.env:
        return None
    taken = sorted(
        ((ports.start, ports.stop, name) for name, other, number in others if (ports := _ports(other, number)))
    )
    for start, stop, name in taken:
        port = max(start, wanted.start)
        if port < min(stop, wanted.stop):
            message = f"port: {config.name} would get port {port}, which belongs to {name}"
            return Problem("$.port", message, _remedy(config, wanted, port, taken))
    return None


def _ports(config: JobConfig, count: int) -> range:
    first, last = config.port_of(1), config.port_of(max(count, 1))
    return range(0) if first is None or last is None else range(first, last + 1)


def _remedy(config: JobConfig, wanted: range, port: int, taken: Iterable[tuple[int, int, str]]) -> str:
    """Say which ports are free, and how many processes fit in before `port`."""
    first = wanted.start
    for start, stop, _ in taken:  # in ascending order
        if first < stop and start < first + len(wanted):
            first = stop
    options = ["auto"]
    if first + len(wanted) - 1 <= _LAST:
        options.insert(0, f"{first}+" if str(config.port).endswith("+") else str(first))
    fit = port - wanted.start
    fewer = f", or at most {fit} process{'es' if fit > 1 else ''}" if fit else ""
    return f"set port = {' or '.join(options)}{fewer}"
