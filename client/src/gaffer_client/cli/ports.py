"""Which port each type of a Procfile gets. Pure.

The foreman rule: from a base on, 100 ports a type, instance k of a type at k - 1 above its first. An application
that finds ports from the base on taken by others gets the next free block.
"""

from collections.abc import Iterable, Mapping, Sequence

BASE = 8000
PER_TYPE = 100
HIGHEST = 65535

Span = tuple[int, int]


def block(types: Sequence[str], base: int) -> dict[str, str] | None:
    """The `port` setting of each type, from `base` on; None when ports run out."""
    if base + PER_TYPE * len(types) - 1 > HIGHEST:
        return None
    return {name: f"{base + PER_TYPE * index}+" for index, name in enumerate(types)}


def free_block(
    types: Sequence[str], taken: Iterable[Span], numbers: Mapping[str, int] | None = None
) -> dict[str, str] | None:
    """As `block`, at the first base at which no port is taken; `taken` holds (first, last) pairs.

    `numbers` are the ports that each type needs now; without them all of its ports must be free.
    """
    spans = list(taken)
    widths = [PER_TYPE if numbers is None else numbers[name] for name in types]
    for base in range(BASE, HIGHEST, PER_TYPE):
        starts = range(base, base + PER_TYPE * len(types), PER_TYPE)
        wanted = [(start, start + width) for start, width in zip(starts, widths, strict=True) if width]
        if not any(first < end and last >= start for start, end in wanted for first, last in spans):
            return block(types, base)
    return None


def span(config: Mapping[str, object], processes: int) -> Span | None:
    """The ports of a job with this description; None when it has none or they are chosen as it starts."""
    env = config.get("env")
    given = env.get("PORT") if isinstance(env, Mapping) else None
    port = str(given or config.get("port") or "")
    first = port.removesuffix("+")
    if not (first.isascii() and first.isdecimal()):
        return None
    if port.endswith("+"):
        return int(first), int(first) + max(processes, PER_TYPE) - 1
    return int(first), int(first)
