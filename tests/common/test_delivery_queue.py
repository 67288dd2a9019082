"""The queue of a webhook, and its delays."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer.applications.delivery_queue import (
    MAX_BYTES,
    MAX_EVENTS,
    Delivery,
    DeliveryQueue,
    retry_delay,
    seconds_asked,
)

pytestmark = pytest.mark.pure

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def drained(queue: DeliveryQueue) -> list[str]:
    names = []
    while len(queue):
        names.append(queue.take().event)
        queue.finish()
    return names


def test_when_full_the_oldest_waiting_event_is_dropped() -> None:
    queue = DeliveryQueue()
    for number in range(MAX_EVENTS):
        assert queue.append(Delivery(str(number), b"")) == []
    assert queue.take().event == "0"
    assert [each.event for each in queue.append(Delivery("new", b""))] == ["1"]
    queue.put_back()
    assert [each.event for each in queue.append(Delivery("newer", b""))] == ["0"]
    assert (len(queue), queue.dropped) == (MAX_EVENTS, 2)
    assert drained(queue) == [*map(str, range(2, MAX_EVENTS)), "new", "newer"]


def test_bytes_are_limited_too() -> None:
    queue = DeliveryQueue()
    half = b"x" * (MAX_BYTES // 2)
    assert [len(queue.append(Delivery(name, half))) for name in "abc"] == [0, 0, 1]
    assert [each.event for each in queue.append(Delivery("huge", half * 3))] == ["b", "c", "huge"]
    assert (len(queue), queue.dropped) == (0, 4)
    assert [queue.append(Delivery(name, half)) for name in "de"] == [[], []]
    assert drained(queue) == ["d", "e"]
    assert [queue.append(Delivery(name, half)) for name in "fg"] == [[], []]
    assert queue.drop_all() == 2
    assert (len(queue), queue.dropped) == (0, 6)


@given(st.lists(st.tuples(st.sampled_from(["append", "take", "put_back", "finish"]), st.integers(0, MAX_BYTES))))
def test_the_order_is_kept_and_every_event_is_accounted_for(steps: list[tuple[str, int]]) -> None:
    queue = DeliveryQueue()
    taken: Delivery | None = None
    finished: list[int] = []
    count = 0
    for step, size in steps:
        if step == "append":
            queue.append(Delivery(str(count), bytes(size)))
            count += 1
        elif step == "take" and taken is None and len(queue):
            taken = queue.take()
        elif step == "put_back":
            queue.put_back()
            taken = None
        elif step == "finish" and taken is not None:
            queue.finish()
            finished.append(int(taken.event))
            taken = None
        assert len(queue) + len(finished) + queue.dropped == count
    queue.put_back()
    order = [*finished, *map(int, drained(queue))]
    assert order == sorted(set(order))


@pytest.mark.parametrize(
    ("failures", "asked", "lowest", "highest"),
    [(1, 0, 0.25, 0.5), (2, 0, 0.5, 1), (8, 0, 30, 60), (10**6, 0, 30, 60), (1, 7, 7, 7), (1, 10**9, 300, 300)],
)
def test_delays_double_up_to_a_minute(failures: int, asked: float, lowest: float, highest: float) -> None:
    assert retry_delay(failures, asked, uniform=lambda low, high: low) == lowest
    assert retry_delay(failures, asked, uniform=lambda low, high: high) == highest


@pytest.mark.parametrize(
    ("field", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("soon", 0),
        ("-5", 0),
        (" 120 ", 120),
        ("9" * 5000, 999_999_999),
        ("Thu, 01 Jan 2026 00:01:00 GMT", 60),
        ("Thu, 01 Jan 2026 00:01:00 -0000", 60),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0),
        ("Thu, 99 Jan 2026 00:01:00 GMT", 0),
    ],
)
def test_a_server_asks_for_seconds_or_a_date(field: str | None, seconds: float) -> None:
    assert seconds_asked(field, NOW) == seconds
