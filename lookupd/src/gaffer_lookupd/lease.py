"""How long silent nodes are kept: the terms of a lease, pauses of lookupd itself, and the hold on mass expiry."""

from msgspec import Struct

# With fewer nodes, lookupd's own network is not the likelier cause if most go silent.
PRESERVATION_MIN_NODES = 8

MAX_IDENTIFY_TIMEOUT = 10.0  # seconds


class Lease(Struct, frozen=True):
    """The lease terms in seconds: a node sends a message each `interval` and is dropped after `ttl` of silence.

    For `warmup` after the start of lookupd, nodes may not have reconnected yet; with `settles`, this is shortened once
    nodes have reported how long they need. A peer must identify itself within `identify_timeout`.
    """

    ttl: float = 45.0
    interval: float = 15.0
    warmup: float = 0.0
    settles: bool = False

    @property
    def identify_timeout(self) -> float:
        return min(MAX_IDENTIFY_TIMEOUT, self.ttl)

    @property
    def missed(self) -> float:
        """Silence that counts as a missed interval: half an interval is allowed for the network."""
        return 1.5 * self.interval

    @property
    def identity_hold(self) -> float:
        """How long a silent 0.5 peer keeps its name and origin from a new connection."""
        return self.ttl / 3

    @property
    def tombstone(self) -> float:
        """How long a removed node is remembered."""
        return 2 * self.ttl

    @property
    def preservation_limit(self) -> float:
        """The maximum time that expiry is held if most nodes went silent."""
        return 10 * self.ttl

    @property
    def tick(self) -> float:
        """The interval of checks."""
        return min(1.0, self.interval / 10)


class PauseDetector:
    """A detector of pauses of lookupd itself, by the lateness of its ticks."""

    def __init__(self, lease: Lease, now: float) -> None:
        self._lease = lease
        self._last = now

    def tick(self, now: float) -> float:
        """Return how long lookupd was paused since the last tick, in seconds; 0 if the tick is roughly on time."""
        late = now - self._last - self._lease.tick
        self._last = now
        return late if late > self._lease.interval / 2 else 0.0


class Preservation:
    """A hold on expiry while over half of the nodes are silent although their connections look open.

    A failure of lookupd's own network is more likely than that of most of a cluster.
    """

    def __init__(self, lease: Lease) -> None:
        self._limit = lease.preservation_limit
        self._since: float | None = None

    @property
    def active(self) -> bool:
        return self._since is not None

    def update(self, nodes: int, silent: int, now: float) -> bool:
        """Update with the number of `silent` nodes; return True if the hold ends because half of them are back."""
        most = silent * 2 > nodes
        if self._since is None:
            if most and nodes >= PRESERVATION_MIN_NODES:
                self._since = now
            return False
        if not most:
            self._since = None
            return True
        if now - self._since >= self._limit:
            self._since = None
        return False
