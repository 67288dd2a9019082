"""Entries that repeat: the first passes, the others are counted."""

import pytest

from gaffer.runtime.repeats import PERIOD, Repeats, Summary

pytestmark = pytest.mark.pure


def test_the_first_of_a_key_passes_and_the_others_are_summarized() -> None:
    repeats: Repeats[str] = Repeats(10)
    assert [repeats.admit(key, f"{key}{number}", 0) for number in range(3) for key in "ab"] == [True] * 2 + [False] * 4
    assert repeats.collect(PERIOD - 1) == []
    assert repeats.collect(PERIOD) == [Summary("a2", 2, False), Summary("b2", 2, False)]
    assert not repeats.admit("a", "a3", PERIOD + 1)
    assert repeats.collect(2 * PERIOD) == [Summary("a3", 1, False)]
    assert not repeats.idle
    assert repeats.collect(3 * PERIOD) == []
    assert repeats.idle
    assert repeats.admit("a", "a4", 3 * PERIOD)


def test_keys_beyond_the_limit_share_one() -> None:
    repeats: Repeats[int] = Repeats(2)
    assert [repeats.admit(number, number, 0) for number in range(100)] == [True] * 3 + [False] * 97
    assert not repeats.admit(0, 0, 1)
    assert repeats.collect(2, all_periods=True) == [Summary(0, 1, False), Summary(99, 97, True)]
