"""How long to wait before the next attempt."""

import pytest

from gaffer_client.backoff import Backoff

pytestmark = pytest.mark.pure


def test_waits_double_up_to_a_limit_and_begin_anew() -> None:
    for _ in range(20):
        backoff = Backoff(first=1.0, limit=5.0)
        for longest in (1.0, 2.0, 4.0, 5.0, 5.0):
            assert longest / 2 <= backoff.next() <= longest
        backoff.reset()
        assert 0.5 <= backoff.next() <= 1.0


def test_clients_spread() -> None:
    assert len({Backoff().next() for _ in range(10)}) > 1


def test_a_server_may_want_more() -> None:
    assert Backoff(first=1.0).next(least=7.0) == 7.0
