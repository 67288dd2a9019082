"""The definitions that a job keeps."""

import pytest

from gaffer.jobs.definitions import KEPT, Definitions
from support.job_steps import config_of

pytestmark = pytest.mark.pure


def test_a_definition_is_found_by_its_generation() -> None:
    one, two, three = (config_of(cmd=cmd) for cmd in ("one", "two", "three"))
    definitions = Definitions(one)
    assert (definitions.generation, definitions.find(1), definitions.find(None)) == (1, one, None)
    definitions.add(two)
    definitions.add(three)
    assert (definitions.generation, definitions.generations) == (3, [1, 2, 3])
    assert [definitions.find(generation) for generation in (1, 2, 3, 4, 0, -1)] == [one, two, three, None, None, None]
    assert definitions.find(None) is two
    assert definitions.kept == [(3, three), (2, two), (1, one)]


def test_the_oldest_definitions_are_forgotten() -> None:
    definitions = Definitions(config_of(cmd="1"))
    for number in range(2, KEPT + 4):
        definitions.add(config_of(cmd=str(number)))
    assert KEPT == 10
    assert definitions.generations == [*range(4, 14)]
    assert definitions.find(3) is None
    found = definitions.find(4)
    assert found is not None
    assert found.cmd == "4"
