"""What of a file a request wants: conditions and ranges (RFC 9110, sections 13 and 14)."""

import re
from email.utils import mktime_tz, parsedate_tz

from gaffer.errors import GafferError

_RANGE = re.compile(r"bytes[ \t]*=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.ASCII | re.IGNORECASE)


class RangeNotSatisfiable(GafferError):
    """The range begins after the end; `size` is the length of the file."""

    errno = 416
    reason = "range_not_satisfiable"

    def __init__(self, size: int) -> None:
        self.size = size
        super().__init__(f"the file has {size} bytes", hint="ask for a range that begins before its end")


def find_range(header: str | None, size: int) -> range | None:
    """The positions in a file of `size` bytes that a Range header asks for; None for the whole file.

    That is also for several ranges, and for what is no range, as RFC 9110 allows. Raises RangeNotSatisfiable.
    """
    match = _RANGE.fullmatch(header or "")
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first == "":  # the last so many bytes
        start, stop = max(size - int(last), 0), size
    else:
        start, stop = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None
    if start >= stop:
        raise RangeNotSatisfiable(size)
    return range(start, stop)


def parse_date(header: str | None) -> int | None:
    """The seconds since the epoch of a date in a header; None for what is no date."""
    parsed = parsedate_tz(header or "")
    try:
        return int(mktime_tz(parsed)) if parsed is not None else None
    except (ValueError, OverflowError):
        return None


def range_applies(if_range: str | None, etag: str, modified: int) -> bool:
    """Whether the file is still the one that the client has a part of, by its If-Range header."""
    return if_range is None or if_range == etag or parse_date(if_range) == modified
