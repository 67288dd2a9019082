"""The runs of scheduled jobs, by a clock that the test sets and by those of the system."""

import asyncio
import itertools
import resource
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from gaffer.jobs.config import JobConfig
from gaffer.jobs.schedule import next_run
from gaffer.loop import new_loop
from gaffer.runtime.clocks import LocalZone, WallClock
from gaffer.supervision.timetable import Timetable
from support import turnable
from support.poll import eventually_async

LOOPS = pytest.mark.parametrize("kind", ["uvloop", "asyncio"])


def at(text: str) -> float:
    return datetime.fromisoformat(f"2026-03-02 {text}+00:00").timestamp()


class HandClock:
    """A wall clock that runs and jumps when told; as the real one, it calls the alarm also when it was set."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.alarm: tuple[float, Callable[[], Any]] | None = None

    def time(self) -> float:
        return self.now

    def call_at(self, at: float, callback: Callable[[], Any]) -> None:
        self.alarm = (at, callback)

    def cancel(self) -> None:
        self.alarm = None

    def run_until(self, end: float) -> None:
        while self.alarm is not None and self.alarm[0] <= end:
            self.now = max(self.now, self.alarm[0])
            self._call()
        self.now = end

    def set(self, now: float) -> None:
        self.now = now
        self._call()

    def _call(self) -> None:
        if self.alarm is not None:
            callback, self.alarm = self.alarm[1], None
            callback()


class Table:
    """A timetable by such a clock, and what it reported."""

    def __init__(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        self.clock = HandClock(now)
        self.armed: list[tuple[str, float | None]] = []
        self.due: list[tuple[str, float]] = []
        self.on_due: Callable[[str], Any] = lambda job: None
        self.on_armed: Callable[[str], Any] = lambda job: None
        self.timetable: Timetable[str] = Timetable(loop, self._armed, self._due, wall=self.clock, local_zone=UTC)
        self.arm, self.disarm = self.timetable.arm, self.timetable.disarm

    def _armed(self, job: str, next_run: float | None) -> None:
        self.armed.append((job, next_run))
        self.on_armed(job)

    def _due(self, job: str, at: float) -> None:
        self.due.append((job, at))
        self.on_due(job)

    def runs(self, *texts: str) -> bool:
        found, self.due = self.due, []
        assert [time for _, time in found] == [at(text) for text in texts]
        return True


def cron(expression: str, **settings: Any) -> JobConfig:
    return JobConfig("j", "true", schedule=expression, **settings)


def every(seconds: float, **settings: Any) -> JobConfig:
    return JobConfig("j", "true", every=seconds, **settings)


@pytest.fixture
def table() -> Iterator[Table]:
    """One at noon."""
    loop = turnable.TurnableLoop()
    table = Table(loop, at("12:00"))
    yield table
    table.timetable.close()
    assert table.clock.alarm is None
    assert not loop.timers
    loop.close()


def test_runs_and_the_next_one(table: Table) -> None:
    table.arm("j", cron("*/20 * * * *"))
    assert table.armed == [("j", at("12:20"))]
    table.clock.run_until(at("12:19:59"))
    assert table.runs()
    table.clock.run_until(at("13:00"))
    assert table.runs("12:20", "12:40", "13:00")
    assert table.armed == [("j", at(text)) for text in ("12:20", "12:40", "13:00", "13:20")]


def test_the_earliest_job_comes_first(table: Table) -> None:
    table.arm("late", cron("30 * * * *"))
    table.arm("early", cron("10,50 * * * *"))
    table.clock.run_until(at("13:00"))
    assert table.due == [("early", at("12:10")), ("late", at("12:30")), ("early", at("12:50"))]


def test_a_jump_forward_gives_one_run(table: Table) -> None:
    table.arm("j", cron("*/20 * * * *"))
    table.clock.set(at("12:10"))
    assert table.runs()
    table.clock.set(at("15:10"))
    assert table.runs("12:20")
    table.clock.run_until(at("15:40"))
    assert table.runs("15:20", "15:40")


def test_a_jump_back_repeats_nothing(table: Table) -> None:
    table.arm("j", cron("*/20 * * * *"))
    table.clock.run_until(at("12:45"))
    assert table.runs("12:20", "12:40")
    table.clock.set(at("11:50"))
    table.clock.run_until(at("12:59"))
    assert table.runs()
    table.clock.run_until(at("13:20"))
    assert table.runs("13:00", "13:20")


def test_a_clock_that_was_hours_fast_is_corrected(table: Table) -> None:
    table.arm("j", cron("*/20 * * * *"))
    table.arm("k", every(3600))
    table.arm("gone", cron("*/20 * * * *"))
    table.disarm("gone")
    table.clock.set(at("20:00"))
    assert table.runs("12:20")
    table.armed.clear()
    table.clock.set(at("12:30"))
    assert table.armed == [("j", at("12:40"))]
    table.clock.run_until(at("12:50"))
    assert table.runs("12:40")


def test_a_job_is_armed_anew(table: Table) -> None:
    table.arm("j", cron("*/20 * * * *"))
    table.arm("j", cron("30 * * * *"))
    table.clock.run_until(at("13:00"))
    assert table.runs("12:30")


def test_a_disarmed_job_does_not_run_and_wakes_nobody(table: Table) -> None:
    table.arm("j", cron("*/20 * * * *"))
    table.arm("k", cron("30 * * * *"))
    table.disarm("j")
    table.disarm("unknown")
    assert table.clock.alarm is not None
    assert table.clock.alarm[0] == at("12:30")
    table.disarm("k")
    assert table.clock.alarm is None


def test_a_job_may_be_disarmed_or_armed_anew_when_it_is_due(table: Table) -> None:
    table.on_due = table.disarm
    table.arm("j", cron("*/20 * * * *"))
    table.clock.run_until(at("13:00"))
    assert table.runs("12:20")
    table.on_due = lambda job: table.arm(job, cron("*/30 * * * *"))
    table.arm("j", cron("*/20 * * * *"))
    table.clock.run_until(at("14:00"))
    assert table.runs("13:20", "13:30", "14:00")
    table.on_due, table.on_armed = lambda job: None, table.disarm
    table.clock.run_until(at("15:00"))
    assert table.runs("14:30")
    assert table.clock.alarm is None


def test_a_job_may_be_disarmed_while_others_are_calculated_again(table: Table) -> None:
    for job in "abc":
        table.arm(job, cron("*/20 * * * *"))
    table.clock.set(at("20:00"))
    table.on_armed = lambda job: [table.disarm(other) for other in "abc" if other != job]
    table.clock.set(at("12:30"))
    assert len(set(table.timetable._entries)) == 1
    table.due.clear()
    table.clock.run_until(at("12:40"))
    assert table.runs("12:40")


def test_a_schedule_may_come_to_its_end(table: Table) -> None:
    table.arm("j", JobConfig("j", "true"))
    assert table.armed == [("j", None)]
    assert table.clock.alarm is None


@pytest.mark.parametrize(
    ("missed", "last_run", "expected"),
    [
        ("skip", "11:00", ["12:20"]),
        ("once", "11:00", ["12:00", "12:20"]),
        ("once", "11:40", ["12:00", "12:20"]),
        ("once", "12:00", ["12:20"]),
        ("once", None, ["12:20"]),
        ("once", "12:30", ["12:40"]),  # the clock was set back
        ("skip", "12:30", ["12:40"]),
        ("skip", "16:00", ["12:20", "12:40"]),  # it was hours fast
    ],
)
def test_runs_that_were_due_before(table: Table, missed: str, last_run: str | None, expected: list[str]) -> None:
    table.arm("j", cron("*/20 * * * *", missed=missed), last_run=None if last_run is None else at(last_run))
    assert table.armed == [("j", at(expected[0]))]
    table.clock.run_until(at("12:25") if expected[-1] == "12:20" else at("12:45"))
    assert table.runs(*expected)


def test_a_job_that_was_stopped_has_missed_nothing(table: Table) -> None:
    table.arm("j", cron("*/20 * * * *", missed="once"), last_run=at("11:00"), catch_up=False)
    table.clock.run_until(at("12:20"))
    assert table.runs("12:20")


def test_what_is_forgotten_takes_no_room(table: Table) -> None:
    table.arm("first", cron("1 * * * *"))
    config = cron("30 * * * *")
    for number in range(1000):
        table.arm(f"j{number % 10}", config)
    assert len(table.timetable._by_wall_clock._heap) < 60
    table.clock.run_until(at("12:30"))
    assert len(table.due) == 11


def test_many_jobs_at_a_time_run_in_slices(table: Table) -> None:
    def slow(job: str) -> None:
        end = time.monotonic() + 0.004
        while time.monotonic() < end:
            pass

    table.on_due = slow
    for number in range(20):
        table.arm(f"j{number}", cron("0 * * * *"))
    table.clock.set(at("13:00"))
    assert 1 <= len(table.due) < 20
    assert table.clock.alarm is not None
    assert table.clock.alarm[0] == at("13:00")
    table.clock.run_until(at("13:00"))
    assert len(table.due) == 20


@pytest.mark.parametrize(
    ("last_run", "missed", "expected"),
    [
        (None, "once", [30, 60]),
        ("11:59:50", "skip", [20, 50]),
        ("11:58:50", "skip", [20, 50]),
        ("11:58:50", "once", [0, 30]),
        ("12:01:00", "once", [30, 60]),  # the clock was set back
    ],
)
def test_intervals_follow_the_clock_of_the_loop(last_run: str | None, missed: str, expected: list[int]) -> None:
    async def main() -> None:
        table = Table(asyncio.get_running_loop(), at("12:00"))
        begin = asyncio.get_running_loop().time()
        table.arm("j", every(30, missed=missed), last_run=None if last_run is None else at(last_run))
        assert table.clock.alarm is None
        for text, seconds in zip(("08:00", "18:00"), expected, strict=True):  # the wall clock has no influence
            armed = table.armed[-1][1]
            assert armed is not None
            assert abs(armed - (table.clock.now + begin + seconds - asyncio.get_running_loop().time())) < 1
            table.clock.set(at(text))
            count = len(table.due)
            if seconds > asyncio.get_running_loop().time() - begin + 2:
                turnable.turn(begin + seconds - 1 - asyncio.get_running_loop().time())
                assert len(turnable.timers()) == 1
                await asyncio.sleep(0)
                assert len(table.due) == count
            turnable.turn(1)
            await eventually_async(lambda count=count: len(table.due) == count + 1)  # type: ignore[misc]
        turnable.turn(1000)
        await eventually_async(lambda: len(table.due) == 3)
        table.timetable.close()
        assert not turnable.timers()

    turnable.run(main())


@LOOPS
def test_a_job_runs_every_fifth_of_a_second(kind: str) -> None:
    due: list[float] = []
    seen: list[float] = []
    loop = new_loop(kind)

    def on_due(job: str, at: float) -> None:
        due.append(at)
        seen.append(time.time())
        if len(due) == 5:
            loop.stop()

    timetable: Timetable[str] = Timetable(loop, lambda job, at: None, on_due)
    began = time.time()
    timetable.arm("j", every(0.2))
    loop.run_forever()
    timetable.close()
    loop.close()
    assert due[0] >= began + 0.19
    # Of which a busy machine may skip some.
    assert all(later - earlier > 0.1 for earlier, later in itertools.pairwise(due))
    assert all(actual >= planned - 0.005 for actual, planned in zip(seen, due, strict=True))


@LOOPS
def test_the_alarm_of_the_wall_clock(kind: str) -> None:
    loop = new_loop(kind)
    clock = WallClock(loop)
    called: list[str] = []
    begin = clock.time()
    assert abs(begin - time.time()) < 1
    clock.call_at(begin + 0.01, lambda: called.append("replaced"))
    clock.call_at(begin + 0.1, lambda: (called.append("due"), loop.stop()))
    loop.run_forever()
    assert clock.time() >= begin + 0.1
    clock.call_at(begin - 1000, lambda: (called.append("overdue"), loop.stop()))
    loop.run_forever()
    clock.call_at(clock.time() + 0.01, lambda: called.append("cancelled"))
    clock.cancel()
    loop.call_later(0.05, loop.stop)
    loop.run_forever()
    loop.close()
    assert called == ["due", "overdue"]


@LOOPS
def test_a_timer_of_the_wall_clock_sees_it_set(kind: str) -> None:
    """It is one of the kernel's, which ends when the clock is set; so it is not read every minute."""
    loop = new_loop(kind)
    clock = WallClock(loop)
    clock.call_at(clock.time() + 1000, lambda: None)
    text = Path(f"/proc/self/fdinfo/{clock._timerfd}").read_text()
    clock.cancel()
    loop.close()
    assert "clockid: 0\n" in text
    assert "settime flags: 03\n" in text


