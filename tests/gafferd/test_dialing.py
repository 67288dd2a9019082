"""A name with several addresses, of which some are dead."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from tornado.httpclient import HTTPRequest

from gaffer.runtime.connecting import ATTEMPT_DELAY, connect, interleave
from gafferd.announce.dialing import open_websocket
from support.other_lookupd import other_lookupd

AddressInfo = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int]]


def address_info(address: tuple[str, int], family: socket.AddressFamily = socket.AF_INET) -> AddressInfo:
    return family, socket.SOCK_STREAM, 0, "", address


def closed_port() -> tuple[str, int]:
    """An address that refuses connections."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        address: tuple[str, int] = sock.getsockname()
        return address


def silent(stack: ExitStack) -> tuple[str, int]:
    """An address that does not answer at all: its backlog is full."""
    listening = stack.enter_context(socket.socket())
    listening.bind(("127.0.0.1", 0))
    listening.listen(0)
    for _ in range(4):
        filler = stack.enter_context(socket.socket())
        filler.setblocking(False)
        filler.connect_ex(listening.getsockname())
    address: tuple[str, int] = listening.getsockname()
    return address


def answering(stack: ExitStack) -> tuple[str, int]:
    listening = stack.enter_context(socket.socket())
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    address: tuple[str, int] = listening.getsockname()
    return address


@pytest.mark.parametrize("dead", [closed_port, silent])
async def test_dead_addresses_do_not_keep_from_the_one_that_answers(dead: Callable[..., tuple[str, int]]) -> None:
    with ExitStack() as stack:
        found = [dead(*([stack] if dead is silent else ())) for _ in range(3)]
        alive = answering(stack)
        async with asyncio.timeout(3 * ATTEMPT_DELAY + 5):
            with await connect([address_info(address) for address in (*found, alive)]) as sock:
                assert sock.getpeername() == alive


async def test_when_all_refuse_the_reason_is_told() -> None:
    with pytest.raises(ConnectionRefusedError):
        await connect([address_info(closed_port()) for _ in range(3)])
    with pytest.raises(OSError, match="no address"):
        await connect([])


async def test_one_who_does_not_wait_leaves_no_socket() -> None:
    with ExitStack() as stack, pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await connect([address_info(silent(stack))])


def test_the_families_take_turns() -> None:
    v6 = [address_info((f"fd00::{number}", 1), socket.AF_INET6) for number in range(3)]
    v4 = [address_info((f"10.0.0.{number}", 1)) for number in range(2)]
    assert interleave([*v6, *v4]) == [v6[0], v4[0], v6[1], v4[1], v6[2]]


async def test_a_websocket_is_opened_to_a_name_whose_first_address_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        dead = silent(stack)
        async with other_lookupd(lambda message: {"ok": True}) as lookup:
            alive = ("127.0.0.1", int(lookup.url.rpartition(":")[2]))

            async def getaddrinfo(host: str, port: int, **more: Any) -> list[AddressInfo]:
                assert (host, port) == ("lookup.example", 5010)
                return [address_info(dead), address_info(alive)]

            monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo, raising=False)
            request = HTTPRequest("ws://lookup.example:5010/ws", connect_timeout=5.0, request_timeout=5.0)
            connection = await open_websocket(request, 1024)
            await connection.write_message('{"msgid": "1", "type": "PING"}')
            assert await connection.read_message() == '{"msgid": "1", "ok": true}'
            connection.close()
