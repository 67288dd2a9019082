"""Jobs of a node that would have the same fixed ports."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer.jobs.config import JobConfig
from gaffer.jobs.ports import conflict

pytestmark = pytest.mark.pure


def job(port: str | None, count: int = 1, **settings: Any) -> JobConfig:
    return JobConfig("j", "true", port=port, numprocesses=count, **settings)


Other = tuple[str, JobConfig, int]
WEB: Other = ("shop.web", job("8000+"), 3)  # 8000 to 8002
API: Other = ("shop.api", job("8003"), 1)
GIVEN: Other = ("shop.given", job(None, env={"PORT": "9000"}), 4)
AUTO: Other = ("shop.auto", job("auto"), 4)


@pytest.mark.parametrize(
    ("config", "count", "port", "owner", "hint"),
    [
        (job("8002"), 1, 8002, "shop.web", "set port = 8004 or auto"),
        (job("8003"), 1, 8003, "shop.api", "set port = 8004 or auto"),
        (job("7999+"), 2, 8000, "shop.web", "set port = 8004+ or auto, or at most 1 process"),
        (job("7990+"), 20, 8000, "shop.web", "set port = 8004+ or auto, or at most 10 processes"),
        (job("8002+"), 9, 8002, "shop.web", "set port = 8004+ or auto"),
        (job("9000"), 1, 9000, "shop.given", "set port = 9001 or auto"),
        (job("65535"), 1, 65535, "shop.last", "set port = auto"),
    ],
)
def test_a_conflict_names_the_port_its_owner_and_a_remedy(
    config: JobConfig, count: int, port: int, owner: str, hint: str
) -> None:
    last: Other = ("shop.last", job("65530+"), 6)
    problem = conflict(config, count, [last, API, GIVEN, AUTO, WEB])
    assert problem is not None
    assert (problem.path, problem.message, problem.hint) == (
        "$.port",
        f"port: j would get port {port}, which belongs to {owner}",
        hint,
    )


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (job("7999"), 1),
        (job("7990+"), 10),
        (job("8004+"), 10),
        (job("auto"), 10),
        (job(None), 10),
        (job("8000", env={"PORT": "8000"}), 1),  # given on purpose
    ],
)
def test_no_conflict(config: JobConfig, count: int) -> None:
    assert conflict(config, count, [API, GIVEN, AUTO, WEB]) is None


def test_a_stopped_job_keeps_its_first_port() -> None:
    assert conflict(job("8000"), 1, [("shop.web", job("8000+"), 0)]) is not None
    assert conflict(job("8001"), 1, [("shop.web", job("8000+"), 0)]) is None


small = st.tuples(st.integers(8000, 8020), st.integers(1, 5))


@given(small, st.lists(small, max_size=5))
def test_the_remedy_has_no_conflict(wanted: tuple[int, int], taken: list[tuple[int, int]]) -> None:
    others = [(f"s.j{index}", job(f"{first}+"), count) for index, (first, count) in enumerate(taken)]
    first, count = wanted
    used = {port for start, number in taken for port in range(start, start + number)}
    problem = conflict(job(f"{first}+"), count, others)
    assert (problem is None) == used.isdisjoint(range(first, first + count))
    if problem is not None:
        hint = problem.hint or ""
        assert conflict(job(hint.split()[3]), count, others) is None
        if "at most" in hint:
            assert conflict(job(f"{first}+"), int(hint.split()[-2]), others) is None
