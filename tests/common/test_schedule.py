"""When scheduled jobs run."""

import itertools
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer.errors import ConfigError, InvalidValue
from gaffer.jobs.config import JobConfig
from gaffer.jobs.schedule import cron, interval, missed_runs, next_run

pytestmark = pytest.mark.pure


@dataclass(frozen=True)
class Settings:
    schedule: str | None = None
    timezone: str | None = None
    every: float = 0.0


def at(text: str, zone: str = "UTC", fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def runs(settings: Settings, begin: float, count: int) -> list[float]:
    found: list[float] = []
    for _ in range(count):
        due = next_run(settings, after=found[-1] if found else begin)
        assert due is not None
        found.append(due)
    return found


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("* * * * *", "2026-03-01 12:00", "2026-03-01 12:01"),
        ("* * * * *", "2026-03-01 12:00:59", "2026-03-01 12:01"),
        ("* * * * *", "2026-03-01 11:59:59.999999", "2026-03-01 12:00"),
        ("*/5 * * * *", "2026-03-01 12:03", "2026-03-01 12:05"),
        ("5-59/20 8-17 * * mon-fri", "2026-02-27 17:50", "2026-03-02 08:05"),
        ("0 3 * * *", "2026-03-01 03:00", "2026-03-02 03:00"),
        ("0 0 1 jan *", "2026-03-01 00:00", "2027-01-01 00:00"),
        ("0 0 29 2 *", "2026-03-01 00:00", "2028-02-29 00:00"),
        ("0 0 L * *", "2026-02-01 00:00", "2026-02-28 00:00"),
        ("0 0 13 * 5", "2026-03-01 00:00", "2026-03-06 00:00"),  # the 13th, and each Friday
        ("0 0 * * 0", "2026-03-01 00:00", "2026-03-08 00:00"),
        ("0 0 * * 7", "2026-03-01 00:00", "2026-03-08 00:00"),
    ],
)
def test_cron_expressions(expression: str, after: str, expected: str) -> None:
    assert next_run(Settings(expression), after=at(after)) == at(expected)


def test_a_run_is_due_even_the_shortest_time_later() -> None:
    noon = at("2026-03-01 12:00")
    assert next_run(Settings("* * * * *"), after=math.nextafter(noon, 0)) == noon


@pytest.mark.parametrize(
    ("expression", "begin", "expected"),
    [
        # In Paris, 2:00 to 3:00 does not exist on 29 March 2026.
        ("30 2 * * *", "2026-03-28 12:00", ["2026-03-29 03:00", "2026-03-30 02:30"]),
        ("0,30 2 * * *", "2026-03-28 12:00", ["2026-03-29 03:00", "2026-03-30 02:00"]),
        ("30 2,3 * * *", "2026-03-28 12:00", ["2026-03-29 03:00", "2026-03-29 03:30", "2026-03-30 02:30"]),
        ("30 * * * *", "2026-03-29 01:00", ["2026-03-29 01:30", "2026-03-29 03:30"]),
        ("*/30 * * * *", "2026-03-29 01:10", ["2026-03-29 01:30", "2026-03-29 03:00"]),
        # And it exists twice on 25 October 2026.
        ("30 2 * * *", "2026-10-24 12:00", ["2026-10-25 02:30", "2026-10-26 02:30"]),
        ("0 3 * * *", "2026-10-24 12:00", ["2026-10-25 03:00", "2026-10-26 03:00"]),
        (
            "30 * * * *",
            "2026-10-25 02:00",
            ["2026-10-25 02:30", "2026-10-25 02:30 again", "2026-10-25 03:30"],
        ),
    ],
)
def test_changes_to_and_from_summer_time(expression: str, begin: str, expected: list[str]) -> None:
    def time_of(text: str) -> float:
        return at(text.removesuffix(" again"), "Europe/Paris", fold=text.endswith(" again"))

    settings = Settings(expression, "Europe/Paris")
    assert runs(settings, time_of(begin), len(expected)) == [time_of(text) for text in expected]


def test_a_time_that_has_passed_is_not_due_in_the_second_hour_of_its_name() -> None:
    settings = Settings("45 2 * * *", "Europe/Paris")
    second = at("2026-10-25 02:10", "Europe/Paris", fold=1)
    assert next_run(settings, after=second) == at("2026-10-26 02:45", "Europe/Paris")


def test_the_local_time_zone_counts_unless_one_is_given() -> None:
    after, tokyo = at("2026-01-01 00:00"), ZoneInfo("Asia/Tokyo")
    assert next_run(Settings("0 12 * * *"), after=after, local_zone=tokyo) == at("2026-01-01 12:00", "Asia/Tokyo")
    given = Settings("0 12 * * *", "America/New_York")
    assert next_run(given, after=after, local_zone=tokyo) == at("2026-01-01 12:00", "America/New_York")


@pytest.mark.parametrize(
    ("every", "after", "started", "expected"),
    [
        (30.0, 100.0, None, 130.0),
        (30.0, 100.0, 100.0, 130.0),
        (30.0, 100.2, 100.0, 130.0),  # no drift when a run began late
        (30.0, 130.0, 100.0, 160.0),
        (30.0, 500.0, 100.0, 520.0),  # a long one, or a stop, over several
        (30.0, 50.0, 100.0, 130.0),
        (0.0, 100.0, None, None),
    ],
)
def test_runs_at_intervals(every: float, after: float, started: float | None, expected: float | None) -> None:
    assert next_run(Settings(every=every), after=after, started=started) == expected


