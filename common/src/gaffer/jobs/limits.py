"""Resource limits of processes, setrlimit(2): how they are written. No I/O."""

import re
from typing import Any

from gaffer.errors import InvalidValue, quoted

UNLIMITED = "unlimited"
_LIMIT = re.compile(r"(?:[0-9]{1,19}|unlimited)(?::(?:[0-9]{1,19}|unlimited))?", re.ASCII)
_HINT = "use a number, SOFT:HARD or unlimited"


def resource_limit(value: Any, lax: bool) -> str | None:
    """A number, `SOFT:HARD` or `unlimited`; empty leaves the limit unchanged."""
    if value is None or value == "":
        return None
    try:
        text = str(value).strip() if isinstance(value, int | str) and not isinstance(value, bool) else ""
    except ValueError:  # an integer with more digits than Python converts
        text = ""
    if _LIMIT.fullmatch(text) is None:
        raise InvalidValue(f"expected a limit, got {quoted(value)}", _HINT)
    soft, hard = parse_limit(text)
    if hard is not None and (soft is None or soft > hard):
        raise InvalidValue(f"the soft limit exceeds the hard limit in {quoted(value)}", _HINT)
    return text


def parse_limit(text: str) -> tuple[int | None, int | None]:
    """Return the soft and the hard limit in a checked text, None for unlimited; one number stands for both."""
    soft, _, hard = text.partition(":")
    return _number(soft), _number(hard or soft)


def _number(text: str) -> int | None:
    return None if text == UNLIMITED else int(text)
