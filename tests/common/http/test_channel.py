"""The channel: subscriptions and commands over SockJS and the raw websocket: R-83, SJS-04 to SJS-09, SJS-20, SJS-21."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from gaffer.api.channel import MAX_SUBSCRIPTIONS
from gaffer.api.subscriptions import Subscription
from gaffer.http.access import Grant, Scope, make_policy
from gaffer.process import ProcessConfig
from support.http_node import HttpNode, run_script, running_node, sleeper
from support.poll import eventually_async
from support.websocket import Closed, WebSocket, connected

Message = dict[str, Any]


@dataclass
class Client:
    """A client of the channel on the raw websocket."""

    socket: WebSocket

    async def say(self, event: str, **data: Any) -> None:
        await self.socket.send(json.dumps({"event": event, "data": data}))

    async def hear(self) -> Message:
        message: Message = await self.socket.receive_json()
        if message["event"] == "gaffer:subscription_error":  # where clients of version 0.5 look for it
            assert message.pop("topic") == message["data"]["topic"]
        assert set(message) == {"event", "data"}
        return message

    async def ask(self, event: str, **data: Any) -> Message:
        await self.say(event, **data)
        return await self.hear()

    async def subscribe(self, topic: str) -> None:
        assert await self.ask("SUB", topic=topic) == {
            "event": "gaffer:subscription_success",
            "data": {"topic": topic},
        }

    async def hear_event(self, topic: str) -> tuple[str, Message]:
        """The name of the next event, which must be of that topic, and what it tells."""
        message = await self.hear()
        assert message["event"] == "gaffer:event", message
        data = message["data"]
        assert data.pop("topic") == topic
        return data.pop("event"), data

    async def command(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """The result of a command, which must succeed."""
        answer = await self.ask("CMD", identity=name, name=name, args=args, kwargs=kwargs)
        assert answer["event"] == "gaffer:command_success", answer
        assert answer["data"]["id"] == name
        return answer["data"]["result"]

    async def fail(self, name: str, /, *args: Any, **kwargs: Any) -> Message:
        """The error of a command, which must fail."""
        answer = await self.ask("CMD", identity=1, name=name, args=args, kwargs=kwargs)
        assert answer["event"] == "gaffer:command_error", answer
        assert answer["data"]["id"] == 1
        error: Message = answer["data"]["error"]
        return error


@asynccontextmanager
async def client_of(node: HttpNode, headers: Mapping[str, str] | None = None) -> AsyncIterator[Client]:
    async with connected(node.address, "/channel/websocket", headers) as socket:
        yield Client(socket)


@pytest.fixture
async def client(node: HttpNode) -> AsyncIterator[Client]:
    async with client_of(node) as client:
        yield client


# The protocol


@pytest.mark.row("SJS-09")
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x", "invalid_json"),
        ("{", "invalid_json"),
        ("[" * 100_000, "invalid_json"),
        ('{"data": {}}', "event_missing"),
        ('{"event": 1, "data": {}}', "event_missing"),
        ("[]", "event_missing"),
        ("null", "event_missing"),
        ('{"event": "SUB"}', "data_missing"),
        ('{"event": "SUB", "data": "EVENTS"}', "data_missing"),
        ('{"event": "SUB", "data": {}}', "topic_missing"),
        ('{"event": "UNSUB", "data": {"topic": null}}', "topic_missing"),
        ('{"event": "CMD", "data": {"identity": 1}}', "cmd_name_missing"),
        ('{"event": "CMD", "data": {"identity": 1, "name": 2}}', "cmd_name_missing"),
        ('{"event": "CMD", "data": {"name": "jobs"}}', "cmd_identity_missing"),
        ('{"event": "CMD", "data": {"name": "jobs", "identity": {}}}', "cmd_identity_missing"),
        ('{"event": "sub", "data": {"topic": "EVENTS"}}', "unknown_cmd"),
        ("AUTHOR", "invalid_json"),
    ],
)
async def test_what_is_malformed_is_told_and_harms_nothing(client: Client, text: str, reason: str) -> None:
    await client.socket.send(text)
    expected = {"event": "gaffer:error", "data": {"error": "invalid_msg", "reason": reason}}
    assert await client.hear() == expected
    assert await client.command("jobs") == {"jobs": []}


@pytest.mark.row("SJS-04", "R-83")
async def test_a_nop_is_not_answered(client: Client) -> None:
    await client.socket.send('{"event": "NOP"}')
    await client.say("NOP")
    assert await client.command("sessions") == {"sessions": []}


@pytest.mark.row("SJS-01")
async def test_it_is_spoken_over_the_other_transports_too(node: HttpNode) -> None:
    session = "/channel/000/abc"
    assert (await node.call("POST", f"{session}/xhr", b"")).body == b"o\n"
    order = json.dumps({"event": "CMD", "data": {"identity": "1", "name": "jobs"}})
    answer = await node.call("POST", f"{session}/xhr_send", json.dumps([order]).encode())
    assert answer.status == 204
    frame = (await node.call("POST", f"{session}/xhr", b"")).body
    assert frame[:1] == b"a"
    assert [json.loads(text) for text in json.loads(frame[1:])] == [
        {"event": "gaffer:command_success", "data": {"id": "1", "result": {"jobs": []}}}
    ]
    async with connected(node.address, "/channel/000/def/websocket") as socket:
        assert await socket.receive() == "o"
        await socket.send(json.dumps([order]))
        assert str(await socket.receive()).startswith("a[")


# Topics


@pytest.mark.row("SJS-05", "SJS-06", "SJS-07")
@pytest.mark.parametrize(
    ("topic", "events"),
    [
        ("EVENTS:.", ["create", "start", "proc.Shop.Web.start", "spawn", "proc.Shop.Web.spawn"]),
        ("EVENTS:spawn", ["spawn"]),
        ("EVENTS:job.Shop.Web", ["job.Shop.Web.start", "job.Shop.Web.spawn"]),
        ("JOB:Shop.Web", ["start", "spawn"]),
        ("PROCESS:Shop.Web", ["start", "spawn"]),
    ],
)
async def test_events_come_in_their_topic(node: HttpNode, client: Client, topic: str, events: list[str]) -> None:
    await client.subscribe(topic)
    if topic != "EVENTS:.":
        node.manager.load(ProcessConfig("Web", "sleep 1000", start=False), "Other")
    node.manager.load(ProcessConfig("Web", "sleep 1000"), "Shop")
    for event in events:
        name, message = await client.hear_event(topic)
        assert (name, message["name"], message["session"]) == (event, "Shop.Web", "Shop")


@pytest.mark.row("SJS-05")
async def test_the_topic_of_all_events_has_the_names_of_0_5_too(node: HttpNode, client: Client) -> None:
    await client.subscribe("EVENTS")
    node.manager.load(ProcessConfig("Web", "sleep 1000"), "Shop")
    names: list[str] = []
    while "job.Shop.Web.spawn" not in names:
        name, message = await client.hear_event("EVENTS")
        assert (message["name"], message["session"]) == ("Shop.Web", "Shop")
        names.append(name)
    assert names[:2] == ["create", "load"]
    assert names.index("start") < names.index("proc.Shop.Web.start") < names.index("job.Shop.Web.start")
    assert len(set(names)) == len(names)


@pytest.mark.row("SJS-05", "SJS-07")
async def test_the_events_of_a_process(node: HttpNode, client: Client) -> None:
    pid = await run_script(node)
    await client.subscribe(f"PROCESS:{pid}")
    await client.say("CMD", identity="k", name="kill", args=[pid, "KILL"])
    heard = [await client.hear() for _ in range(3)]
    events = [each["data"] for each in heard if each["event"] == "gaffer:event"]
    assert [(event["event"], event["pid"]) for event in events] == [("kill", pid), ("exit", pid)]
    assert events[1]["term_signal"] == 9


@pytest.mark.row("SJS-05", "SJS-07")
@pytest.mark.parametrize(("suffix", "labels"), [("", {"out", "err"}), (".err", {"err"})])
async def test_output_comes_as_text(node: HttpNode, client: Client, suffix: str, labels: set[str]) -> None:
    code = "import os\ndata = os.read(0, 99)\nos.write(1, data[:3]); os.write(2, data[3:])\ninput()"
    pid = await run_script(node, code)
    topic = f"STREAM:{pid}{suffix}"
    await client.subscribe(topic)
    assert await client.command("send", pid, "one\u00e9") == {"ok": True}
    found = dict([await client.hear_event(topic) for _ in labels])
    expected = {"out": "one", "err": "\u00e9"}
    assert found == {label: {"name": "job", "pid": pid, "data": expected[label]} for label in labels}
    node.manager.stop_job("job")
    assert await client.hear_event(topic) == ("end", {})
    assert (await client.ask("UNSUB", topic=topic))["data"]["reason"] == "not_subscribed"


@pytest.mark.row("SJS-07")
async def test_output_that_is_no_utf8_has_replacements_and_characters_are_not_cut(
    node: HttpNode, client: Client
) -> None:
    code = "import os\nfor data in (b'\\xff', b'\\xc3', b'\\xa9', b'\\xe2\\x82'): os.read(0, 1); os.write(1, data)"
    pid = await run_script(node, code)
    topic = f"STREAM:{pid}.out"
    await client.subscribe(topic)
    for text in ("\ufffd", None, "\u00e9", None):
        await client.command("send", pid, "x")
        if text is not None:
            assert await client.hear_event(topic) == ("out", {"name": "job", "pid": pid, "data": text})
    assert (await client.hear_event(topic))[1]["data"] == "\ufffd"
    assert (await client.hear_event(topic))[0] == "end"


@pytest.mark.row("SJS-05", "SJS-07")
async def test_stats_come_again_and_again(node: HttpNode, client: Client) -> None:
    pid = await run_script(node)
    for topic in (f"STATS:{pid}", "STATS:default.job"):
        await client.subscribe(topic)
        for _ in range(2):
            name, message = await client.hear_event(topic)
            assert (name, message["pid"]) == ("STATS", pid)
            assert isinstance(message["cpu"], float)
        await client.say("UNSUB", topic=topic)
        while (await client.hear())["event"] != "gaffer:subscription_success":
            pass
    await client.subscribe(f"STATS:{pid}")
    node.manager.stop_job("job")
    while (await client.hear_event(f"STATS:{pid}"))[0] != "end":
        pass


async def test_a_slow_client_gets_only_the_newest_stats(node: HttpNode) -> None:
    pid = await run_script(node)
    measured: list[Message] = []
    said: list[Message] = []
    ready = asyncio.Event()

    async def say(event: str, message: Message) -> None:
        said.append(message)
        await ready.wait()

    subscription = Subscription(node.manager, f"STATS:{pid}", KEYS["all"], say)
    subscription.start(lambda: None)
    await eventually_async(lambda: said)
    node.manager.monitor(lambda _, message: measured.append(message), pid)
    await eventually_async(lambda: len(measured) == 3)
    assert len(said) == 1
    ready.set()
    await eventually_async(lambda: len(said) > 1)
    assert said[1] is measured[2]
    subscription.close()
    await subscription.wait()


@pytest.mark.row("SJS-06")
@pytest.mark.parametrize(
    ("topic", "errno", "reason"),
    [
        ("NOPE", 400, "bad_topic"),
        ("", 400, "bad_topic"),
        ("events", 400, "bad_topic"),
        ("EVENTS:", 400, "bad_topic"),
        ("JOB", 400, "bad_topic"),
        ("JOB:12", 400, "bad_topic"),
        ("JOB:a.b.c", 400, "bad_topic"),
        ("PROCESS:999", 404, "not_found"),
        ("STATS:999", 404, "not_found"),
        ("STATS:shop.web", 404, "not_found"),
        ("STREAM:999", 404, "not_found"),
        ("STREAM:job", 400, "bad_topic"),
        ("STREAM:1.nope", 404, "io_not_found"),
    ],
)
async def test_a_subscription_that_cannot_be(
    node: HttpNode, client: Client, topic: str, errno: int, reason: str
) -> None:
    await run_script(node)
    answer = await client.ask("SUB", topic=topic)
    assert answer["event"] == "gaffer:subscription_error"
    data = answer["data"]
    assert (data["topic"], data["errno"], data["reason"]) == (topic, errno, reason)
    assert await client.command("sessions") == {"sessions": ["default"]}, "no success comes after it"


@pytest.mark.row("SJS-05", "SJS-06")
async def test_subscriptions_count(node: HttpNode, client: Client) -> None:
    for _ in range(3):
        await client.subscribe("EVENTS:create")
    for number in range(3):
        node.manager.load(ProcessConfig(f"j{number}", "true", start=False))
        assert (await client.hear_event("EVENTS:create"))[1]["name"] == f"j{number}", "an event comes once"
        answer = await client.ask("UNSUB", topic="EVENTS:create")
        assert answer == {"event": "gaffer:subscription_success", "data": {"topic": "EVENTS:create"}}
    node.manager.load(ProcessConfig("j3", "true", start=False))
    assert (await client.ask("UNSUB", topic="EVENTS:create"))["event"] == "gaffer:subscription_error"


async def test_a_client_has_so_many_topics_at_most(client: Client) -> None:
    for number in range(MAX_SUBSCRIPTIONS):
        await client.subscribe(f"EVENTS:e{number}")
    answer = await client.ask("SUB", topic="EVENTS:more")
    assert (answer["data"]["errno"], answer["data"]["reason"]) == (429, "too_many_subscriptions")
    await client.subscribe("EVENTS:e0")
    for _ in range(2):
        await client.ask("UNSUB", topic="EVENTS:e0")
    await client.subscribe("EVENTS:more")


async def test_a_slow_client_is_told_what_it_lost(node: HttpNode, client: Client) -> None:
    pid = await run_script(node)
    topic = f"STREAM:{pid}.out"
    await client.subscribe(topic)
    ring = node.manager.ring(pid, "out")

    def written(size: int) -> bool:
        return ring.end == size

    for number in range(1, 81):
        await node.call("POST", f"/streams/{pid}/stdin", b"z" * (1 << 18))
        await eventually_async(partial(written, number << 18))
    offset = lost = 0
    while offset < ring.end:
        name, message = await client.hear_event(topic)
        if name == "gap":
            assert message["from"] == offset
            lost += message["to"] - offset
            offset = message["to"]
        else:
            offset += len(message["data"])
    assert 0 < lost == ring.dropped


async def test_a_slow_client_is_told_of_lost_events(node: HttpNode, client: Client) -> None:
    await client.subscribe("EVENTS:note")
    for number in range(20_000):
        node.manager.events.publish("note", {"number": number, "filler": "x" * 1000})
        if number % 1000 == 0:
            await node.call("GET", "/ping")
    expected = lost = 0
    while expected < 20_000:
        name, message = await client.hear_event("EVENTS:note")
        if name == "gap":
            lost += message["to"] - message["from"]
            expected += message["to"] - message["from"]
        else:
            assert message["number"] == expected
            expected += 1
    assert lost > 0


async def test_what_an_application_publishes_arrives_as_far_as_json_goes(node: HttpNode, client: Client) -> None:
    await client.subscribe("EVENTS:note")
    for published, expected in (
        ({"n": 1, "event": "x"}, {"n": 1}),
        ({"what": 1 + 2j}, {"what": "(1+2j)"}),
        ({(1, 2): 3}, {"(1, 2)": 3}),
        ({"text": "\ud800"}, {"text": "{'event': 'note', 'text': '\\ud800'}"}),
    ):
        node.manager.events.publish("note", published)
        assert await client.hear_event("EVENTS:note") == ("note", expected)


async def test_the_last_events_come_before_the_node_stops(node: HttpNode, client: Client) -> None:
    pid = await run_script(node)
    await client.subscribe("EVENTS:exit")
    await client.subscribe(f"STREAM:{pid}")
    await node.stop()
    assert {(await client.hear())["data"]["event"] for _ in range(2)} == {"exit", "end"}
    with pytest.raises(Closed, match="3000 Go away!"):
        await client.hear()


async def test_a_client_that_is_gone_is_forgotten(node: HttpNode) -> None:
    pid = await run_script(node)
    ring, log = node.manager.ring(pid, "out"), node.manager.event_log
    async with client_of(node) as client:
        for topic in ("EVENTS", "JOB:job", f"STREAM:{pid}", f"STATS:{pid}"):
            await client.say("SUB", topic=topic)
        await eventually_async(lambda: (ring.watchers, log.watchers) == (1, 2))
        await eventually_async(lambda: node.manager._executor.sampler._listeners)
    await eventually_async(lambda: (ring.watchers, log.watchers) == (0, 0))
    assert not node.manager._executor.sampler._listeners


# Commands


@pytest.mark.row("SJS-08", "SJS-20", "SJS-04")
async def test_the_commands_and_their_results(node: HttpNode, client: Client) -> None:
    command = client.command
    ok = {"ok": True}
    cat = {"name": "cat", "cmd": "cat", "redirect_input": True, "redirect_output": ["out"], "start": False}
    assert await command("load", cat, sessionid="s") == ok
    assert await command("sessions") == {"sessions": ["s"]}
    assert await command("jobs") == {"jobs": ["s.cat"]}
    assert await command("jobs", "s") == {"jobs": ["s.cat"], "sessionid": "s"}
    assert await command("start_job", "s.cat") == ok
    await eventually_async(lambda: node.manager.pids("s.cat") == [1])
    assert await command("pids") == {"pids": [1]}
    assert (await command("info", "s.cat"))["info"]["processes"] == [1]
    assert (await command("stats", "s.cat"))["stats"]["stats"][0]["pid"] == 1
    assert (await command("process_info", 1))["info"]["name"] == "s.cat"
    assert (await command("process_stats", 1))["stats"]["pid"] == 1
    assert await command("send", 1, ["one\n", "two\n"]) == ok
    await eventually_async(lambda: node.manager.ring(1, "out").read(0).data == b"one\ntwo\n")
    assert await command("scale", "s.cat", "=2") == {"numprocesses": 2}
    assert await command("commit", name="s.cat") == {"ok": True, "pid": 3}
    await eventually_async(lambda: node.manager.running.keys() == {1, 2, 3})
    assert await command("kill", 3, "KILL") == ok
    assert await command("killall", "s.cat", 9) == ok
    await eventually_async(lambda: set(node.manager.pids("s.cat")) == {4, 5})
    assert await command("stop_process", 4) == ok
    assert await command("stopall", "s.cat") == ok
    assert await command("reload", "s.cat") == ok
    assert await command("update", {**cat, "numprocesses": 1}, "s") == ok
    assert await command("stop_job", "s.cat") == ok
    assert await command("unload", "s.cat") == ok
    assert await command("jobs") == {"jobs": []}


@pytest.mark.row("SJS-08")
@pytest.mark.parametrize(
    ("name", "args", "errno", "reason"),
    [
        ("nope", [], 404, "command_not_found"),
        ("info", ["nope"], 404, "not_found"),
        ("stats", ["nope"], 404, "not_found"),
        ("process_stats", [9], 404, "not_found"),
        ("info", [], 400, "bad_command"),
        ("info", [1], 400, "bad_command"),
        ("load", [{"name": "x"}], 400, "bad_request"),
        ("load", [sleeper("twice")], 409, "process_conflict"),
        ("kill", [1, "NOPE"], 400, "bad_signal"),
        ("send", [1, "x"], 403, "forbidden_write"),
    ],
)
async def test_a_command_that_fails(
    node: HttpNode, client: Client, name: str, args: list[Any], errno: int, reason: str
) -> None:
    node.manager.load(ProcessConfig("twice", "sleep 1000"))
    await eventually_async(lambda: node.manager.pids())
    error = await client.fail(name, *args)
    assert (error["errno"], error["reason"]) == (errno, reason)
    assert error["message"]


@pytest.mark.parametrize("wrong", [{"args": {}}, {"args": "x"}, {"args": None}, {"kwargs": []}, {"kwargs": None}])
async def test_arguments_of_the_wrong_kind(client: Client, wrong: dict[str, Any]) -> None:
    answer = await client.ask("CMD", identity="1", name="jobs", **wrong)
    assert answer["event"] == "gaffer:command_error"
    assert answer["data"]["error"]["reason"] == "bad_command"


# Who may


KEYS = {
    "reader": Grant(frozenset({Scope.READ})),
    "mover": Grant(frozenset({Scope.CONTROL})),
    "all": Grant(frozenset(Scope)),
    "ours": Grant(frozenset(Scope), frozenset({"ours"})),
}
REFUSED = {"error": "AUTH_REQUIRED", "errno": 401}


@pytest.fixture
async def guarded() -> AsyncIterator[HttpNode]:
    """A node that wants a key of everybody."""
    async with running_node(
        access=make_policy(own_uid=os.getuid(), own_names=[], trust_local=False, verify=KEYS.get)
    ) as node:
        yield node


@pytest.mark.row("SJS-21")
async def test_a_key_can_come_as_the_first_message(guarded: HttpNode) -> None:
    async with client_of(guarded) as client:
        await client.socket.send("AUTH:all")
        assert await client.command("jobs") == {"jobs": []}
        await client.subscribe("EVENTS")


@pytest.mark.row("SJS-21")
@pytest.mark.parametrize(
    "text",
    [
        "AUTH:nope",
        "AUTH:",
        "auth:all",
        "AUTH: all",
        "AUTH:" + "x" * 10_000,
        '{"event": "NOP"}',
        '{"event": "CMD", "data": {"identity": "1", "name": "jobs"}}',
        "garbage",
    ],
)
async def test_anything_else_is_refused_and_ends_the_connection(guarded: HttpNode, text: str) -> None:
    async with client_of(guarded) as client:
        await client.socket.send(text)
        await client.socket.send("AUTH:all")
        refusal = await client.hear()
        assert refusal["event"] == "gaffer:error"
        assert {key: refusal["data"][key] for key in REFUSED} == REFUSED
        with pytest.raises(Closed, match="4401 auth_required"):
            await client.hear()


async def test_who_is_not_known_can_send_little(guarded: HttpNode) -> None:
    large = "x" * 100_000
    async with client_of(guarded) as client:
        await client.socket.send(large)
        assert (await client.socket.closing()).code in (1009, 1006)  # it may be gone before the client reads why
    session = "/channel/000/abc"
    await guarded.call("POST", f"{session}/xhr", b"")
    answer = await guarded.call("POST", f"{session}/xhr_send", json.dumps([large]).encode())
    assert (answer.status, answer.error) == (413, "too_large")
    async with client_of(guarded, {"X-Api-Key": "all"}) as client:
        await client.socket.send(large)
        assert (await client.hear())["data"]["reason"] == "invalid_json"


@pytest.mark.row("SJS-21")
async def test_who_never_shows_a_key_is_sent_away(guarded: HttpNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gaffer.api.channel.AUTH_TIMEOUT", 0.1)
    async with client_of(guarded) as client:
        assert (await client.hear())["data"]["error"] == "AUTH_REQUIRED"
        with pytest.raises(Closed, match="4401"):
            await client.hear()


@pytest.mark.row("SJS-21")
async def test_a_key_in_the_handshake_needs_no_message(guarded: HttpNode) -> None:
    async with client_of(guarded, {"X-Api-Key": "all"}) as client:
        assert await client.command("jobs") == {"jobs": []}
    for headers, status in (({"X-Api-Key": "nope"}, 401), ({"Origin": "http://evil.example"}, 403)):
        answer = await guarded.call("GET", "/channel/websocket", headers=headers)
        assert answer.status == status


async def test_a_caller_who_is_trusted_may_show_another_key(node: HttpNode) -> None:
    async with client_of(node) as client:
        await client.socket.send("AUTH:unknown")
        assert (await client.hear())["data"]["error"] == "AUTH_REQUIRED"
        with pytest.raises(Closed, match="4401"):
            await client.hear()
    policy = make_policy(own_uid=os.getuid(), own_names=[], verify=KEYS.get)
    async with running_node(access=policy) as other, client_of(other) as client:
        await client.socket.send("AUTH:reader")
        assert (await client.fail("stop_job", "x"))["errno"] == 403
    async with running_node(access=policy) as other, client_of(other) as client:
        await client.command("jobs")
        await client.socket.send("AUTH:reader")
        assert (await client.hear())["data"]["reason"] == "invalid_json", "it is too late for that"


async def test_scopes(guarded: HttpNode) -> None:
    async with client_of(guarded, {"X-Api-Key": "reader"}) as client:
        await client.subscribe("EVENTS")
        assert (await client.fail("load", sleeper()))["reason"] == "forbidden"
    async with client_of(guarded, {"X-Api-Key": "mover"}) as client:
        assert (await client.ask("SUB", topic="EVENTS"))["data"]["reason"] == "forbidden"
        assert (await client.fail("start_job", "x"))["reason"] == "not_found"


async def test_a_key_of_a_session_sees_only_that(guarded: HttpNode) -> None:
    manager = guarded.manager
    for session in ("theirs", "ours"):
        manager.load(ProcessConfig("j", "sleep 1000", redirect_output=["out"]), session)
        await eventually_async(partial(manager.pids, f"{session}.j"))
    async with client_of(guarded, {"X-Api-Key": "ours"}) as client:
        for topic in (
            "JOB:theirs.j",
            "PROCESS:theirs.j",
            "PROCESS:1",
            "STATS:theirs.j",
            "STATS:1",
            "STREAM:1",
            "JOB:j",
        ):
            answer = await client.ask("SUB", topic=topic)
            assert (answer["event"], answer["data"]["reason"]) == ("gaffer:subscription_error", "forbidden"), topic
        for topic in ("PROCESS:ours.j", "PROCESS:2", "STREAM:2"):
            await client.subscribe(topic)
            assert (await client.ask("UNSUB", topic=topic))["event"] == "gaffer:subscription_success"
        await client.subscribe("EVENTS:stop")
        manager.stop_job("theirs.j")
        manager.stop_job("ours.j")
        assert (await client.hear_event("EVENTS:stop"))[1]["session"] == "ours"
        assert await client.command("jobs") == {"jobs": ["ours.j"]}
