"""`eventually` returns what the predicate returned, and says at the deadline what it last saw."""

import pytest

from support.poll import eventually, eventually_async


def test_returns_the_first_true_value() -> None:
    answers = iter([None, AssertionError("not yet"), ConnectionRefusedError(), "here"])

    def ask() -> str | None:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert eventually(ask, retry_on=(OSError,)) == "here"


def test_says_what_it_waited_for() -> None:
    with pytest.raises(AssertionError, match=r"after 0\.05 s: no node came; the last answer was \[\]"):
        eventually(list, 0.05, message="no node came")


def test_passes_on_what_it_was_not_told_to_retry() -> None:
    with pytest.raises(ZeroDivisionError):
        eventually(lambda: 1 / 0)


async def test_async_takes_plain_and_coroutine_functions() -> None:
    async def ask() -> str:
        return "here"

    assert await eventually_async(ask) == "here"
    assert await eventually_async(lambda: "there") == "there"
    with pytest.raises(AssertionError, match="the last answer was 0"):
        await eventually_async(lambda: 0, 0.05)
