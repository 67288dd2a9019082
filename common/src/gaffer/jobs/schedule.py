"""When scheduled jobs run. Pure: the time and the local time zone are arguments.

Where clocks change for summer time, a schedule with a fixed hour and minute runs once a day: at the end of a gap that
skips its time, and in the first of two hours of the same name. Where hour or minute begin with `*`, it runs whenever
the clock shows a matching time. This is what Debian's cron does.
"""

import math
from datetime import UTC, datetime, tzinfo
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from gaffer.errors import InvalidValue, quoted
from gaffer.jobs import rules

MIN_INTERVAL = 0.1  # seconds

_LONGEST = 500  # characters; five fields that list every value fit
_REFERENCE = datetime(2000, 1, 1)
_HINT = "use five fields: minute, hour, day of month, month, day of week, such as */5 * * * *"


class ScheduleSettings(Protocol):
    """The settings that determine when a job runs."""

    @property
    def schedule(self) -> str | None:
        """A checked cron expression."""

    @property
    def timezone(self) -> str | None:
        """The name of the time zone of `schedule`; None for the local one."""

    @property
    def every(self) -> float:
        """Seconds from one start to the next; 0 if there are no such runs."""


def next_run(
    settings: ScheduleSettings, *, after: float, started: float | None = None, local_zone: tzinfo = UTC
) -> float | None:
    """Return the time of the first run that is due later than `after`, or None if there is none.

    All times are in seconds, those of `schedule` since 1970, those of `every` on any clock. `started` is when the
    previous run was due; runs of `every` are due at whole intervals from there, from `after` without a previous run.
    """
    if settings.schedule is not None:
        zone = ZoneInfo(settings.timezone) if settings.timezone is not None else local_zone
        # The first of two hours of the same name was over already if `after` is in the second.
        for due in CronSim(settings.schedule, datetime.fromtimestamp(math.floor(after), zone)):
            if due.timestamp() > after:
                return due.timestamp()
        return None
    if settings.every <= 0:
        return None
    begin = after if started is None else started
    count = max(1, math.floor((after - begin) / settings.every))
    while begin + count * settings.every <= after:
        count += 1
    return begin + count * settings.every


def missed_runs(settings: ScheduleSettings, last_run: float | None, now: float, *, local_zone: tzinfo = UTC) -> bool:
    """Return whether a run was due later than `last_run`, up to `now`; both in seconds since 1970.

    False if the job never ran.
    """
    if last_run is None:
        return False
    due = next_run(settings, after=last_run, started=last_run, local_zone=local_zone)
    return due is not None and due <= now


def cron(value: Any, lax: bool) -> str | None:
    """A cron expression of five fields, crontab(5)."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise InvalidValue(f"expected a cron expression, got {quoted(value)}", _HINT)
    fields = value.split()
    if len(fields) != 5:
        raise InvalidValue(f"expected five fields, got {len(fields)} in {quoted(value)}", _HINT)
    expression = " ".join(fields)
    if len(expression) > _LONGEST:
        raise InvalidValue(f"{len(expression)} characters exceed the maximum of {_LONGEST} for a cron expression")
    try:
        if next(CronSim(expression, _REFERENCE), None) is not None:
            return expression
    except CronSimError as error:
        minute, hour, day, month, weekday = fields
        if not (_is_valid(minute, hour, day, "*", weekday) and _is_valid(minute, hour, "*", month, weekday)):
            reason = str(error).replace("Bad", "invalid", 1)
            raise InvalidValue(f"invalid cron expression {quoted(value)}: {reason}", _HINT) from None
    raise InvalidValue(
        f"the cron expression {quoted(value)} never matches: no year has such a day", "change the day or the month"
    )


def _is_valid(*fields: str) -> bool:
    try:
        CronSim(" ".join(fields), _REFERENCE)
    except CronSimError:
        return False
    return True


def interval(value: Any, lax: bool) -> float:
    """A number of seconds from 0.1 to 10^9, or a text such as "500ms", "30s", "5m", "24h" or "7d"; 0 means none."""
    number = rules.seconds(value, lax)
    if 0 < number < MIN_INTERVAL:
        raise InvalidValue(f"{quoted(value)} is shorter than the minimum of {MIN_INTERVAL:g} s")
    return number


def time_zone(value: Any, lax: bool) -> str | None:
    """The name of a time zone of the system, such as `Europe/Paris`; that of the manager unless given."""
    if value is None or value == "":
        return None
    try:
        ZoneInfo(value)
    except (ValueError, OSError, TypeError, KeyError):  # KeyError: not found
        raise InvalidValue(f"unknown time zone {quoted(value)}", "use a name such as Europe/Paris or UTC") from None
    return str(value)
