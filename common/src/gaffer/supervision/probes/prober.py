"""Probes of the processes of a manager: when they are made, and what follows from their results."""

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias

from gaffer.jobs.config import JobConfig
from gaffer.jobs.names import JobName
from gaffer.jobs.probing import REPORT_INTERVAL, Counter, Probe, ProbeKind, Question, parse_probe
from gaffer.processes.sockets import SocketKeeper
from gaffer.supervision.probes.checks import Address, Check, HttpCheck, Report, TcpCheck
from gaffer.supervision.probes.failures import CheckFailed, OutOfResources
from gaffer.supervision.probes.listeners import ListenerWatch
from gaffer.supervision.probes.log_lines import Output, Search
from gaffer.supervision.probes.names import Names
from gaffer.supervision.probes.notifications import Fields, Notifications

log = logging.getLogger("gaffer.supervision.probes")

SHORTEST_INTERVAL = 0.01  # seconds between two probes
FIRST_DELAY = 0.1  # seconds in which the first `ready` probe is made
WAITING_INTERVAL = 0.1  # seconds between two probes of a local port that is to open, if it can't be watched
WARNING_INTERVAL = 60.0  # seconds between two warnings that probes lack resources
_MAX_STATUS = 200  # characters of a STATUS that are reported


class Target(Protocol):
    """A process that is probed."""

    pid: int
    config: JobConfig
    port: int | None
    job: JobName

    @property
    def os_pid(self) -> int:
        """The OS pid of its leader."""

    @property
    def active(self) -> bool:
        """Whether its leader is running."""

    @property
    def captured(self) -> Sequence[Output]:
        """Its stdout and stderr, as far as they are captured."""


OnVerdict: TypeAlias = Callable[[Any, Question, bool, str], Any]
RunCommand: TypeAlias = Callable[[Any, str, float], Awaitable[str]]


class Prober:
    """Probes processes on `loop`; all methods are called there.

    `on_verdict(process, question, good, error)` is called on the loop whenever a verdict is to be reported, see
    gaffer.jobs.probing.Counter. `run_command(process, command, timeout)` runs a command for a process and returns
    its error, an empty text for success; when cancelled, it ends the command.

    The `live` probes of a process with a `ready` probe begin once it is ready.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_verdict: OnVerdict,
        run_command: RunCommand,
        socket_keeper: SocketKeeper | None = None,
    ) -> None:
        self.loop = loop
        self.run_command = run_command
        self.listeners = ListenerWatch(loop)
        self.names = Names()
        self.notifications = Notifications(loop, socket_keeper)
        self.tasks: set[asyncio.Task[None]] = set()  # probes that wait for something
        self._on_verdict = on_verdict
        self._probings: dict[int, dict[Question, _Probing]] = {}  # by Gaffer's pid
        self._warned_at = -math.inf

    def notify_address(self) -> str:
        """Return the NOTIFY_SOCKET for processes with a `notify` probe. Raises OSError."""
        return self.notifications.address

    def start(self, process: Target, *, again: bool = False, ready: bool = False) -> None:
        """Begin the probes of `process`.

        `again`: it has to become ready once more, by output from now on; `ready`: it is ready already.
        """
        self.stop(process.pid)
        asked = [question for question in Question if getattr(process.config, question) is not None]
        if asked:
            self._probings[process.pid] = {}
        for question in asked if ready else asked[:1]:
            self._begin(process, question, again=again, ready=ready)

    def stop(self, pid: int) -> None:
        """End the probes of process `pid`, after which nothing is reported; no-op if there are none."""
        for probing in self._probings.pop(pid, {}).values():
            probing.stop()

    def close(self) -> None:
        """End all probes."""
        for pid in list(self._probings):
            self.stop(pid)
        self.listeners.close()
        self.notifications.close()

    def decided(self, process: Target, question: Question, good: bool, error: str) -> None:
        """Report a verdict, and begin the `live` probes of a process that is ready."""
        self._on_verdict(process, question, good, error)
        probings = self._probings.get(process.pid, {})
        if good and question in probings and Question.LIVE not in probings and process.config.live is not None:
            self._begin(process, Question.LIVE)

    def warn(self, process: Target, error: str) -> None:
        """Log, once in a while, that probes can't be made."""
        if self.loop.time() - self._warned_at >= WARNING_INTERVAL:
            self._warned_at = self.loop.time()
            log.warning("can't probe %s (pid %d): %s", process.job, process.os_pid, error, extra={"job": process.job})

    def _begin(self, process: Target, question: Question, *, again: bool = False, ready: bool = False) -> None:
        probe = parse_probe(getattr(process.config, question))
        probing: _Probing
        match probe.kind:
            case ProbeKind.LOG:
                probing = _AwaitingLine(self, process, question, probe, from_now=again)
            case ProbeKind.NOTIFY if question is Question.READY:
                probing = _AwaitingNotification(self, process, question)
            case ProbeKind.NOTIFY:
                probing = _WatchdogPolling(self, process, question)
            case ProbeKind.EXEC:
                probing = _CommandPolling(self, process, question, probe)
            case _:
                probing = _AddressPolling(self, process, question, probe)
        if ready and isinstance(probing, _Awaiting):
            probing.reason = ""
        self._probings[process.pid][question] = probing
        probing.start()


