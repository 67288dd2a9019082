"""Resource usage of jobs and processes in responses of a node."""

from typing import Annotated, Literal, TypedDict

from msgspec import Meta

NotAvailable = Literal["N/A"]
"""Stands for a value that is unknown or not accessible."""


class Stats(TypedDict):
    """Resource usage of an OS process."""

    mem_info1: Annotated[str, Meta(description="Resident memory, such as `12M`.")]
    mem_info2: Annotated[str, Meta(description="Virtual memory.")]
    cpu: Annotated[float | NotAvailable, Meta(description="Percent of a processor.")]
    mem: Annotated[float | NotAvailable, Meta(description="Percent of the machine's memory.")]
    ctime: Annotated[str, Meta(description="CPU time as minutes:seconds.hundredths.")]
    username: str
    nice: int | NotAvailable
    cmdline: str


class DescendantStats(Stats):
    """Resource usage of a descendant of one of Gaffer's processes."""

    os_pid: int
    children: list["DescendantStats"]


class ProcessStats(Stats):
    """Resource usage of a process, without its descendants, which are in `children`."""

    pid: int
    os_pid: int
    children: list[DescendantStats]


class JobStats(TypedDict):
    """Resource usage of the processes of a job: totals, maxima and minima in percent."""

    name: str
    stats: list[ProcessStats]
    mem: float | NotAvailable
    max_mem: float | NotAvailable
    min_mem: float | NotAvailable
    cpu: float | NotAvailable
    max_cpu: float | NotAvailable
    min_cpu: float | NotAvailable


class OneProcessStats(TypedDict):
    """Resource usage of a process."""

    stats: ProcessStats
