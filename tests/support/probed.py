"""A process as a prober sees it, and the verdicts of the prober."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gaffer.jobs.config import JobConfig
from gaffer.jobs.names import JobName, parse_job_name
from gaffer.jobs.probing import Question
from gaffer.streams.rings import Ring
from gaffer.supervision.probes.prober import Prober
from support.holder import Holder
from support.poll import eventually_async


@dataclass(eq=False)
class Probed:
    """A process whose life, output and port the test decides, unless it has a child."""

    config: JobConfig
    pid: int = 1
    port: int | None = None
    child: "subprocess.Popen[bytes] | None" = None
    alive: bool = True
    captured: list[Ring] = field(default_factory=lambda: [Ring(), Ring()])
    job: JobName = field(default_factory=lambda: parse_job_name("shop.web"))

    @property
    def os_pid(self) -> int:
        return self.child.pid if self.child is not None else 0

    @property
    def active(self) -> bool:
        return self.alive and (self.child is None or self.child.poll() is None)


def probed(pid: int = 1, **settings: Any) -> Probed:
    """A process with these settings of its job."""
    return Probed(JobConfig(name="web", cmd="serve", **settings), pid)


class Result(NamedTuple):
    """A verdict, of process `pid`."""

    pid: int
    question: Question
    good: bool
    error: str


async def no_command(process: Probed, command: str, timeout: float) -> str:
    """For probes without commands."""
    raise AssertionError(f"{command} was run")


@dataclass
class Verdicts:
    """A running prober, and its verdicts in order."""

    prober: Prober
    seen: list[Result] = field(default_factory=list)

    def of(self, question: Question = Question.READY, pid: int = 1) -> list[str]:
        """The errors of the verdicts on one question, `good` for a good one."""
        return [each.error or "good" for each in self.seen if (each.pid, each.question) == (pid, question)]

    async def last(self, expected: str, question: Question = Question.READY, pid: int = 1) -> None:
        """Wait until the last verdict on a question is `expected`, an error or `good`."""

        def arrived() -> bool:
            return self.of(question, pid)[-1:] == [expected]

        try:
            await eventually_async(arrived)
        except AssertionError:
            raise AssertionError(f"expected {expected!r}, got {self.of(question, pid)}") from None


@asynccontextmanager
async def probing(
    run_command: Callable[[Probed, str, float], Awaitable[str]] = no_command, holder: Holder | None = None
) -> AsyncIterator[Verdicts]:
    """A prober on the running loop, until the block ends."""

    def on_verdict(process: Probed, question: Question, good: bool, error: str) -> None:
        verdicts.seen.append(Result(process.pid, question, good, error))

    verdicts = Verdicts(Prober(asyncio.get_running_loop(), on_verdict, run_command, holder))
    try:
        yield verdicts
    finally:
        verdicts.prober.close()
        await eventually_async(lambda: not verdicts.prober.tasks)
