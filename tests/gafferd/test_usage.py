"""The usage history: what it keeps of what was measured, by tables; and as a route."""

from typing import Any

import pytest

from gaffer.jobs.names import JobName
from gafferd.usage.samples import Measured, UsageHistory

pytestmark = pytest.mark.pure

WEB, API = JobName("shop", "web"), JobName("shop", "api")


def process(cpu: float, resident: int = 1000, *, job: JobName = WEB, slot: int = 1, pid: int = 1) -> Measured:
    """A process that began at 0."""
    return Measured(job, slot, pid, 0.0, cpu, resident)


def history(*rounds: list[Measured], samples: int = 4, most: int = 100) -> UsageHistory:
    """A history with a round each 10 seconds from 10 on; the wall clock is 1000 ahead."""
    made = UsageHistory(samples, most)
    for number, measured in enumerate(rounds, 1):
        made.record(1000.0 + 10 * number, 10.0 * number, measured, {WEB: number, API: 0})
    return made


def of(made: UsageHistory, job: JobName = WEB) -> dict[str, Any]:
    return dict(made.of(job, 2000.0, 10.0))


def test_a_share_is_that_since_the_sample_before_and_at_first_since_the_start() -> None:
    assert of(history([process(5.0)], [process(5.0, 2000)], [process(25.0)])) == {
        "name": "shop.web",
        "now": 2000.0,
        "interval": 10.0,
        "at": [1010.0, 1020.0, 1030.0],
        "restarts": [1, 2, 3],
        "processes": [{"slot": 1, "cpu": [50.0, 0.0, 200.0], "memory": [1000, 2000, 1000]}],
        "left_out": 0,
    }


CASES: dict[str, tuple[list[list[Measured]], list[float], list[list[float | None]]]] = {
    "nothing": ([], [], []),
    "no process": ([[], []], [], []),
    "begins late": ([[], [process(1.0)]], [1020.0], [[5.0]]),
    "ended": ([[process(1.0)], []], [1010.0, 1020.0], [[10.0, None]]),
    "replaced": ([[process(9.0)], [process(4.0, pid=2)]], [1010.0, 1020.0], [[90.0, 20.0]]),
    "two slots": (
        [[process(1.0)], [process(2.0), process(4.0, slot=2, pid=2)]],
        [1010.0, 1020.0],
        [[10.0, 10.0], [None, 20.0]],
    ),
    "run once": ([[process(1.0, slot=0), process(2.0, slot=0, pid=2)]], [1010.0], [[30.0]]),
    "full": ([[process(float(n))] for n in range(6)], [1030.0, 1040.0, 1050.0, 1060.0], [[10.0] * 4]),
    "counter set back": ([[process(9.0)], [process(1.0)]], [1010.0, 1020.0], [[90.0, 0.0]]),
    "forgotten": ([[process(1.0)], [], [], [], []], [], []),
    "almost forgotten": ([[process(1.0)], [], [], []], [1010.0, 1020.0, 1030.0, 1040.0], [[10.0, None, None, None]]),
    "back": (
        [[process(1.0)], [], [], [process(1.0)], [], []],
        [1040.0, 1050.0, 1060.0],
        [[2.5, None, None]],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_last_rounds_are_kept(case: str) -> None:
    rounds, times, shares = CASES[case]
    found = of(history(*rounds))
    assert (found["at"], [each["cpu"] for each in found["processes"]]) == (times, shares)
    assert all(len(each["memory"]) == len(times) for each in found["processes"])
    assert len(found["restarts"]) == len(times)


def test_jobs_are_apart() -> None:
    made = history([process(1.0), process(2.0, job=API, pid=2)])
    assert [of(made, job)["processes"][0]["cpu"] for job in (WEB, API)] == [[10.0], [20.0]]
    assert made.jobs == [WEB, API]
    assert of(made, JobName("shop", "other"))["processes"] == []


def test_slots_beyond_the_limit_are_left_out_until_there_is_room() -> None:
    both = [process(1.0), process(2.0, job=API, pid=2)]
    made = history(both, both, samples=2, most=1)
    assert (made.jobs, made.left_out) == ([WEB], 1)
    assert of(made, API) == {**of(made, API), "processes": [], "left_out": 1}
    for number in (3, 4):  # the first job ends, and is forgotten
        made.record(1000.0 + 10 * number, 10.0 * number, both[1:], {})
    assert (made.jobs, made.left_out) == ([], 1)
    made.record(1050.0, 50.0, both[1:], {})
    assert (made.jobs, made.left_out) == ([API], 0)
