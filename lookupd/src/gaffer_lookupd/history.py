"""The history of the cluster: what lookupd sees of the nodes, and what they report. In memory, bounded.

An entry is numbered in the order of arrival. What a node reports can be older than earlier entries. Times are by the
clock of lookupd: what a node reports says how long ago it was.
"""

import time
from collections.abc import Sequence
from typing import Any, cast

from gaffer.schemas.history import Outcome, describe
from gaffer.schemas.lookup import ClusterEntry, Message, NodeInfo, NodeMessage
from gaffer.schemas.messages import ReportedEvent
from gaffer.streams.rings import Log

KEPT = 5000  # entries

_REMOVALS: dict[str, Outcome] = {"left": "ok", "deleted": "ok", "replaced": "failed", "expired": "failed"}
_NODE_EVENTS = ("identify", "update_node", "remove_node")

# By how a node was and how it is: the action, and its outcome.
_FLAGS: dict[str, tuple[tuple[str, Outcome], tuple[str, Outcome]]] = {
    "suspect": (("heard again", "ok"), ("silent", "failed")),
    "draining": (("in service", "ok"), ("draining", "ok")),
    "conflict": (("name conflict ended", "ok"), ("name conflict", "failed")),
}


class History(Log[ClusterEntry]):
    """The newest entries, numbered from 0.

    warming: nodes only return after a start of lookupd, which is one entry for all of them.
    """

    def __init__(self, limit: int = KEPT, *, warming: bool = False) -> None:
        super().__init__(limit)
        self.begun = round(time.time(), 3)
        self._warming = warming
        self._nodes: dict[str | tuple[str, str], dict[str, bool]] = {}

    def observe(self, message: Message) -> None:
        """Record what a change of the registry means to an operator, if anything."""
        content = cast(dict[str, Any], message)
        if content["event"] == "stale":
            self._observe_reliability(stale=content["stale"], warming=content["warming"])
        elif content["event"] in _NODE_EVENTS:
            self._observe_node(cast(NodeMessage, message), cast(NodeInfo, message))

    def report(self, node: NodeInfo, events: Sequence[ReportedEvent], lost: int, clock: float) -> None:
        """Record events that a node reports when its `clock` shows this time; `lost` ones are missing before them."""
        now = time.time()
        if lost:
            self._add(node, "events lost", "failed", count=lost)
        for event in events:
            self._append(
                {
                    "id": self.end,
                    "at": round(max(0.0, now - max(0.0, clock - event.at)), 3),
                    "kind": event.kind,
                    "action": event.action,
                    "what": describe(event.kind, event.action, event.route, event.details),
                    "route": event.route,
                    "outcome": event.outcome,
                    "caller": event.caller,
                    "node": node["name"],
                    "node_id": node["id"],
                    "job": event.job,
                    "pid": event.pid,
                    "error": event.error,
                    "count": event.count,
                    "details": event.details,
                }
            )

    def _observe_reliability(self, *, stale: bool, warming: bool) -> None:
        if self._warming and not warming:
            self._add(None, "warmed up", "ok", nodes=len(self._nodes))
        elif stale:
            self._add(None, "most nodes are silent", "failed")
        else:
            self._add(None, "nodes are heard again", "ok")
        self._warming = warming

    def _observe_node(self, message: NodeMessage, node: NodeInfo) -> None:
        key = node["id"] or (node["name"], node["origin"])
        before = self._nodes.get(key)
        if message["event"] == "remove_node":
            self._nodes.pop(key, None)
            reason = message["reason"]
            self._add(node, reason, _REMOVALS[reason], origin=node["origin"])
            return
        now = {
            "suspect": node["status"] == "suspect",
            "draining": node["draining"],
            "conflict": node["conflict"],
        }
        self._nodes[key] = now
        if before is None:
            if not self._warming:
                self._add(node, "joined", "ok", origin=node["origin"])
            before = dict.fromkeys(now, False)
        for flag, (ended, begun) in _FLAGS.items():
            if now[flag] != before[flag]:
                action, outcome = begun if now[flag] else ended
                self._add(node, action, outcome)

    def _add(self, node: NodeInfo | None, action: str, outcome: Outcome, *, count: int = 1, **details: Any) -> None:
        self._append(
            {
                "id": self.end,
                "at": round(time.time(), 3),
                "kind": "node",
                "action": action,
                "what": action,
                "route": None,
                "outcome": outcome,
                "caller": None,
                "node": None if node is None else node["name"],
                "node_id": None if node is None else node["id"],
                "job": None,
                "pid": None,
                "error": None,
                "count": count,
                "details": details,
            }
        )

    def _append(self, entry: ClusterEntry) -> None:
        if not self.closed:
            self.append(entry)


def matches(entry: ClusterEntry, *, text: str = "", node: str = "", job: str = "", failed: bool = False) -> bool:
    """Return whether an entry has the lower-case `text`, is about the node (name or id) and job, and is a failure."""
    if node and node not in (entry["node"], entry["node_id"]):
        return False
    if job and job != entry["job"]:
        return False
    if failed and entry["outcome"] == "ok":
        return False
    return not text or text in _text_of(entry)


def _text_of(entry: ClusterEntry) -> str:
    shown = (entry["node"], entry["job"], entry["what"], entry["outcome"], entry["error"], *entry["details"].values())
    return "\n".join(str(each) for each in shown if each is not None).lower()
