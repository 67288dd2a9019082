"""Conditional and range requests for files (RFC 9110, sections 13 and 14)."""

import re
from email.utils import mktime_tz, parsedate_tz

from gaffer.errors import GafferError

_RANGE = re.compile(r"bytes[ \t]*=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.ASCII | re.IGNORECASE)


class RangeNotSatisfiable(GafferError):
    """The requested range starts after the end of the file; `size` is the length of the file in bytes."""

    errno = 416
    reason = "range_not_satisfiable"

    def __init__(self, size: int) -> None:
        self.size = size
        super().__init__(f"the file has {size} bytes", hint="request a range within the file")


def find_range(header: str | None, size: int) -> range | None:
    """Return the positions that a Range header requests of a file of `size` bytes, or None for the whole file.

    Multiple ranges and invalid ranges also mean the whole file, as RFC 9110 allows. Raises RangeNotSatisfiable.
    """
    match = _RANGE.fullmatch(header or "")
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first == "":  # the last N bytes
        start, stop = max(size - int(last), 0), size
    else:
        start, stop = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None
    if start >= stop:
        raise RangeNotSatisfiable(size)
    return range(start, stop)


def parse_date(header: str | None) -> int | None:
    """Return the date of a header in seconds since the epoch, or None if it is invalid."""
    parsed = parsedate_tz(header or "")
    try:
        return int(mktime_tz(parsed)) if parsed is not None else None
    except (ValueError, OverflowError):
        return None


def range_applies(if_range: str | None, etag: str, modified: int) -> bool:
    """Return whether the If-Range header matches the current version of the file."""
    return if_range is None or if_range == etag or parse_date(if_range) == modified
