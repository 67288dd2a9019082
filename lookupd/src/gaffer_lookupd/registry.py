"""The registry of nodes and their jobs. It does no I/O and takes the time, in monotonic seconds, as an argument.

A *session* is one connection of a peer. A *node* is a peer that has identified itself and holds a lease:

- a node with an `id` outlives its connection. It is suspect once the connection closed or an interval was missed, and
  expires after `ttl` of silence. The newest (incarnation, seq) of an id is authoritative;
- a node without one, a 0.5 peer, is removed with its connection, or after `ttl` of silence.

A node proves that it owns an `id` by the secret that the id is derived from. An id without a proof is accepted, unless
its owner has proved it before.

Methods that end other sessions return the numbers of these: the caller must close the connections.
"""

import math
from collections.abc import Collection, ValuesView

from msgspec import Struct

from gaffer.jobs.names import canonical_job_name
from gaffer.schemas.lookup import Departure, NodeInfo, Tombstone
from gaffer.schemas.messages import MAX_NODES, Identify, Report, node_id
from gaffer_lookupd.changes import Changes, Publisher
from gaffer_lookupd.errors import Refused, unknown_node
from gaffer_lookupd.job_index import JobIndex
from gaffer_lookupd.lease import Lease, PauseDetector, Preservation
from gaffer_lookupd.records import Grave, Node, NodeKey

# Nodes that lost their connections at the same time reconnect at about this rate.
RECONNECTS_PER_SECOND = 500
MIN_RECONNECT_WINDOW = 1.0  # seconds
SETTLING = 0.5  # seconds in which nodes usually connect and identify themselves

# Limits on tombstones and on all jobs in them; the oldest are discarded first.
MAX_TOMBSTONES = 10_000
MAX_TOMBSTONE_JOBS = 200_000

NOT_PROVED = "identity_not_proved"


class Identified(Struct, frozen=True):
    """The result of an IDENTIFY: sessions to close, and other connected nodes with the same name."""

    close: list[int]
    conflicts: list[NodeInfo]


