"""Resource usage of jobs and processes in responses of a node."""

from typing import Annotated, Literal, TypedDict

from msgspec import Meta

NotAvailable = Literal["N/A"]
"""In place of a value that nobody can tell, or that this user may not see."""


class Stats(TypedDict):
    """What an OS process uses."""

    mem_info1: Annotated[str, Meta(description="Resident memory, such as `12M`.")]
    mem_info2: Annotated[str, Meta(description="Virtual memory.")]
    cpu: Annotated[float | NotAvailable, Meta(description="Percent of a processor.")]
    mem: Annotated[float | NotAvailable, Meta(description="Percent of the machine's memory.")]
    ctime: Annotated[str, Meta(description="CPU time as minutes:seconds.hundredths.")]
    username: str
    nice: int | NotAvailable
    cmdline: str


class DescendantStats(Stats):
    """What a process uses that a process of Gaffer started."""

    os_pid: int
    children: list["DescendantStats"]


class ProcessStats(Stats):
    """What a process uses, without its descendants; those are `children`."""

    pid: int
    os_pid: int
    children: list[DescendantStats]


class JobStats(TypedDict):
    """What the processes of a job use: sums and extremes, in percent."""

    name: str
    stats: list[ProcessStats]
    mem: float | NotAvailable
    max_mem: float | NotAvailable
    min_mem: float | NotAvailable
    cpu: float | NotAvailable
    max_cpu: float | NotAvailable
    min_cpu: float | NotAvailable


class OneProcessStats(TypedDict):
    """What a process uses."""

    stats: ProcessStats
