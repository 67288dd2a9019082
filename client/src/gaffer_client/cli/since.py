"""`--since`: an age or a point in time."""

from datetime import datetime

from gaffer.errors import InvalidValue
from gaffer_client.cli.errors import UsageError


def parse_age(text: str) -> float | None:
    """Return the seconds of an age such as `90` or `10m`, or None if `text` is not one."""
    from gaffer.jobs import rules  # slow

    try:
        return rules.seconds(text, True)
    except InvalidValue:
        return None


def parse_time(text: str) -> float:
    """Return a date and time in seconds since 1970, in local time unless it has an offset; raise UsageError."""
    try:
        return max(0.0, datetime.fromisoformat(text).timestamp())
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"--since: {text!r} is neither an age nor a time",
            hint="use an age such as 90, 30m or 2h, or a time such as 2026-01-31T06:00",
        ) from None
