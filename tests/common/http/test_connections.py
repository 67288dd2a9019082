"""Connections: what is no HTTP, what is too large, too slow or too many, and who is served all the same."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest
import trustme
from tornado.web import RequestHandler

from gaffer.http.jsonbody import MAX_VALUES
from gaffer.http.limits import Limits
from gaffer.http_handler import HttpEndpoint
from support.http_node import HttpNode, running_node, sleeper
from support.poll import eventually_async

LIMITS = Limits(max_body=100_000, header_timeout=0.4, body_timeout=0.6, idle_timeout=0.8, max_connections=10)

HEAD = b"GET /ping HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /jobs/default HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
async def strict() -> AsyncIterator[HttpNode]:
    """A node with little patience."""
    async with running_node(limits=LIMITS) as node:
        yield node


class Big(RequestHandler):
    """Answers more than is kept between server and client."""

    streams: ClassVar[list[Any]] = []

    def get(self) -> None:
        self.streams.append(self.request.connection.stream)  # type: ignore[union-attr]
        self.finish(b"x" * 50_000_000)


class Raw:
    """A connection on which anything can be sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, bytes]:
        """Status and body of the next answer."""
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = next(int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:"))
            return int(head.split()[1]), await self.reader.readexactly(length)

    async def error(self) -> tuple[int, str]:
        """Status and code of the next answer, an error after which the connection ends."""
        status, body = await self.answer()
        error = json.loads(body)
        assert set(error) == {"error", "errno", "message", "path", "hint"}
        assert error["errno"] == status
        assert await self.ended()
        return status, error["error"]

    async def ended(self) -> bool:
        """Whether nothing comes before the end of the connection."""
        async with asyncio.timeout(10):
            try:
                return await self.reader.read() == b""
            except ConnectionResetError:
                return True

    async def trickle(self, data: bytes, pause: float = 0.05) -> None:
        """Send byte by byte until the other end has closed."""
        try:
            for byte in data:
                if self.reader.at_eof():
                    return
                self.writer.write(bytes([byte]))
                await self.writer.drain()
                await asyncio.sleep(pause)
        except ConnectionError:
            return


class Connections:
    """Opens connections and closes them in the end."""

    def __init__(self) -> None:
        self._opened: list[Raw] = []

    async def open(self, node: HttpNode, **options: Any) -> Raw:
        raw = Raw(*await asyncio.open_connection(*node.address.partition("://")[2].split(":"), **options))
        self._opened.append(raw)
        return raw

    def close(self) -> None:
        for raw in self._opened:
            raw.writer.close()


@pytest.fixture
async def connections() -> AsyncIterator[Connections]:
    made = Connections()
    yield made
    made.close()


# What is no HTTP


@pytest.mark.row("HTTP-06")
@pytest.mark.parametrize(
    "request_",
    [
        b"nonsense\r\n\r\n",
        b"GET /ping\r\n\r\n",
        b"GET /ping HTTP/3.0\r\nHost: localhost\r\n\r\n",
        b"GET  /ping HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /ping HTTP/1.1\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: a b\r\n\r\n",
        HEAD + b"no colon\r\n\r\n",
        HEAD + b"Na me: value\r\n\r\n",
        HEAD + b"Name: a\x00b\r\n\r\n",
        POST + b"Content-Length: abc\r\n\r\n",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: +1\r\n\r\n{",
        POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        POST + b"Content-Length: \xd9\xa3\r\n\r\n{}",
        POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: gzip\r\n\r\n",
        POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"0" * 100 + b"2\r\n{}\r\n0\r\n\r\n",
    ],
)
async def test_what_is_no_http_gets_one_error_body(strict: HttpNode, connections: Connections, request_: bytes) -> None:
    raw = await connections.open(strict)
    raw.send(request_)
    assert await raw.error() == (400, "malformed_request")
    assert (await strict.call("GET", "/ping")).status == 200


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"Cookie: " + b"x" * 100_000,
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n",
        HEAD + b"a: b\r\n" * 2000,
        HEAD + b"a:\n" * 150,
        b"x" * 2_000_000,
    ],
)
async def test_a_head_over_the_limits_is_told_so(strict: HttpNode, connections: Connections, head: bytes) -> None:
    raw = await connections.open(strict)
    raw.send(head + b"\r\n\r\n")
    assert await raw.error() == (431, "header_too_large")


