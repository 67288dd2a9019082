"""Events as records, and how patterns match them.

An event has one documented name and may have aliases, which are names used by 0.5. A pattern is a dotted prefix: `a`
matches `a` and `a.b`. A pattern matches an event at most once; `.` matches all events under their documented names, and
an alias is used only if the documented name does not match.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

ALL = "."
LIMIT = 2048  # events in a manager's log, 1.7 MB
UNLISTED_LIMIT = 512  # among those that no pattern for all events matches

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Event(NamedTuple):
    """An event: `names` are its name and aliases; `arguments(name)` returns the arguments for listeners to `name`.

    The pattern for all events matches only `listed` ones.
    """

    names: tuple[str, ...]
    arguments: Callable[[str], Arguments]
    listed: bool = True

    def payload(self, name: str) -> dict[str, Any]:
        """Return the message under one of its names: `event`, which is the name, and the data of the event.

        Applications may publish anything: positional arguments other than a single mapping become `args`.
        """
        args, kwargs = self.arguments(name)
        if len(args) == 1 and isinstance(args[0], Mapping):
            return {"event": name, **args[0], **kwargs}
        return {"event": name, **({"args": list(args)} if args else {}), **kwargs}

    def match(self, pattern: str) -> str | None:
        """Return the first of its names that a normal pattern matches, or None."""
        return match(pattern, self.names) if self.listed or pattern != ALL else None

    @property
    def session(self) -> str | None:
        """The session of the event; None for one that concerns the whole node."""
        session = self.payload(self.names[0]).get("session")
        return session if isinstance(session, str) else None


def normal(name: str) -> str:
    """Return a name or pattern in normal form: without trailing dots."""
    return name.rstrip(".") or ALL


def match(pattern: str, names: tuple[str, ...]) -> str | None:
    """Return the first of `names` that a normal pattern matches, or None."""
    if pattern == ALL:
        return names[0]
    for name in names:
        if name == pattern or name.startswith(pattern + "."):
            return name
    return None


def matching(event: Event, pattern: str = ALL) -> tuple[str, dict[str, Any]] | None:
    """Return the name under which `pattern` matches an event, with its message, or None."""
    name = event.match(normal(pattern))
    return None if name is None else (name, event.payload(name))
