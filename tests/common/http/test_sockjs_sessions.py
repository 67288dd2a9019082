"""SockJS sessions: how long they live, what waits in them, whose they are."""

import asyncio
import contextlib
import functools
import json
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import psutil
import pytest

from gaffer.http.access import ALL_SCOPES, Grant, Policy, Scope, make_policy
from gaffer.http.connections import Acceptor
from gaffer.http.revocation import Revocation
from gaffer.http.sockjs import Connection, ConnectionClosed
from support import turnable
from support.poll import eventually_async
from support.sockjs import SockJSServer, new_session, running_server

GO_AWAY = 'c[3000,"Go away!"]'


def on_turnable_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on a loop whose clock it may turn."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        turnable.run(test(*args, **kwargs))

    return run


def session_timers() -> list[asyncio.TimerHandle]:
    """The timers on the loop but for those of the endpoint, which outlive its connections by one round."""
    return [
        timer
        for timer in turnable.timers()
        if not isinstance(getattr(timer._callback, "__self__", None), Acceptor)  # type: ignore[attr-defined]
    ]


async def opened(server: SockJSServer) -> Connection:
    """The connection of the first client."""
    await eventually_async(lambda: server.service.connections)
    return server.service.connections[0]


async def ended(server: SockJSServer, connection: Connection) -> None:
    await eventually_async(lambda: server.service.ended == [connection])


