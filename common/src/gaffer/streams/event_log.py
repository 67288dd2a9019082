"""Events as records, and the rules by which a pattern gets them.

An event has one name, the documented one, and may have aliases, which 0.5 had. A pattern is a dotted prefix: `a` gets
`a` and `a.b`. Each pattern gets an event at most once; `.` gets all under their documented names, an alias is only for
a pattern that names it.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

ALL = "."
LIMIT = 2048  # events that a manager's log keeps, in 1.7 MB

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Event(NamedTuple):
    """What happened: `names` are its name and its aliases, `arguments(name)` what listeners of that name get."""

    names: tuple[str, ...]
    arguments: Callable[[str], Arguments]

    def payload(self, name: str) -> dict[str, Any]:
        """The message under one of its names: `event`, the name, and what the event tells.

        An application may publish anything: other than one mapping or keywords become `args`.
        """
        args, kwargs = self.arguments(name)
        if len(args) == 1 and isinstance(args[0], Mapping):
            return {"event": name, **args[0], **kwargs}
        return {"event": name, **({"args": list(args)} if args else {}), **kwargs}

    @property
    def session(self) -> str | None:
        """The session it happened in; None for one that concerns the whole node."""
        session = self.payload(self.names[0]).get("session")
        return session if isinstance(session, str) else None


def normal(name: str) -> str:
    """A name or pattern as it is compared: without dots at the end."""
    return name.rstrip(".") or ALL


def match(pattern: str, names: tuple[str, ...]) -> str | None:
    """The first of `names` that a normal pattern gets; None when it gets none."""
    if pattern == ALL:
        return names[0]
    for name in names:
        if name == pattern or name.startswith(pattern + "."):
            return name
    return None


def matching(event: Event, pattern: str = ALL) -> tuple[str, dict[str, Any]] | None:
    """The name and the message under which `pattern` gets an event; None when it doesn't."""
    name = match(normal(pattern), event.names)
    return None if name is None else (name, event.payload(name))
