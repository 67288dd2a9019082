import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer.streams.log_index import MAX_MARKS, PRECISION, SEGMENT, Mark, start_since, thin

pytestmark = pytest.mark.pure


def test_a_time_is_found_in_the_first_segment_that_was_written_then_or_later() -> None:
    marks = [Mark(0, 10.0), Mark(100, 20.0), Mark(300, 30.0)]
    assert [start_since(marks, moment) for moment in (5, 10, 10.1, 20, 29, 30, 31)] == [0, 0, 100, 100, 300, 300, None]


def test_old_segments_last_a_part_of_their_age() -> None:
    marks: list[Mark] = []
    now = 0.0
    while now < 30 * 86400:
        marks.append(Mark(len(marks), now))
        if len(marks) > MAX_MARKS:
            marks = thin(marks, now)
        now += SEGMENT + now / 5000  # sooner or later, so that a month takes few steps
    for earlier, later in itertools.pairwise(marks):
        age = now - later.last
        assert later.last - earlier.last <= max(1.1 * PRECISION * age, SEGMENT + now / 5000), (earlier, later)
    assert marks[0].start == 0
    assert MAX_MARKS / 2 < len(marks) <= MAX_MARKS


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=3 * MAX_MARKS).map(sorted))
def test_thinning_keeps_the_beginning_and_the_end_and_is_enough(times: list[float]) -> None:
    marks = [Mark(10 * index, time) for index, time in enumerate(times)]
    kept = marks
    while len(kept) > MAX_MARKS:
        fewer = thin(kept, times[-1])
        assert len(fewer) <= max(MAX_MARKS * 9 // 10, len(kept) * 3 // 4 + 1)
        kept = fewer
    assert kept[0].start == 0
    assert kept[-1].last == times[-1]
    for moment in times[:: len(times) // 20 + 1]:  # nothing that was written then is left out
        exact, found = start_since(marks, moment), start_since(kept, moment)
        assert exact is not None
        assert found is not None
        assert found <= exact
