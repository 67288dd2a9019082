"""The registry: identities, tables, and what becomes of a node that goes quiet."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from gaffer.schemas.messages import (
    MAX_NODE_ENDPOINTS,
    MAX_NODE_JOBS,
    MAX_NODE_PROCESSES,
    Endpoint,
    JobReport,
    LookupLink,
    Process,
    Report,
    ReportedEvent,
    node_id,
)
from gaffer_lookupd.errors import Refused
from gaffer_lookupd.lease import MAX_IDENTIFY_TIMEOUT, Lease, PauseDetector
from gaffer_lookupd.registry import MAX_TOMBSTONE_JOBS, MAX_TOMBSTONES
from support.registry import INTERVAL, TTL, Lookup, json

pytestmark = pytest.mark.pure


@pytest.fixture
def lookup() -> Lookup:
    return Lookup()


def refusal(call: Callable[..., object], *args: Any, **kwargs: Any) -> tuple[int, str]:
    with pytest.raises(Refused) as raised:
        call(*args, **kwargs)
    return raised.value.errno, raised.value.reason


# Identities


@pytest.mark.row("LP-18")
def test_a_second_identify_is_refused(lookup: Lookup) -> None:
    session = lookup.identify()
    assert refusal(lookup.identify, session, name="other") == (409, "already_identified")
    assert lookup.status("other") is None


@pytest.mark.row("LP-15")
def test_a_session_without_an_identity_can_announce_nothing(lookup: Lookup) -> None:
    errno, reason = refusal(lookup.registry.identified, lookup.connect())
    assert errno == 404
    assert "IDENTIFY" in reason


@pytest.mark.row("LP-19")
def test_a_second_0_5_peer_of_the_same_name_and_origin_is_refused_while_the_first_is_heard(lookup: Lookup) -> None:
    first = lookup.legacy()
    lookup.wait(TTL / 3)
    assert refusal(lookup.legacy) == (409, "identity_exists")
    lookup.legacy(origin="http://elsewhere:5000")
    assert not lookup.closed
    assert lookup.status("old") is not None
    lookup.heard(first)
    lookup.wait(TTL / 3)
    assert refusal(lookup.legacy) == (409, "identity_exists")


def test_a_0_5_peer_that_was_not_heard_for_a_third_of_the_ttl_is_replaced(lookup: Lookup) -> None:
    first = lookup.legacy()
    lookup.wait(TTL / 3 + 1)
    second = lookup.legacy()
    assert lookup.closed == [first]
    lookup.disconnect(first)
    assert [node.session for node in lookup.registry.nodes] == [second]


def test_a_0_5_peer_does_not_push_out_a_node_that_is_heard(lookup: Lookup) -> None:
    session = lookup.identify()
    lookup.wait(1.2 * INTERVAL)
    assert refusal(lookup.legacy, "n1") == (409, "identity_exists")
    lookup.disconnect(session)
    lookup.legacy("n1")
    assert [node.identity.id for node in lookup.registry.nodes] == [None]


def test_a_node_with_an_id_waits_for_a_0_5_peer_to_be_quiet(lookup: Lookup) -> None:
    peer = lookup.legacy()
    assert refusal(lookup.identify, name="old") == (409, "identity_exists")
    lookup.wait(TTL / 3 + 1)
    lookup.identify(name="old")
    assert peer in lookup.closed


def test_two_connected_ids_with_one_name_are_both_listed_as_a_conflict(lookup: Lookup) -> None:
    first = lookup.identify()
    second = lookup.identify(id="id2")
    lookup.identify(name="n2", id="id3")
    conflicts = {node["id"]: node["conflict"] for node in lookup.ask("nodes")["nodes"]}
    assert conflicts == {"id1": True, "id2": True, "id3": False}
    assert not lookup.closed
    lookup.disconnect(second)
    assert not any(node["conflict"] for node in lookup.ask("nodes")["nodes"])
    assert lookup.status("n1") is not None
    lookup.heard(first)


def test_a_suspect_node_is_no_party_to_a_conflict(lookup: Lookup) -> None:
    lookup.disconnect(lookup.identify(id="id0", origin="http://elsewhere:5000"))
    lookup.identify()
    lookup.identify(id="id2")
    conflicts = {node["id"]: node["conflict"] for node in lookup.ask("nodes")["nodes"]}
    assert conflicts == {"id0": False, "id1": True, "id2": True}


def test_the_same_name_and_origin_after_the_old_socket_closed_is_a_replacement(lookup: Lookup) -> None:
    old = lookup.identify()
    lookup.announce(old, "s.j", 1)
    lookup.disconnect(old)
    lookup.identify(id="id2")
    assert [node.identity.id for node in lookup.registry.nodes] == ["id2"]
    assert lookup.pids("s.j") == {}
    assert [(t["id"], t["reason"]) for t in lookup.registry.tombstones] == [("id1", "replaced")]


def test_the_same_name_at_another_origin_replaces_nothing(lookup: Lookup) -> None:
    lookup.disconnect(lookup.identify())
    lookup.identify(id="id2", origin="http://elsewhere:5000")
    assert [node.status for node in lookup.registry.nodes] == ["suspect", "alive"]


def test_a_newer_incarnation_wins_at_once_and_its_snapshot_replaces_the_table(lookup: Lookup) -> None:
    old = lookup.identify(incarnation=1)
    lookup.announce(old, "s.j", 1, seq=50)
    new = lookup.identify(incarnation=2)
    assert lookup.closed == [old]
    assert lookup.pids("s.j") == {"n1": [1]}  # as they may have outlived its gafferd
    lookup.registry.tables.replace(lookup.registry.identified(new), 1, {"s.j": [Process(7)]})
    lookup.disconnect(old)
    assert lookup.pids("s.j") == {"n1": [7]}
    assert lookup.status() == "alive"


@pytest.mark.parametrize("known", ["connected", "suspect", "left"])
def test_an_older_incarnation_is_refused(lookup: Lookup, known: str) -> None:
    session = lookup.identify(incarnation=2)
    if known == "suspect":
        lookup.disconnect(session)
    elif known == "left":
        lookup.registry.leave(session, lookup.now)
    errno, reason = refusal(lookup.identify, incarnation=1)
    assert errno == 409
    assert reason.startswith("stale_incarnation")


def test_an_older_incarnation_is_welcome_once_the_newer_is_forgotten(lookup: Lookup) -> None:
    session = lookup.identify(incarnation=2)
    lookup.registry.leave(session, lookup.now)
    lookup.wait(2 * TTL + 1)
    lookup.identify(incarnation=1)
    assert lookup.status() == "alive"


def test_a_reconnect_keeps_the_table_until_the_snapshot(lookup: Lookup) -> None:
    old = lookup.identify()
    lookup.announce(old, "s.j", 1, 2, seq=5)
    new = lookup.identify()
    assert lookup.closed == [old]
    assert lookup.pids("s.j") == {"n1": [1, 2]}
    lookup.announce(new, "s.j", 2, seq=6)
    assert lookup.pids("s.j") == {"n1": [2]}


def test_after_a_reconnect_the_snapshot_counts_even_with_a_lower_number(lookup: Lookup) -> None:
    lookup.announce(lookup.identify(), "s.j", 1, seq=5)
    lookup.announce(lookup.identify(), "s.j", 2, seq=1)
    assert lookup.pids("s.j") == {"n1": [2]}


def test_an_old_session_that_closes_later_touches_nothing(lookup: Lookup) -> None:
    old = lookup.identify()
    lookup.announce(lookup.identify(), "s.j", 1)
    before = lookup.events
    lookup.disconnect(old)
    assert lookup.events == before
    assert lookup.status() == "alive"
    assert refusal(lookup.registry.identified, old)[0] == 404


def test_a_copied_id_does_not_push_out_the_node_that_has_it(lookup: Lookup) -> None:
    lookup.identify()
    errno, reason = refusal(lookup.identify, name="copy")
    assert errno == 409
    assert reason.startswith("id_in_use")


def test_a_newer_incarnation_wins_whatever_it_is_called(lookup: Lookup) -> None:
    session = lookup.identify()
    lookup.identify(name="renamed", incarnation=2)
    assert lookup.closed == [session]
    assert [node["name"] for node in lookup.ask("nodes")["nodes"]] == ["renamed"]


def test_a_node_whose_socket_closed_may_come_back_from_another_address(lookup: Lookup) -> None:
    lookup.disconnect(lookup.identify())
    lookup.identify(origin="http://10.0.0.9:5000")
    assert [(node["origin"], node["status"]) for node in lookup.ask("nodes")["nodes"]] == [
        ("http://10.0.0.9:5000", "alive")
    ]


def test_a_node_whose_socket_closed_keeps_its_table_until_the_snapshot(lookup: Lookup) -> None:
    session = lookup.identify()
    lookup.announce(session, "s.j", 1, seq=5)
    lookup.disconnect(session)
    lookup.identify()
    assert lookup.pids("s.j") == {"n1": [1]}
    assert lookup.registry.tombstones == []


def test_a_silent_node_that_connects_again_is_alive_for_another_ttl(lookup: Lookup) -> None:
    lookup.identify()
    lookup.wait(TTL - 2)
    lookup.identify()
    assert lookup.ask("nodes")["nodes"][0]["status"] == "alive"
    lookup.wait(TTL - 2)
    assert lookup.status() == "suspect"


def test_a_session_that_has_ended_can_not_identify_itself(lookup: Lookup) -> None:
    old = lookup.identify()
    lookup.identify()
    assert refusal(lookup.identify, old, name="n2", id="id2") == (404, "session_ended: connect again")
    assert [node.identity.name for node in lookup.registry.nodes] == ["n1"]


def test_a_0_5_peer_pushes_out_a_node_that_is_silent(lookup: Lookup) -> None:
    session = lookup.identify()
    lookup.wait(2 * INTERVAL)
    lookup.legacy("n1")
    assert lookup.closed == [session]
    assert [node.identity.id for node in lookup.registry.nodes] == [None]


def test_a_0_5_peer_is_no_party_to_a_conflict(lookup: Lookup) -> None:
    lookup.legacy("n1", origin="http://elsewhere:5000")
    lookup.identify()
    assert [node["conflict"] for node in lookup.ask("nodes")["nodes"]] == [False, False]


def test_a_node_that_changes_its_name_ends_a_conflict(lookup: Lookup) -> None:
    lookup.identify()
    second = lookup.identify(id="id2")
    lookup.wait(2 * INTERVAL)
    lookup.identify(name="n2", id="id2")
    assert lookup.closed == [second]
    assert [(n.identity.name, n.conflict) for n in lookup.registry.nodes] == [("n1", False), ("n2", False)]


# Tables


def change(lookup: Lookup, session: int, seq: int | None, call: str, *args: Any) -> bool:
    node = lookup.registry.identified(session)
    getattr(lookup.registry.tables, call)(node, *args, seq)
    return node.resync


@pytest.mark.row("LP-03", "LP-04", "LP-05", "LP-06", "LP-41", "LP-42", "LP-43")
def test_a_0_5_peer_announces_and_takes_back(lookup: Lookup) -> None:
    session = lookup.legacy()
    changes: list[tuple[str, str, *tuple[Process | int, ...]]] = [
        ("register_job", "s.j"),
        ("put_process", "s.j", Process(1)),
        ("put_process", "s.j", Process(2)),
        ("put_process", "s.j", Process(2)),
        ("drop_process", "s.j", 1),
        ("drop_process", "s.j", 1),
    ]
    for call, *args in changes:
        change(lookup, session, None, call, *args)
    assert lookup.pids("s.j") == {"old": [2]}
    change(lookup, session, None, "unregister_job", "s.j")
    change(lookup, session, None, "unregister_job", "s.j")
    assert lookup.ask("jobs")["jobs"] == []
    lookup.disconnect(session)
    assert lookup.events == [
        ("add_node", None),
        ("identify", "old"),
        ("add_job", "old", "s.j"),
        ("add_process", "old", "s.j", 1),
        ("add_process", "old", "s.j", 2),
        ("remove_process", "old", "s.j", 1),
        ("remove_job", "old", "s.j"),
        ("remove_node", "old"),
    ]
    assert [change.seq for change in lookup.changes.read(0, 100).items] == list(range(1, 9))


@pytest.mark.row("LP-16", "LP-17")
def test_what_does_not_fit_the_table_is_refused(lookup: Lookup) -> None:
    session = lookup.legacy()
    assert refusal(change, lookup, session, None, "put_process", "s.j", Process(1)) == (404, "job_not_found")
    assert refusal(change, lookup, session, None, "drop_process", "s.j", 1) == (404, "job_not_found")
    change(lookup, session, None, "register_job", "s.j")
    errno, reason = refusal(change, lookup, session, None, "register_job", "s.j")
    assert errno == 409
    assert "s.j" in reason


def test_numbered_changes_are_made_once_and_in_order(lookup: Lookup) -> None:
    session = lookup.identify()
    assert not change(lookup, session, 1, "register_job", "s.j")
    assert not change(lookup, session, 2, "put_process", "s.j", Process(1))
    assert not change(lookup, session, 1, "unregister_job", "s.j")
    assert not change(lookup, session, 2, "drop_process", "s.j", 1)
    assert lookup.pids("s.j") == {"n1": [1]}


def test_a_gap_asks_for_a_snapshot_and_is_not_made(lookup: Lookup) -> None:
    session = lookup.identify()
    lookup.announce(session, "s.j", 1, seq=5)
    assert change(lookup, session, 7, "drop_process", "s.j", 1)
    assert lookup.pids("s.j") == {"n1": [1]}
    lookup.announce(session, "s.j", 2, seq=7)
    assert not lookup.registry.identified(session).resync
    assert lookup.pids("s.j") == {"n1": [2]}


@pytest.mark.parametrize(("seq", "resync"), [(4, True), (5, False), (6, True), (None, False)])
def test_a_ping_with_another_number_asks_for_a_snapshot(lookup: Lookup, seq: int | None, resync: bool) -> None:
    session = lookup.identify()
    lookup.announce(session, "s.j", 1, seq=5)
    node = lookup.registry.identified(session)
    lookup.registry.tables.check_seq(node, seq)
    assert node.resync is resync


def test_a_snapshot_that_is_older_than_what_is_known_is_passed_over(lookup: Lookup) -> None:
    session = lookup.identify()
    lookup.announce(session, "s.j", 1, seq=5)
    lookup.announce(session, "s.j", 9, seq=4)
    assert lookup.pids("s.j") == {"n1": [1]}


def test_a_snapshot_that_was_asked_for_is_the_truth_whatever_its_number(lookup: Lookup) -> None:
    session = lookup.identify()
    lookup.announce(session, "s.j", 1, seq=5)
    lookup.registry.tables.check_seq(lookup.registry.identified(session), 2)
    lookup.announce(session, "s.j", 9, seq=2)
    assert lookup.pids("s.j") == {"n1": [9]}


def test_a_snapshot_publishes_only_what_it_changes(lookup: Lookup) -> None:
    session = lookup.identify()
    node = lookup.registry.identified(session)
    lookup.registry.tables.replace(node, 1, {"s.a": [Process(1), Process(2)], "s.b": [Process(3)]})
    before = len(lookup.events)
    lookup.registry.tables.replace(node, 2, {"s.a": [Process(2, "draining"), Process(4)], "s.c": []})
    assert sorted(lookup.events[before:]) == [
        ("add_job", "n1", "s.c"),
        ("add_process", "n1", "s.a", 4),
        ("remove_job", "n1", "s.b"),
        ("remove_process", "n1", "s.a", 1),
        ("update_process", "n1", "s.a", 2),
    ]


@pytest.mark.parametrize(
    ("call", "args"),
    [
        ("unregister_job", ["s.none"]),
        ("put_process", ["s.j", Process(1)]),
        ("drop_process", ["s.j", 9]),
        ("replace", None),
    ],
)
def test_a_numbered_change_that_changes_nothing_else_counts_all_the_same(
    lookup: Lookup, call: str, args: list[Any]
) -> None:
    session = lookup.identify()
    lookup.announce(session, "s.j", 1, seq=5)
    (source,) = lookup.ask("find_job", "s.j")["sources"]
    if args is None:
        lookup.announce(session, "s.j", 1, seq=6)
    else:
        change(lookup, session, 6, call, *args)
    assert lookup.messages[-1]["event"] == "update_node"
    assert lookup.ask("nodes")["nodes"][0]["seq"] == lookup.messages[-1]["seq"] == 6
    source["node_info"]["seq"] = 6
    assert lookup.ask("find_job", "s.j")["sources"] == [source]


def test_answers_follow_each_change(lookup: Lookup) -> None:
    session = lookup.identify()
    lookup.announce(session, "s.a", 1)

    def asked() -> dict[str, Any]:
        jobs = {job["name"]: job["sources"] for job in lookup.ask("jobs")["jobs"]}
        assert all(jobs[name] == lookup.ask("find_job", name)["sources"] for name in ("s.a", "s.b") if name in jobs)
        (table,) = lookup.snapshot()["nodes"]
        assert {name: source["processes"] for name, (source,) in jobs.items()} == table["jobs"]
        return {name: source["pids"] for name, (source,) in jobs.items()}

    assert asked() == {"s.a": [1]}
    change(lookup, session, 2, "put_process", "s.a", Process(2))
    assert asked() == {"s.a": [1, 2]}
    change(lookup, session, 3, "register_job", "s.b")
    assert asked() == {"s.a": [1, 2], "s.b": []}
    change(lookup, session, 4, "put_process", "s.a", Process(1, "draining"))
    assert asked() == {"s.a": [2], "s.b": []}
    change(lookup, session, 5, "unregister_job", "s.a")
    change(lookup, session, 6, "register_job", "s.a")
    assert asked() == {"s.a": [], "s.b": []}


def test_processes_that_drain_are_listed_but_not_among_the_pids(lookup: Lookup) -> None:
    session = lookup.identify()
    node = lookup.registry.identified(session)
    processes = [Process(1, "starting"), Process(2, "ready"), Process(3, "draining")]
    lookup.registry.tables.replace(node, 1, {"s.j": processes})
    (source,) = lookup.ask("find_job", "s.j")["sources"]
    assert source["pids"] == [1, 2]
    assert [(p["pid"], p["state"]) for p in source["processes"]] == [
        (1, "starting"),
        (2, "ready"),
        (3, "draining"),
    ]


def test_a_node_that_drains_offers_no_pids(lookup: Lookup) -> None:
    session = lookup.identify()
    lookup.announce(session, "s.j", 1)
    lookup.registry.tables.set_draining(lookup.registry.identified(session), True)
    assert lookup.status() == "draining"
    assert lookup.pids("s.j") == {"n1": []}
    lookup.disconnect(session)
    (node,) = lookup.ask("nodes")["nodes"]
    assert (node["status"], node["draining"]) == ("suspect", True)
    assert lookup.pids("s.j") == {"n1": []}
    lookup.announce(lookup.identify(), "s.j", 1, seq=2)
    assert lookup.pids("s.j") == {"n1": [1]}


# Leases


def test_a_node_is_alive_then_suspect_then_expired(lookup: Lookup) -> None:
    session = lookup.identify()
    lookup.announce(session, "s.j", 1)
    lookup.wait(INTERVAL)
    assert lookup.status() == "alive"
    lookup.wait(INTERVAL)
    assert lookup.status() == "suspect"
    assert lookup.pids("s.j") == {"n1": [1]}
    lookup.wait(TTL - 2 * INTERVAL - 1)
    assert lookup.status() == "suspect"
    lookup.wait(1)
    assert lookup.status() is None
    assert lookup.pids("s.j") == {}
    assert lookup.closed == [session]
    assert lookup.events[-3:] == [("add_process", "n1", "s.j", 1), ("update_node", "n1"), ("remove_node", "n1")]


def test_an_interval_is_missed_when_the_message_is_late_by_more_than_half_of_it(lookup: Lookup) -> None:
    lookup.identify()
    lookup.wait(1.5 * INTERVAL)
    assert lookup.status() == "alive"
    lookup.wait(0.5)
    assert lookup.status() == "suspect"


def test_answers_tell_when_a_node_was_heard_and_that_it_is_back(lookup: Lookup) -> None:
    session = lookup.identify()
    lookup.announce(session, "s.j", 1)
    lookup.wait(2 * INTERVAL)
    (source,) = lookup.ask("find_job", "s.j")["sources"]
    assert (source["status"], source["age_ms"]) == ("suspect", 2000 * INTERVAL)
    assert source["node_info"] == lookup.ask("nodes")["nodes"][0]
    lookup.heard(session)
    lookup.now += 0.25
    (source,) = lookup.ask("find_job", "s.j")["sources"]
    assert (source["status"], source["age_ms"]) == ("alive", 250)
    assert source["node_info"] == lookup.ask("nodes")["nodes"][0]


def test_a_closed_socket_makes_a_node_suspect_at_once(lookup: Lookup) -> None:
    session = lookup.identify()
    lookup.wait(1)
    lookup.disconnect(session)
    assert lookup.status() == "suspect"
    lookup.wait(TTL - 2)
    assert lookup.status() == "suspect"
    lookup.wait(1)
    assert lookup.status() is None


def test_anything_heard_begins_the_lease_anew(lookup: Lookup) -> None:
    session = lookup.identify()
    lookup.wait(2 * INTERVAL)
    lookup.heard(session)
    assert lookup.status() == "alive"
    lookup.wait(TTL - 1)
    assert lookup.status() == "suspect"


@pytest.mark.row("LK-10")
def test_a_0_5_peer_goes_with_its_connection(lookup: Lookup) -> None:
    session = lookup.legacy()
    change(lookup, session, None, "register_job", "s.j")
    lookup.disconnect(session)
    assert lookup.status("old") is None
    assert lookup.pids("s.j") == {}
    assert lookup.registry.tombstones == []


def test_a_0_5_peer_goes_after_ttl_of_silence(lookup: Lookup) -> None:
    session = lookup.legacy()
    lookup.wait(TTL - 1)
    assert lookup.status("old") is not None
    lookup.wait(1)
    assert lookup.status("old") is None
    assert lookup.closed == [session]


def test_a_connection_has_some_seconds_to_identify_itself_whatever_else_it_sends(lookup: Lookup) -> None:
    session = lookup.connect()
    lookup.wait(MAX_IDENTIFY_TIMEOUT - 1, session)
    assert not lookup.closed
    lookup.wait(1, session)
    assert lookup.closed == [session]


def test_a_connection_without_a_name_leaves_nothing_and_displaces_no_change(lookup: Lookup) -> None:
    session = lookup.connect()
    lookup.disconnect(session)
    lookup.disconnect(session)
    lookup.wait(2 * TTL)
    assert not lookup.closed
    assert lookup.events == []


@pytest.mark.parametrize("reason", ["left", "expired", "deleted"])
def test_a_node_that_is_gone_is_remembered_for_two_ttl(lookup: Lookup, reason: str) -> None:
    session = lookup.identify(incarnation=3)
    lookup.announce(session, "s.j", 1, seq=9)
    if reason == "left":
        lookup.registry.leave(session, lookup.now)
    elif reason == "deleted":
        assert lookup.registry.delete("id1", lookup.now) == [session]
    else:
        lookup.wait(TTL)
    assert lookup.status() is None
    grave = {"id": "id1", "incarnation": 3, "seq": 9, "reason": reason}
    assert grave.items() <= lookup.messages[-1].items()
    assert lookup.ask("nodes")["tombstones"] == [grave]
    lookup.wait(2 * TTL - 1)
    assert lookup.ask("nodes")["tombstones"] == [grave]
    lookup.wait(1)
    assert lookup.ask("nodes")["tombstones"] == []
    assert lookup.messages[-1] == {"event": "forget_node", **grave}


def test_of_very_many_that_are_gone_the_oldest_are_forgotten(lookup: Lookup) -> None:
    for number in range(MAX_TOMBSTONES + 2):
        lookup.registry.leave(lookup.identify(id=f"id{number}"), lookup.now)
    graves = lookup.ask("nodes")["tombstones"]
    assert (len(graves), graves[0]["id"]) == (MAX_TOMBSTONES, "id2")
    assert [message["id"] for message in lookup.messages if message["event"] == "forget_node"] == ["id0", "id1"]


def test_an_id_that_comes_back_has_no_tombstone(lookup: Lookup) -> None:
    session = lookup.identify()
    lookup.registry.leave(session, lookup.now)
    lookup.identify()
    assert lookup.registry.tombstones == []


def test_a_deleted_node_must_exist(lookup: Lookup) -> None:
    lookup.legacy()
    assert refusal(lookup.registry.delete, "id1", lookup.now) == (404, "node_not_found")


# Pauses of lookupd itself


@pytest.mark.parametrize(("late", "extended"), [(0.0, 0.0), (7.5, 0.0), (7.6, 7.6), (100.0, 100.0)])
def test_a_tick_that_is_late_by_more_than_half_an_interval_means_a_pause_that_long(
    late: float, extended: float
) -> None:
    lease = Lease(TTL, INTERVAL)
    pauses = PauseDetector(lease, 1000.0)
    assert pauses.tick(1000.0 + lease.tick + late) == pytest.approx(extended)
    assert pauses.tick(1000.0 + 2 * lease.tick + late) == 0.0


def test_a_pause_extends_what_holds_for_0_5_peers_and_for_connections_without_a_name(lookup: Lookup) -> None:
    lookup.legacy()
    session = lookup.connect()
    lookup.wait(MAX_IDENTIFY_TIMEOUT - 4)
    lookup.pause(60)
    assert refusal(lookup.legacy) == (409, "identity_exists")
    lookup.wait(1)
    assert session not in lookup.closed
    lookup.wait(3)
    assert session in lookup.closed


@pytest.mark.parametrize("pause", [INTERVAL, 2 * INTERVAL + 2, 60.0, 3600.0])
def test_a_pause_of_lookupd_is_not_the_nodes_silence(lookup: Lookup, pause: float) -> None:
    lookup.identify()
    old = lookup.legacy()
    lookup.wait(INTERVAL)
    lookup.pause(pause)
    assert lookup.status("n1") == "alive"
    assert lookup.status("old") is not None
    assert not lookup.closed
    lookup.wait(TTL - INTERVAL - 2)
    assert lookup.status("n1") == "suspect"
    lookup.wait(2)
    assert lookup.status("n1") is None
    assert old in lookup.closed


def test_a_tick_that_is_a_little_late_changes_nothing(lookup: Lookup) -> None:
    lookup.identify()
    lookup.wait(TTL - 3)
    lookup.pause(3)
    assert lookup.status() is None


# Self-preservation


def grow(lookup: Lookup, count: int) -> list[int]:
    return [lookup.identify(name=f"n{k}", id=f"id{k}") for k in range(count)]


@pytest.mark.parametrize(("nodes", "silent"), [(10, 6), (8, 5)])
def test_when_most_nodes_go_silent_together_they_are_kept_and_the_answers_marked_stale(
    lookup: Lookup, nodes: int, silent: int
) -> None:
    sessions = grow(lookup, nodes)
    lookup.wait(TTL + 10, *sessions[silent:])
    assert len(list(lookup.registry.nodes)) == nodes
    assert lookup.ask("nodes")["stale"] is True
    assert lookup.ask("find_job", "s.j")["stale"] is True
    assert lookup.messages[-1] == {"event": "stale", "stale": True, "warming": False}
    lookup.wait(1, *sessions)
    assert lookup.ask("nodes")["stale"] is False
    assert {"event": "stale", "stale": False, "warming": False} in lookup.messages


@pytest.mark.parametrize(("nodes", "silent"), [(7, 7), (10, 5)])
def test_few_nodes_or_half_of_them_do_expire(lookup: Lookup, nodes: int, silent: int) -> None:
    sessions = grow(lookup, nodes)
    lookup.wait(TTL + 1, *sessions[silent:])
    assert len(list(lookup.registry.nodes)) == nodes - silent
    assert not lookup.registry.stale


def test_closed_sockets_are_no_silence(lookup: Lookup) -> None:
    sessions = grow(lookup, 10)
    for session in sessions[:8]:
        lookup.disconnect(session)
    lookup.wait(TTL + 1, *sessions[8:])
    assert len(list(lookup.registry.nodes)) == 2


def test_preservation_ends_when_half_are_heard_and_the_rest_get_a_ttl_more(lookup: Lookup) -> None:
    sessions = grow(lookup, 10)
    lookup.wait(3 * TTL)
    lookup.wait(1, *sessions[:4])
    assert lookup.registry.stale
    lookup.wait(1, *sessions[:5])
    assert not lookup.registry.stale
    lookup.wait(TTL - 2, *sessions[:5])
    assert len(list(lookup.registry.nodes)) == 10
    lookup.wait(2, *sessions[:5])
    assert len(list(lookup.registry.nodes)) == 5


def test_preservation_ends_after_ten_ttl(lookup: Lookup) -> None:
    grow(lookup, 10)
    lookup.wait(10 * TTL)
    assert lookup.registry.stale
    lookup.wait(2 * INTERVAL)
    assert not lookup.registry.stale
    assert list(lookup.registry.nodes) == []


def test_preservation_ends_when_an_operator_deletes_silent_nodes(lookup: Lookup) -> None:
    sessions = grow(lookup, 10)
    lookup.wait(TTL + 1, *sessions[6:])
    assert lookup.registry.stale
    for k in (0, 1):
        lookup.registry.delete(f"id{k}", lookup.now)
    lookup.wait(1, *sessions[6:])
    assert not lookup.registry.stale


# What the nodes are told


@pytest.mark.parametrize(("nodes", "window"), [(1, 1.0), (500, 1.0), (2000, 4.0)])
def test_the_reconnect_window_grows_with_the_cluster(lookup: Lookup, nodes: int, window: float) -> None:
    grow(lookup, nodes)
    assert lookup.registry.reconnect_window == window


# Proofs

SECRET = "5f0d" * 16
ID = node_id(SECRET)


def test_an_id_is_the_first_half_of_the_hash_of_the_secret() -> None:
    assert node_id("abc") == "ba7816bf8f01cfea414140de5dae2223"


@pytest.mark.parametrize("proof", ["wrong", None])
@pytest.mark.parametrize("state", ["connected", "suspect", "gone"])
def test_an_id_that_was_proved_can_not_be_claimed(lookup: Lookup, proof: str | None, state: str) -> None:
    session = lookup.identify(id=ID, proof=SECRET)
    if state == "suspect":
        lookup.disconnect(session)
    if state == "gone":
        lookup.registry.leave(session, lookup.now)
    claim = {"id": ID, "proof": proof, "incarnation": 9, "name": "evil", "origin": "http://evil"}
    assert refusal(lookup.identify, **claim) == (403, "identity_not_proved")
    assert lookup.status("evil") is None
    lookup.identify(id=ID, proof=SECRET, incarnation=2)
    assert lookup.status() == "alive"


def test_a_wrong_proof_is_refused_for_an_unknown_id_too(lookup: Lookup) -> None:
    assert refusal(lookup.identify, id="id1", proof="anything") == (403, "identity_not_proved")


@pytest.mark.parametrize("gone", [False, True])
def test_the_owner_of_an_id_displaces_a_claim_without_proof(lookup: Lookup, gone: bool) -> None:
    claim = lookup.identify(id=ID, name="evil", incarnation=2**62)
    if gone:
        lookup.registry.leave(claim, lookup.now)
    lookup.identify(id=ID, proof=SECRET)
    assert lookup.status("evil") is None
    assert lookup.status() == "alive"
    assert gone or claim in lookup.closed


def test_an_earlier_start_of_a_node_that_runs_elsewhere_is_a_copy(lookup: Lookup) -> None:
    lookup.identify(incarnation=5)
    errno, reason = refusal(lookup.identify, incarnation=3, name="copy")
    assert (errno, reason.partition(":")[0]) == (409, "id_in_use")


# Limits of a node


def endpoints(count: int) -> tuple[Endpoint, ...]:
    return tuple(Endpoint("http", "10.0.0.7", 8000) for _ in range(count))


@pytest.mark.parametrize(
    ("what", "jobs"),
    [
        ("jobs", {f"s.j{number}": [] for number in range(MAX_NODE_JOBS + 1)}),
        ("processes", {"s.j": [Process(pid) for pid in range(MAX_NODE_PROCESSES + 1)]}),
        ("endpoints", {"s.j": [Process(pid, "ready", endpoints(64)) for pid in range(MAX_NODE_ENDPOINTS // 64 + 1)]}),
    ],
)
def test_a_snapshot_over_the_limits_changes_nothing(lookup: Lookup, what: str, jobs: dict[str, list[Process]]) -> None:
    session = lookup.identify()
    lookup.announce(session, "s.small", 1)
    errno, reason = refusal(lookup.announce_table, session, jobs, seq=2)
    assert (errno, reason.partition(":")[0]) == (413, f"too_many_{what}")
    assert list(lookup.registry.tables.jobs) == ["s.small"]


def test_a_change_over_the_limits_is_refused_and_the_next_one_is_made(lookup: Lookup) -> None:
    session = lookup.identify()
    lookup.announce_table(session, {f"s.j{number}": [] for number in range(MAX_NODE_JOBS)})
    node, tables = lookup.registry.identified(session), lookup.registry.tables
    assert refusal(tables.register_job, node, "s.more", 2)[0] == 413
    tables.unregister_job(node, "s.j0", 3)
    tables.register_job(node, "s.more", 4)
    assert not node.resync
    assert "s.more" in tables.jobs


def test_the_size_of_a_table_is_counted_through_all_changes(lookup: Lookup) -> None:
    session = lookup.identify()
    node, tables = lookup.registry.identified(session), lookup.registry.tables
    tables.register_job(node, "s.j")
    for change in (Process(1, "starting", endpoints(3)), Process(1, "ready", endpoints(2)), Process(2)):
        tables.put_process(node, "s.j", change)
    assert node.size == (2, 2)
    tables.drop_process(node, "s.j", 2)
    tables.drop_process(node, "s.j", 2)
    assert node.size == (1, 2)
    assert tables.entries == node.entries == 4
    tables.unregister_job(node, "s.j")
    assert node.size == (0, 0)
    assert tables.entries == node.entries == 0
    lookup.announce_table(session, {"s.j": [Process(1, "ready", endpoints(2))], "s.k": []}, seq=9)
    assert tables.entries == 5
    lookup.registry.leave(session, lookup.now)
    assert tables.entries == 0


def test_all_nodes_together_have_a_bounded_table(lookup: Lookup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gaffer_lookupd.job_index.MAX_ENTRIES", 10)
    first, second = lookup.identify(name="n1", id="id1"), lookup.identify(name="n2", id="id2")
    lookup.announce_table(first, {f"s.j{number}": [] for number in range(6)})
    four: dict[str, list[Process]] = {f"s.j{number}": [] for number in range(4)}
    assert refusal(lookup.announce_table, second, {**four, "s.more": []})[1].startswith("registry_full")
    lookup.announce_table(second, four)
    lookup.announce_table(second, {"s.j0": [Process(1)]}, seq=3)
    lookup.registry.leave(first, lookup.now)
    lookup.announce_table(second, {"s.j0": [Process(pid) for pid in range(9)]}, seq=4)


def test_a_new_node_takes_the_place_of_the_one_that_is_silent_for_longest(
    lookup: Lookup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gaffer_lookupd.registry.MAX_NODES", 2)
    lookup.identify(name="n1", id="id1")
    second = lookup.identify(name="n2", id="id2")
    assert refusal(lookup.identify, name="n3", id="id3")[1].startswith("registry_full")
    lookup.identify(name="n1", id="id1", incarnation=2)  # a known one needs no room
    lookup.disconnect(second)
    lookup.identify(name="n3", id="id3")
    assert {node.identity.name for node in lookup.registry.nodes} == {"n1", "n3"}


# Warming


def test_answers_are_stale_until_lookupd_has_warmed_up() -> None:
    lookup = Lookup(warmup=5)
    lookup.identify()
    lookup.wait(4)
    assert (lookup.ask("nodes")["stale"], lookup.ask("find_job", "s.j")["warming"]) == (True, True)
    assert (lookup.snapshot()["stale"], lookup.snapshot()["warming"]) == (True, True)
    assert lookup.registry.warming_left(lookup.now) == 1
    lookup.wait(1)
    assert (lookup.ask("nodes")["stale"], lookup.ask("jobs")["warming"]) == (False, False)
    assert lookup.messages[-1] == {"event": "stale", "stale": False, "warming": False}
    assert lookup.registry.warming_left(lookup.now) == 0


@pytest.mark.parametrize(
    ("windows", "seconds"),
    [
        ([None], 2.5),  # a peer that never had an answer
        ([1.0, 1.0], 2.5),
        ([1.0, 3.0], 6.5),  # of a large cluster
        ([16.0], 20),  # its connection broke unnoticed: others may not have noticed yet
        ([], 20),
    ],
)
def test_warming_ends_once_all_should_be_back_as_far_as_nodes_know(windows: list[float | None], seconds: float) -> None:
    lookup = Lookup(warmup=20, settles=True)
    for number, window in enumerate(windows):
        lookup.identify(name=f"n{number}", id=f"id{number}", reconnect_window=window)
    lookup.wait(seconds - 0.01)
    assert lookup.registry.warming
    lookup.wait(1)
    assert not lookup.registry.warming


def test_leases_end_while_lookupd_warms_up() -> None:
    lookup = Lookup(warmup=TTL)
    lookup.disconnect(lookup.identify())
    lookup.wait(TTL - 1)
    lookup.identify(name="other", id="id2")
    lookup.wait(1)
    assert lookup.status() is None


# Tombstones


def test_an_answer_has_the_tombstones_of_what_it_is_about(lookup: Lookup) -> None:
    for number, job in enumerate(["s.a", "s.b", "t.a"]):
        session = lookup.identify(name=f"n{number}", id=f"id{number}")
        lookup.announce(session, job, 1)
        lookup.registry.leave(session, lookup.now)
    lookup.registry.leave(lookup.identify(name="idle", id="id3"), lookup.now)

    def buried(query: str, *args: str | None) -> list[str]:
        return [grave["id"] for grave in lookup.ask(query, *args)["tombstones"]]

    assert buried("find_job", "s.a") == ["id0"]
    assert buried("find_job", "s.none") == []
    assert buried("find_session", "s") == ["id0", "id1"]
    assert buried("sessions", "n2") == ["id2"]
    assert buried("sessions", None) == buried("jobs") == ["id0", "id1", "id2"]
    assert buried("nodes") == ["id0", "id1", "id2", "id3"]
    lookup.identify(name="n0", id="id0")
    assert buried("find_job", "s.a") == []


def test_the_jobs_of_tombstones_are_bounded(lookup: Lookup) -> None:
    jobs: dict[str, list[Process]] = {f"s.j{number}": [] for number in range(MAX_NODE_JOBS)}
    for number in range(MAX_TOMBSTONE_JOBS // MAX_NODE_JOBS + 1):
        session = lookup.identify(name=f"n{number}", id=f"id{number}")
        lookup.announce_table(session, jobs)
        lookup.registry.leave(session, lookup.now)
    assert lookup.registry.tombstones[0]["id"] == "id1"
    assert len(lookup.ask("find_job", "s.j0")["tombstones"]) == MAX_TOMBSTONE_JOBS // MAX_NODE_JOBS


# Snapshots that are taken slowly


def test_a_snapshot_shows_one_moment_whatever_changes_while_it_is_sent(lookup: Lookup) -> None:
    session = lookup.identify()
    lookup.announce(session, "s.a", 1, 2)
    node, tables = lookup.registry.identified(session), lookup.registry.tables
    before, parts = lookup.snapshot(), lookup.queries.snapshot()
    tables.drop_process(node, "s.a", 1)
    tables.put_process(node, "s.a", Process(3))
    tables.register_job(node, "s.b")
    tables.unregister_job(node, "s.a")
    after = lookup.snapshot()
    assert b"".join(parts) == msgspec.json.encode(before)
    assert after["nodes"][0]["jobs"] == {"s.b": []}


# Reports


def report(lookup: Lookup, session: int, *numbers: int) -> list[tuple[str, int]]:
    """Report events with these numbers; return what they add to the history, each with its count."""
    history = lookup.changes.history
    before = history.end
    events = [ReportedEvent(1.0, "job", f"event {number}") for number in numbers]
    lookup.registry.report(session, Report("m", 1.0, None, events, numbers[0]), lookup.now)
    return [(entry["action"], entry["count"]) for entry in history.read(before).items]


def test_events_that_are_known_are_ignored_and_missing_ones_are_counted(lookup: Lookup) -> None:
    session = lookup.identify()
    assert report(lookup, session, 7, 8) == [("event 7", 1), ("event 8", 1)]  # earlier ones were not kept
    assert report(lookup, session, 7, 8) == []
    assert report(lookup, session, 8, 9) == [("event 9", 1)]
    assert report(lookup, session, 12) == [("events lost", 2), ("event 12", 1)]
    again = lookup.identify(incarnation=2)
    assert report(lookup, again, 0) == [("event 0", 1)]
    assert refusal(report, lookup, lookup.connect(), 1)[0] == 404


def test_the_newest_of_too_many_events_are_recorded(lookup: Lookup) -> None:
    session = lookup.identify()
    for first in range(0, 200, 50):
        assert len(report(lookup, session, *range(first, first + 50))) == 50
    lookup.now += 2
    assert report(lookup, session, *range(200, 210)) == [("events lost", 8), ("event 208", 1), ("event 209", 1)]


def test_the_ages_of_links_do_not_depend_on_the_clock_of_the_node(lookup: Lookup) -> None:
    session = lookup.identify()
    node = lookup.registry.identified(session)
    assert node.link_ages(lookup.now) == []
    links = [LookupLink("http://a:1", True, 40.0), LookupLink("http://b:1", False, 99.0)]
    lookup.registry.report(session, Report("m", 50.0, links), lookup.now)
    lookup.now += 5
    assert node.link_ages(lookup.now) == [15.0, 0.0]


def test_the_states_of_jobs_last_while_the_node_that_reported_them_runs() -> None:
    lookup = Lookup()
    session = lookup.identify()
    lookup.announce(session, "shop.web", 1)

    def report(**jobs: JobReport) -> None:
        named = {f"shop.{name}": job for name, job in jobs.items()}
        lookup.registry.report(session, Report("m", 1.0, jobs=named), lookup.now)

    def state() -> tuple[Any, ...]:
        [source] = lookup.ask("find_job", "shop.web")["sources"]
        return source["state"], source["reason"], source["expected"]

    assert state() == (None, None, None)
    report(web=JobReport("backoff", "why", 2), other=JobReport("failed"))
    assert state() == ("backoff", "why", 2)
    before = lookup.changes.end
    report(web=JobReport("backoff", "why", 2))
    assert lookup.changes.end == before
    session = lookup.identify()  # the same start of the node reconnects
    lookup.announce(session, "shop.web", 1, seq=2)
    assert state() == ("backoff", "why", 2)
    assert lookup.snapshot()["nodes"][0]["states"]["shop.web"]["reason"] == "why"
    session = lookup.identify(incarnation=2)  # perhaps a version that reports none
    assert state() == (None, None, None)
    assert lookup.messages[-1]["event"] == "update_job"
    report(web=JobReport("running"))
    lookup.registry.tables.unregister_job(lookup.registry.identified(session), "shop.web")
    lookup.registry.tables.register_job(lookup.registry.identified(session), "shop.web")
    assert state() == (None, None, None)


def test_a_snapshot_has_the_states_of_when_it_was_taken() -> None:
    lookup = Lookup()
    node = lookup.registry.identified(lookup.identify())
    lookup.registry.tables.replace(node, 1, {"shop.web": []})
    lookup.registry.tables.put_state(node, "shop.web", JobReport("running"))
    parts = lookup.queries.snapshot()
    lookup.registry.tables.put_state(node, "shop.web", JobReport("failed"))
    assert json(parts)["nodes"][0]["states"]["shop.web"]["state"] == "running"
    assert lookup.snapshot()["nodes"][0]["states"]["shop.web"]["state"] == "failed"
