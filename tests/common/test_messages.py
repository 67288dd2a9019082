"""Messages of the lookup protocol: what is understood, and what wrong ones are answered."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer.errors import BadRequest
from gaffer.schemas.history import Kind, describe
from gaffer.schemas.messages import (
    Drain,
    Endpoint,
    Identify,
    Leave,
    LookupLink,
    MessageError,
    Ping,
    Process,
    Refusal,
    RegisterJob,
    RegisterProcess,
    Report,
    ReportedEvent,
    Request,
    Snapshot,
    UnregisterJob,
    UnregisterProcess,
    UpdateProcess,
    check_labels,
    check_node_name,
    check_origin,
    decode_reply,
    decode_request,
    encode,
)

pytestmark = pytest.mark.pure


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"msgid":"1","type":"IDENTIFY","name":"h","origin":"http://h:5000","version":"0.1"}',
            Identify("1", "h", "http://h:5000", "0.1"),
        ),
        ('{"msgid":"1","type":"PING"}', Ping("1")),
        ('{"msgid":"1","type":"REGISTER_JOB","job_name":"a.b"}', RegisterJob("1", "a.b")),
        ('{"msgid":"1","type":"UNREGISTER_JOB","job_name":"a.b"}', UnregisterJob("1", "a.b")),
        ('{"msgid":"1","type":"REGISTER_PROCESS","job_name":"a.b","pid":3}', RegisterProcess("1", "a.b", 3)),
        ('{"msgid":"1","type":"UNREGISTER_PROCESS","job_name":"a.b","pid":3}', UnregisterProcess("1", "a.b", 3)),
    ],
)
@pytest.mark.row("LP-01", "LP-02", "LP-03", "LP-04", "LP-05", "LP-06")
def test_the_types_of_0_5_need_only_their_few_fields(text: str, message: Request) -> None:
    assert decode_request(text) == message


@pytest.mark.parametrize(
    "message",
    [
        Identify("1", "h", "http://h:5000", "0.1", "abc", 7, {"zone": "a"}),
        Ping("2", 9),
        RegisterJob("3", "a.b", 1),
        UpdateProcess("4", "a.b", 3, 2, "draining", (Endpoint("http", "10.0.0.7", 8000),)),
        Snapshot("5", 4, {"a.b": [Process(3, "starting"), Process(4)], "a.c": []}, draining=True),
        Drain("6"),
        Leave("7"),
        Report(
            "8",
            9.5,
            [LookupLink("http://a:5010", True, 1.0, "e"), LookupLink("https://[::1]", False, 2.0, error="timed out")],
            [ReportedEvent(1.0, "job", "exit", "failed", job="a.b", pid=3, details={"exit_code": 1, "oom": False})],
            7,
        ),
    ],
)
def test_messages_survive_the_wire(message: Request) -> None:
    assert decode_request(encode(message)) == message


_LINK = {"connected": True, "since": 1}

_REFUSED = [
    pytest.param("nonsense", "invalid_json", None, id="not JSON", marks=pytest.mark.row("LP-12")),
    pytest.param("[]", "invalid_json", None, id="not an object", marks=pytest.mark.row("LP-12")),
    pytest.param("[" * 100_000, "invalid_json", None, id="too deep"),
    pytest.param('{"type":"PING"}', "invalid_message", None, id="no msgid", marks=pytest.mark.row("LP-13")),
    pytest.param('{"msgid":"1"}', "invalid_message", "1", id="no type", marks=pytest.mark.row("LP-13")),
    pytest.param('{"msgid":"1","type":7}', "invalid_message", "1", id="type is no text"),
    pytest.param('{"msgid":1.5,"type":"PING"}', "invalid_message", None, id="msgid is a fraction"),
    pytest.param(f'{{"msgid":{2**70},"type":"PING"}}', "invalid_message", None, id="msgid is huge"),
    pytest.param(
        '{"msgid":"1","type":"REGISTER_JOB"}',
        "invalid_message",
        "1",
        id="no job",
        marks=pytest.mark.row("LP-13"),
    ),
    pytest.param('{"msgid":"1","type":"REGISTER_JOB","job_name":""}', "invalid_message", "1", id="empty job"),
    pytest.param(
        '{"msgid":"1","type":"REGISTER_PROCESS","job_name":"a.b","pid":"3"}',
        "invalid_message",
        "1",
        id="pid is text",
    ),
    pytest.param(
        f'{{"msgid":"1","type":"REGISTER_PROCESS","job_name":"a.b","pid":{2**64}}}',
        "invalid_message",
        "1",
        id="pid is huge",
    ),
    pytest.param(
        '{"msgid":"1","type":"SELF_DESTRUCT"}',
        "invalid_message_type",
        "1",
        id="unknown type",
        marks=pytest.mark.row("LP-14"),
    ),
    *(
        pytest.param(
            json.dumps({"msgid": "1", "type": "REPORT", "now": 1, "lookupds": [{**_LINK, "address": address}]}),
            "invalid_message",
            "1",
            id=f"a lookupd at {address}",
        )
        for address in ("javascript:alert(1)", "http://user:secret@a:5010", "a:5010")
    ),
]


@pytest.mark.row("LP-11")
@pytest.mark.parametrize(("text", "reason", "msgid"), _REFUSED)
def test_a_wrong_message_gets_its_code_and_its_msgid(text: str, reason: str, msgid: str | None) -> None:
    with pytest.raises(MessageError) as raised:
        decode_request(text)
    reply = msgspec.json.decode(encode(raised.value.to_reply()))
    assert reply == {"errno": 400, "reason": reason, "msgid": msgid}


@given(st.binary() | st.text(st.characters(codec="utf-8")))
def test_no_input_raises_anything_else(text: bytes | str) -> None:
    with pytest.raises(MessageError):
        decode_request(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**63) | st.text(st.characters(codec="utf-8"), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=5), inner, max_size=3),
    max_leaves=5,
)
TYPES = ["IDENTIFY", "PING", "REGISTER_JOB", "REGISTER_PROCESS", "UPDATE_PROCESS", "SNAPSHOT", "DRAIN", "NONE"]
FIELDS = ("msgid", "job_name", "pid", "seq", "state", "endpoints", "jobs", "name", "origin", "version", "id")


@given(
    st.fixed_dictionaries({"type": st.sampled_from(TYPES) | json_values}, optional=dict.fromkeys(FIELDS, json_values))
)
def test_an_object_is_understood_or_refused_with_an_answer_that_can_be_sent(fields: dict[str, Any]) -> None:
    answer: Request | Refusal
    try:
        answer = decode_request(json.dumps(fields))
    except MessageError as error:
        answer = error.to_reply()
    encode(answer)


def test_a_reply_of_0_5_is_read() -> None:
    assert decode_reply('{"ok": true, "msgid": "1"}').epoch is None
    assert decode_reply('{"errno": 404, "reason": null, "msgid": null}').errno == 404
    with pytest.raises(MessageError):
        decode_reply("[]")


@pytest.mark.parametrize("name", ["", "n" * 256, "a\nb"])
def test_a_name_that_no_lookupd_takes_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="invalid node name") as raised:
        check_node_name(name)
    assert raised.value.reason == "bad_node_name"
    assert len(str(raised.value)) < 120
    assert check_node_name("n" * 255) == "n" * 255


def test_an_address_that_no_lookupd_takes_is_refused() -> None:
    with pytest.raises(BadRequest, match="invalid address of this node: 'http://h/path'") as raised:
        check_origin("http://h/path")
    assert raised.value.reason == "bad_origin"
    assert check_origin("http://h:5000") == "http://h:5000"


@pytest.mark.parametrize(
    "labels",
    [
        {"k": "v" * 1025},
        {str(number): "" for number in range(65)},
        {"k": "\ud800"},
        dict.fromkeys(map(str, range(40)), "v" * 1000),
    ],
)
def test_labels_that_no_lookupd_takes_are_refused(labels: dict[str, str]) -> None:
    with pytest.raises(BadRequest, match="labels") as raised:
        check_labels(labels)
    assert raised.value.reason == "bad_labels"
    assert check_labels({"zone": "a"}) == {"zone": "a"}


@pytest.mark.parametrize(
    ("kind", "action", "route", "details", "what"),
    [
        ("call", "POST", "/jobs/{sid}/{job}/restart", {}, "restart"),
        ("call", "POST", "/jobs/{sid}/{job}/state", {"state": "0"}, "stop"),
        ("call", "POST", "/jobs/{sid}/{job}/state", {"state": "x"}, "start or stop"),
        ("call", "PUT", "/elsewhere", {}, "PUT /elsewhere"),
        ("job", "exit", None, {}, "failed exit"),
        ("job", "start_failed", None, {}, "start failed"),
        ("node", "start", None, {}, "node started"),
    ],
)
def test_what_happened_in_words(kind: Kind, action: str, route: str | None, details: dict[str, Any], what: str) -> None:
    assert describe(kind, action, route, details) == what
