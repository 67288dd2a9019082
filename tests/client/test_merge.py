"""Merging the answers of several lookups."""

from dataclasses import replace
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer.schemas.lookup import AgedNodeInfo, JobSource, Tombstone
from gaffer_client.merge import Merged, View, merge

pytestmark = pytest.mark.pure


def node(id: str | None = "a", incarnation: int = 1, seq: int = 1, status: str = "alive", **more: Any) -> AgedNodeInfo:
    name = more.pop("name", f"node-{id}")
    info: dict[str, Any] = {"name": name, "origin": f"http://{name}:5000", "version": "0.1"}
    if id is not None:
        info |= {"id": id, "incarnation": incarnation, "seq": seq, "status": status, "age_ms": 10}
    return info | more  # type: ignore[return-value]


def source(info: AgedNodeInfo, *pids: int) -> JobSource:
    found: dict[str, Any] = {"name": info["name"], "pids": list(pids), "node_info": info}
    if "status" in info:
        found |= {"status": info["status"], "age_ms": info["age_ms"]}
    return found  # type: ignore[return-value]


def view(url: str, *nodes: AgedNodeInfo, jobs: dict[str, list[JobSource]] | None = None, **more: Any) -> View:
    return View(url, nodes, jobs or {}, **more)


def grave(
    id: str = "a", incarnation: int = 1, seq: int = 1, reason: Literal["left", "expired"] = "expired"
) -> Tombstone:
    return {"id": id, "incarnation": incarnation, "seq": seq, "reason": reason}


def summary(merged: Merged) -> list[tuple[str | None, int | None, int | None, str | None]]:
    return [(n.get("id"), n.get("incarnation"), n.get("seq"), n.get("status")) for n in merged.nodes]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (node(seq=1), node(seq=1), [("a", 1, 1, "alive")]),
        # The newest wins, whichever lookup has it...
        (node(seq=3), node(seq=2), [("a", 1, 3, "alive")]),
        (node(seq=2), node(seq=3), [("a", 1, 3, "alive")]),
        (node(incarnation=2, seq=1), node(incarnation=1, seq=9), [("a", 2, 1, "alive")]),
        # ...and a node is alive when one of them hears it.
        (node(status="suspect"), node(), [("a", 1, 1, "alive")]),
        (node(seq=5, status="suspect"), node(seq=4), [("a", 1, 5, "alive")]),
        # Orders to drain, and back, are numbered; peers that do not number them are believed where they take work.
        (node(status="draining"), node(), [("a", 1, 1, "alive")]),
        (node(seq=2, status="draining"), node(), [("a", 1, 2, "draining")]),
        (node(seq=1, status="draining"), node(seq=2), [("a", 1, 2, "alive")]),
        (node(seq=1, status="draining"), node(seq=2, status="suspect", draining=False), [("a", 1, 2, "alive")]),
        (node(seq=1), node(seq=2, status="suspect", draining=True), [("a", 1, 2, "draining")]),
        (node(seq=1, status="suspect"), node(seq=2, status="suspect", draining=True), [("a", 1, 2, "suspect")]),
        (node(status="draining"), node(status="suspect"), [("a", 1, 1, "draining")]),
        # What was heard of an earlier life says nothing about this one.
        (node(incarnation=2, status="suspect"), node(incarnation=1), [("a", 2, 1, "suspect")]),
        (node("a"), node("b"), [("a", 1, 1, "alive"), ("b", 1, 1, "alive")]),
        # Two ids with one name are two nodes.
        (node("a", name="n"), node("b", name="n"), [("a", 1, 1, "alive"), ("b", 1, 1, "alive")]),
        # Nodes of 0.5 have no id: name and origin make them one.
        (node(None, name="old"), node(None, name="old"), [(None, None, None, None)]),
    ],
)
@pytest.mark.parametrize("swap", [False, True])
def test_the_furthest_lookup_is_believed(
    first: AgedNodeInfo, second: AgedNodeInfo, expected: list[Any], swap: bool
) -> None:
    views = [view("one", first), view("two", second)]
    assert summary(merge(views[::-1] if swap else views)) == expected


@pytest.mark.parametrize(
    ("info", "tombstone", "stays"),
    [
        (node(status="suspect"), grave(), False),
        (node(), grave(), True),
        (node(status="draining"), grave(), True),
        (node(seq=3), grave(seq=4, reason="left"), False),
        (node(seq=4), grave(seq=4, reason="left"), True),  # it is back: the lookup that hears it knows that it left
        (node(seq=4, status="suspect"), grave(seq=4, reason="left"), False),
        (node(incarnation=2, status="suspect"), grave(incarnation=1), True),
        (node(incarnation=2), grave(incarnation=1, reason="left"), True),
        (node(incarnation=1), grave(incarnation=2), False),
        (node("b", status="suspect"), grave("a"), True),
    ],
)
def test_a_tombstone_removes_a_node_that_nobody_hears(info: AgedNodeInfo, tombstone: Tombstone, stays: bool) -> None:
    views = [view("one", info, jobs={"s.j": [source(info, 1)]}), view("two", tombstones=[tombstone])]
    merged = merge(views)
    assert bool(merged.nodes) == stays
    assert bool(merged.jobs) == stays


