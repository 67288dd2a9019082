"""The transports of SockJS on the wire."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.httpclient import HTTPClientError

from gaffer.http.sockjs.sessions import BrokenMessage, decode_messages
from support.poll import eventually_async
from support.sockjs import SockJSServer, new_session, running_server

NO_CACHE = "no-store, no-cache, no-transform, must-revalidate, max-age=0"
PRELUDE = b"h" * 2048 + b"\n"
GO_AWAY = 'c[3000,"Go away!"]'
STILL_OPEN = 'c[2010,"Another connection still open"]'
INTERRUPTED = 'c[1002,"Connection interrupted"]'

# What browsers may spoil on its way: the protocol wants it escaped. https://github.com/sockjs/sockjs-protocol
KILLERS = "".join(
    map(chr, [*range(0x200C, 0x2010), *range(0x2028, 0x2030), *range(0x2060, 0x2070), *range(0xFFF0, 0x10000)])
)


JSON_LEAVES: st.SearchStrategy[Any] = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just({})


@pytest.fixture
async def server() -> AsyncIterator[SockJSServer]:
    async with running_server(response_limit=4096) as server:
        yield server


@pytest.mark.row("SJS-02")
class TestXhr:
    async def test_messages_go_both_ways(self, server: SockJSServer) -> None:
        session = new_session()
        opened = await server.call("POST", f"{session}/xhr")
        assert (opened.status, opened.body) == (200, b"o\n")
        assert opened.headers["content-type"] == "application/javascript; charset=UTF-8"
        assert opened.headers["cache-control"] == NO_CACHE
        sent = await server.send(session, b'["a"]')
        assert (sent.status, sent.body) == (204, b"")
        assert sent.headers["content-type"] == "text/plain; charset=UTF-8"
        assert sent.headers["cache-control"] == NO_CACHE
        assert await server.poll(session) == 'a["a"]'

    @pytest.mark.parametrize("parts", ["a/a", "_/_", "1/1", "abcdefgh_i-j%20/abcdefg_i-j%20"])
    async def test_any_name_is_a_session(self, server: SockJSServer, parts: str) -> None:
        assert await server.poll(f"/echo/{parts}") == "o"

    async def test_the_name_of_the_server_means_nothing(self, server: SockJSServer) -> None:
        session = new_session()
        assert await server.poll(session) == "o"
        assert (await server.send(session, b'["a"]')).status == 204
        assert await server.poll(session.replace("/000/", "/999/")) == 'a["a"]'

    @pytest.mark.parametrize(
        "body", [b'["x', b"x", b"[1]", b"5", b"{}", b"null", b'["\xff"]', b'["\\ud800"]', b"[" * 9999]
    )
    async def test_what_is_no_array_of_strings(self, server: SockJSServer, body: bytes) -> None:
        session = new_session()
        await server.poll(session)
        answer = await server.send(session, body)
        assert (answer.status, answer.body) == (500, b"Broken JSON encoding.")
        empty = await server.send(session, b"")
        assert (empty.status, empty.body) == (500, b"Payload expected.")
        assert (await server.send(session, b'["a"]')).status == 204
        assert await server.poll(session) == 'a["a"]'

    async def test_content_types_do_not_matter(self, server: SockJSServer) -> None:
        session = new_session()
        await server.poll(session)
        types = ["text/plain", "T", "application/json", "application/xml", "", "application/json; charset=utf-8"]
        for kind in types:
            assert (await server.send(session, b'["a"]', {"Content-Type": kind})).status == 204
        assert json.loads((await server.poll(session))[1:]) == ["a"] * len(types)

    async def test_a_page_may_send_text(self, server: SockJSServer) -> None:
        session, headers = new_session(), {"Origin": server.url, "Content-Type": "text/plain"}
        await server.poll(session, {"Origin": server.url})
        assert (await server.send(session, b'["a"]', headers)).status == 204
        form = {**headers, "Content-Type": "application/x-www-form-urlencoded"}
        assert (await server.send(session, b'["a"]', form)).status == 415

    @pytest.mark.parametrize("service", ["/echo", "/close"])
    async def test_nothing_is_sent_to_a_session_that_is_not_open(self, server: SockJSServer, service: str) -> None:
        session = new_session(service)
        assert (await server.send(session, b'["a"]')).status == 404
        await server.poll(session)
        assert (await server.send(session, b'["a"]')).status == (204 if service == "/echo" else 404)

    async def test_a_closed_session_tells_so_again_and_again(self, server: SockJSServer) -> None:
        session = new_session("/close")
        assert [await server.poll(session) for _ in range(3)] == ["o", GO_AWAY, GO_AWAY]

    async def test_one_request_at_a_time(self, server: SockJSServer) -> None:
        session = new_session()
        await server.poll(session)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(server.poll(session))
            await eventually_async(lambda: server.is_polled(session))
            assert await server.poll(session) == STILL_OPEN
            await server.send(session, b'["a"]')
        assert waiting.result() == 'a["a"]'

    async def test_a_request_that_is_broken_off_ends_the_session(self, server: SockJSServer) -> None:
        session = new_session()
        await server.poll(session)
        [connection] = server.service.connections
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await server.poll(session)
        await eventually_async(lambda: server.service.ended == [connection])
        assert await server.poll(session) == INTERRUPTED
        assert not connection.open

    async def test_no_content_length_is_no_body(self, server: SockJSServer) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
        writer.write(f"POST {new_session()}/xhr HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert (await reader.read()).endswith(b"\r\n\r\no\n")
        writer.close()


STREAMS = [
    pytest.param("POST", "xhr_streaming", PRELUDE, "{}\n", "application/javascript", id="xhr_streaming"),
    pytest.param("GET", "eventsource", b"\r\n", "data: {}\r\n\r\n", "text/event-stream", id="eventsource"),
]


@pytest.mark.row("SJS-02")
@pytest.mark.parametrize(("method", "name", "prelude", "frame", "media"), STREAMS)
class TestStreams:
    async def test_frames_come_as_they_are_sent(
        self, server: SockJSServer, method: str, name: str, prelude: bytes, frame: str, media: str
    ) -> None:
        session = new_session()
        stream = await server.start(method, f"{session}/{name}")
        assert stream.status == 200
        assert stream.headers["content-type"] == f"{media}; charset=UTF-8"
        assert stream.headers["cache-control"] == NO_CACHE
        assert await stream.read_some() == prelude
        assert await stream.read_some() == frame.format("o").encode()
        for text in ("x", "  \0\n\r "):
            message = json.dumps(text)
            assert (await server.send(session, f"[{message}]".encode())).status == 204
            assert await stream.read_some() == frame.format(f"a[{message}]").encode()

    async def test_the_answer_ends_at_the_limit_and_the_session_goes_on(
        self, server: SockJSServer, method: str, name: str, prelude: bytes, frame: str, media: str
    ) -> None:
        session, message = new_session(), json.dumps("x" * 128)
        stream = await server.start(method, f"{session}/{name}")
        size = 0
        assert await stream.read_until(frame.format("o").encode())
        while size < 4096 - 4:
            await server.send(session, f"[{message}]".encode())
            data = await stream.read_some()
            assert data == frame.format(f"a[{message}]").encode()
            size += len(data)
        assert await stream.read_some() == b""
        await server.send(session, b'["later"]')
        again = await server.start(method, f"{session}/{name}")
        assert await again.read_until(b"later") == prelude + frame.format('a["later"]').encode()

    async def test_the_answer_ends_with_the_close_frame(
        self, server: SockJSServer, method: str, name: str, prelude: bytes, frame: str, media: str
    ) -> None:
        session = new_session("/close")
        first = await server.call(method, f"{session}/{name}")
        assert first.body == prelude + (frame.format("o") + frame.format(GO_AWAY)).encode()
        second = await server.call(method, f"{session}/{name}")
        assert second.body == prelude + frame.format(GO_AWAY).encode()

    async def test_a_second_one_is_refused_and_the_first_broken_off(
        self, server: SockJSServer, method: str, name: str, prelude: bytes, frame: str, media: str
    ) -> None:
        session = new_session()
        first = await server.start(method, f"{session}/{name}")
        await first.read_until(frame.format("o").encode())
        second = await server.call(method, f"{session}/{name}")
        assert second.body == prelude + frame.format(STILL_OPEN).encode()
        first.close()
        await eventually_async(lambda: len(server.service.ended) == 1)
        third = await server.call(method, f"{session}/{name}")
        assert third.body == prelude + frame.format(INTERRUPTED).encode()

    async def test_what_was_sent_before_the_end_comes_before_the_close_frame(
        self, server: SockJSServer, method: str, name: str, prelude: bytes, frame: str, media: str
    ) -> None:
        session = new_session()
        stream = await server.start(method, f"{session}/{name}")
        await stream.read_until(frame.format("o").encode())
        [connection] = server.service.connections
        for text in ("one", "two", "three"):
            await connection.send(text)
        connection.close(3001, 'a "reason"')
        rest = (await stream.read_all()).decode().split(frame.format("o"))[1]
        frames = [part.removeprefix("data: ") for part in rest.split("\n") if part.strip()]
        texts = [text for part in frames[:-1] for text in json.loads(part[1:])]
        assert texts == ["one", "two", "three"]
        assert frames[-1].strip() == 'c[3001,"a \\"reason\\""]'

    async def test_http_1_0(
        self, server: SockJSServer, method: str, name: str, prelude: bytes, frame: str, media: str
    ) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
        request = f"{method} {new_session('/close')}/{name} HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n"
        writer.write(f"{request}Content-Length: 0\r\n\r\n".encode())
        async with asyncio.timeout(5):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head.lower()
        assert b"content-length" not in head.lower()
        assert body == prelude + (frame.format("o") + frame.format(GO_AWAY)).encode()
        writer.close()


@pytest.mark.row("SJS-02")
class TestWebsocket:
    async def test_messages_go_both_ways(self, server: SockJSServer) -> None:
        async with server.socket(f"{new_session()}/websocket") as socket:
            assert await socket.read_message() == "o"
            await socket.write_message("")
            await socket.write_message('["a","b"]')
            await socket.write_message('"c"')
            assert [await socket.read_message() for _ in range(3)] == ['a["a"]', 'a["b"]', 'a["c"]']

    async def test_closing(self, server: SockJSServer) -> None:
        async with server.socket(f"{new_session('/close')}/websocket") as socket:
            assert [await socket.read_message() for _ in range(3)] == ["o", GO_AWAY, None]

    async def test_two_may_have_one_name(self, server: SockJSServer) -> None:
        session = new_session()
        async with server.socket(f"{session}/websocket") as one, server.socket(f"{session}/websocket") as two:
            for socket, message in ((one, '["a"]'), (two, '["b"]')):
                assert await socket.read_message() == "o"
                await socket.write_message(message)
                assert await socket.read_message() == f"a{message}"
        await eventually_async(lambda: len(server.service.ended) == 2)
        async with server.socket(f"{session}/websocket") as socket:
            assert await socket.read_message() == "o"

    @pytest.mark.parametrize("data", ['["a', "[1]", "{}", "5", b"\xff"])
    async def test_what_is_no_message_ends_the_connection(self, server: SockJSServer, data: str | bytes) -> None:
        async with server.socket(f"{new_session()}/websocket") as socket:
            assert await socket.read_message() == "o"
            await socket.write_message(data, binary=isinstance(data, bytes))
            assert await socket.read_message() is None
        await eventually_async(lambda: server.service.ended == server.service.connections)
        assert server.service.heard == []

    async def test_the_raw_one_has_no_frames(self, server: SockJSServer) -> None:
        async with server.socket("/echo/websocket") as socket:
            for text in ("Hello world!\uffff", '["a"]', "ä"):
                await socket.write_message(text)
                assert await socket.read_message() == text
        await eventually_async(lambda: server.service.ended == server.service.connections)

    async def test_the_raw_one_takes_text_only(self, server: SockJSServer) -> None:
        async with server.socket("/echo/websocket") as socket:
            await socket.write_message(b"data", binary=True)
            assert await socket.read_message() is None
            assert socket.close_code == 1003

    async def test_closing_the_raw_one(self, server: SockJSServer) -> None:
        async with server.socket("/close/websocket") as socket:
            assert await socket.read_message() is None
            assert (socket.close_code, socket.close_reason) == (3000, "Go away!")
        async with server.socket("/echo/websocket") as socket:
            await socket.write_message("hello")
            assert await socket.read_message() == "hello"
            [connection] = server.service.connections
            for text in ("one", "two"):
                await connection.send(text)
            connection.close(4000, "enough")
            assert [await socket.read_message() for _ in range(3)] == ["one", "two", None]
            assert (socket.close_code, socket.close_reason) == (4000, "enough")

    async def test_a_lone_surrogate_is_replaced(self, server: SockJSServer) -> None:
        async with server.socket("/echo/websocket") as socket:
            await eventually_async(lambda: server.service.connections)
            await server.service.connections[0].send("a\ud800b")
            assert await socket.read_message() == "a?b"

    @pytest.mark.parametrize("path", ["/echo/websocket", "/echo/0/0/websocket"])
    async def test_what_is_no_handshake(self, server: SockJSServer, path: str) -> None:
        plain = await server.call("GET", path)
        assert (plain.status, plain.body) == (400, b'Can "Upgrade" only to "WebSocket".')
        spoiled = await server.call("GET", path, headers={"Upgrade": "WebSocket", "Connection": "close"})
        assert (spoiled.status, spoiled.body) == (400, b'"Connection" must be "Upgrade".')

    async def test_handshake(self, server: SockJSServer) -> None:
        headers = {
            "Upgrade": "websocket",
            "Connection": "keep-alive, Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "x3JJHMbDL1EzLkh9GBhXDw==",
        }
        answer = await server.start("GET", f"{new_session()}/websocket", headers)
        assert answer.status == 101
        assert answer.headers["sec-websocket-accept"] == "HSmrc0sMlYUkAGmm5OPpG2HaGWk="
        assert answer.headers["connection"].lower() == "upgrade"
        assert "content-length" not in answer.headers

    async def test_drafts_whose_origin_nobody_checks_are_not_spoken(self, server: SockJSServer) -> None:
        headers = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "8",
            "Sec-WebSocket-Origin": "https://evil.example.org",
            "Sec-WebSocket-Key": "x3JJHMbDL1EzLkh9GBhXDw==",
        }
        answer = await server.call("GET", f"{new_session()}/websocket", headers=headers)
        assert (answer.status, answer.headers["sec-websocket-version"]) == (426, "13")

    async def test_dots(self, server: SockJSServer) -> None:
        with pytest.raises(HTTPClientError, match="404"):
            async with server.socket("/echo/0/a.b/websocket"):
                pass


class TestEncoding:
    @given(st.lists(st.text()))
    def test_what_clients_write_is_read(self, texts: list[str]) -> None:
        assert decode_messages(json.dumps(texts)) == texts
        assert decode_messages(json.dumps(texts, ensure_ascii=False).encode()) == texts

    @given(st.binary() | st.text() | st.recursive(JSON_LEAVES, st.lists).map(json.dumps))
    def test_anything_else_is_an_error_of_its_own(self, data: str | bytes) -> None:
        try:
            found = decode_messages(data)
        except BrokenMessage:
            return
        expected = json.loads(data)
        assert found == (expected if isinstance(expected, list) else [expected])
        assert all(isinstance(text, str) for text in found)

    async def test_what_browsers_spoil_is_escaped(self, server: SockJSServer) -> None:
        session = new_session()
        await server.poll(session)
        await server.send(session, json.dumps([KILLERS], ensure_ascii=False).encode())
        assert await server.poll(session) == 'a["' + "".join(f"\\u{ord(char):04x}" for char in KILLERS) + '"]'

    async def test_every_character_that_is_one_arrives(self, server: SockJSServer) -> None:
        session = new_session()
        text = "".join(chr(code) for code in range(0x10000) if not 0xD800 <= code < 0xE000) + "\U0001f600"
        await server.poll(session)
        await server.send(session, json.dumps([text]).encode())
        assert json.loads((await server.poll(session))[1:]) == [text]
        async with server.socket(f"{session}/websocket") as socket:
            assert await socket.read_message() == "o"
            await socket.write_message(json.dumps(text))
            frame = await socket.read_message()
            assert frame is not None
            assert json.loads(frame[1:]) == [text]
