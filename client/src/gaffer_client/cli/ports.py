"""Which port each type of a Procfile gets. Pure.

The foreman rule: from a base on, 100 ports a type, instance k of a type at k - 1 above its first. An application
that finds ports from the base on taken by other jobs of the node gets the next free block.
"""

from collections.abc import Iterable, Mapping, Sequence

BASE = 8000
PER_TYPE = 100
HIGHEST = 65535

Span = tuple[int, int]


def block(types: Sequence[str], base: int) -> dict[str, str] | None:
    """The `port` setting of each type, from `base` on; None when there are not so many ports."""
    if base + PER_TYPE * len(types) - 1 > HIGHEST:
        return None
    return {name: f"{base + PER_TYPE * index}+" for index, name in enumerate(types)}


def free_block(types: Sequence[str], taken: Iterable[Span]) -> dict[str, str] | None:
    """As `block`, at the first base at which no port is taken; `taken` holds (first, last) pairs."""
    spans = sorted(taken)
    base = BASE
    for first, last in spans:
        if first < base + PER_TYPE * len(types) and last >= base:
            base = BASE + ((last - BASE) // PER_TYPE + 1) * PER_TYPE
    return block(types, base)


def span(config: Mapping[str, object], processes: int) -> Span | None:
    """The ports of a job with this description; None when it has none or they are chosen as it starts."""
    port = str(config.get("port") or "")
    first = port.removesuffix("+")
    if not (first.isascii() and first.isdecimal()):
        return None
    if port.endswith("+"):
        return int(first), int(first) + max(processes, PER_TYPE) - 1
    return int(first), int(first)
