"""Port assignment for the types of a Procfile. Pure.

As in foreman, each type gets a range of 100 ports, starting at a base port; instance k of a type gets the k-th port.
If ports of the default ranges are in use, the application gets the next free block.
"""

from collections.abc import Iterable, Mapping, Sequence

BASE = 8000
PER_TYPE = 100
HIGHEST = 65535

Span = tuple[int, int]


def block(types: Sequence[str], base: int) -> dict[str, str] | None:
    """Return the `port` setting of each type, starting at `base`, or None if there are not enough ports."""
    if base + PER_TYPE * len(types) - 1 > HIGHEST:
        return None
    return {name: f"{base + PER_TYPE * index}+" for index, name in enumerate(types)}


def free_block(
    types: Sequence[str], taken: Iterable[Span], numbers: Mapping[str, int] | None = None
) -> dict[str, str] | None:
    """Return the first free block, as `block` does; `taken` holds (first, last) pairs of ports in use.

    `numbers` gives the number of ports that each type needs now; without it, all 100 ports must be free.
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
    """Return the ports of a job with this description, or None if it has none or they are chosen at start."""
    env = config.get("env")
    given = env.get("PORT") if isinstance(env, Mapping) else None
    port = str(given or config.get("port") or "")
    first = port.removesuffix("+")
    if not (first.isascii() and first.isdecimal()):
        return None
    if port.endswith("+"):
        return int(first), int(first) + max(processes, PER_TYPE) - 1
    return int(first), int(first)
