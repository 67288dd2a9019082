"""A playbook fails at the first instruction that differs, and shows how it came to that."""

from dataclasses import dataclass
from typing import Any
from unittest.mock import ANY

import pytest

from support.playbook import Playbook, nothing, play, wait


@dataclass
class Ring:
    """Of a bell, `times` times."""

    times: int


@dataclass
class Strike:
    """Of the clapper, at `time`."""

    number: int
    time: float


class Bell:
    def handle(self, event: Ring, now: float) -> list[Strike]:
        return [Strike(number, now) for number in range(1, event.times + 1)]


@pytest.fixture
def book() -> Playbook[Ring, Strike]:
    return play(Bell(), now=0.0)


def test_a_story_that_comes_true(book: Playbook[Ring, Strike]) -> None:
    assert book >> Ring(2) << Strike(1, 0.0) << Strike(2, ANY) >> wait(1.5) >> Ring(1) << [Strike(1, 1.5)]
    assert book >> Ring(0) << nothing


def test_another_instruction_fails_with_the_whole_story(book: Playbook[Ring, Strike]) -> None:
    with pytest.raises(AssertionError) as failure:
        _ = book >> Ring(1) << Strike(1, ANY) >> wait(1.5) >> Ring(2) << Strike(2, 1.5)
    assert str(failure.value) == (
        "expected Strike(number=2, time=1.5), got Strike(number=1, time=1.5)\n"
        "\n"
        "   0.000 >> Ring(times=1)\n"
        "         << Strike(number=1, time=0.0)\n"
        "   1.500 >> Ring(times=2)\n"
        "expected << Strike(number=2, time=1.5)\n"
        "     got << Strike(number=1, time=1.5)\n"
        "         << Strike(number=2, time=1.5)"
    )


def test_an_instruction_that_does_not_come_fails(book: Playbook[Ring, Strike]) -> None:
    with pytest.raises(AssertionError, match=r"^expected Strike\(number=2, time=0.0\), got nothing\n"):
        _ = book >> Ring(1) << Strike(1, 0.0) << Strike(2, 0.0)


@pytest.mark.parametrize("go_on", [bool, lambda book: book >> Ring(0), lambda book: book >> wait(1.0)])
def test_an_instruction_that_is_not_expected_fails(book: Playbook[Ring, Strike], go_on: Any) -> None:
    _ = book >> Ring(2) << Strike(1, 0.0)
    with pytest.raises(AssertionError, match=r"^expected nothing, got Strike\(number=2, time=0.0\)\n"):
        go_on(book)


def test_a_forgotten_assert_fails(pytester: pytest.Pytester) -> None:
    pytester.makeini(
        "[pytest]\nfilterwarnings = error::pytest.PytestUnraisableExceptionWarning\n"
        "asyncio_default_fixture_loop_scope = function\n"
    )
    pytester.makepyfile(
        """
        from support.playbook import play

        class Echo:
            def handle(self, event, now):
                return [event]

        def test_story():
            play(Echo()) >> "ho"
        """
    )
    result = pytester.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*expected nothing, got ho*"])
