"""Which part of a file a request wants."""

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gafferd.sites.byte_ranges import RangeNotSatisfiable, find_range, parse_date, range_applies

pytestmark = pytest.mark.pure


@pytest.mark.parametrize(
    ("header", "size", "expected"),
    [
        ("bytes=0-0", 10, range(1)),
        ("bytes=2-5", 10, range(2, 6)),
        ("bytes=2-", 10, range(2, 10)),
        ("bytes=2-99", 10, range(2, 10)),
        ("bytes=-3", 10, range(7, 10)),
        ("bytes=-99", 10, range(10)),
        ("Bytes = 0-1 ", 10, range(2)),
        (None, 10, None),
        ("", 10, None),
        ("bytes=-", 10, None),
        ("bytes=5-2", 10, None),
        ("bytes=0-1,4-5", 10, None),
        ("bytes=+1-2", 10, None),
        ("bytes=\u0661-", 10, None),
        ("lines=0-1", 10, None),
        ("bytes=0-1", 0, RangeNotSatisfiable),
        ("bytes=10-", 10, RangeNotSatisfiable),
        ("bytes=-0", 10, RangeNotSatisfiable),
        ("bytes=-5", 0, RangeNotSatisfiable),
    ],
)
def test_headers_and_their_ranges(
    header: str | None, size: int, expected: range | type[RangeNotSatisfiable] | None
) -> None:
    if expected is RangeNotSatisfiable:
        with pytest.raises(RangeNotSatisfiable):
            find_range(header, size)
    else:
        assert find_range(header, size) == expected


@given(st.text() | st.from_regex(r"bytes=[0-9]*-[0-9]*", fullmatch=True), st.integers(0, 1 << 40))
def test_a_range_lies_within_the_file(header: str, size: int) -> None:
    try:
        found = find_range(header, size)
    except RangeNotSatisfiable:
        return
    assert found is None or 0 <= found.start < found.stop <= size


@given(st.integers(0, 253402300799))
def test_dates_are_read_as_they_are_written(seconds: int) -> None:
    assert parse_date(formatdate(seconds, usegmt=True)) == seconds


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, [0-9]+ [A-Z][a-z]{2} [0-9]+ [0-9]+:[0-9]+:[0-9]+ [A-Z+0-9-]*"))
def test_no_text_breaks_the_dates(text: str) -> None:
    assert isinstance(parse_date(text), int | None)


@pytest.mark.parametrize(
    ("if_range", "applies"),
    [
        (None, True),
        ('"v1"', True),
        ('"v0"', False),
        ('W/"v1"', False),
        ("Thu, 01 Jan 1970 00:01:40 GMT", True),
        ("Thu, 01 Jan 1970 00:01:41 GMT", False),
        ("yesterday", False),
    ],
)
def test_a_part_is_of_the_version_that_the_client_has(if_range: str | None, applies: bool) -> None:
    assert range_applies(if_range, '"v1"', 100) is applies
