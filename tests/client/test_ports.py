"""Which ports the types of a Procfile get."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer_client.cli.ports import Span, block, free_block, span


@pytest.mark.parametrize(
    ("taken", "first"),
    [
        ([], "8000+"),
        ([(8000, 8099)], "8100+"),
        ([(8000, 8099), (8100, 8199)], "8200+"),
        ([(8100, 8199)], "8200+"),  # two types need two blocks side by side
        ([(8200, 8299)], "8000+"),
        ([(8050, 8050)], "8100+"),
        ([(7000, 7099)], "8000+"),
        ([(7950, 8049)], "8100+"),
        ([(8000, 8150)], "8200+"),
        ([(65400, 65535)], "8000+"),
    ],
)
def test_an_application_gets_the_next_free_block(taken: list[Span], first: str) -> None:
    ports = free_block(["web", "worker"], taken)
    assert ports is not None
    assert ports["web"] == first
    assert int(ports["worker"][:-1]) == int(first[:-1]) + 100


def test_there_may_be_no_ports_left() -> None:
    assert free_block(["web"], [(8000, 65500)]) is None
    assert block(["web"], 65500) is None
    assert block(["web"], 65436) == {"web": "65436+"}


@pytest.mark.parametrize(
    ("port", "processes", "expected"),
    [
        (None, 1, None),
        ("auto", 3, None),
        ("8000", 1, (8000, 8000)),
        (8000, 1, (8000, 8000)),
        ("8000+", 1, (8000, 8099)),
        ("8000+", 150, (8000, 8149)),
    ],
)
def test_the_ports_of_a_job(port: object, processes: int, expected: Span | None) -> None:
    assert span({"port": port}, processes) == expected


spans = st.tuples(st.integers(7900, 9000), st.integers(0, 250)).map(lambda pair: (pair[0], sum(pair)))


@given(st.lists(spans, max_size=8), st.integers(1, 4))
def test_a_block_is_free_and_there_is_none_before_it(taken: list[Span], types: int) -> None:
    def is_free(base: int) -> bool:
        return all(last < base or first >= base + 100 * types for first, last in taken)

    names = [f"type{number}" for number in range(types)]
    ports = free_block(names, taken)
    assert ports is not None
    base = int(ports["type0"][:-1])
    assert is_free(base)
    assert not any(is_free(lower) for lower in range(8000, base, 100))
