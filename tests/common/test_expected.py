"""How many processes a job should have now, by which the lookups tell whether it is ready."""

from collections.abc import Callable
from typing import Any

import pytest

from gaffer.jobs import events as ev
from support.job_system import System

pytestmark = pytest.mark.pure

Step = Callable[[System], object]


def tell(*events: ev.Event) -> Step:
    return lambda system: system.tell(*events)


def die(*pids: int, code: int = 0) -> Step:
    return lambda system: system.die(*pids, code=code)


START, DRAINED = ev.StartRequested(), ev.NodeDrained(True)
ONCE = {"kind": "once", "numprocesses": 2}


@pytest.mark.parametrize(
    ("config", "steps", "expected"),
    [
        ({"numprocesses": 2}, [], 0),
        ({"numprocesses": 2}, [tell(START)], 2),
        ({"numprocesses": 2}, [tell(START), die(1, code=3)], 2),
        ({"numprocesses": 2}, [tell(START, ev.Scaled(3))], 3),
        ({"numprocesses": 2}, [tell(START, ev.Scaled(0))], 0),
        ({"numprocesses": 2}, [tell(START, ev.StopRequested())], 0),
        ({"numprocesses": 2}, [tell(START, DRAINED)], 0),
        ({"numprocesses": 2}, [tell(START, ev.DisableRequested("broken", 1.0))], 0),
        ({"numprocesses": 2, "after": ["db"]}, [tell(START, ev.DependencyChanged("waiting for db"))], 2),
        (ONCE, [tell(START)], 2),
        (ONCE, [tell(START), die(1)], 1),
        (ONCE, [tell(START), die(1), die(2)], 0),
        ({**ONCE, "restart": "never"}, [tell(START), die(1), die(2, code=3)], 2),
        ({"every": 30}, [tell(START)], 0),
        ({"every": 30}, [tell(START, ev.ScheduleDue(1.0))], 1),
        ({"every": 30}, [tell(START, ev.ScheduleDue(1.0)), die(1)], 0),
        ({"start": "on-connection", "socket": ["http=tcp:127.0.0.1:80"]}, [tell(START)], 0),
    ],
)
def test_processes_that_should_run_now(config: dict[str, Any], steps: list[Step], expected: int) -> None:
    system = System(**config)
    for step in steps:
        step(system)
    assert system.job.expected == expected
