"""The lookupds that nodes announce to, from their reports: `GET /lookupds`.

Lookupds do not know each other. Each node knows all of its own and reports to each of them how its connection to every
other one is; so a lookupd that is cut off is known by the others, and to which nodes.
"""

import time
from collections import Counter
from collections.abc import Generator
from operator import itemgetter

from gaffer.http.operations import operation
from gaffer.schemas.lookup import LookupPeer, LookupPeers, MissingNode
from gaffer.schemas.messages import LookupLink
from gaffer_lookupd.application import LookupHandler
from gaffer_lookupd.records import Node
from gaffer_lookupd.registry import Registry

_MAX_PEERS = 16
_MAX_MISSING = 20
_STEP = 500  # nodes


class PeersHandler(LookupHandler):
    """The lookupds of the nodes."""

    @operation(LookupPeers)
    async def get(self) -> None:
        """Return the lookupds that nodes announce to: `{"lookupds", "silent", "left_off", "epoch", "seq"}`.

        Each is known by the address that the nodes use, and by how many of these are connected to it; those with most
        nodes first. What a silent node reported may be outdated, see the `age_ms` of the nodes that are `missing`.
        """
        registry = self.application.registry
        self.reply(await self.application.index.batches.run(lambda: _peers(registry, time.monotonic())))


class _Peer:
    def __init__(self) -> None:
        self.nodes = 0
        self.connected = 0
        self.epochs: Counter[str] = Counter()
        self.missing: list[MissingNode] = []

    def add(self, node: Node, link: LookupLink, seconds: float, now: float) -> None:
        self.nodes += 1
        if link.epoch is not None:
            self.epochs[link.epoch] += 1
        if link.connected:
            self.connected += 1
            return
        info = node.info
        since, age = round(time.time() - seconds, 3), max(0, round((now - node.heard) * 1000))
        self.missing.append(
            {"name": info["name"], "id": info["id"], "since": since, "error": link.error, "age_ms": age}
        )

    def describe(self, address: str, own_epoch: str) -> LookupPeer:
        epoch = max(self.epochs, key=lambda each: self.epochs[each], default=None)
        missing = sorted(self.missing, key=itemgetter("since"), reverse=True)[:_MAX_MISSING]
        return {
            "address": address,
            "own": own_epoch in self.epochs,
            "epoch": epoch,
            "nodes": self.nodes,
            "connected": self.connected,
            "missing": missing,
        }


def _peers(registry: Registry, now: float) -> Generator[None, None, LookupPeers]:
    found: dict[str, _Peer] = {}
    silent = 0
    for number, node in enumerate(list(registry.nodes), 1):
        if node.links is None:
            silent += 1
        for link, age in zip(node.links or (), node.link_ages(now), strict=True):
            found.setdefault(link.address, _Peer()).add(node, link, age, now)
        if number % _STEP == 0:
            yield
    first = sorted(found.items(), key=lambda item: (-item[1].nodes, item[0]))[:_MAX_PEERS]
    return {
        "lookupds": [peer.describe(address, registry.epoch) for address, peer in first],
        "silent": silent,
        "left_off": len(found) - len(first),
        "epoch": registry.epoch,
        "seq": registry.seq,
    }
