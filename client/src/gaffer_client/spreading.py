"""How to spread the processes of an application over nodes. Pure."""

from collections.abc import Mapping


def spread(totals: Mapping[str, int], loads: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Return how many processes of each type every node gets, by node and type.

    `totals` is the number of each type over all nodes, `loads` the number of processes that each node runs already. The
    processes of a type are spread evenly; among nodes with equally many, the one with the fewest processes gets the
    next one. Raises ValueError without nodes.
    """
    if not loads:
        raise ValueError("no node to spread processes over")
    plan = {node: dict.fromkeys(totals, 0) for node in loads}
    running = dict(loads)
    for name, total in totals.items():
        each, rest = divmod(total, len(plan))
        for node, numbers in plan.items():
            numbers[name] = each
            running[node] += each
        for node in sorted(plan, key=lambda node: (running[node], node))[:rest]:
            plan[node][name] += 1
            running[node] += 1
    return plan