async def test_a_head_within_the_limits_is_fine(strict: HttpNode, connections: Connections) -> None:
    raw = await connections.open(strict)
    raw.send(HEAD + b"a: b\r\n" * 90 + b"Cookie: " + b"x" * 15_000 + b"\r\n\r\n")
    assert await raw.answer() == (200, b"OK")
    raw.send((HEAD + b"a: b\r\n" * 60 + b"\r\n") * 5)
    for _ in range(5):
        assert await raw.answer() == (200, b"OK")


async def test_an_announced_body_that_no_number_can_hold_is_too_large(
    strict: HttpNode, connections: Connections
) -> None:
    raw = await connections.open(strict)
    raw.send(POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n")
    assert await raw.error() == (413, "too_large")


@pytest.mark.parametrize("size", [LIMITS.max_body + 1, 3_000_000])
async def test_the_limit_of_bodies_is_the_configured_one(size: int) -> None:
    async with running_node(limits=Limits(max_body=LIMITS.max_body)) as node:
        answer = await node.call("POST", "/jobs/default", b"x" * size)
    assert (answer.status, answer.error) == (413, "too_large")
    assert str(LIMITS.max_body) in answer.json["message"]


@pytest.mark.row("HTTP-08")
@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"a":[', b"[[[{}],"])
async def test_deep_json_is_a_bad_request(strict: HttpNode, opening: bytes) -> None:
    answer = await strict.call("POST", "/jobs/default", opening * (40_000 // len(opening)))
    assert (answer.status, answer.error) == (400, "invalid_json")


@pytest.mark.parametrize("value", [b"1,", b"[],", b'{"":[{}]},', b"[[[[[["])
async def test_wide_json_is_told_to_be_too_large(node: HttpNode, value: bytes) -> None:
    body = b'{"a":[' + value * 60_000
    answer = await node.call("POST", "/jobs/default", body)
    assert (answer.status, answer.error) == (413, "too_large")
    assert str(MAX_VALUES) in answer.json["message"]


async def test_what_a_client_asked_before_it_left_is_not_answered(connections: Connections) -> None:
    answered: list[str] = []

    def note(handler: RequestHandler) -> None:
        if handler.request.path != "/ping":
            answered.append(handler.request.path)

    async with running_node(log_function=note) as node:
        raw = await connections.open(node)
        raw.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % number for number in range(500)))
        await eventually_async(lambda: bool(answered))
        raw.writer.transport.abort()
        before = -1
        while len(answered) != before:
            before = len(answered)
            for _ in range(10):
                await node.call("GET", "/ping")
        assert before < 500


# Slow senders


@pytest.mark.parametrize("start", [b"", HEAD + b"X: "])
async def test_a_head_that_comes_byte_by_byte_is_not_waited_for(
    strict: HttpNode, connections: Connections, start: bytes
) -> None:
    raw = await connections.open(strict)
    raw.send(start)
    sending = asyncio.create_task(raw.trickle(b"GET /" + b"x" * 100))
    assert await raw.error() == (408, "request_timeout")
    await sending


async def test_a_slow_second_request_is_not_waited_for_either(strict: HttpNode, connections: Connections) -> None:
    raw = await connections.open(strict)
    raw.send(HEAD + b"\r\n")
    assert await raw.answer() == (200, b"OK")
    sending = asyncio.create_task(raw.trickle(HEAD + b"X: " + b"x" * 100))
    assert await raw.error() == (408, "request_timeout")
    await sending


@pytest.mark.parametrize("framing", [b"Content-Length: 1000\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n500\r\n{"])
async def test_a_body_that_comes_byte_by_byte_is_not_waited_for(
    strict: HttpNode, connections: Connections, framing: bytes
) -> None:
    raw = await connections.open(strict)
    raw.send(POST + framing)
    sending = asyncio.create_task(raw.trickle(b" " * 100))
    assert await raw.error() == (408, "request_timeout")
    await sending
    assert strict.manager.jobs() == []


@pytest.mark.parametrize("before", [b"", HEAD + b"\r\n"])
async def test_a_silent_connection_is_closed_without_a_word(
    strict: HttpNode, connections: Connections, before: bytes
) -> None:
    raw = await connections.open(strict)
    raw.send(before)
    if before:
        await raw.answer()
    assert await raw.ended()


@pytest.mark.parametrize("hello", [b"", b"\x16\x03\x01\x02\x00\x01"])
async def test_a_tls_handshake_that_is_not_finished_is_given_up(connections: Connections, hello: bytes) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with running_node(HttpEndpoint("127.0.0.1:0", ssl_options=context), limits=LIMITS) as node:
        raw = await connections.open(node)
        raw.send(hello)
        assert await raw.ended()


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (HEAD + b"a:\n" * 150 + b"\r\n", (431, "header_too_large")),
        (POST + b"Content-Length: x\r\n\r\n", (400, "malformed_request")),
        (HEAD, (408, "request_timeout")),
    ],
)
async def test_mistakes_are_told_over_tls_as_well(
    connections: Connections, sent: bytes, answer: tuple[int, str]
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    async with running_node(HttpEndpoint("127.0.0.1:0", ssl_options=context), limits=LIMITS) as node:
        raw = await connections.open(node, ssl=client)
        raw.send(sent)
        assert await raw.error() == answer


async def test_an_answer_that_nobody_takes_is_given_up(connections: Connections) -> None:
    async with running_node(handlers=[("/big", Big)], limits=LIMITS) as node:
        raw = await connections.open(node)
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        raw.send(b"GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await eventually_async(lambda: bool(Big.streams))
        assert not Big.streams[0].closed()
        await eventually_async(lambda: Big.streams[0].closed())


async def test_feeds_and_websockets_may_take_longer_than_any_request(strict: HttpNode) -> None:
    await strict.call("POST", "/jobs/default", sleeper(redirect_output=["out"]))
    await eventually_async(lambda: len(strict.manager.running) == 1)
    [pid] = strict.manager.running
    handshake = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    websocket = await strict.follow(f"/{pid}/channel/out", handshake)
    assert websocket.status == 101
    feed = await strict.follow(f"/streams/{pid}/out?feed=eventsource&heartbeat=1.5")
    async with asyncio.timeout(5):
        assert await feed.read_some()
    assert not websocket.reader.at_eof()
    assert feed.status == 200


# Too many


@pytest.mark.expects_errors("connections are open")
async def test_a_new_connection_displaces_the_oldest_that_sends_nothing(connections: Connections) -> None:
    async with running_node(limits=Limits(max_connections=10)) as node:
        silent = [await connections.open(node) for _ in range(3)]
        idle = [await connections.open(node) for _ in range(7)]
        for raw in idle:
            raw.send(HEAD + b"\r\n")
            assert await raw.answer() == (200, b"OK")
        silent[1].send(HEAD)  # not all of it
        for displaced in (*silent, *idle[:2]):
            raw = await connections.open(node)
            raw.send(HEAD + b"\r\n")
            assert await raw.answer() == (200, b"OK")
            assert await displaced.ended()
        idle[-1].send(HEAD + b"\r\n")
        assert await idle[-1].answer() == (200, b"OK")


@pytest.mark.expects_errors("connections are open")
async def test_those_that_are_being_answered_are_left_alone(connections: Connections) -> None:
    async with running_node(limits=Limits(max_connections=3)) as node:
        await node.call("POST", "/jobs/default", sleeper(redirect_output=["out"]))
        await eventually_async(lambda: len(node.manager.running) == 1)
        [pid] = node.manager.running
        feeds = [await node.follow(f"/streams/{pid}/out?feed=eventsource&heartbeat=0.2") for _ in range(3)]
        refused = await connections.open(node)
        refused.send(HEAD + b"\r\n")
        assert await refused.ended()
        for feed in feeds:
            assert await feed.read_some()
        feeds[0].close()
        await eventually_async(lambda: _answers(node))


async def _answers(node: HttpNode) -> bool:
    try:
        return (await node.call("GET", "/ping")).status == 200
    except (ConnectionError, IndexError):
        return False


async def test_large_bodies_take_turns_and_small_ones_pass_them(connections: Connections) -> None:
    """Clients that send 40 MB together are read piece by piece: many small requests are answered meanwhile."""
    async with running_node(limits=Limits(max_body=30_000_000)) as node:
        large = [node.call("POST", "/jobs/default", b" " * 4_000_000) for _ in range(10)]
        sending = asyncio.gather(*large)
        answered = 0
        while not sending.done():
            assert (await node.call("GET", "/ping")).status == 200
            answered += 1
        assert [answer.status for answer in await sending] == [400] * 10
        assert answered > 20


async def test_no_more_are_accepted_in_a_second_than_may_come() -> None:
    async with running_node(limits=Limits(accepts_per_second=22)) as node:  # two in a tenth of a second
        began = asyncio.get_running_loop().time()
        answers = await asyncio.gather(*(node.call("GET", "/ping") for _ in range(9)))
        assert asyncio.get_running_loop().time() - began > 0.39
    assert [answer.status for answer in answers] == 9 * [200]
