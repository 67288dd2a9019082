"""The rows that searches of the registry read: after any changes the same as if they were made anew."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer.schemas.messages import Identify, Process
from gaffer_lookupd.changes import ChangeLog
from gaffer_lookupd.errors import Refused
from gaffer_lookupd.lease import Lease
from gaffer_lookupd.node_index import JOBS, KINDS, NODES, NodeIndex
from gaffer_lookupd.registry import Registry

pytestmark = pytest.mark.pure

KEPT = 6  # changes, so few that some are missed

NUMBERS = st.integers(0, 5)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("identify"), NUMBERS),
        st.tuples(st.just("jobs"), NUMBERS, st.dictionaries(st.sampled_from(["a.x", "b.y"]), st.integers(0, 3))),
        st.tuples(st.just("drain"), NUMBERS),
        st.tuples(st.just("leave"), NUMBERS),
        st.tuples(st.just("disconnect"), NUMBERS),
        st.tuples(st.just("delete"), NUMBERS),
        st.tuples(st.just("refresh")),
    ),
    max_size=40,
)


class Cluster:
    """A registry with some nodes, of which half have an id."""

    def __init__(self) -> None:
        changes = ChangeLog(KEPT)
        self.registry = Registry(Lease(), epoch="e", changes=changes, now=0.0)
        self.changes = changes
        self.index = NodeIndex(self.registry, changes)
        self._sessions: dict[int, int] = {}

    def do(self, order: str, number: int = 0, jobs: dict[str, int] | None = None) -> None:
        registry, session = self.registry, self._sessions.get(number, -1)
        node = registry.node_of(session)
        if order == "identify":
            self._sessions[number] = registry.connect(1.0)
            id = f"id{number}" if number % 2 else None
            identity = Identify("m", f"n{number}", f"http://n{number}:5000", "0.1", id, 1)
            registry.identify(self._sessions[number], identity, 1.0)
        elif order == "jobs" and node is not None:
            tables = {name: [Process(pid + 1) for pid in range(count)] for name, count in (jobs or {}).items()}
            registry.tables.replace(node, node.seq + 1, tables)
        elif order == "drain" and node is not None:
            registry.tables.set_draining(node, not node.draining)
        elif order == "leave" and node is not None:
            registry.leave(session, 2.0)
        elif order == "disconnect":
            registry.disconnect(session, 2.0)
        elif order == "delete" and registry.find(f"id{number}") is not None:
            registry.delete(f"id{number}", 2.0)
        elif order == "refresh":
            refresh(self.index)


def refresh(index: NodeIndex) -> None:
    for _ in index.refreshing():
        pass


@given(STEPS)
def test_rows_follow_all_changes(steps: list[tuple[object, ...]]) -> None:
    cluster = Cluster()
    for step in steps:
        try:
            cluster.do(*step)  # type: ignore[arg-type]
        except Refused:
            continue
    anew = NodeIndex(cluster.registry, cluster.changes)
    refresh(anew)
    refresh(cluster.index)
    for kind in KINDS.values():
        found = sorted(cluster.index.rows(kind), key=lambda row: row.key)
        assert found == sorted(anew.rows(kind), key=lambda row: row.key)
        for row in found:
            item = cluster.index.describe(kind, row.key, 3.0)
            assert item is not None
            assert (item["key"], item["name"]) == (row.key, row.values[0])
            assert row.state == (item.get("state") if kind is JOBS else item["status"])
    assert len(cluster.index.rows(NODES)) == len(cluster.registry.nodes)
    for node in cluster.index.rows(NODES):
        assert cluster.index.rows_of(NODES, node.key) == [node]
        jobs = [row for row in cluster.index.rows(JOBS) if row.key.startswith(f"{node.key}/")]
        assert cluster.index.rows_of(JOBS, node.key) == jobs
        assert cluster.index.heard(node.key) == -1.0


def test_what_is_gone_is_not_described() -> None:
    cluster = Cluster()
    cluster.do("identify", 1)
    cluster.do("jobs", 1, {"a.x": 1})
    refresh(cluster.index)
    assert cluster.index.describe(JOBS, "id1/a.x", 0.0) is not None
    assert cluster.index.describe(JOBS, "id1/a.y", 0.0) is None
    cluster.do("delete", 1)
    assert cluster.index.describe(NODES, "id1", 0.0) is None
    refresh(cluster.index)
    assert (cluster.index.rows_of(JOBS, "id1"), cluster.index.heard("id1")) == ([], None)


def test_nodes_that_left_while_nobody_looked_are_gone() -> None:
    cluster = Cluster()
    cluster.do("identify", 1)
    refresh(cluster.index)
    cluster.do("delete", 1)
    for _ in range(KEPT):
        cluster.do("identify", 3)
    refresh(cluster.index)
    assert [row.key for row in cluster.index.rows(NODES)] == ["id3"]


def test_many_nodes_are_looked_at_in_steps() -> None:
    cluster = Cluster()
    for number in range(250):
        cluster.do("identify", number)
    assert len(list(cluster.index.refreshing())) == 2
    assert len(cluster.index.rows(NODES)) == 250
    assert list(cluster.index.refreshing()) == []
