"""The order of plugins that need each other, and those that can't be used. No I/O."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple


class Named(NamedTuple):
    """A plugin: its name, the names of the plugins that it needs, and where it is from."""

    name: str
    mandatory: tuple[str, ...]
    origin: str


class Resolved(NamedTuple):
    """The indexes of the usable plugins, each after those it needs, and why each of the others can't be used."""

    order: list[int]
    faults: dict[int, str]


def resolve(plugins: Sequence[Named], failed: Mapping[str, str]) -> Resolved:
    """Sort plugins, given in the order of preference; `failed` has the reasons of those already known to be unusable.

    Of several with one name, the first is used.
    """
    faults: dict[int, str] = {}
    first: dict[str, int] = {}
    for index, plugin in enumerate(plugins):
        if first.setdefault(plugin.name, index) != index:
            faults[index] = f"the plugin in {plugins[first[plugin.name]].origin} has the same name"
    left = dict(first)
    while broken := dict(_unmet(plugins, left, failed)):
        faults |= broken
        left = {name: index for name, index in left.items() if index not in broken}
    return Resolved(_sorted(plugins, left), faults)


def _unmet(plugins: Sequence[Named], left: Mapping[str, int], failed: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    known = {plugin.name for plugin in plugins} | failed.keys()
    for name, index in left.items():
        missing = next((each for each in plugins[index].mandatory if each not in left), None)
        if missing is not None:
            state = "can't be used" if missing in known else "is not installed"
            yield index, f"it needs the plugin {missing!r}, which {state}"
        elif cycle := _cycle(plugins, left, name):
            yield index, f"it needs itself: {' -> '.join(cycle)}"


def _cycle(plugins: Sequence[Named], left: Mapping[str, int], start: str) -> list[str] | None:
    """Return the names on a way from the plugin `start` back to itself, or None."""
    ways = [[start]]
    seen: set[str] = set()
    while ways:
        way = ways.pop(0)
        for name in plugins[left[way[-1]]].mandatory:
            if name == start:
                return [*way, name]
            if name in left and name not in seen:
                seen.add(name)
                ways.append([*way, name])
    return None


def _sorted(plugins: Sequence[Named], left: Mapping[str, int]) -> list[int]:
    """Return the indexes in their order, but each after those it needs; there are no cycles."""
    order: list[int] = []
    waiting = sorted(left.values(), reverse=True)
    while waiting:
        index = waiting[-1]
        needed = [left[name] for name in reversed(plugins[index].mandatory) if left[name] not in order]
        waiting += needed
        if not needed:
            waiting.pop()
            if index not in order:
                order.append(index)
    return order