@LOOPS
@pytest.mark.expects_errors("the clock is read every minute")
def test_the_alarm_without_a_descriptor_for_it(kind: str) -> None:
    loop = new_loop(kind)
    clock = WallClock(loop)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        clock.call_at(clock.time() + 0.1, loop.stop)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    begin = clock.time()
    loop.run_forever()
    assert clock.time() >= begin + 0.09
    clock.cancel()
    loop.close()


def test_without_such_timers_the_clock_is_read_every_minute() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        clock = WallClock(loop)
        clock._polls = True
        clock.call_at(clock.time() + 1000, lambda: None)
        (timer,) = turnable.timers()
        assert 59 < timer.when() - loop.time() <= 61
        clock.cancel()
        assert not turnable.timers()

    turnable.run(main())


@pytest.mark.parametrize("name", ["Europe/Paris", "America/New_York", "Asia/Kolkata"])
def test_the_local_time_zone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    zone = ZoneInfo(name)
    with monkeypatch.context() as patch:
        patch.setenv("TZ", name)
        time.tzset()
        local = LocalZone()
        for day in ("2026-01-01", "2026-03-08", "2026-03-29", "2026-07-01", "2026-10-25", "2026-11-01"):
            midnight = datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()
            for expression in ("30 2 * * *", "*/30 * * * *", "15 1 * * *", "0 12 * * *"):
                for hour in range(12):
                    after = midnight + hour * 3600
                    config = cron(expression)
                    assert next_run(config, after=after, local_zone=local) == next_run(
                        config, after=after, local_zone=zone
                    )
        now = datetime.fromtimestamp(1.79e9, local)
        assert now.utcoffset() == datetime.fromtimestamp(1.79e9, zone).utcoffset()
        assert now.tzname() == datetime.fromtimestamp(1.79e9, zone).tzname()
    time.tzset()