class TestTime:
    @pytest.mark.row("SJS-03")
    @pytest.mark.parametrize("transport", ["xhr_streaming", "eventsource"])
    @on_turnable_loop
    async def test_a_heartbeat_comes_every_25_seconds(self, transport: str) -> None:
        async with running_server() as server:
            method = "GET" if transport == "eventsource" else "POST"
            stream = await server.start(method, f"{new_session()}/{transport}")
            while not (frame := await stream.read_some()).strip().endswith(b"o"):
                pass
            for _ in range(2):
                beat = asyncio.create_task(stream.read_some())
                turnable.turn(24)
                assert (await server.call("GET", "/echo")).status == 200
                assert not beat.done()
                turnable.turn(1)
                assert await beat == frame.replace(b"o", b"h")

    @pytest.mark.row("SJS-03")
    @on_turnable_loop
    async def test_a_heartbeat_answers_a_poll(self) -> None:
        async with running_server() as server:
            session = new_session()
            assert await server.poll(session) == "o"
            poll = asyncio.create_task(server.start("POST", f"{session}/xhr"))
            await eventually_async(lambda: server.is_polled(session))
            turnable.turn(24)
            assert (await server.call("GET", "/echo")).status == 200
            assert not poll.done()
            turnable.turn(1)
            assert await (await poll).read_some() == b"h\n"

    @pytest.mark.row("SJS-03")
    @on_turnable_loop
    async def test_heartbeats_on_a_websocket(self) -> None:
        async with running_server() as server, server.socket(f"{new_session()}/websocket") as socket:
            assert await socket.read_message() == "o"
            for _ in range(2):
                beat = asyncio.ensure_future(socket.read_message())
                turnable.turn(24)
                assert (await server.call("GET", "/echo")).status == 200
                assert not beat.done()
                turnable.turn(1)
                assert await beat == "h"

    @pytest.mark.row("SJS-03")
    @on_turnable_loop
    async def test_a_session_lives_for_5_seconds_without_receiver(self) -> None:
        async with running_server() as server:
            session = new_session()
            for _ in range(3):
                assert await server.poll(session) in ("o", 'a["a"]')
                turnable.turn(4.5)
                assert (await server.send(session, b'["a"]')).status == 204
            connection = await opened(server)
            assert connection.open
            turnable.turn(0.6)
            await ended(server, connection)
            assert not connection.open
            with pytest.raises(ConnectionClosed):
                await connection.send("late")
            assert (await server.send(session, b'["a"]')).status == 404
            assert await server.poll(session) == "o"

    @on_turnable_loop
    async def test_a_closed_session_is_remembered_as_long(self) -> None:
        async with running_server() as server:
            session = new_session("/close")
            assert [await server.poll(session) for _ in range(2)] == ["o", GO_AWAY]
            turnable.turn(4)
            assert await server.poll(session) == GO_AWAY
            turnable.turn(5.1)
            await eventually_async(lambda: not session_timers())
            assert await server.poll(session) == "o"

    @on_turnable_loop
    async def test_without_sessions_there_are_no_timers(self) -> None:
        async with running_server() as server:
            assert session_timers() == []
            assert (await server.call("GET", "/echo/info")).status == 200
            await eventually_async(lambda: session_timers() == [])

            polled = new_session()
            assert await server.poll(polled) == "o"
            async with server.socket(f"{new_session()}/websocket") as one, server.socket("/echo/websocket") as two:
                assert await one.read_message() == "o"
                await two.write_message("a")
                assert await two.read_message() == "a"
            stream = await server.start("POST", f"{new_session()}/xhr_streaming")
            await stream.read_until(b"o\n")
            stream.close()
            poll = asyncio.create_task(server.poll(new_session("/close")))
            assert await poll == "o"
            await eventually_async(lambda: len(server.service.ended) == 3)
            assert session_timers() != []
            turnable.turn(5.1)
            await eventually_async(lambda: session_timers() == [])

    @on_turnable_loop
    async def test_closing_all_leaves_no_timer_and_lets_nobody_in(self) -> None:
        async with running_server() as server:
            waiting, polled = new_session(), new_session()
            assert [await server.poll(waiting), await server.poll(polled)] == ["o", "o"]
            poll = asyncio.create_task(server.poll(polled))
            stream = await server.start("GET", f"{new_session()}/eventsource")
            await eventually_async(lambda: server.is_polled(polled))
            async with server.socket(f"{new_session()}/websocket") as socket:
                assert await socket.read_message() == "o"
                server.echo.close(server.application)
                assert [await socket.read_message() for _ in range(2)] == [GO_AWAY, None]
            assert await poll == GO_AWAY
            assert (await stream.read_all()).endswith(f"data: {GO_AWAY}\r\n\r\n".encode())
            assert len(server.service.ended) == 4
            assert (await server.call("POST", f"{new_session()}/xhr")).error == "stopping"
            server.close_exchanges()
            await eventually_async(lambda: session_timers() == [])

    @pytest.mark.parametrize("transport", ["websocket", "0/0/websocket"])
    @on_turnable_loop
    async def test_a_websocket_is_left_after_two_heartbeats_without_a_sign(self, transport: str) -> None:
        async with running_server() as server, server.socket(f"/echo/{transport}") as lively:
            await opened(server)
            dead = await start_and_never_read(server, f"/echo/{transport}")
            await eventually_async(lambda: len(server.service.connections) == 2)
            for _ in range(2):
                turnable.turn(25)
                assert (await server.call("GET", "/echo")).status == 200
            assert server.service.ended == []
            turnable.turn(25)
            await eventually_async(lambda: server.service.ended == server.service.connections[1:])
            await lively.write_message('"still here"')
            assert "still here" in [message async for message in messages_until(lively, "still here")][-1]
            dead.close()

    @on_turnable_loop
    async def test_a_stream_that_is_read_slowly_is_not_left(self) -> None:
        async with running_server(response_limit=10**9) as server:
            slow = await start_and_never_read(server, "/echo/0/0/eventsource")
            for _ in range(3):
                connection = await fill(server)
                turnable.turn(25)
                assert (await server.call("GET", "/echo")).status == 200
                assert connection.open
                sending = asyncio.create_task(connection.send("more"))
                while not sending.done():
                    await asyncio.get_running_loop().sock_recv(slow, 65536)
            slow.close()

    @pytest.mark.parametrize("transport", ["websocket", "0/0/websocket"])
    @on_turnable_loop
    async def test_a_client_that_does_not_take_part_in_closing_is_left_too(self, transport: str) -> None:
        async with running_server(heartbeat=1, disconnect_delay=2) as server:
            stuck = await start_and_never_read(server, f"/echo/{transport}")
            connection = await opened(server)
            await asyncio.get_running_loop().sock_sendall(stuck, b"\x82\x81\0\0\0\0\xff")  # a binary frame
            for _ in range(7):
                turnable.turn(1)
                assert (await server.call("GET", "/echo")).status == 200
            await ended(server, connection)
            await eventually_async(lambda: session_timers() == [])
            stuck.close()

    @on_turnable_loop
    async def test_a_client_whose_message_takes_long_is_not_silent(self) -> None:
        async with running_server() as server, server.socket("/echo/websocket") as socket:
            connection = await opened(server)
            server.service.going.clear()
            await socket.write_message("patience")
            await eventually_async(lambda: server.service.heard)
            for _ in range(5):
                turnable.turn(25)
                assert (await server.call("GET", "/echo")).status == 200
            server.service.going.set()
            assert await socket.read_message() == "patience"
            assert connection.open

    @pytest.mark.parametrize("transport", ["xhr_streaming", "eventsource"])
    @on_turnable_loop
    async def test_a_stream_is_left_when_nothing_is_taken_for_two_heartbeats(self, transport: str) -> None:
        async with running_server(response_limit=10**9) as server:
            stuck = await start_and_never_read(server, f"/echo/0/0/{transport}")
            connection = await fill(server)
            turnable.turn(25)
            assert (await server.call("GET", "/echo")).status == 200
            assert connection.open
            turnable.turn(25)
            await ended(server, connection)
            stuck.close()

    async def test_the_limits_can_be_chosen(self) -> None:
        async with running_server(heartbeat=0.05, disconnect_delay=0.05) as server:
            session = new_session()
            assert await server.poll(session) == "o"
            assert await server.poll(session) == "h"
            await ended(server, await opened(server))


