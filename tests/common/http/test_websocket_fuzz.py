"""Whatever comes on a websocket is answered or ends the connection; nothing is changed, or logged as an error."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gaffer import Manager
from gaffer.api.dispatcher import COMMANDS
from gaffer.http.access import Grant, Scope, make_policy
from gaffer.http_handler import HttpEndpoint, HttpHandler
from gaffer.process import ProcessConfig
from gaffer.schemas.frames import Frame
from support.http_node import ECHO, PYTHON
from support.managers import running_manager
from support.poll import eventually
from support.websocket import BINARY, CLOSE, PING, PONG, TEXT, Closed, WebSocket, connected

KEYS = {"all": Grant(frozenset(Scope)), "reader": Grant(frozenset({Scope.READ}))}

FUZZ = settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])


@dataclass
class Node:
    """A node with the echo as process 1, on a loop in a thread of its own: each example is a loop of this thread."""

    manager: Manager
    address: str

    def talk(self, path: str, key: str, talk: Callable[[WebSocket], Awaitable[None]]) -> None:
        """Open a websocket, talk on it, and see that it left everything as it was."""

        async def run() -> None:
            async with connected(self.address, path, {"X-Api-Key": key}) as socket:
                await talk(socket)

        asyncio.run(run())
        assert self.manager.jobs() == ["default.echo"]
        assert self.manager.pids() == [1]
        assert not self.manager.stopping


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    policy = make_policy(own_uid=0, own_names=[], trust_local=False, verify=KEYS.get)
    handler = HttpHandler([HttpEndpoint("127.0.0.1:0")], access=policy)
    echo = ProcessConfig("echo", PYTHON, args=["-c", ECHO], redirect_output=["out"], redirect_input=True)
    with running_manager([handler]) as manager:
        manager.load(echo)
        eventually(lambda: manager.pids() == [1])
        yield Node(manager, handler.addresses[0])


OPCODES = st.sampled_from([0, TEXT, BINARY, CLOSE, PING, PONG]) | st.integers(0, 127)


@pytest.mark.parametrize("path", ["/wstreams/1", "/1/channel", "/channel/websocket", "/channel/000/abc/websocket"])
def test_no_frame_is_too_broken(node: Node, path: str) -> None:
    @FUZZ
    @given(st.lists(st.tuples(OPCODES, st.binary(max_size=150), st.booleans()), min_size=1, max_size=4))
    def run(frames: list[tuple[int, bytes, bool]]) -> None:
        async def talk(socket: WebSocket) -> None:
            with suppress(ConnectionError):
                for opcode, data, fin in [*frames, (CLOSE, b"\x03\xe8", True)]:
                    await socket.send_frame(opcode, data, fin=fin)
            assert (await socket.closing()).code != 1011

        node.talk(path, "all", talk)

    run()


HEADS = st.one_of(
    st.binary(max_size=20),
    st.builds(
        lambda *parts: b" ".join(parts),
        st.sampled_from([b"V1", b"V2", b"v1", b""]),
        st.sampled_from([b"message", b"response", b"error", b""]),
        st.binary(max_size=10),
    ),
)


@pytest.mark.row("STR-31")
def test_any_message_to_a_framed_socket_is_answered_once(node: Node) -> None:
    @FUZZ
    @given(st.lists(st.builds(lambda head, body: head + b"\0" + body, HEADS, st.binary(max_size=50)), max_size=4))
    def run(messages: list[bytes]) -> None:
        async def talk(socket: WebSocket) -> None:
            for message in messages:
                await socket.send(message)
                answer = _frame(await socket.receive())
                assert answer.type in ("error", "response")
            await socket.send(b"V1 message last\0")
            assert _frame(await socket.receive()) == Frame("response", "last", b"OK")

        node.talk("/1/channel?mode=2", "all", talk)

    run()


def _frame(message: str | bytes) -> Frame:
    return Frame.decode(message.encode() if isinstance(message, str) else message)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
TOPICS = st.text(max_size=15) | st.builds(
    lambda kind, target: f"{kind}:{target}",
    st.sampled_from(["EVENTS", "JOB", "PROCESS", "STATS", "STREAM"]),
    st.sampled_from(["1", "1.out", "echo", "default.echo", "."]) | st.text(max_size=8),
)
ARGUMENTS = st.lists(JSON | st.sampled_from(["echo", 1]), max_size=3)
DATA = JSON | st.fixed_dictionaries(
    {},
    optional={
        "topic": TOPICS | JSON,
        "identity": JSON,
        "name": st.sampled_from(sorted(COMMANDS)) | JSON,
        "args": ARGUMENTS | JSON,
        "kwargs": st.dictionaries(st.sampled_from(["name", "pid", "sessionid", "config", "env", "n"]), JSON) | JSON,
    },
)
MESSAGES = st.one_of(
    st.text(max_size=30),
    JSON.map(json.dumps),
    st.fixed_dictionaries(
        {}, optional={"event": st.sampled_from(["SUB", "UNSUB", "CMD", "NOP"]) | JSON, "data": DATA}
    ).map(json.dumps),
)
LAST = '{"event": "CMD", "data": {"identity": "the last one", "name": "jobs"}}'


@pytest.mark.row("SJS-09")
@pytest.mark.parametrize("framed", [False, True])
def test_any_message_to_the_channel_is_answered_and_the_next_one_too(node: Node, framed: bool) -> None:
    @FUZZ
    @given(st.lists(MESSAGES.filter(lambda text: text and not text.startswith("AUTH:")), max_size=5))
    def run(messages: list[str]) -> None:
        async def talk(socket: WebSocket) -> None:
            for text in (*messages, LAST):
                await socket.send(json.dumps([text]) if framed else text)
            answers: list[Any] = []
            while not any(answer["data"].get("id") == "the last one" for answer in answers):
                answers += _answers(str(await socket.receive()), framed=framed)
            assert all(answer["event"].startswith("gaffer:") for answer in answers)

        node.talk("/channel/000/abc/websocket" if framed else "/channel/websocket", "reader", talk)

    run()


def _answers(message: str, *, framed: bool) -> list[Any]:
    if not framed:
        return [json.loads(message)]
    return [json.loads(text) for text in json.loads(message[1:])] if message[0] == "a" else []


@pytest.mark.row("SJS-21")
def test_no_first_message_opens_the_channel_but_a_key(node: Node) -> None:
    @FUZZ
    @given(st.text(min_size=1, max_size=50) | st.text(max_size=20).map("AUTH:{}".format) | MESSAGES.filter(bool))
    def run(text: str) -> None:
        async def talk() -> None:
            async with connected(node.address, "/channel/websocket") as socket:
                await socket.send(text)
                assert (await socket.receive_json())["data"]["error"] == "AUTH_REQUIRED"
                with pytest.raises(Closed, match="4401"):
                    await socket.receive()

        asyncio.run(talk())

    run()
