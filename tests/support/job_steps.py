"""Steps of playbooks of a job, which has no `startsecs` unless a test says so."""

import signal
from itertools import count
from typing import Any, TypeAlias
from unittest.mock import ANY

from gaffer.jobs import events as ev
from gaffer.jobs.config import JobConfig
from gaffer.jobs.job import Job
from gaffer.jobs.names import JobName
from support.playbook import Playbook, play

Story: TypeAlias = Playbook[ev.Event, ev.Instruction]

START, STOP = ev.StartRequested(), ev.StopRequested()


def config_of(**config: Any) -> JobConfig:
    """One process of `true` that is ready as soon as it runs, unless `config` says otherwise."""
    return JobConfig(**{"name": "j", "cmd": "true", "numprocesses": 1, "startsecs": 0.0, **config})


def job_of(**config: Any) -> Job:
    """A stopped job; its pids count from 1, and its back-off has no jitter."""
    return Job(JobName("s", "j"), config_of(**config), count(1).__next__, rand=lambda: 0.5)


def timer(kind: str, number: int) -> ev.TimerFired:
    return ev.TimerFired((kind, number))


def starts(book: Story, **data: bool) -> Story:
    """The job is asked to start; `data` are those of the event."""
    return book >> START << ev.CancelTimer(ev.RETRY) << ev.Publish("start", data=data)


def terminate(pid: int, timeout: float = 30.0) -> list[ev.Instruction]:
    """SIGTERM, and SIGKILL after `timeout` seconds."""
    return [ev.Signal(pid, signal.SIGTERM), ev.SetTimer(("kill", pid), timeout)]


def retire(*pids: int, kind: str = "stop_pid") -> list[ev.Instruction]:
    """The processes `pids` are announced as stopping, and stopped."""
    return [each for pid in pids for each in (ev.Publish(kind, pid), *terminate(pid))]


def drained(pid: int) -> list[ev.Instruction]:
    """The end of draining, and then `terminate`."""
    return [ev.CancelTimer(("drain", pid)), *terminate(pid)]


def up(book: Story, *pids: int, startsecs: float = 0.0) -> Story:
    """The processes `pids` were spawned; without `startsecs` they are ready at once."""
    for pid in pids:
        spawn = ev.Publish("spawn", pid, {"os_pid": 1000 + pid})
        book = book >> ev.Spawned(pid, 1000 + pid)
        if startsecs:
            book = book << ev.SetTimer(("ready", pid), startsecs) << spawn
        else:
            book = book << spawn << ev.Publish("ready", pid)
    return book


def commit(book: Story, pid: int, timeout: float) -> Story:
    """The process `pid` runs outside the slots."""
    book = book >> ev.Committed(pid, timeout) << ev.Spawn(pid, slot=0)
    return book >> ev.Spawned(pid, 1000 + pid) << ev.Publish("spawn", pid, {"os_pid": 1000 + pid})


def started(job: Job) -> Story:
    """`job` was started, and its processes run."""
    pids = range(1, job.target + 1)
    return up(starts(play(job)) << [ev.Spawn(pid, pid) for pid in pids], *pids, startsecs=job.config.startsecs)


def stopped(book: Story, *pids: int) -> Story:
    """The job was asked to stop, and so were its processes `pids`."""
    return book >> STOP << ev.CancelTimer(ev.RETRY) << ev.Publish("stop") << retire(*pids)


def exits(book: Story, pid: int, code: int | None = 0, term_signal: int | None = 0) -> Story:
    """The leader of `pid` exits."""
    return book >> ev.Exited(pid, code, term_signal) << ev.Publish("exit", pid, ANY)


def empties(book: Story, pid: int) -> Story:
    """Nothing of `pid` is left."""
    return book >> ev.GroupEmpty(pid) << ev.CancelTimer(("kill", pid))


def ends(book: Story, pid: int) -> Story:
    """All of `pid`, which was asked to end, ends."""
    return empties(exits(book, pid), pid)


def dies(book: Story, pid: int, code: int | None = 0, term_signal: int | None = 0, *, early: bool = False) -> Story:
    """All of `pid` ends by itself, `early` before its `startsecs` are over."""
    book = exits(book, pid, code, term_signal)
    if early:
        book = book << ev.CancelTimer(("ready", pid))
    return empties(book << terminate(pid), pid)
