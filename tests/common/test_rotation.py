import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer.streams.rotation import Rotation

pytestmark = pytest.mark.pure


@pytest.mark.parametrize(
    ("size", "block", "expected"),
    [
        (0, b"short", 5),
        (4, b"123456", 6),
        (5, b"123456", 0),  # the line goes into the next file as a whole
        (5, b"12\n34\n56", 3),
        (0, b"a line that is longer than a file\n", 10),
        (10, b"x", 0),
        (700, b"x", 0),  # written under a larger limit
    ],
)
def test_lines_stay_whole_where_they_fit(size: int, block: bytes, expected: int) -> None:
    assert Rotation(10, 3).room(size, block) == expected


def test_no_limit_is_no_limit() -> None:
    assert Rotation(0, 3).room(10**12, b"x" * 1000) == 1000


@given(st.integers(1, 50), st.lists(st.binary(min_size=1, max_size=120), max_size=20))
def test_everything_is_written_once_and_no_file_is_larger_than_allowed(limit: int, blocks: list[bytes]) -> None:
    rotation = Rotation(limit, 3)
    files = [b""]
    for block in blocks:
        rest = block
        while rest:
            count = rotation.room(len(files[-1]), rest)
            if count:
                files[-1] += rest[:count]
                rest = rest[count:]
            else:
                files.append(b"")
    assert b"".join(files) == b"".join(blocks)
    assert all(len(file) <= limit for file in files)


def test_the_oldest_backup_goes_first() -> None:
    assert Rotation(10, 3).renames("a.log") == [
        ("a.log.2", "a.log.3"),
        ("a.log.1", "a.log.2"),
        ("a.log", "a.log.1"),
    ]
    assert Rotation(10, 3).oldest("a.log") == "a.log.3"
    assert (Rotation(10, 0).renames("a.log"), Rotation(10, 0).oldest("a.log")) == ([], "a.log")
