"""What clients were told of nodes, held against what became of the nodes. Pure; times are monotonic seconds.

A test says when each node could reach a lookupd and be reached by it, and when not. From that follows when every
answer must have the node, and when none may:

- a node that can be reached is in every answer, and so is one that could not for less than the lease grants: its
  ttl, less one interval, for it may have been heard last that long before;
- a node that can't is in no answer later than `removal` seconds after its ttl;
- a node that can be reached again is back within seconds that the test sets.

Between these times an answer may be either way.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass, field

REMOVAL = 2.0  # seconds after its ttl that a silent node may still be listed
BACK = 5.0  # seconds that a node may need to come back


@dataclass(frozen=True)
class Seen:
    """An answer: asked for at one time, received at another, with these nodes in it."""

    asked: float
    answered: float
    nodes: frozenset[str]


@dataclass(frozen=True)
class _Span:
    begin: float
    end: float

    def covers(self, seen: Seen) -> bool:
        """Whether the answer was made within the span, whenever that was."""
        return self.begin <= seen.asked and seen.answered <= self.end


@dataclass
class _Life:
    """When a node must be listed, and when it must not: the past in spans, the present in numbers."""

    present: list[_Span] = field(default_factory=list)
    absent: list[_Span] = field(default_factory=list)
    due: float = math.inf  # it must be listed from then on,
    lease_ends: float = math.inf  # as long as this, which is for ever while it can be reached,
    gone_from: float = math.inf  # and must not be listed from then on

    def settle(self, now: float) -> None:
        """What was so far is past at the time `now`."""
        self.present.append(_Span(self.due, self.lease_ends))
        self.absent.append(_Span(self.gone_from, now))

    def judge(self, seen: Seen, node: str) -> str | None:
        """What is wrong with the answer, None when it may be so."""
        if node in seen.nodes:
            wrong, should, spans = "listed", "gone", [*self.absent, _Span(self.gone_from, math.inf)]
        else:
            wrong, should, spans = "missing", "listed", [*self.present, _Span(self.due, self.lease_ends)]
        begin = next((span.begin for span in spans if span.covers(seen)), None)
        return None if begin is None else f"{node} is {wrong} {seen.asked - begin:.2f} s after it had to be {should}"


class History:
    """The life of nodes and the answers of one lookupd, or of several merged."""

    def __init__(self, ttl: float, interval: float) -> None:
        self._ttl = ttl
        self._interval = interval
        self._lives: dict[str, _Life] = {}
        self._answers: list[Seen] = []

    def reachable(self, node: str, at: float, within: float = BACK) -> None:
        """The node can be reached; it must be listed `within` seconds, or at once when its lease has not ended."""
        life = self._lives.setdefault(node, _Life())
        if at >= life.lease_ends or life.due == math.inf:
            life.settle(at)
            life.due = at + within
        life.lease_ends = life.gone_from = math.inf

    def unreachable(self, node: str, at: float, *, held: bool = False) -> None:
        """The node can't be reached any more; it stays listed all the same when it is `held`."""
        life = self._lives[node]
        life.lease_ends = math.inf if held else at + self._ttl - self._interval
        life.gone_from = math.inf if held else at + self._ttl + REMOVAL

    def saw(self, asked: float, answered: float, nodes: Collection[str]) -> None:
        """A client got an answer with these nodes."""
        self._answers.append(Seen(asked, answered, frozenset(nodes)))

    @property
    def answers(self) -> int:
        """How many answers there are."""
        return len(self._answers)

    def violations(self) -> list[str]:
        """Each answer that lacks a node or has one too many, in a sentence."""
        return [
            problem
            for node, life in self._lives.items()
            for seen in self._answers
            if (problem := life.judge(seen, node)) is not None
        ]

    def first_without(self, node: str, since: float) -> float | None:
        """Seconds from `since` to the first answer without the node, None when all had it."""
        return next((s.answered - since for s in self._answers if s.asked >= since and node not in s.nodes), None)

    def first_with(self, node: str, since: float) -> float | None:
        """Seconds from `since` to the first answer that has the node, None when none had it."""
        return next((s.answered - since for s in self._answers if s.asked >= since and node in s.nodes), None)
