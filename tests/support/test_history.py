"""The checker of histories: it finds what is wrong, and nothing else."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.history import BACK, REMOVAL, History

TTL, INTERVAL = 10.0, 3.0
GRANTED = TTL - INTERVAL

Story = Callable[[History], None]


def history(story: Story) -> History:
    found = History(TTL, INTERVAL)
    found.reachable("n", 0.0, within=0.0)
    story(found)
    return found


def always(found: History) -> None:
    pass


def cut(found: History) -> None:
    found.unreachable("n", 100.0)


def blink(found: History) -> None:
    found.unreachable("n", 100.0)
    found.reachable("n", 100.0 + GRANTED - 0.1)


def outage(found: History) -> None:
    found.unreachable("n", 100.0)
    found.reachable("n", 200.0)


def held(found: History) -> None:
    found.unreachable("n", 100.0, held=True)
    found.reachable("n", 200.0)


GONE = 100.0 + TTL + REMOVAL


@pytest.mark.parametrize(
    ("story", "time", "listed", "fine"),
    [
        (always, 50.0, True, True),
        (always, 50.0, False, False),
        (cut, 100.0 + GRANTED - 1, False, False),
        (cut, 100.0 + GRANTED + 1, False, True),
        (cut, 100.0 + GRANTED + 1, True, True),
        (cut, GONE - 1, True, True),
        (cut, GONE + 1, True, False),
        (cut, GONE + 1, False, True),
        (blink, 100.0 + GRANTED + 1, False, False),
        (blink, 100.0 + GRANTED + 1, True, True),
        (blink, GONE + 1, True, True),
        (outage, 50.0, False, False),
        (outage, 150.0, True, False),
        (outage, 150.0, False, True),
        (outage, 200.0 + BACK - 1, False, True),
        (outage, 200.0 + BACK + 1, False, False),
        (outage, 200.0 + BACK + 1, True, True),
        (held, 150.0, False, False),
        (held, 150.0, True, True),
        (held, 250.0, False, False),
    ],
)
def test_an_answer_is_held_against_the_life_of_the_node(story: Story, time: float, listed: bool, fine: bool) -> None:
    found = history(story)
    found.saw(time, time + 0.1, ["n", "other"] if listed else ["other"])
    assert (found.violations() == []) is fine


def test_an_answer_that_took_long_may_be_of_any_time_in_between() -> None:
    found = history(outage)
    found.saw(100.0 + GRANTED - 1, 100.0 + GRANTED + 1, [])
    found.saw(GONE - 1, GONE + 1, ["n"])
    found.saw(199.0, 201.0, ["n"])
    assert found.violations() == []


def test_two_outages_are_two_and_not_one_long_one() -> None:
    found = history(outage)
    found.unreachable("n", 300.0)
    for time in (50.0, 250.0, 301.0):
        found.saw(time, time, [])
    for time in (150.0, 350.0):
        found.saw(time, time, ["n"])
    assert len(found.violations()) == 5


def test_nodes_are_judged_one_by_one() -> None:
    found = history(cut)
    found.reachable("m", 0.0, within=0.0)
    found.saw(GONE + 1, GONE + 1, ["n"])
    assert found.violations() == [
        "n is listed 1.00 s after it had to be gone",
        f"m is missing {GONE + 1:.2f} s after it had to be listed",
    ]


def test_how_long_it_took() -> None:
    found = history(outage)
    for time, nodes in ((99.0, []), (105.0, ["n"]), (111.0, []), (150.0, []), (202.0, ["n"])):
        found.saw(time, time + 0.5, nodes)
    assert found.first_without("n", 100.0) == 11.5
    assert found.first_with("n", 200.0) == 2.5
    assert found.first_without("n", 202.0) is None


@given(
    st.lists(st.floats(0.1, 50.0), min_size=1, max_size=8),
    st.lists(st.floats(0.0, 300.0), max_size=20),
)
def test_a_lookupd_that_does_as_it_should_is_never_blamed(pauses: list[float], questions: list[float]) -> None:
    """One that removes a node the moment its lease has ended, counted from the cut, and has it back at once."""
    found = History(TTL, INTERVAL)
    found.reachable("n", 0.0)
    spans, now, up = [], 0.0, True
    for pause in pauses:
        begin, now = now, now + pause
        spans.append((begin, now, up))
        up = not up
        (found.reachable if up else found.unreachable)("n", now)
    spans.append((now, 1000.0, up))
    for time in sorted(questions):
        begin, _, reachable = next(span for span in spans if span[0] <= time < span[1])
        listed = reachable or time < begin + TTL
        found.saw(time, time, ["n"] if listed else [])
    assert found.violations() == []