@pytest.mark.row("SJS-03")
async def test_a_streamed_answer_ends_after_128_kib() -> None:
    async with running_server() as server:
        session, message = new_session(), json.dumps(["x" * 32 * 1024]).encode()
        stream = await server.start("POST", f"{session}/xhr_streaming")
        assert [len(await stream.read_some()), await stream.read_some()] == [2049, b"o\n"]
        for _ in range(4):
            await server.send(session, message)
            assert await stream.read_some() == b"a" + message + b"\n"
        assert await stream.read_some() == b""


class TestSlowClients:
    """A client that takes nothing must cost little and hold up nobody else."""

    async def test_send_waits_while_the_buffer_is_full(self) -> None:
        async with running_server(buffer_limit=1000) as server:
            session, sent = new_session(), []
            assert await server.poll(session) == "o"
            connection = await opened(server)

            async def pump() -> None:
                for number in range(30):
                    await connection.send(f"{number:098}")
                    sent.append(number)

            pumping = asyncio.create_task(pump())
            await eventually_async(lambda: len(sent) == 10)
            frame = await server.poll(session)
            assert [int(text) for text in json.loads(frame[1:])] == list(range(10))
            await eventually_async(lambda: len(sent) == 20)
            assert not pumping.done()
            connection.close()
            with pytest.raises(ConnectionClosed):
                await pumping
            assert [int(text) for text in json.loads((await server.poll(session))[1:])] == list(range(10, 20))
            assert await server.poll(session) == GO_AWAY

    @pytest.mark.parametrize("transport", ["websocket", "0/0/websocket", "0/0/xhr_streaming", "0/0/eventsource"])
    async def test_one_that_does_not_read_holds_up_nobody(self, transport: str) -> None:
        async with running_server(response_limit=10**9) as server:
            stuck = await start_and_never_read(server, f"/echo/{transport}")
            connection, piece, sent = await opened(server), "x" * 10_000, 0

            async def pump() -> None:
                nonlocal sent
                while True:
                    await connection.send(piece)
                    sent += len(piece)

            pumping = asyncio.create_task(pump())
            async with server.socket(f"{new_session()}/websocket") as other:
                assert await other.read_message() == "o"
                for _ in range(300):
                    await other.write_message(json.dumps(piece))
                    assert await other.read_message() == f'a["{piece}"]'
            assert sent < 10_000_000, "more than the buffers of the system hold"
            assert not pumping.done()
            stuck.close()
            with pytest.raises(ConnectionClosed):
                await pumping

    @pytest.mark.parametrize("transport", ["websocket", "0/0/websocket", "0/0/xhr_streaming", "0/0/eventsource"])
    async def test_one_that_does_not_read_to_the_end_is_left_alone(self, transport: str) -> None:
        async with running_server(response_limit=10**9, disconnect_delay=0.1) as server:
            stuck = await start_and_never_read(server, f"/echo/{transport}")
            connection = await fill(server)
            connection.close()
            assert server.service.ended == [connection]
            await eventually_async(lambda: connections_to(server) == 0)
            stuck.close()

    async def test_a_busy_service_is_given_one_message_at_a_time(self) -> None:
        async with running_server(buffer_limit=1) as server:
            session = new_session()
            assert await server.poll(session) == "o"
            sending = asyncio.create_task(server.send(session, b'["a","b","c"]'))
            await eventually_async(lambda: server.service.heard == ["a", "b"])
            assert not sending.done()
            assert await server.poll(session) == 'a["a"]'
            assert await server.poll(session) == 'a["b"]'
            assert (await sending).status == 204
            assert await server.poll(session) == 'a["c"]'

    async def test_messages_by_several_requests_are_handled_one_at_a_time(self) -> None:
        async with running_server() as server:
            session = new_session()
            assert await server.poll(session) == "o"
            server.service.going.clear()
            first = asyncio.create_task(server.send(session, b'["a"]'))
            await eventually_async(lambda: server.service.heard == ["a"])
            second = asyncio.create_task(server.send(session, b'["b","c"]'))
            assert (await server.call("GET", "/echo")).status == 200
            assert server.service.heard == ["a"]
            server.service.going.set()
            assert [(await sent).status for sent in (first, second)] == [204, 204]
            assert await server.poll(session) == 'a["a","b","c"]'

    async def test_what_comes_behind_the_end_is_not_handled(self) -> None:
        async with running_server() as server:
            session = new_session()
            assert await server.poll(session) == "o"
            server.service.going.clear()
            sent = asyncio.create_task(server.send(session, b'["a","b"]'))
            await eventually_async(lambda: server.service.heard == ["a"])
            server.service.connections[0].close()
            server.service.going.set()
            assert (await sent).status == 204
            assert server.service.heard == ["a"]

    async def test_messages_for_a_client_that_left_are_given_up(self) -> None:
        async with running_server(buffer_limit=1, disconnect_delay=0.5) as server:
            session = new_session()
            assert await server.poll(session) == "o"
            assert (await server.send(session, b'["a","b","c"]')).status == 204
            assert server.service.heard == ["a", "b"]

    async def test_no_more_sessions_than_allowed(self) -> None:
        async with running_server(max_sessions=2) as server:
            first, second = new_session(), new_session()
            assert [await server.poll(first), await server.poll(second)] == ["o", "o"]
            answer = await server.call("POST", f"{new_session()}/xhr")
            assert (answer.status, answer.error) == (503, "too_many_sessions")
            answer = await server.call("POST", f"{new_session()}/xhr_streaming")
            assert (answer.status, answer.error) == (503, "too_many_sessions")
            assert (await server.send(first, b'["a"]')).status == 204
            assert await server.poll(first) == 'a["a"]'