def test_all_jobs_of_a_node_come_from_the_lookup_that_is_furthest() -> None:
    behind, ahead = node(seq=1), node(seq=2)
    merged = merge(
        [
            view("one", behind, jobs={"s.gone": [source(behind, 1)], "s.kept": [source(behind, 2)]}),
            view("two", ahead, jobs={"s.kept": [source(ahead, 3)], "s.new": [source(ahead, 4)]}),
        ]
    )
    assert {name: sources[0]["pids"] for name, sources in merged.jobs.items()} == {"s.kept": [3], "s.new": [4]}
    assert merged.agree == ["two"]


def test_sources_show_the_merged_state_of_their_node() -> None:
    ahead = node(seq=2, status="suspect", age_ms=900)
    heard = node(seq=1, status="alive", age_ms=20)
    merged = merge([view("one", ahead, jobs={"s.j": [source(ahead, 1)]}), view("two", heard)])
    [only] = merged.jobs["s.j"]
    assert (only["status"], only["age_ms"], only["node_info"]["status"]) == ("alive", 20, "alive")


def test_a_conflict_that_one_lookup_sees_is_reported() -> None:
    [only] = merge([view("one", node(conflict=True)), view("two", node(seq=2, conflict=False))]).nodes
    assert only["conflict"] is True


@pytest.mark.parametrize(
    ("views", "stale"),
    [
        ([], False),
        ([view("one", stale=True)], True),
        ([view("one", stale=True), view("two", node())], False),
        ([view("one", node(), stale=True), view("two")], True),
        # The node is heard elsewhere, so what the stale one says of it does not count.
        ([view("one", node(status="suspect"), stale=True), view("two", node())], False),
    ],
)
def test_an_answer_is_stale_when_what_it_rests_on_is(views: list[View], stale: bool) -> None:
    assert merge(views).stale is stale


def test_unknown_keys_are_kept() -> None:
    info = node(zone="a")
    [only] = merge([view("one", info)]).nodes
    assert only["zone"] == "a"  # type: ignore[typeddict-item]


# A small world: nodes a to c, each with a history of (incarnation, seq), and lookups that have followed them so far.

IDS = ("a", "b", "c")


def world(id: str, incarnation: int, seq: int) -> dict[str, list[int]]:
    """The jobs of a node at a position: the same for whoever asks."""
    return {f"s.{name}": [incarnation * 100 + seq] for name in "xyz"[: (incarnation + seq) % 4]}


@st.composite
def views_of_the_world(draw: st.DrawFn) -> list[View]:
    views = []
    for number in range(draw(st.integers(1, 4))):
        nodes: list[AgedNodeInfo] = []
        jobs: dict[str, list[JobSource]] = {}
        for id in draw(st.lists(st.sampled_from(IDS), unique=True)):
            incarnation, seq = draw(st.integers(1, 3)), draw(st.integers(0, 5))
            info = node(id, incarnation, seq, draw(st.sampled_from(["alive", "suspect", "draining"])))
            nodes.append(info)
            for name, pids in world(id, incarnation, seq).items():
                jobs.setdefault(name, []).append(source(info, *pids))
        graves = [
            grave(id, draw(st.integers(1, 3)), reason=draw(st.sampled_from(["expired", "left", "replaced"])))
            for id in draw(st.lists(st.sampled_from(IDS), unique=True))
        ]
        views.append(View(f"lookup{number}", nodes, jobs, graves, draw(st.booleans())))
    return views


def content(merged: Merged) -> tuple[Any, Any]:
    positions = [(n["name"], n["incarnation"], n["seq"], n["status"]) for n in merged.nodes]
    return positions, {name: [(s["name"], s["pids"]) for s in found] for name, found in merged.jobs.items()}


@given(views_of_the_world(), st.randoms())
def test_the_order_of_the_lookups_does_not_matter(views: list[View], random: Any) -> None:
    shuffled = list(views)
    random.shuffle(shuffled)
    assert content(merge(shuffled)) == content(merge(views))
    assert merge(shuffled).stale == merge(views).stale


@given(views_of_the_world())
def test_a_second_copy_of_a_view_changes_nothing(views: list[View]) -> None:
    assert content(merge([*views, replace(views[0], url="again")])) == content(merge(views))


@given(views_of_the_world())
def test_each_node_is_shown_as_it_was_at_its_newest_position(views: list[View]) -> None:
    merged = merge(views)
    for info in merged.nodes:
        seen = [other for v in views for other in v.nodes if other["id"] == info["id"]]
        newest = max((other["incarnation"] or 0, other["seq"] or 0) for other in seen)
        assert (info["incarnation"], info["seq"]) == newest
        shown = {
            name: s["pids"] for name, found in merged.jobs.items() for s in found if s["node_info"]["id"] == info["id"]
        }
        assert shown == world(str(info["id"]), *newest)


@given(views_of_the_world())
def test_a_node_is_missing_only_when_there_is_a_tombstone(views: list[View]) -> None:
    shown = {info["id"] for info in merge(views).nodes}
    buried = {tombstone["id"] for v in views for tombstone in v.tombstones}
    assert {info["id"] for v in views for info in v.nodes} - shown <= buried


@given(views_of_the_world())
def test_a_lookup_that_agrees_gives_the_same_answer_by_itself(views: list[View]) -> None:
    merged = merge(views)
    for v in views:
        if v.url in merged.agree:
            alone = {name: sorted(s["pids"][0] for s in found) for name, found in v.jobs.items()}
            assert alone == {name: sorted(s["pids"][0] for s in found) for name, found in merged.jobs.items()}
