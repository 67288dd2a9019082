"""Auxiliary commands of a job: they run next to its processes, as its user and with its settings.

A command runs in a process group of its own and ends with all its descendants. See gaffer.supervision.job_commands for
the settings that name commands.
"""

import asyncio
import itertools
import logging
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from enum import StrEnum

from msgspec import Struct

from gaffer.errors import ProcessError, StartFailed
from gaffer.jobs.config import JobConfig
from gaffer.jobs.names import JobName
from gaffer.jobs.states import describe_exit
from gaffer.process import UNKNOWN_EXIT, ExitStatus, Process
from gaffer.processes.reaper import Reaper
from gaffer.streams.rings import Losses, Ring

log = logging.getLogger("gaffer.supervision.commands")

GRACE = 5.0
"""Maximum seconds from SIGTERM to SIGKILL; a shorter `graceful_timeout` of the job shortens it."""

_MARK = "command-"  # distinguishes the cookie of a command from that of a process of a job
_OUTPUT = "output"  # label of stdout and stderr
_LAST_LINES, _LAST_BYTES = 20, 4096  # maximum output in a result


class Purpose(StrEnum):
    """What a command is run for."""

    PROBE = "probe"
    BEFORE_START = "before_start"
    AFTER_EXIT = "after_exit"
    ACTION = "action"


LIMITS: Mapping[Purpose, int] = {
    Purpose.PROBE: 4,  # a `ready` and a `live` one, and those of a predecessor that are being ended
    Purpose.BEFORE_START: 1,
    Purpose.AFTER_EXIT: 1,
    Purpose.ACTION: 16,
}
"""Maximum number of commands that run at a time for a purpose, in one slot of a job."""