async def start_and_never_read(server: SockJSServer, path: str) -> socket.socket:
    """A client with a small buffer that sends a request and leaves it at that."""
    stuck = socket.socket()
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stuck.setblocking(False)
    loop = asyncio.get_running_loop()
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    await loop.sock_connect(stuck, (host, int(port)))
    method = "POST" if "xhr" in path else "GET"
    upgrade = (
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n"
    )
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{upgrade if 'websocket' in path else ''}\r\n"
    await loop.sock_sendall(stuck, head.encode())
    return stuck


KEYS = {
    "a": Grant(ALL_SCOPES, None, Revocation()),
    "b": Grant(ALL_SCOPES, None, Revocation()),
    "reader": Grant(frozenset({Scope.READ}), None, Revocation()),
    "nothing": Grant(frozenset(), None, Revocation()),
}


def keyed(keys: dict[str, Grant] = KEYS) -> Policy:
    """The policy of a server that knows its callers by keys only."""
    return make_policy(own_uid=os.getuid(), own_names=[], trust_local=False, verify=keys.get)


async def fill(server: SockJSServer) -> Connection:
    """Send to the first client, which doesn't read, until not another message fits; gives its connection."""
    connection = await opened(server)
    with contextlib.suppress(TimeoutError):
        while True:
            async with asyncio.timeout(0.3):
                await connection.send("x" * 10_000)
    return connection


def connections_to(server: SockJSServer) -> int:
    """How many connections the server has."""
    port = int(server.url.rpartition(":")[2])
    return sum(
        connection.status == psutil.CONN_ESTABLISHED and connection.laddr.port == port
        for connection in psutil.Process().net_connections("tcp")
    )


