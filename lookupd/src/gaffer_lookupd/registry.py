"""Who runs what: the pure registry. It does no I/O and takes the time, in monotonic seconds, as an argument.

A *session* is one connection of a peer. A *node* is a peer that has identified itself, and lives by a lease:

- a node with an `id` outlives its connection. It is suspect when the connection closed or an interval was missed, and
  expires after `ttl` of silence. The newest (incarnation, seq) of an id is the truth;
- a node without one, a 0.5 peer, goes with its connection, or after `ttl` of silence.

Methods that end sessions other than their own return the numbers of these: the caller closes the connections.
"""

import math
from collections.abc import ValuesView

from msgspec import Struct

from gaffer.messages import Identify
from gaffer_lookupd.changes import Changes, Publisher
from gaffer_lookupd.errors import Refused, unknown_node
from gaffer_lookupd.lease import Lease, PauseDetector, Preservation
from gaffer_lookupd.records import Departure, Node, NodeInfo, NodeKey, Tombstone
from gaffer_lookupd.tables import Tables

# Nodes that lost their connection together come back at about this rate.
RECONNECTS_PER_SECOND = 500

MAX_TOMBSTONES = 10_000  # each answer tells of all; the oldest are forgotten first


class Identified(Struct, frozen=True):
    """What an IDENTIFY led to: sessions to close, and the other connected nodes that have the same name."""

    close: list[int]
    conflicts: list[NodeInfo]