class _Probing:
    """The probes of one process for one question. Results are recorded until `stop`, or until the process exits."""

    def __init__(self, prober: Prober, process: Target, question: Question, counter: Counter) -> None:
        self.prober = prober
        self.loop = prober.loop
        self.process = process
        self.question = question
        self.counter = counter
        self.timer: asyncio.Handle | None = None
        self.stopped = False

    def start(self) -> None:
        """Begin; nothing is reported before it returns."""
        raise NotImplementedError

    def stop(self) -> None:
        """End; nothing is reported afterwards."""
        self.stopped = True
        if self.timer is not None:
            self.timer.cancel()

    def record(self, error: str, *, refused: bool = False) -> None:
        """Count a result, which is good if `error` is empty; `refused`: nothing listens."""
        if self.stopped or not self.process.active:
            return
        verdict = self.counter.record(not error, error, self.loop.time())
        if verdict is not None:
            self.prober.decided(self.process, self.question, verdict.good, verdict.error)


class _Awaiting(_Probing):
    """Waits for something that the process does. A reason that was held back is reported later."""

    def __init__(self, prober: Prober, process: Target, question: Question, reason: str) -> None:
        super().__init__(prober, process, question, Counter(question))
        self.reason = reason  # why the process is not ready; empty if it is

    def start(self) -> None:
        self.timer = self.loop.call_soon(self._begin)

    def listen(self) -> None:
        """Begin to wait."""
        raise NotImplementedError

    def tell(self, reason: str) -> None:
        """Record `reason`."""
        self.reason = reason
        self.record(reason)
        if self.timer is not None:
            self.timer.cancel()
        if reason and not self.stopped:
            self.timer = self.loop.call_later(REPORT_INTERVAL, self.record, reason)

    def _begin(self) -> None:
        self.tell(self.reason)
        if not self.stopped:
            self.listen()


class _AwaitingLine(_Awaiting):
    """Waits for a line of output."""

    def __init__(self, prober: Prober, process: Target, question: Question, probe: Probe, *, from_now: bool) -> None:
        captured = bool(process.captured)
        reason = "no line of output has matched yet" if captured else "the output of the process is not captured"
        super().__init__(prober, process, question, reason)
        found, failed = partial(self.tell, ""), self._gave_up
        self._search = Search(probe.argument, process.captured, from_now=from_now, found=found, failed=failed)

    def listen(self) -> None:
        self._search.start()

    def stop(self) -> None:
        super().stop()
        self._search.close()

    def _gave_up(self, error: str) -> None:
        log.warning(
            "%s (pid %d): log probe given up: %s",
            self.process.job,
            self.process.os_pid,
            error,
            extra={"job": self.process.job},
        )
        self.tell(error)


class _AwaitingNotification(_Awaiting):
    """Waits for READY=1; not ready again after RELOADING=1 or STOPPING=1. Until then, STATUS is the reason."""

    def __init__(self, prober: Prober, process: Target, question: Question) -> None:
        super().__init__(prober, process, question, "READY=1 has not arrived yet")

    def listen(self) -> None:
        self.prober.notifications.expect(self.process.os_pid, self._received)

    def stop(self) -> None:
        super().stop()
        self.prober.notifications.ignore(self.process.os_pid, self._received)

    def _received(self, fields: Fields) -> None:
        status = fields.get("STATUS", "")[:_MAX_STATUS]
        if fields.get("READY") == "1":
            self.tell("")
        elif fields.get("RELOADING") == "1":
            self.tell(status or "reloading")
        elif fields.get("STOPPING") == "1":
            self.tell(status or "stopping")
        elif self.reason and status:
            self.tell(status)