class TestOwner:
    """With keys, a session is its opener's alone."""

    async def test_others_are_refused(self) -> None:
        async with running_server(keyed()) as server:
            session, mine = new_session(), {"X-Api-Key": "a"}
            assert await server.poll(session, mine) == "o"
            assert (await opened(server)).grant is KEYS["a"]
            for key, status in (("b", 403), ("reader", 403), ("nothing", 403), ("wrong", 401), ("", 401)):
                theirs = {"X-Api-Key": key}
                assert (await server.send(session, b'["a"]', theirs)).status == status
                for method, name in (("POST", "xhr"), ("POST", "xhr_streaming"), ("GET", "eventsource")):
                    answer = await server.call(method, f"{session}/{name}", headers=theirs)
                    assert answer.status == status
                    assert b"h\n" not in answer.body
            assert server.service.heard == []
            assert (await server.send(session, b'["a"]', mine)).status == 204
            assert await server.poll(session, mine) == 'a["a"]'

    async def test_a_key_is_needed_for_everything(self) -> None:
        async with running_server(keyed()) as server:
            for path in ("", "/info", "/iframe.html", "/sockjs.min.js", "/websocket", "/0/0/websocket"):
                assert (await server.call("GET", f"/echo{path}")).status == 401
                assert (await server.call("GET", f"/echo{path}", headers={"X-Api-Key": "nothing"})).status == 403

    @pytest.mark.parametrize("kind", ["polling", "between polls", "websocket", "raw"])
    async def test_a_revoked_key_ends_its_sessions(self, kind: str) -> None:
        keys = {"a": Grant(ALL_SCOPES, None, Revocation()), "b": Grant(ALL_SCOPES, None, Revocation())}
        async with running_server(keyed(keys)) as server:
            session, headers = new_session(), {"X-Api-Key": "a"}
            if "poll" in kind:
                assert await server.poll(session, headers) == "o"
                if kind == "polling":
                    await server.start("POST", f"{session}/xhr_streaming", headers)
                await self.revoke(server, keys)
            else:
                path = f"{session}/websocket" if kind == "websocket" else "/echo/websocket"
                async with server.socket(path, headers) as socket:
                    await self.revoke(server, keys)
                    assert {message[0] async for message in messages(socket)} <= {"o", "c"}

    async def revoke(self, server: SockJSServer, keys: dict[str, Grant]) -> None:
        connection = await opened(server)
        revocation = keys["a"].revocation
        assert revocation is not None
        revocation.revoke()
        await ended(server, connection)
        assert not connection.open

    async def test_an_adopted_grant_counts(self) -> None:
        async with running_server() as server, server.socket("/echo/websocket") as socket:
            connection = await opened(server)
            assert connection.grant.scopes == ALL_SCOPES
            revocation = adopt_new(connection)
            assert connection.grant.scopes == {Scope.READ}
            revocation.revoke()
            assert [message async for message in messages(socket)] == []
            assert (socket.close_code, socket.close_reason) == (1008, "access was revoked")

    async def test_after_a_revocation_nothing_more_is_sent(self) -> None:
        async with running_server() as server:
            session = new_session()
            assert await server.poll(session) == "o"
            connection = await opened(server)
            revocation = adopt_new(connection)
            await connection.send("a secret")
            revocation.revoke()
            assert await server.poll(session) == 'c[1008,"access was revoked"]'

    async def test_a_client_that_does_not_read_is_cut_off_by_a_revocation(self) -> None:
        async with running_server(response_limit=10**9) as server:
            stuck = await start_and_never_read(server, "/echo/0/0/eventsource")
            connection = await fill(server)
            adopt_new(connection).revoke()
            await eventually_async(lambda: connections_to(server) == 0)
            stuck.close()


def adopt_new(connection: Connection) -> Revocation:
    """Let the connection go on with a grant of its own."""
    revocation = Revocation()
    connection.adopt(Grant(frozenset({Scope.READ}), None, revocation))
    return revocation


async def messages_until(socket: Any, text: str) -> Any:
    """What comes on a websocket until a message has that text in it."""
    while text not in (message := await socket.read_message()):
        yield message
    yield message


async def messages(socket: Any) -> Any:
    """What comes on a websocket until it is closed."""
    while (message := await socket.read_message()) is not None:
        yield message
