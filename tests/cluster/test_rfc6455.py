"""Every websocket of both daemons keeps to RFC 6455: handshakes, frames, close codes."""

import json
import os
import struct
from collections.abc import Iterator
from contextlib import suppress

import pytest
import requests

from support.daemons import Daemon, gafferd, lookupd
from support.http_node import open_exchange
from support.raw_http import raw_connection
from support.websocket import BINARY, CLOSE, HANDSHAKE, PING, PONG, TEXT, WebSocket, connected

CONTINUATION = 0


@pytest.fixture(scope="module")
def daemons() -> Iterator[dict[str, Daemon]]:
    with lookupd() as registry, gafferd() as node:
        cat = {"name": "cat", "cmd": "cat", "redirect_input": True, "redirect_output": ["out"]}
        assert requests.post(f"{node.url}/jobs/default", json=cat, timeout=10).status_code == 200
        yield {"node": node, "registry": registry}


SOCKETS = [
    ("node", "/wstreams/1"),
    ("node", "/1/channel"),
    ("node", "/channel/websocket"),
    ("node", "/channel/0/x/websocket"),
    ("registry", "/lookup/websocket"),
    ("registry", "/ws"),
]


@pytest.fixture(params=SOCKETS, ids=lambda socket: "".join(socket))
def socket(request: pytest.FixtureRequest, daemons: dict[str, Daemon]) -> tuple[Daemon, str]:
    daemon, path = request.param
    return daemons[daemon], path


def frame(opcode: int, data: bytes = b"", *, first: int = 0x80, masked: bool = True, size: bytes = b"") -> bytes:
    """A frame, right or wrong: `first` holds the bits beside the opcode, `size` another length than that of `data`."""
    if not masked:
        return bytes([first | opcode, len(data)]) + data
    mask = os.urandom(4)
    length = size or (bytes([0x80 | len(data)]) if len(data) < 126 else struct.pack("!BH", 0xFE, len(data)))
    return bytes([first | opcode]) + length + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))


WRONG = {
    "reserved bit 1": (frame(TEXT, b"x", first=0xC0), 1002),
    "reserved bit 2": (frame(PING, b"x", first=0xA0), 1002),
    "reserved bit 3": (frame(CLOSE, first=0x90), 1002),
    "reserved data opcode": (frame(3, b"x"), 1002),
    "reserved control opcode": (frame(11), 1002),
    "no mask": (frame(TEXT, b"x", masked=False), 1002),
    "long ping": (frame(PING, b"x" * 126), 1002),
    "fragmented ping": (frame(PING, b"x", first=0), 1002),
    "nothing to continue": (frame(CONTINUATION, b"x"), 1002),
    "message in a message": (frame(TEXT, b"x", first=0) + frame(BINARY, b"x"), 1002),
    "no UTF-8": (frame(TEXT, b"\xff"), 1007),
    "no UTF-8 in fragments": (frame(TEXT, b"\xc3", first=0) + frame(CONTINUATION, b"("), 1007),
    "a surrogate": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "too big": (frame(BINARY, size=struct.pack("!BQ", 0xFF, 1 << 40)), 1009),
    "close with one byte": (frame(CLOSE, b"\x03"), 1002),
    "a reason that is not UTF-8": (frame(CLOSE, b"\x03\xe8\xff"), 1007),
    **{
        f"close code {code}": (frame(CLOSE, struct.pack("!H", code)), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
}


@pytest.mark.parametrize(("sent", "code"), WRONG.values(), ids=WRONG)
async def test_a_wrong_frame_ends_the_connection_with_its_code(
    socket: tuple[Daemon, str], sent: bytes, code: int
) -> None:
    daemon, path = socket
    async with connected(daemon.url, path) as websocket:
        websocket.exchange.writer.write(sent)
        assert (await websocket.closing()).code == code
        with suppress(ConnectionResetError):  # by the close frame that it is answered with
            assert await websocket.exchange.reader.read() == b""


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 3999, 4000, 4999])
async def test_a_valid_close_code_comes_back(socket: tuple[Daemon, str], code: int) -> None:
    daemon, path = socket
    async with connected(daemon.url, path) as websocket:
        await websocket.send_frame(CLOSE, struct.pack("!H", code) + "Grüße".encode())
        assert (await websocket.closing()).code == code


async def test_a_close_frame_may_be_empty(socket: tuple[Daemon, str]) -> None:
    daemon, path = socket
    async with connected(daemon.url, path) as websocket:
        await websocket.send_frame(CLOSE)
        assert (await websocket.closing()).code == 1005