@pytest.mark.parametrize(
    ("settings", "last_run", "now", "expected"),
    [
        (Settings("0 3 * * *"), "2026-03-01 03:00", "2026-03-02 02:59", False),
        (Settings("0 3 * * *"), "2026-03-01 03:00", "2026-03-02 03:00", True),
        (Settings("0 3 * * *"), "2026-03-01 03:00", "2026-03-20 01:00", True),
        (Settings("0 3 * * *"), "2026-03-01 03:00", "2026-02-01 01:00", False),  # the clock was set back
        (Settings("0 3 * * *"), None, "2026-03-02 03:00", False),
        (Settings(every=3600.0), "2026-03-01 03:00", "2026-03-01 03:59", False),
        (Settings(every=3600.0), "2026-03-01 03:00", "2026-03-01 04:00", True),
        (Settings(), "2026-03-01 03:00", "2026-03-02 04:00", False),
    ],
)
def test_missed_runs(settings: Settings, last_run: str | None, now: str, expected: bool) -> None:
    assert missed_runs(settings, last_run and at(last_run), at(now)) is expected  # type: ignore[arg-type]


ZONES = ["UTC", "Europe/Paris", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/Sao_Paulo"]


def fields(values: range) -> st.SearchStrategy[str]:
    one = st.sampled_from(values).map(str)
    return st.one_of(
        st.just("*"), one, st.sampled_from(["*/2", "*/3", "*/7"]), st.lists(one, min_size=2, max_size=4).map(",".join)
    )


EXPRESSIONS = st.tuples(
    fields(range(60)), fields(range(24)), fields(range(1, 29)), fields(range(1, 13)), fields(range(7))
).map(" ".join)
# Half of the times are around a change of summer time in Paris or Sao Paulo.
TIMES = st.one_of(
    st.floats(0, 4e9),
    st.sampled_from(["2026-03-29", "2026-10-25", "2018-11-04", "2019-02-17"]).flatmap(
        lambda day: st.floats(-7200, 4 * 3600.0).map(lambda seconds: at(day) + seconds)
    ),
)


@given(EXPRESSIONS, st.sampled_from(ZONES), TIMES)
def test_runs_strictly_increase(expression: str, zone: str, begin: float) -> None:
    settings = Settings(expression, zone)
    found = [begin]
    for _ in range(6):
        due = next_run(settings, after=found[-1])
        if due is None:
            break
        found.append(due)
    assert all(later > earlier for earlier, later in itertools.pairwise(found))


@given(EXPRESSIONS, TIMES)
def test_there_is_no_run_between_a_time_and_its_next_run(expression: str, after: float) -> None:
    settings = Settings(expression)
    due = next_run(settings, after=after)
    if due is None:
        return
    assert due % 60 == 0
    between = after + (due - after) / 2
    assert next_run(settings, after=between) == due
    minute, hour, day, month, weekday = expression.split()
    shown = datetime.fromtimestamp(due, UTC)
    assert_in(shown.minute, minute)
    assert_in(shown.hour, hour)
    assert_in(shown.month, month)
    if day == "*" or weekday == "*":
        assert_in(shown.day, day)
        assert_in(shown.isoweekday() % 7, weekday)


def assert_in(value: int, field: str) -> None:
    if not field.startswith("*"):
        assert value in map(int, field.split(","))


@given(st.floats(0.1, 1e6), st.floats(0, 4e9), st.floats(-1e6, 1e7))
def test_intervals_are_kept(every: float, started: float, passed: float) -> None:
    due = next_run(Settings(every=every), after=started + passed, started=started)
    assert due is not None
    assert due > started + passed
    assert due - started >= every * 0.999
    assert passed < 0 or due - (started + passed) <= every * 1.001 + 1e-5


def test_an_expression_may_match_for_the_first_time_in_decades() -> None:
    due = next_run(Settings("0 0 * 2 mon#5"), after=at("2026-01-01 00:00"))
    assert due == at("2044-02-29 00:00")
    assert next_run(Settings("0 0 */31 * 1#5"), after=at("2026-01-01 00:00")) is None


@pytest.mark.parametrize("given", ["*/5 * * * *", "0 0 29 2 *", "0 0 * 2 mon#5", "  0  3 * *  sun ", "0 0 30 2 1"])
def test_accepted_expressions(given: str) -> None:
    assert cron(given, False) == " ".join(given.split())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("* * * *", "expected five fields, got 4"),
        ("* * * * * *", "expected five fields, got 6"),
        ("@daily", "expected five fields, got 1"),
        ("60 * * * *", "invalid cron expression '60 * * * *': invalid minute"),
        ("0 0 32 2 *", "invalid day-of-month"),
        ("0 0 30 13 *", "invalid month"),
        ("0 0 30 2 *", "'0 0 30 2 *' never matches: no year has such a day"),
        ("0 0 31 4,6,9,11 *", "never matches"),
        ("0 0 */31 * 1#5", "never matches"),
        ("1" * 5000 + " * * * *", "5008 characters exceed the maximum of 500"),
        (5, "expected a cron expression, got 5"),
    ],
)
def test_rejected_expressions(given: Any, message: str) -> None:
    with pytest.raises(InvalidValue) as raised:
        cron(given, False)
    assert message in raised.value.message


def test_intervals_have_a_minimum() -> None:
    assert interval("30s", True) == 30.0
    assert interval(0, False) == 0.0
    assert interval(0.1, False) == 0.1
    with pytest.raises(ConfigError, match=r"every: 0.05 is shorter than the minimum of 0.1 s"):
        JobConfig("j", "true", every=0.05)


def test_a_config_has_the_settings_of_a_schedule() -> None:
    config = JobConfig("j", "true", schedule="0 3 * * *", timezone="Asia/Tokyo")
    assert next_run(config, after=at("2026-01-01 00:00")) == at("2026-01-01 18:00")
