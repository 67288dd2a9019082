"""The share of callers that are not known."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer.http.quota import Quota

pytestmark = pytest.mark.pure


def test_who_holds_most_loses_the_oldest() -> None:
    quota: Quota[str] = Quota(4)
    assert quota.victim is None
    for item, source in (("a1", "a"), ("b1", "b"), ("b2", "b"), ("b3", "b")):
        assert not quota.is_full
        quota.add(item, source)
    quota.add("b2", "a")  # counted already
    assert quota.is_full
    assert quota.victim == "b1"
    quota.discard("b1")
    quota.discard("b1")
    assert not quota.is_full
    assert [item in quota for item in ("a1", "b1", "b2")] == [True, False, True]
    for item in ("b2", "b3", "a1"):
        quota.discard(item)
    assert (len(quota), quota.victim) == (0, None)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), max_size=60))
def test_one_source_displaces_no_other(arrivals: list[tuple[int, int]]) -> None:
    """A source with at most its fair share keeps all it has."""
    quota: Quota[int] = Quota(6)
    held: dict[int, int] = {}
    for number, (_, source) in enumerate(arrivals):
        if quota.is_full:
            victim = quota.victim
            assert victim is not None
            counts = Counter(held.values())
            assert counts[held[victim]] == max(counts.values())
            quota.discard(victim)
            del held[victim]
        quota.add(number, source)
        held[number] = source
    assert len(quota) == len(held) <= 6