async def test_pings_are_answered_between_fragments(socket: tuple[Daemon, str]) -> None:
    daemon, path = socket
    async with connected(daemon.url, path) as websocket:
        await websocket.send_frame(TEXT, b"[", fin=False)
        await websocket.send_frame(PING, b"x" * 125)
        assert await until_pong(websocket) == b"x" * 125


async def test_fragments_are_one_message(daemons: dict[str, Daemon]) -> None:
    async with connected(daemons["node"].url, "/wstreams/1") as websocket:
        text = "größer\n".encode()
        await websocket.send_frame(TEXT, text[:3], fin=False)  # within a character
        await websocket.send_frame(PING)
        await websocket.send_frame(CONTINUATION, fin=False)
        await websocket.send_frame(PONG, b"unasked")
        await websocket.send_frame(CONTINUATION, text[3:])
        await websocket.send_frame(BINARY, b"\xff\n")
        assert await websocket.receive_size(len(text) + 2) == text + b"\xff\n"


async def until_pong(websocket: WebSocket) -> bytes:
    while True:
        opcode, data = await websocket._read_frame()
        if opcode == PONG:
            return data


def changed(**headers: str) -> dict[str, str]:
    return {**HANDSHAKE, **{name.replace("_", "-"): value for name, value in headers.items()}}


def without(name: str) -> dict[str, str]:
    return {**HANDSHAKE, name: ""}


BAD_HANDSHAKES: dict[str, tuple[dict[str, str], int]] = {
    "an old version": (changed(Sec_WebSocket_Version="8"), 426),
    "two versions": (changed(Sec_WebSocket_Version="13, 8"), 426),
    "no version": (without("Sec-WebSocket-Version"), 426),
    "no key": (without("Sec-WebSocket-Key"), 400),
    "a short key": (changed(Sec_WebSocket_Key="abc"), 400),
    "a key of 15 bytes": (changed(Sec_WebSocket_Key="AAAAAAAAAAAAAAAAAAAA"), 400),
    "no base64": (changed(Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZ!=="), 400),
    "two keys": (changed(Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ=="), 400),
}


@pytest.mark.parametrize(("headers", "status"), BAD_HANDSHAKES.values(), ids=BAD_HANDSHAKES)
async def test_a_bad_handshake_gets_an_error_body(
    socket: tuple[Daemon, str], headers: dict[str, str], status: int
) -> None:
    daemon, path = socket
    exchange = await open_exchange(daemon.url, "GET", path, None, headers)
    body = json.loads(await exchange.read_all())
    exchange.close()
    assert (exchange.status, body["errno"]) == (status, status)
    if status == 426:
        assert (exchange.headers["upgrade"], exchange.headers["sec-websocket-version"]) == ("websocket", "13")


@pytest.mark.parametrize("missing", ["Upgrade", "Connection"])
async def test_what_asks_for_no_upgrade_opens_no_websocket(socket: tuple[Daemon, str], missing: str) -> None:
    daemon, path = socket
    exchange = await open_exchange(daemon.url, "GET", path, None, without(missing))
    body = await exchange.read_all()
    exchange.close()
    if path.endswith("/websocket"):  # by the protocol of SockJS
        assert (exchange.status, exchange.headers["content-type"]) == (400, "text/plain; charset=UTF-8")
    elif (path, missing) == ("/ws", "Upgrade"):
        assert (exchange.status, json.loads(body)["error"]) == (400, "bad_request")
    else:
        assert (exchange.status, json.loads(body)["error"]) == (426, "upgrade_required")


def test_http_1_0_has_no_websockets(socket: tuple[Daemon, str]) -> None:
    daemon, path = socket
    with raw_connection(daemon.port) as raw:
        lines = "".join(f"{name}: {value}\r\n" for name, value in HANDSHAKE.items())
        raw.send(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n{lines}\r\n".encode())
        assert raw.response().status == 426


@pytest.mark.parametrize(
    "headers",
    [
        {"Connection": "keep-alive, Upgrade"},
        {"Connection": "UPGRADE,TE"},
        {"Upgrade": "WebSocket"},
        {"Upgrade": "h2c, websocket"},
        {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits", "Sec-WebSocket-Protocol": "a, b"},
    ],
)
async def test_a_handshake_may_list_more(socket: tuple[Daemon, str], headers: dict[str, str]) -> None:
    daemon, path = socket
    async with connected(daemon.url, path, headers) as websocket:
        assert websocket.exchange.headers["upgrade"] == "websocket"
        assert not {"sec-websocket-extensions", "sec-websocket-protocol"} & websocket.exchange.headers.keys()
