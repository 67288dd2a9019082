"""A playbook: the events that a state machine receives and the instructions that follow, checked in order.

    assert (
        play(job)
        >> StartRequested()
        << Publish("start")
        << Spawn(1, slot=1)
        >> wait(0.5)
        >> Spawned(1, os_pid=1001)
        << Publish("spawn", 1, ANY)
        >> Scaled(1)
        << nothing
    )

`>>` gives the machine an event, or lets time pass. `<<` expects the next instruction, or a sequence of them, and fails
at once when another one comes. Each instruction has to be expected: the next `>>` fails when some are left over, and at
the end `assert` does. ANY (of unittest.mock) stands for a value that does not matter.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

Event = TypeVar("Event")
Instruction = TypeVar("Instruction")
Event_in = TypeVar("Event_in", contravariant=True)
Instruction_out = TypeVar("Instruction_out", covariant=True)

nothing: tuple[()] = ()


class Machine(Protocol[Event_in, Instruction_out]):
    """Takes an event and the time in seconds and returns the instructions that follow."""

    def handle(self, event: Event_in, now: float, /) -> Sequence[Instruction_out]: ...


@dataclass(frozen=True)
class wait:
    """Let `seconds` pass."""

    seconds: float


class Playbook(Generic[Event, Instruction]):
    """What happened to `machine` so far, `now` being the time in seconds."""

    def __init__(self, machine: Machine[Event, Instruction], now: float) -> None:
        self.machine = machine
        self.now = now
        self._left: deque[Instruction] = deque()  # came and are not yet expected
        self._story: list[str] = []

    def __rshift__(self, event: Event | wait) -> "Playbook[Event, Instruction]":
        __tracebackhide__ = True
        self._expect_nothing()
        if isinstance(event, wait):
            self.now += event.seconds
        else:
            self._story.append(f"{self.now:8.3f} >> {event}")
            self._left.extend(self.machine.handle(event, self.now))
        return self

    def __lshift__(self, expected: Instruction | Sequence[Instruction]) -> "Playbook[Event, Instruction]":
        __tracebackhide__ = True
        for instruction in expected if isinstance(expected, Sequence) else [expected]:
            if not self._left or instruction != self._left[0]:
                self._fail(str(instruction))
            self._story.append(f"         << {self._left.popleft()}")
        return self

    def __bool__(self) -> bool:
        __tracebackhide__ = True
        self._expect_nothing()
        return True

    def __del__(self) -> None:
        self._expect_nothing()  # fails the test that forgot its assert

    def _expect_nothing(self) -> None:
        __tracebackhide__ = True
        if self._left:
            self._fail("nothing")

    def _fail(self, expected: str) -> None:
        __tracebackhide__ = True
        got, *more = [*map(str, self._left), "nothing"]
        self._left.clear()
        end = [f"expected << {expected}", f"     got << {got}", *(f"         << {each}" for each in more[:-1])]
        raise AssertionError("\n".join([f"expected {expected}, got {got}", "", *self._story, *end]))


def play(machine: Machine[Event, Instruction], now: float = 100.0) -> Playbook[Event, Instruction]:
    """A playbook that begins at `now`, in seconds."""
    return Playbook(machine, now)
