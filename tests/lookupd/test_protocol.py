"""One message in, one reply out."""

import json
from typing import Any

import pytest

from gaffer_lookupd.protocol import handle_message
from support.registry import Lookup

pytestmark = pytest.mark.pure


class Speaker:
    """Says messages on one session and keeps the sessions that are to be closed."""

    def __init__(self, lookup: Lookup) -> None:
        self.lookup = lookup
        self.session = lookup.connect()
        self.close: list[int] = []
        self.warnings: list[str] = []

    def raw(self, text: str) -> dict[str, Any]:
        found = handle_message(self.lookup.registry, self.session, text, self.lookup.now)
        self.close += found.close
        self.warnings += [found.warning] if found.warning else []
        reply: dict[str, Any] = json.loads(found.text)
        return reply

    def say(self, type: str, **fields: Any) -> dict[str, Any]:
        return self.raw(json.dumps({"msgid": "7", "type": type, **fields}))

    def identify(self, name: str = "n1", **fields: Any) -> dict[str, Any]:
        return self.say("IDENTIFY", **{"name": name, "origin": f"http://{name}:5000", "version": "0.1", **fields})


@pytest.fixture
def lookup() -> Lookup:
    return Lookup()


@pytest.fixture
def speaker(lookup: Lookup) -> Speaker:
    return Speaker(lookup)


OK = {"ok": True, "msgid": "7"}


@pytest.mark.row("LP-01", "LP-02", "LP-10")
def test_a_0_5_peer_gets_the_replies_it_knows(speaker: Speaker) -> None:
    assert speaker.say("PING") == OK
    assert speaker.identify() == OK
    assert speaker.say("REGISTER_JOB", job_name="s.j") == OK
    assert speaker.say("REGISTER_PROCESS", job_name="s.j", pid=1) == OK
    assert speaker.lookup.pids("s.j") == {"n1": [1]}
    assert speaker.say("UNREGISTER_PROCESS", job_name="s.j", pid=1) == OK
    assert speaker.say("UNREGISTER_JOB", job_name="s.j") == OK
    assert speaker.say("PING") == OK


def refused(errno: int, reason: str, msgid: str | None = "7") -> dict[str, Any]:
    return {"errno": errno, "reason": reason, "msgid": msgid}


@pytest.mark.row("LP-11", "LP-12", "LP-13", "LP-14")
def test_wrong_messages_are_answered_and_the_session_goes_on(speaker: Speaker) -> None:
    assert speaker.raw("{") == refused(400, "invalid_json", None)
    assert speaker.raw('"text"') == refused(400, "invalid_json", None)
    assert speaker.say("REGISTER_JOB") == refused(400, "invalid_message")
    assert speaker.say("NONSENSE") == refused(400, "invalid_message_type")
    assert speaker.identify() == OK
    assert not speaker.close


@pytest.mark.row("LP-15")
@pytest.mark.parametrize(
    ("type", "fields"),
    [
        ("REGISTER_JOB", {"job_name": "s.j"}),
        ("UNREGISTER_JOB", {"job_name": "s.j"}),
        ("REGISTER_PROCESS", {"job_name": "s.j", "pid": 1}),
        ("UPDATE_PROCESS", {"job_name": "s.j", "pid": 1}),
        ("UNREGISTER_PROCESS", {"job_name": "s.j", "pid": 1}),
        ("SNAPSHOT", {"seq": 1, "jobs": {}}),
        ("DRAIN", {}),
        ("LEAVE", {}),
    ],
)
def test_before_identify_nothing_but_ping_is_accepted(speaker: Speaker, type: str, fields: dict[str, Any]) -> None:
    reply = speaker.say(type, **fields)
    assert reply["errno"] == 404
    assert "IDENTIFY" in reply["reason"]


@pytest.mark.row("LP-16", "LP-17", "LP-18")
def test_what_the_registry_refuses_is_answered_with_its_number(speaker: Speaker) -> None:
    speaker.identify()
    assert speaker.identify() == refused(409, "already_identified")
    assert speaker.say("REGISTER_PROCESS", job_name="s.j", pid=1) == refused(404, "job_not_found")
    assert speaker.say("UNREGISTER_PROCESS", job_name="s.j", pid=1) == refused(404, "job_not_found")
    speaker.say("REGISTER_JOB", job_name="s.j")
    assert speaker.say("REGISTER_JOB", job_name="s.j")["errno"] == 409


