"""How long silence is tolerated: the times of a lease, pauses of lookupd itself, and the hold on mass expiry."""

from msgspec import Struct

# Fewer nodes than this can go silent together without lookupd's own network being the likelier cause.
PRESERVATION_MIN_NODES = 8

MAX_IDENTIFY_TIMEOUT = 10.0  # seconds


class Lease(Struct, frozen=True):
    """The terms that nodes live by, in seconds: a node sends a message each `interval` and is dropped after `ttl`.

    For `warmup` after the start of lookupd, nodes may not be back yet; when it `settles`, for less once nodes have said
    how long they need. Before a peer identifies itself, it has `identify_timeout` to do so.
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
        """Silence that means an interval was missed: half an interval is left for the way."""
        return 1.5 * self.interval

    @property
    def identity_hold(self) -> float:
        """How long a quiet 0.5 peer keeps its name and origin against a new connection."""
        return self.ttl / 3

    @property
    def tombstone(self) -> float:
        """How long a removed node is remembered."""
        return 2 * self.ttl

    @property
    def preservation_limit(self) -> float:
        """The longest that expiry is held when most nodes went silent together."""
        return 10 * self.ttl

    @property
    def tick(self) -> float:
        """How often leases are checked."""
        return min(1.0, self.interval / 10)


class PauseDetector:
    """Notices that lookupd itself did not run for a while, by the lateness of its ticks."""

    def __init__(self, lease: Lease, now: float) -> None:
        self._lease = lease
        self._last = now

    def tick(self, now: float) -> float:
        """Return the seconds that nobody was listened to since the last tick, 0 when it came about in time."""
        late = now - self._last - self._lease.tick
        self._last = now
        return late if late > self._lease.interval / 2 else 0.0


class Preservation:
    """Holds expiry while over half of the nodes are silent, though their connections look open.

    Such silence is more likely lookupd's own network than the death of most of a cluster.
    """

    def __init__(self, lease: Lease) -> None:
        self._limit = lease.preservation_limit
        self._since: float | None = None

    @property
    def active(self) -> bool:
        return self._since is not None

    def update(self, nodes: int, silent: int, now: float) -> bool:
        """Take in how many of the `nodes` are silent; return True when half of them have just been heard again."""
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