class Registry:
    """The nodes, their sessions and leases; `tables` holds what they run."""

    def __init__(self, lease: Lease, *, epoch: str, changes: Changes, now: float) -> None:
        self.lease = lease
        self.epoch = epoch
        self._publish = Publisher(changes)
        self.tables = Tables(self._publish)
        self._pauses = PauseDetector(lease, now)
        self._preservation = Preservation(lease)
        self._last_session = 0
        self._anonymous: dict[int, float] = {}  # when each session without an identity was last heard
        self._sessions: dict[int, Node] = {}
        self._nodes: dict[NodeKey, Node] = {}
        self._by_name: dict[str, dict[NodeKey, Node]] = {}
        self._tombstones: dict[str, tuple[Tombstone, float]] = {}

    # What is known

    @property
    def seq(self) -> int:
        """The number of the last change."""
        return self._publish.seq

    @property
    def nodes(self) -> ValuesView[Node]:
        return self._nodes.values()

    def find(self, node_id: str) -> Node | None:
        """The node of that id."""
        return self._nodes.get(node_id)

    def named(self, name: str) -> list[Node]:
        """The nodes of that name: more than one in a conflict, or while one of them is suspect."""
        return list(self._by_name.get(name, {}).values())

    @property
    def tombstones(self) -> list[Tombstone]:
        return [tombstone for tombstone, _ in self._tombstones.values()]

    @property
    def stale(self) -> bool:
        """Most nodes are silent: what is known of them is kept, though it may be old."""
        return self._preservation.active

    @property
    def reconnect_window(self) -> float:
        """Seconds over which nodes should spread when they reconnect."""
        return max(1.0, len(self._nodes) / RECONNECTS_PER_SECOND)

    # Sessions

    def connect(self, now: float) -> int:
        """A peer has connected; returns the number of its session."""
        self._last_session += 1
        self._anonymous[self._last_session] = now
        self._publish.connection("add_node")
        return self._last_session

    def disconnect(self, session: int, now: float) -> None:
        """The connection is closed: a 0.5 peer is gone, another is suspect until its lease ends.

        Does nothing for a session that was ended before.
        """
        if session in self._anonymous:
            del self._anonymous[session]
            self._publish.connection("remove_node")
        elif session in self._sessions:
            node = self._sessions[session]
            if node.identity.id is None:
                self._remove(node, "left", now)
            else:
                self._unbind(node)
                self._publish.update(node)
                self._update_conflicts(node.identity.name)

    def heard(self, session: int, now: float) -> None:
        """Anything was received: the lease begins anew."""
        if session in self._anonymous:
            self._anonymous[session] = now
        elif session in self._sessions:
            node = self._sessions[session]
            node.heard = node.silent_since = now
            if node.overdue:
                node.overdue = False
                self._publish.update(node)

    def identified(self, session: int) -> Node:
        """The node of the session; raises Refused (404) when it has not identified itself."""
        node = self._sessions.get(session)
        if node is None:
            raise Refused(404, "not_identified: send IDENTIFY first")
        return node

    def node_of(self, session: int) -> Node | None:
        """The node of the session, None before it has identified itself."""
        return self._sessions.get(session)

    def identify(self, session: int, identity: Identify, now: float) -> Identified:
        """Give the session its identity; raises Refused (409) when it has one or can't have this one."""
        if session in self._sessions:
            raise Refused(409, "already_identified")
        if session not in self._anonymous:
            raise Refused(404, "session_ended: connect again")
        self._check_incarnation(identity)
        replaced = self._replaced_by(identity, now)
        key = session if identity.id is None else identity.id
        known = self._nodes.get(key)
        close = [node.session for node in (*replaced, known) if node is not None and node.session is not None]

        for node in replaced:
            self._remove(node, "replaced", now)
        if known is not None and known.identity.incarnation < identity.incarnation:
            self._remove(known, "replaced", now)
            known = None
        former_name = identity.name
        if known is None:
            node = Node(key, identity, session, now)
        else:
            node, former_name = known, known.identity.name
            self._unbind(node)
            self._unindex_name(node)
            node.reconnect(identity, session, now)
        del self._anonymous[session]
        self._sessions[session] = node
        self._nodes[key] = node
        self._by_name.setdefault(identity.name, {})[key] = node
        self._tombstones.pop(identity.id or "", None)
        self._publish.node("identify", node)
        for name in dict.fromkeys((former_name, identity.name)):
            self._update_conflicts(name)
        conflicts = [other.info for other in self.named(identity.name) if other is not node and other.conflict]
        return Identified(close, conflicts)

    def leave(self, session: int, now: float) -> None:
        """The node goes away on purpose; its session has ended. Raises Refused (404)."""
        self._remove(self.identified(session), "left", now)

    def delete(self, node_id: str, now: float) -> list[int]:
        """Remove the node of that id on an operator's order; returns sessions to close. Raises Refused (404)."""
        node = self.find(node_id)
        if node is None:
            raise unknown_node(node_id)
        close = [] if node.session is None else [node.session]
        self._remove(node, "deleted", now)
        return close

    # Time

    def tick(self, now: float) -> list[int]:
        """Check the leases; called every `lease.tick` seconds. Returns sessions to close."""
        self._extend_leases(self._pauses.tick(now), now)
        silent = 0
        for node in self._nodes.values():
            if not node.overdue and now - node.silent_since > self.lease.missed:
                node.overdue = True
                self._publish.update(node)
            silent += node.silent
        was_stale = self.stale
        if self._preservation.update(len(self._nodes), silent, now):
            self._extend_leases(math.inf, now)
        if self.stale != was_stale:
            self._publish.stale(self.stale)
        self._forget(now)
        return [] if self.stale else self._expire(now)

    def _extend_leases(self, seconds: float, now: float) -> None:
        if not seconds:
            return
        for node in self._nodes.values():
            node.silent_since = min(now, node.silent_since + seconds)
        for session, heard in self._anonymous.items():
            self._anonymous[session] = min(now, heard + seconds)

    def _forget(self, now: float) -> None:
        for tombstone in [tombstone for tombstone, until in self._tombstones.values() if until <= now]:
            del self._tombstones[tombstone.id]
            self._publish.forget(tombstone)

    def _expire(self, now: float) -> list[int]:
        ended = now - self.lease.ttl
        close = [session for session, heard in self._anonymous.items() if heard <= ended]
        for session in close:
            self.disconnect(session, now)
        for node in [node for node in self._nodes.values() if node.silent_since <= ended]:
            if node.session is not None:
                close.append(node.session)
            self._remove(node, "expired", now)
        return close

    # Identities

    def _check_incarnation(self, identity: Identify) -> None:
        """Refuse the id of a node that was started again since, or that another machine uses at the same time."""
        known = self._nodes.get(identity.id or "")
        if known is not None:
            latest = known.identity
            others = (latest.name, latest.origin) != (identity.name, identity.origin)
            if others and latest.incarnation == identity.incarnation and known.connected and not known.overdue:
                raise Refused(
                    409, f"id_in_use: {latest.name} at {latest.origin} has this id; was a state directory copied?"
                )
            incarnation = latest.incarnation
        elif identity.id in self._tombstones:
            incarnation = self._tombstones[identity.id][0].incarnation
        else:
            return
        if identity.incarnation < incarnation:
            raise Refused(
                409,
                f"stale_incarnation: the node has started {incarnation} times since its id was made; was its state "
                "directory restored or copied?",
            )

    def _replaced_by(self, identity: Identify, now: float) -> list[Node]:
        """The other nodes of that name and origin, which have to go; raises Refused when one of them has to stay."""
        replaced = []
        for node in self.named(identity.name):
            other = node.identity
            if other.origin != identity.origin or (other.id is not None and other.id == identity.id):
                continue
            if node.connected and other.id is not None and identity.id is not None:
                continue  # a conflict: both are listed
            if node.connected and self._holds_identity(node, now):
                raise Refused(409, "identity_exists")
            replaced.append(node)
        return replaced

    def _holds_identity(self, node: Node, now: float) -> bool:
        if node.identity.id is not None:
            return not node.overdue
        return now - node.silent_since <= self.lease.identity_hold

    def _update_conflicts(self, name: str) -> None:
        namesakes = self.named(name)
        rivals = {node.key for node in namesakes if node.connected and node.identity.id is not None}
        for node in namesakes:
            conflict = len(rivals) > 1 and node.key in rivals
            if conflict != node.conflict:
                node.conflict = conflict
                self._publish.update(node)

    def _unbind(self, node: Node) -> None:
        if node.session is not None:
            del self._sessions[node.session]
            node.session = None

    def _unindex_name(self, node: Node) -> None:
        namesakes = self._by_name[node.identity.name]
        del namesakes[node.key]
        if not namesakes:
            del self._by_name[node.identity.name]

    def _remove(self, node: Node, reason: Departure, now: float) -> None:
        self._publish.node("remove_node", node, reason)
        self._unbind(node)
        self._unindex_name(node)
        self.tables.forget(node)
        del self._nodes[node.key]
        if node.identity.id is not None:
            self._bury(Tombstone(node.identity.id, node.identity.incarnation, node.seq, reason), now)
        self._update_conflicts(node.identity.name)

    def _bury(self, tombstone: Tombstone, now: float) -> None:
        if len(self._tombstones) >= MAX_TOMBSTONES:
            oldest, _ = self._tombstones.pop(next(iter(self._tombstones)))
            self._publish.forget(oldest)
        self._tombstones[tombstone.id] = (tombstone, now + self.lease.tombstone)