@pytest.mark.row("LP-19")
def test_an_identity_that_is_taken(speaker: Speaker, lookup: Lookup) -> None:
    speaker.identify()
    assert Speaker(lookup).identify() == refused(409, "identity_exists")
    assert Speaker(lookup).identify(origin="http://other") == OK


def test_a_node_with_an_id_is_told_its_lease(speaker: Speaker) -> None:
    assert speaker.identify(id="abc", incarnation=2, labels={"zone": "a"}) == {
        **OK,
        "ttl": 45.0,
        "interval": 15.0,
        "epoch": "e",
        "reconnect_window": 1.0,
        "reports": True,
    }
    (node,) = speaker.lookup.ask("nodes")["nodes"]
    assert (node["id"], node["incarnation"], node["labels"]) == ("abc", 2, {"zone": "a"})


def test_a_node_announces_updates_drains_and_leaves(speaker: Speaker) -> None:
    speaker.identify(id="abc")
    endpoint = {"name": "http", "address": "10.0.0.7", "port": 8000}
    table = {"s.j": [{"pid": 1, "state": "starting", "endpoints": [endpoint]}]}
    assert speaker.say("SNAPSHOT", seq=4, jobs=table) == OK
    assert speaker.say("UPDATE_PROCESS", job_name="s.j", pid=1, seq=5, state="ready", endpoints=[endpoint]) == OK
    (source,) = speaker.lookup.ask("find_job", "s.j")["sources"]
    assert source["processes"] == [{"pid": 1, "state": "ready", "endpoints": [endpoint]}]
    assert speaker.say("DRAIN") == OK
    assert speaker.lookup.status() == "draining"
    assert speaker.say("SNAPSHOT", seq=5, jobs=table) == OK
    assert speaker.lookup.status() == "alive"
    assert speaker.say("SNAPSHOT", seq=5, jobs=table, draining=True) == OK
    assert speaker.lookup.status() == "draining"
    assert speaker.say("UNREGISTER_PROCESS", job_name="s.j", pid=1, seq=6, state="draining") == OK
    assert speaker.say("LEAVE") == OK
    assert speaker.close == [speaker.session]
    assert speaker.lookup.status() is None


def test_a_gap_is_answered_with_resync_until_a_snapshot_comes(speaker: Speaker) -> None:
    speaker.identify(id="abc")
    assert speaker.say("PING", seq=0) == OK
    assert speaker.say("PING", seq=3) == {**OK, "resync": True}
    assert speaker.say("REGISTER_JOB", job_name="s.j", seq=9) == {**OK, "resync": True}
    assert speaker.say("SNAPSHOT", seq=9, jobs={}) == OK
    assert speaker.say("PING", seq=9) == OK


def test_nodes_are_told_when_they_should_spread_over_a_longer_time(speaker: Speaker, lookup: Lookup) -> None:
    speaker.identify(id="abc")
    legacy = Speaker(lookup)
    legacy.identify("old")
    for number in range(998):
        lookup.identify(name=f"n{number}", id=f"id{number}")
    assert speaker.say("PING", seq=0) == {**OK, "reconnect_window": 2.0}
    assert speaker.say("PING", seq=0) == OK
    assert legacy.say("PING") == OK
    assert Speaker(lookup).identify("late", id="def")["reconnect_window"] == pytest.approx(2.0, abs=0.01)


def test_every_message_is_a_sign_of_life(speaker: Speaker, lookup: Lookup) -> None:
    speaker.identify(id="abc")
    lookup.wait(30)
    assert lookup.status() == "suspect"
    speaker.raw("nonsense")
    assert lookup.status() == "alive"


def test_the_log_is_told_who_did_what_wrong(speaker: Speaker, lookup: Lookup) -> None:
    speaker.identify(id="abc")
    speaker.say("REGISTER_PROCESS", job_name="s.j", pid=1)
    other = Speaker(lookup)
    other.raw("[]")
    other.identify(id="abc", incarnation=0, origin="http://copy")
    other.identify(id="def")
    assert speaker.warnings == ["REGISTER_PROCESS of node 'n1' was refused: job_not_found"]
    assert other.warnings[0] == "an unidentified node sent not a JSON object"
    assert other.warnings[1].startswith("IDENTIFY of node 'n1' at 'http://copy' was refused: id_in_use")
    assert other.warnings[2].startswith("two connected nodes have the name 'n1': def")
