"""How many may come in a second."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer.http.rate_limiter import RateLimiter

pytestmark = pytest.mark.pure


@given(limit=st.integers(11, 60), pauses=st.lists(st.sampled_from([0.0, 0.001, 0.03, 0.09, 0.2]), max_size=200))
def test_no_second_has_more_than_allowed(limit: int, pauses: list[float]) -> None:
    limiter, now, came = RateLimiter(limit), 100.0, []
    for pause in pauses:
        now += pause
        came.append(now)
        now += limiter.count(now)
    for first in came:
        assert sum(first <= when < first + 1 for when in came) <= limit


def test_those_who_come_slowly_never_wait() -> None:
    limiter = RateLimiter(110)
    assert [limiter.count(0.02 * number) for number in range(100)] == 100 * [0.0]


def test_without_a_limit_nobody_waits() -> None:
    limiter = RateLimiter(None)
    assert {limiter.count(5.0) for _ in range(10_000)} == {0.0}


def test_a_small_limit_lets_some_come() -> None:
    assert RateLimiter(1).count(5.0) > 0
