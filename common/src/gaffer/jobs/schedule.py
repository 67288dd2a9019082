"""When scheduled jobs run. Pure: the time is an argument."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from gaffer.errors import InvalidValue, quoted

_REFERENCE = datetime(2000, 1, 1)
_HINT = "use five fields: minute, hour, day of month, month, day of week, such as */5 * * * *"


def cron(value: Any, lax: bool) -> str | None:
    """A cron expression of five fields, crontab(5)."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise InvalidValue(f"expected a cron expression, got {quoted(value)}", _HINT)
    try:
        CronSim(value.strip(), _REFERENCE)
    except CronSimError as error:
        raise InvalidValue(f"invalid cron expression {quoted(value)}: {error}", _HINT) from None
    return value.strip()


def time_zone(value: Any, lax: bool) -> str | None:
    """The name of a time zone of the system, such as `Europe/Paris`; that of the manager unless given."""
    if value is None or value == "":
        return None
    try:
        ZoneInfo(value)
    except (ValueError, OSError, TypeError, KeyError):  # KeyError: not found
        raise InvalidValue(f"unknown time zone {quoted(value)}", "use a name such as Europe/Paris or UTC") from None
    return str(value)