class _Polling(_Probing):
    """Makes a probe every `interval` seconds, none while the one before is still waiting."""

    timeout: float | None  # seconds after which `run` is cancelled

    def __init__(self, prober: Prober, process: Target, question: Question) -> None:
        config = process.config
        if question is Question.READY:
            counter = Counter(question, config.ready_successes, config.ready_failures)
            interval, timeout = config.ready_interval, config.ready_timeout
        else:
            counter = Counter(question, 1, config.live_failures)
            interval, timeout = config.live_interval, config.live_timeout
        super().__init__(prober, process, question, counter)
        self.interval = max(interval, SHORTEST_INTERVAL)
        self.timeout = timeout
        self._due = 0.0  # loop time of the next probe
        self._task: asyncio.Task[None] | None = None

    def attempt(self) -> bool:
        """Probe without waiting: return True if the result is good, False if `run` has to find out.

        Raises CheckFailed and OutOfResources, as `run` does.
        """
        return False

    async def run(self, report: Report) -> None:
        """Probe, and call `report` once with the result."""
        raise NotImplementedError

    @property
    def pause(self) -> float:
        """Seconds from this probe to the next."""
        return self.interval

    def start(self) -> None:
        # At random, since many processes may have started at once, and so is the second one.
        delay = random.uniform(0, min(self.interval, FIRST_DELAY) if self.question is Question.READY else self.interval)
        self._due = self.loop.time() + delay
        self.timer = self.loop.call_at(self._due, self.probe_now)

    def stop(self) -> None:
        super().stop()
        if self._task is not None:
            self._task.cancel()

    def probe_now(self) -> None:
        """Probe now, and begin to count the interval at a random time within one."""
        if self.timer is not None:
            self.timer.cancel()
        self._due = self.loop.time()
        self._tick(random.uniform(0.5, 1))

    def _probe(self) -> None:
        if self._task is not None:
            return
        try:
            if self.attempt():
                self.record("")
                return
        except CheckFailed as failure:
            self.record(failure.error, refused=failure.refused)
            return
        except OutOfResources as error:
            self.prober.warn(self.process, str(error))
            return
        self._task = self.loop.create_task(self._wait())
        self.prober.tasks.add(self._task)
        self._task.add_done_callback(self.prober.tasks.discard)

    def _tick(self, share: float = 1.0) -> None:
        if not self.process.active:
            self.stop()
        if self.stopped:
            return
        now = self.loop.time()
        pause = self.pause * share
        self._due = self._due + pause if self._due + pause > now else now + pause
        self.timer = self.loop.call_at(self._due, self._tick)
        self._probe()

    async def _wait(self) -> None:
        reported = False

        def report(error: str) -> None:
            nonlocal reported
            reported = True
            self.record(error)

        try:
            async with asyncio.timeout(self.timeout):
                await self.run(report)
        except TimeoutError:
            if not reported:
                self.record(f"no answer within {self.timeout:g} s")
        except CheckFailed as failure:
            self.record(failure.error, refused=failure.refused)
        except OutOfResources as error:
            self.prober.warn(self.process, str(error))
        finally:
            self._task = None


class _AddressPolling(_Polling):
    """Connects, or sends a GET. While a local port is closed, it is watched, so that its opening is seen at once."""

    def __init__(self, prober: Prober, process: Target, question: Question, probe: Probe) -> None:
        super().__init__(prober, process, question)
        self._port = probe.port or process.port
        address = Address(probe.host, self._port or 0, prober.names)
        self._check: Check = TcpCheck(address) if probe.kind is ProbeKind.TCP else HttpCheck(address, probe.argument)
        self._watches = question is Question.READY and address.is_local

    @property
    def pause(self) -> float:
        if not self._watches or self.counter.good or self.prober.listeners.works:
            return self.interval
        return min(self.interval, WAITING_INTERVAL)

    def attempt(self) -> bool:
        if self._port is None:
            raise CheckFailed("the process has no port")
        return self._check.attempt()

    async def run(self, report: Report) -> None:
        await self._check.run(report)

    def start(self) -> None:
        super().start()
        self._watch(True)

    def stop(self) -> None:
        super().stop()
        self._watch(False)

    def record(self, error: str, *, refused: bool = False) -> None:
        super().record(error, refused=refused)
        self._watch(refused)

    def _watch(self, closed: bool) -> None:
        if closed and self._port and self._watches and not (self.counter.good or self.stopped):
            self.prober.listeners.add(self._port, self.probe_now)
        else:
            self.prober.listeners.remove(self.probe_now)


class _CommandPolling(_Polling):
    """Runs a command."""

    def __init__(self, prober: Prober, process: Target, question: Question, probe: Probe) -> None:
        super().__init__(prober, process, question)
        self._command, self._limit = probe.argument, self.timeout or 0.0
        self.timeout = None  # is kept by the prober's `run_command`

    async def run(self, report: Report) -> None:
        report(await self.prober.run_command(self.process, self._command, self._limit))


class _WatchdogPolling(_Polling):
    """Expects WATCHDOG=1 in each interval."""

    def start(self) -> None:
        super().start()
        self._heard_at = self.loop.time()
        self.prober.notifications.expect(self.process.os_pid, self._received)

    def stop(self) -> None:
        super().stop()
        self.prober.notifications.ignore(self.process.os_pid, self._received)

    def attempt(self) -> bool:
        if self.loop.time() - self._heard_at > self.interval:
            raise CheckFailed(f"no WATCHDOG=1 within {self.interval:g} s")
        return True

    def _received(self, fields: Fields) -> None:
        if fields.get("WATCHDOG") == "1":
            self._heard_at = self.loop.time()