class Outcome(StrEnum):
    """How a command ended, for counters."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    NOT_STARTED = "not_started"
    REFUSED = "refused"  # too many were running


class TooManyCommands(ProcessError):
    """The job is already running the maximum number of commands of this kind."""

    errno = 429
    reason = "too_many_commands"


class CommandResult(Struct, frozen=True):
    """The end of a command.

    `outcome` is SUCCEEDED if it exited with 0 by itself, TIMED_OUT if it was stopped because it did not exit in time,
    CANCELLED if it was stopped for another reason, else FAILED. `exit_code` is None if a signal ended it, `term_signal`
    is 0 if it exited; both are None if unknown. `uptime` and `timeout` are in seconds. `output` is the end of its
    output, at most 20 lines and 4 KiB.
    """

    outcome: Outcome
    exit_code: int | None
    term_signal: int | None
    uptime: float
    output: str
    timeout: float = 0.0

    def __str__(self) -> str:
        """Return how it ended, as the end of a sentence, and its output."""
        match self.outcome:
            case Outcome.TIMED_OUT:
                end = f"did not exit within {self.timeout:g} s"
            case Outcome.CANCELLED:
                end = "was cancelled"
            case _:
                end = describe_exit(self.exit_code, self.term_signal)
        return f"{end}: {self.output}" if self.output else end


class Command:
    """A running command. Use it on the loop.

    `name` is the setting that names it, such as `action.backup`. `ring` holds its output. `ended` is done once it has
    exited and its descendants are gone: those that outlive it are ended like a command whose time is up.
    """

    def __init__(self, name: str, purpose: Purpose, process: Process, grace: float) -> None:
        self.name = name
        self.purpose = purpose
        self.job = process.job
        self.slot = process.slot
        self.ring: Ring = process.ring(_OUTPUT)
        self.ended: asyncio.Future[CommandResult] = process.loop.create_future()
        self._process = process
        self._grace = grace
        self._interrupted: Outcome | None = None  # how it ended before its first process exited by itself
        self._terminated = False
        self._timeout = 0.0
        self._uptime: float | None = None  # at the exit of its first process
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Command {self.name} of {self.job}: {'ended' if self.ended.done() else 'running'}>"

    async def wait(self) -> CommandResult:
        """Wait until it has ended; if cancelled, stop it, and raise CancelledError once it has ended."""
        try:
            return await asyncio.shield(self.ended)
        except asyncio.CancelledError:
            self.stop()
            await asyncio.wait([self.ended])
            raise

    def stop(self) -> None:
        """End it and its descendants: SIGTERM, and SIGKILL after the grace period. A second stop is a no-op."""
        self._interrupt(Outcome.CANCELLED)
        self._terminate()

    def kill(self) -> None:
        """End it and its descendants with SIGKILL."""
        self._interrupt(Outcome.CANCELLED)
        self._kill()

    def time_out_after(self, timeout: float) -> None:
        """Stop it after `timeout` seconds."""
        self._timeout = timeout
        self._set_timer(timeout, self._time_out)

    def exited(self) -> None:
        """Record that its first process has exited, and end its descendants."""
        self._uptime = self._process.uptime
        self._terminate()

    def finish(self) -> bool:
        """Give `ended` its result; return whether it had none."""
        self._set_timer(None, self._kill)
        if self.ended.done():
            return False
        process = self._process
        status = process.exit_status or UNKNOWN_EXIT
        outcome = self._interrupted or (Outcome.SUCCEEDED if status.exit_code == 0 else Outcome.FAILED)
        uptime = process.uptime if self._uptime is None else self._uptime
        code, signum, output = status.exit_code, status.term_signal, self._last_output()
        self.ended.set_result(CommandResult(outcome, code, signum, uptime, output, self._timeout))
        return True

    def abandon(self) -> None:
        """Leave a command running that can't be ended."""
        self._process.release()

    def _interrupt(self, outcome: Outcome) -> None:
        if self._uptime is None:
            self._interrupted = self._interrupted or outcome

    def _time_out(self) -> None:
        self._interrupt(Outcome.TIMED_OUT)
        self._terminate()

    def _terminate(self) -> None:
        if self._grace == 0:
            self._kill()
        elif not self._terminated:
            self._terminated = True
            self._process.signal_tree(signal.SIGTERM)
            self._set_timer(self._grace, self._kill)

    def _kill(self) -> None:
        self._terminated = True
        self._set_timer(None, self._kill)
        self._process.signal_tree(signal.SIGKILL)

    def _set_timer(self, delay: float | None, callback: Callable[[], None]) -> None:
        """Call `callback` in `delay` seconds instead of what is scheduled now; None cancels only."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if delay is None else self._process.loop.call_later(delay, callback)

    def _last_output(self) -> str:
        ring = self.ring
        start = max(ring.offset_of_tail_lines(_LAST_LINES), ring.offset_of_tail(_LAST_BYTES))
        return ring.read(start).data.decode(errors="replace").strip()


class Commands:
    """The auxiliary commands of all jobs of a manager. Use it on the loop.

    `node_id` marks their processes, as those of the jobs, so that they can be found again. `losses` counts the output
    that readers lose. `counts` has the number of commands so far by purpose and outcome.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        reaper: Reaper,
        *,
        node_id: str = "",
        losses: Losses | None = None,
    ) -> None:
        self.counts: Counter[tuple[Purpose, Outcome]] = Counter()
        self._loop = loop
        self._reaper = reaper
        self._node_id = node_id
        self.losses = losses or Losses()
        self._running: dict[int, Command] = {}  # until nothing is left of them
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._running)

    @property
    def running(self) -> "Counter[Purpose]":
        """The number of running commands by purpose."""
        return Counter(command.purpose for command in self._running.values())

    def find(self, purpose: Purpose, job: JobName, slot: int) -> list[Command]:
        """Return the running commands for a purpose in one slot of a job."""
        return [
            each for each in self._running.values() if each.slot == slot and each.job == job and each.purpose is purpose
        ]

    def start(
        self,
        purpose: Purpose,
        config: JobConfig,
        job: JobName,
        command: str,
        *,
        timeout: float,
        name: str = "",
        slot: int = 0,
        port: int | None = None,
        env: Mapping[str, str] | None = None,
        grace: float = GRACE,
    ) -> Command:
        """Start `command`, a command line like `cmd`, with the settings of `job`; stop it after `timeout` seconds.

        `name` is the setting that names it, by default the purpose. `slot` and `port` are those of the process that it
        is for, `env` has additional variables, `grace` is the maximum of seconds from SIGTERM to SIGKILL. To wait for
        its end, await `start(...).wait()`. Raises StartFailed, and TooManyCommands (429).
        """
        name = name or purpose.value
        running = len(self.find(purpose, job, slot))
        if running >= LIMITS[purpose]:
            self.counts[purpose, Outcome.REFUSED] += 1
            raise TooManyCommands(
                None,
                None,
                f"{name} of {job} is not run: {running} such commands are still running",
                hint="try again once they have ended",
            )
        number = next(self._numbers)
        process = Process(
            self._loop,
            _config(config, command),
            pid=number,
            job=job,
            slot=slot,
            once=True,
            env=env,
            port=port,
            cookie=f"{self._node_id}:{_MARK}{number}" if self._node_id else "",
            reaper=self._reaper,
            on_exit=self._exited,
            on_gone=self._gone,
            on_refused=self._refused,
        )
        made = Command(name, purpose, process, min(grace, config.graceful_timeout))
        made.ring.losses = self.losses
        try:
            process.spawn()
        except StartFailed as error:
            self.counts[purpose, Outcome.NOT_STARTED] += 1
            path = f"$.{name}" if error.path == "$.cmd" else error.path
            raise StartFailed(
                f"{name} can't be started: {error.message}", reason=error.reason, path=path, hint=error.hint
            ) from None
        self._running[number] = made
        made.time_out_after(timeout)
        return made

    def end_actions(self, job: JobName) -> None:
        """Stop the actions of a job."""
        for command in self.find(Purpose.ACTION, job, 0):
            command.stop()

    def end(self, *, now: bool = False) -> None:
        """Stop all commands except `after_exit`; `now` kills all commands at once."""
        for command in tuple(self._running.values()):
            if now:
                command.kill()
            elif command.purpose is not Purpose.AFTER_EXIT:
                command.stop()

    async def quiesce(self, *, now: bool = False) -> None:
        """End all commands and wait until they have ended; leave those running that can't be ended."""
        self.end(now=now)
        while waiting := [each.ended for each in self._running.values() if not each.ended.done()]:
            await asyncio.wait(waiting)
        for number in tuple(self._running):
            self._running.pop(number).abandon()

    async def abandon(self, timeout: float) -> None:
        """Kill all commands; leave those behind that are not gone within `timeout` seconds."""
        self.end(now=True)
        if waiting := [each.ended for each in self._running.values() if not each.ended.done()]:
            await asyncio.wait(waiting, timeout=timeout)
        for number in tuple(self._running):
            self._running.pop(number).abandon()

    def _exited(self, process: Process, status: ExitStatus) -> None:
        self._running[process.pid].exited()

    def _gone(self, process: Process) -> None:
        self._finish(self._running.pop(process.pid))

    def _refused(self, process: Process, message: str, final: bool) -> None:
        if final:
            self._finish(self._running[process.pid])

    def _finish(self, command: Command) -> None:
        if command.finish():
            self.counts[command.purpose, command.ended.result().outcome] += 1


def _config(config: JobConfig, command: str) -> JobConfig:
    """Return the settings of a command: those of its job that concern how a program runs."""
    return config.replace(
        cmd=command,
        args=(),
        shell=False,
        detach=False,
        kill_group=True,
        redirect_output=(_OUTPUT, _OUTPUT),
        redirect_input=False,
        custom_streams=(),
        custom_channels=(),
        socket=(),
        start=True,
        idle_timeout=0,
        ready=None,
        live=None,
        logs=False,
    )