class Registry:
    """The nodes, their sessions and leases; `tables` holds their jobs."""

    def __init__(self, lease: Lease, *, epoch: str, changes: Changes, now: float) -> None:
        self.lease = lease
        self.epoch = epoch
        self._publish = Publisher(changes)
        self.tables = JobIndex(self._publish)
        self._pauses = PauseDetector(lease, now)
        self._preservation = Preservation(lease)
        self._last_session = 0
        self._started = now
        self._warm_at = now + lease.warmup
        self._slowest = 0.0  # the longest reconnect window of nodes that reconnected while warming
        self.warming = lease.warmup > 0
        self._anonymous: dict[int, float] = {}  # the start of each unidentified session
        self._sessions: dict[int, Node] = {}
        self._nodes: dict[NodeKey, Node] = {}
        self._by_name: dict[str, dict[NodeKey, Node]] = {}
        self._graves: dict[str, Grave] = {}
        self._graves_by_job: dict[str, dict[str, Grave]] = {}
        self._tombstone_jobs = 0

    # State

    @property
    def seq(self) -> int:
        """The number of the last change."""
        return self._publish.seq

    @property
    def nodes(self) -> ValuesView[Node]:
        return self._nodes.values()

    def find(self, key: NodeKey) -> Node | None:
        """Return the node with this id, or without an id on this session, or None."""
        return self._nodes.get(key)

    def named(self, name: str) -> list[Node]:
        """Return the nodes with this name: several in a conflict, or while one is suspect."""
        return list(self._by_name.get(name, {}).values())

    @property
    def graves(self) -> Collection[Grave]:
        """The nodes removed within the last 2 * ttl."""
        return self._graves.values()

    @property
    def tombstones(self) -> list[Tombstone]:
        return [grave.tombstone for grave in self._graves.values()]

    def graves_of(self, job_name: str) -> Collection[Grave]:
        """Return the removed nodes that had the job."""
        return self._graves_by_job.get(job_name, {}).values()

    @property
    def preserving(self) -> bool:
        """Whether most nodes are silent, so that they are kept although their data may be outdated."""
        return self._preservation.active

    def warming_left(self, now: float) -> float:
        """Return the seconds until lookupd has warmed up, 0 afterwards."""
        return max(self._warm_at - now, self.lease.tick) if self.warming else 0.0

    @property
    def stale(self) -> bool:
        """Whether responses may be outdated or incomplete: most nodes are silent, or lookupd is warming."""
        return self.preserving or self.warming

    @property
    def reconnect_window(self) -> float:
        """Seconds over which nodes should spread when they reconnect."""
        return max(MIN_RECONNECT_WINDOW, len(self._nodes) / RECONNECTS_PER_SECOND)

    # Sessions

    def connect(self, now: float) -> int:
        """Start a session for a new connection; return its number."""
        self._last_session += 1
        self._anonymous[self._last_session] = now
        return self._last_session

    def disconnect(self, session: int, now: float) -> None:
        """End a session whose connection closed: a 0.5 peer is removed, other nodes are suspect until their lease ends.

        No-op if the session has already ended.
        """
        if session in self._anonymous:
            del self._anonymous[session]
        elif session in self._sessions:
            node = self._sessions[session]
            if node.identity.id is None:
                self._remove(node, "left", now)
            else:
                self._unbind(node)
                self._publish.update(node)
                self._update_conflicts(node.identity.name)

    def renew_lease(self, session: int, now: float) -> None:
        """Renew the lease of the session's node, because a message was received."""
        if session in self._sessions:
            node = self._sessions[session]
            node.heard = node.silent_since = now
            if node.overdue:
                node.overdue = False
                self._publish.update(node)

    def identified(self, session: int) -> Node:
        """Return the node of the session; raises Refused (404) if it has not identified itself."""
        node = self._sessions.get(session)
        if node is None:
            raise Refused(404, "not_identified: send IDENTIFY first")
        return node

    def node_of(self, session: int) -> Node | None:
        """Return the node of the session, or None before it has identified itself."""
        return self._sessions.get(session)

    def identify(self, session: int, identity: Identify, now: float) -> Identified:
        """Give the session its identity.

        Raises Refused: 409 if it already has one or can't have this one, 403 if it does not prove that it owns the id,
        413 if too many nodes are connected.
        """
        if session in self._sessions:
            raise Refused(409, "already_identified")
        if session not in self._anonymous:
            raise Refused(404, "session_ended: connect again")
        self._check_id(identity)
        replaced = self._replaced_by(identity, now)
        key = session if identity.id is None else identity.id
        known = self._nodes.get(key)
        close = [node.session for node in (*replaced, known) if node is not None and node.session is not None]
        if known is None and not replaced:
            self._make_room(now)

        self._publish.connection()  # not earlier: refused peers must not displace the changes of nodes
        for node in replaced:
            self._remove(node, "replaced", now)
        if known is not None and _usurped(known.proved, identity):
            self._remove(known, "replaced", now)
            known = None
        former_name = identity.name
        restarted = known is not None and known.identity.incarnation != identity.incarnation
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
        if identity.id in self._graves:
            self._remove_grave(identity.id)
        self._settle(identity)
        self._publish.node("identify", node)
        if restarted:
            self.tables.forget_states(node)
        for name in dict.fromkeys((former_name, identity.name)):
            self._update_conflicts(name)
        conflicts = [other.info for other in self.named(identity.name) if other is not node and other.conflict]
        return Identified(close, conflicts)

    def _settle(self, identity: Identify) -> None:
        """Shorten the warm-up by the window of a reconnected node: the others retry within such a window too."""
        if self.warming and self.lease.settles:
            self._slowest = max(self._slowest, identity.reconnect_window or 0.0, MIN_RECONNECT_WINDOW)
            self._warm_at = self._started + min(self.lease.warmup, SETTLING + 2 * self._slowest)

    def report(self, session: int, report: Report, now: float) -> None:
        """Record what the node of the session reports; raises Refused (404)."""
        node = self.identified(session)
        if report.lookupds is not None:
            node.links, node.links_time = report.lookupds, (now, report.now)
        for name, job in report.jobs.items():
            self.tables.put_state(node, canonical_job_name(name), job)
        if not report.events:
            return
        end = report.first + len(report.events)
        lost = max(0, report.first - node.reported) if node.reported else 0
        new = report.events[max(0, node.reported - report.first) :]
        node.reported = max(node.reported, end)
        admitted = node.admit_reports(len(new), now)
        self._publish.report(node, new[len(new) - admitted :], lost + len(new) - admitted, report.now)

    def leave(self, session: int, now: float, seq: int | None = None) -> None:
        """Remove a node that disconnects on purpose, as its change `seq`, and end its session. Raises Refused (404)."""
        node = self.identified(session)
        node.seq = max(node.seq, seq or 0)
        self._remove(node, "left", now)

    def delete(self, node_id: str, now: float) -> list[int]:
        """Remove the node with this id by request of an operator; return sessions to close. Raises Refused (404)."""
        node = self.find(node_id)
        if node is None:
            raise unknown_node(node_id)
        close = [] if node.session is None else [node.session]
        self._remove(node, "deleted", now)
        return close

    # Time

    def tick(self, now: float) -> list[int]:
        """Check the leases; call it every `lease.tick` seconds. Return sessions to close."""
        self._extend_leases(self._pauses.tick(now), now)
        silent = 0
        for node in self._nodes.values():
            if not node.overdue and now - node.silent_since > self.lease.missed:
                node.overdue = True
                self._publish.update(node)
            silent += node.silent
        before = self.stale, self.warming
        self.warming = self.warming and now < self._warm_at
        if self._preservation.update(len(self._nodes), silent, now):
            self._extend_leases(math.inf, now)
        if (self.stale, self.warming) != before:
            self._publish.stale(self.stale, self.warming)
        self._forget(now)
        return self._close_unidentified(now) + ([] if self.preserving else self._expire(now))

    def _extend_leases(self, seconds: float, now: float) -> None:
        if not seconds:
            return
        for node in self._nodes.values():
            node.silent_since = min(now, node.silent_since + seconds)
        for session, since in self._anonymous.items():
            self._anonymous[session] = min(now, since + seconds)

    def _forget(self, now: float) -> None:
        for key in [key for key, grave in self._graves.items() if grave.until <= now]:
            self._publish.forget(self._remove_grave(key).tombstone)

    def _close_unidentified(self, now: float) -> list[int]:
        ended = now - self.lease.identify_timeout
        close = [session for session, since in self._anonymous.items() if since <= ended]
        for session in close:
            self.disconnect(session, now)
        return close

    def _expire(self, now: float) -> list[int]:
        close = []
        ended = now - self.lease.ttl
        for node in [node for node in self._nodes.values() if node.silent_since <= ended]:
            if node.session is not None:
                close.append(node.session)
            self._remove(node, "expired", now)
        return close

    # Identities

    def _check_id(self, identity: Identify) -> None:
        """Refuse an id that is not proved, has an outdated incarnation, or is in use on another machine."""
        if identity.id is None:
            return
        if identity.proof is not None and node_id(identity.proof) != identity.id:
            raise Refused(403, NOT_PROVED)
        node, grave = self._nodes.get(identity.id), self._graves.get(identity.id)
        if node is not None:
            proved, latest = node.proved, node.identity.incarnation
        elif grave is not None:
            proved, latest = grave.proved, grave.tombstone["incarnation"]
        else:
            return
        if proved and identity.proof is None:
            raise Refused(403, NOT_PROVED)
        if _usurped(proved, identity):
            return
        if node is not None and identity.incarnation <= latest and node.connected and not node.overdue:
            holder = node.identity
            if (holder.name, holder.origin) != (identity.name, identity.origin):
                raise Refused(
                    409, f"id_in_use: {holder.name} at {holder.origin} has this id; was a state directory copied?"
                )
        if identity.incarnation < latest:
            raise Refused(
                409,
                f"stale_incarnation: the node has started {latest} times since its id was made; was its state "
                "directory restored or copied?",
            )

    def _make_room(self, now: float) -> None:
        """Make room for another node, if necessary by removing the one disconnected for longest.

        Raises Refused (413) if all are connected.
        """
        if len(self._nodes) < MAX_NODES:
            return
        silent = min((node for node in self._nodes.values() if not node.connected), key=_last_heard, default=None)
        if silent is None:
            raise Refused(413, f"registry_full: {MAX_NODES} nodes are connected")
        self._remove(silent, "expired", now)

    def _replaced_by(self, identity: Identify, now: float) -> list[Node]:
        """Return the other nodes with the same name and origin, to be removed; raises Refused if one must stay."""
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
            tombstone: Tombstone = {
                "id": node.identity.id,
                "incarnation": node.identity.incarnation,
                "seq": node.seq,
                "reason": reason,
            }
            until = now + self.lease.tombstone
            self._add_grave(Grave(tombstone, until, node.identity.name, tuple(node.jobs), node.proved))
        self._update_conflicts(node.identity.name)

    def _add_grave(self, grave: Grave) -> None:
        while self._graves and (
            len(self._graves) >= MAX_TOMBSTONES or self._tombstone_jobs + len(grave.jobs) > MAX_TOMBSTONE_JOBS
        ):
            self._publish.forget(self._remove_grave(next(iter(self._graves))).tombstone)
        key = grave.tombstone["id"]
        self._graves[key] = grave
        self._tombstone_jobs += len(grave.jobs)
        for job_name in grave.jobs:
            self._graves_by_job.setdefault(job_name, {})[key] = grave

    def _remove_grave(self, key: str) -> Grave:
        """Remove and return the grave of a node's id."""
        grave = self._graves.pop(key)
        self._tombstone_jobs -= len(grave.jobs)
        for job_name in grave.jobs:
            others = self._graves_by_job[job_name]
            del others[key]
            if not others:
                del self._graves_by_job[job_name]
        return grave


def _last_heard(node: Node) -> float:
    return node.heard


def _usurped(proved: bool, identity: Identify) -> bool:
    """Return whether an unproved id is now claimed by its owner with a proof."""
    return identity.proof is not None and not proved
