"""The framed websocket of a process: R-81, R-82, STR-30 to STR-32."""

import json
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from gaffer.http.access import Grant, Scope, make_policy
from gaffer.process import ProcessConfig
from gaffer.schemas.frames import Frame
from support.http_node import ECHO, PYTHON, HttpNode, run_script, running_node
from support.poll import eventually_async
from support.websocket import WebSocket, connected

CUSTOM = "import os\nwhile data := os.read(3, 1 << 16): os.write(3, data)"


def channel(node: HttpNode, pid: int, rest: str = "", **headers: str) -> AbstractAsyncContextManager[WebSocket]:
    return connected(node.address, f"/{pid}/channel{rest}", headers)


async def write(socket: WebSocket, id: str, body: bytes) -> None:
    await socket.send(Frame("message", id, body).encode())


def position(node: HttpNode, pid: int, label: str, offset: int) -> str:
    """What resumes an output at an offset."""
    return str(node.manager.ring(pid, label).position(offset))


async def read(socket: WebSocket) -> Frame:
    message = await socket.receive()
    return Frame.decode(message.encode() if isinstance(message, str) else message)


async def read_all(socket: WebSocket, size: int) -> tuple[list[Frame], bytes]:
    """The frames that are no output, and `size` bytes of output."""
    others, output = [], b""
    while len(output) < size:
        frame = await read(socket)
        if frame.type == "message":
            output += frame.body
        else:
            others.append(frame)
    return others, output


async def read_error(socket: WebSocket) -> tuple[str, dict[str, Any]]:
    """The id and the body of the next frame, which must be an error."""
    frame = await read(socket)
    assert frame.type == "error"
    return frame.id, json.loads(frame.body)


@pytest.mark.row("STR-30", "STR-31", "R-81")
async def test_writes_are_answered_and_output_comes(node: HttpNode) -> None:
    pid = await run_script(node)
    async with channel(node, pid) as socket:
        for number, body in enumerate((b"ECHO\n", b"a\0b\0\n", b"\xff\xfe\n", b"")):
            await write(socket, f"id-{number}", body)
            found = {frame.type: frame for frame in [await read(socket) for _ in range(1 + bool(body))]}
            assert found.pop("response") == Frame("response", f"id-{number}", b"OK")
            assert [frame.body for frame in found.values()] == [body] * bool(body)


async def test_a_client_that_resumes_is_told_where_output_begins_and_what_was_accepted(node: HttpNode) -> None:
    pid = await run_script(node)
    async with channel(node, pid, "?resumable=true") as socket:
        assert await read(socket) == Frame("message", position(node, pid, "out", 0))
        assert await read(socket) == Frame("response", "accepted", b"0")
        await write(socket, "1", b"ECHO\n")
        found = {frame.type: frame for frame in [await read(socket) for _ in range(2)]}
        assert found["response"] == Frame("response", "1", b"OK 5")
    async with channel(node, pid, "?resumable=true") as socket:
        assert await read(socket) == Frame("message", position(node, pid, "out", 5))
        assert await read(socket) == Frame("response", "accepted", b"5")
        await write(socket, "2@0", b"LATE\n")
        id, error = await read_error(socket)
        assert (id, error["error"], error["reason"], error["to"]) == ("2@0", "CONFLICT", "input_moved", 5)
    async with channel(node, pid, "?resumable=true&mode=1&after=2") as socket:
        assert await read(socket) == Frame("message", position(node, pid, "out", 2))
        assert (await read(socket)).body == b"HO\n"
    async with channel(node, pid, "?resumable=maybe") as socket:
        assert (await read_error(socket))[1]["errno"] == 400


@pytest.mark.row("STR-30")
async def test_the_id_of_output_is_where_to_go_on(node: HttpNode) -> None:
    pid = await run_script(node)
    async with channel(node, pid) as first:
        await write(first, "1", b"one\n")
        others, _ = await read_all(first, 4)
        await write(first, "2", b"two\n")
        more, output = await read_all(first, 4)
        assert (len(others) + len(more), output) == (2, b"two\n")
        async with channel(node, pid, "?after=4") as second:
            assert await read(second) == Frame("message", position(node, pid, "out", 8), b"two\n")
        async with channel(node, pid, "?tail=1") as third:
            assert await read(third) == Frame("message", position(node, pid, "out", 8), b"two\n")
        async with channel(node, pid, f"?after={position(node, pid, 'out', 4)}") as fourth:
            assert await read(fourth) == Frame("message", position(node, pid, "out", 8), b"two\n")
        async with channel(node, pid, "?after=elsewhere:4") as fifth:
            id, lost = await read_error(fifth)
            assert (id, lost["error"], lost["from"], lost["to"]) == ("gaffer_error", "GAP", 0, 0)
            _, output = await read_all(fifth, 8)
            assert output == b"one\ntwo\n"


@pytest.mark.row("STR-30", "R-82")
async def test_a_path_can_name_an_output_or_an_input(node: HttpNode) -> None:
    pid = await run_script(node, ECHO.replace("write(1", "write(2"))
    async with channel(node, pid, "/err") as output, channel(node, pid, "/stdin") as entry:
        await write(entry, "1", b"oops\n")
        assert await read(entry) == Frame("response", "1", b"OK")
        assert await read(output) == Frame("message", position(node, pid, "err", 5), b"oops\n")
        await write(output, "2", b"x")
        id, body = await read_error(output)
        assert (id, body["error"]) == ("2", "EPERM")


@pytest.mark.row("R-82")
async def test_a_custom_stream_goes_both_ways(node: HttpNode) -> None:
    pid = await run_script(node, CUSTOM, custom_streams=["control"])
    async with channel(node, pid, "/control") as socket:
        await write(socket, "1", b"ECHO\n")
        others, output = await read_all(socket, 5)
        assert output == b"ECHO\n"
        assert others in ([], [Frame("response", "1", b"OK")])


@pytest.mark.row("STR-30", "STR-32")
@pytest.mark.parametrize(("mode", "reads", "writes"), [("1", True, False), ("2", False, True), ("3", True, True)])
async def test_the_mode_says_what_it_is_for(node: HttpNode, mode: str, reads: bool, writes: bool) -> None:
    pid = await run_script(node)
    async with channel(node, pid, f"?mode={mode}") as socket:
        await eventually_async(lambda: node.manager.ring(pid, "out").watchers == reads)
        await write(socket, "1", b"ECHO\n")
        found = await read(socket)
        if writes:
            assert found.type in ("response", "message")
        else:
            body = json.loads(found.body)
            assert (found.type, found.id, body["error"], body["errno"]) == ("error", "1", "EPERM", 403)
            assert node.manager.ring(pid, "out").end == 0


@pytest.mark.row("STR-32")
@pytest.mark.parametrize(
    ("rest", "options", "errno", "error"),
    [
        ("/nope", {}, 404, "ENOENT"),
        ("/nope?mode=2", {}, 404, "ENOENT"),
        ("/out?mode=2", {}, 403, "EPERM"),
        ("/stdin?mode=1", {}, 403, "EPERM"),
        ("?mode=1", {"redirect_output": []}, 403, "EPERM"),
        ("?mode=2", {"redirect_input": False}, 403, "EPERM"),
        ("", {"redirect_output": [], "redirect_input": False}, 403, "EPERM"),
        ("?mode=0", {}, 400, "EINVAL"),
        ("?mode=x", {}, 400, "EINVAL"),
        ("?after=9", {}, 400, "EINVAL"),
        ("?tail=%ff", {}, 400, "EINVAL"),
    ],
)
async def test_what_cannot_be_opened_is_told_before_the_end(
    node: HttpNode, rest: str, options: dict[str, Any], errno: int, error: str
) -> None:
    pid = await run_script(node, "import time; time.sleep(1000)", **options)
    async with channel(node, pid, rest) as socket:
        id, body = await read_error(socket)
        assert (id, body["error"], body["errno"]) == ("gaffer_error", error, errno)
        assert body["message"]
        assert (await socket.closing()).code // 1000 == 4


@pytest.mark.row("STR-32")
async def test_an_unknown_process(node: HttpNode) -> None:
    async with channel(node, 99) as socket:
        assert (await read_error(socket))[1]["error"] == "ENOENT"
        assert (await socket.closing()).code == 4404


@pytest.mark.row("STR-31")
async def test_a_broken_frame_is_answered_and_harms_nothing(node: HttpNode) -> None:
    pid = await run_script(node)
    async with channel(node, pid) as socket:
        for message in ("", "hello", b"V2 message 1\0x", b"V1 message  1\0x"):
            await socket.send(message)
            id, body = await read_error(socket)
            assert (id, body["error"], body["errno"]) == ("gaffer_error", "EINVAL", 400)
        await socket.send(b"V1 response 5\0OK")
        assert (await read_error(socket))[0] == "5"
        await write(socket, "6", b"ECHO\n")
        assert (await read_all(socket, 5))[1] == b"ECHO\n"


@pytest.mark.row("STR-32")
async def test_it_ends_with_the_process(node: HttpNode) -> None:
    pid = await run_script(node, "input(); print('bye')")
    async with channel(node, pid) as socket, channel(node, pid, "?mode=2") as writer:
        await write(writer, "1", b"go\n")
        assert await read(writer) == Frame("response", "1", b"OK")
        assert (await read_all(socket, 4)) == ([], b"bye\n")
        assert (await socket.closing()).code == (await writer.closing()).code == 1000


@pytest.mark.row("STR-32")
async def test_a_process_that_closed_its_input_is_an_input_output_error(node: HttpNode) -> None:
    pid = await run_script(node, "import os, time\nos.close(0); print('deaf'); time.sleep(1000)")
    async with channel(node, pid, "?tail=1") as socket:
        assert (await read_all(socket, 4))[1][:4] == b"deaf"
        for number in range(1000):  # it is found out when something was written
            await write(socket, str(number), b"x")
            while (frame := await read(socket)).type == "message":
                pass
            if frame.type == "error":
                break
        body = json.loads(frame.body)
        assert (frame.id, body["error"], body["errno"]) == (str(number), "EIO", 500)


async def test_a_slow_reader_is_told_what_it_lost(node: HttpNode) -> None:
    pid = await run_script(node)
    ring = node.manager.ring(pid, "out")
    async with channel(node, pid, "?mode=1") as slow, channel(node, pid, "?mode=2") as writer:
        for number in range(80):
            await write(writer, str(number), b"z" * (1 << 18))
            await read(writer)
        await eventually_async(lambda: ring.end == 80 << 18)
        offset, lost = 0, 0
        while offset < ring.end:
            frame = await read(slow)
            if frame.type == "message":
                offset += len(frame.body)
                assert frame.id == str(ring.position(offset))
            else:
                body = json.loads(frame.body)
                assert (frame.id, body["error"], body["errno"]) == ("gaffer_error", "GAP", 410)
                assert body["from"] == offset < body["to"]
                lost += body["to"] - offset
                offset = body["to"]
        assert 0 < lost == ring.dropped


@pytest.mark.row("STR-32")
async def test_a_key_that_may_only_read_gets_an_error_for_each_write() -> None:
    keys = {"reader": Grant(frozenset({Scope.READ})), "writer": Grant(frozenset({Scope.READ, Scope.CONTROL}))}
    policy = make_policy(own_uid=os.getuid(), own_names=[], verify=keys.get)
    async with running_node(access=policy) as node:
        pid = await run_script(node)
        async with (
            channel(node, pid, **{"X-Api-Key": "reader"}) as reader,
            channel(node, pid, **{"X-Api-Key": "writer"}) as writer,
        ):
            for id in ("1", "2"):
                await write(reader, id, b"x")
                found, body = await read_error(reader)
                assert (found, body["error"], body["errno"]) == (id, "EPERM", 403)
            await write(writer, "3", b"ECHO\n")
            assert await read(reader) == Frame("message", position(node, pid, "out", 5), b"ECHO\n")


@pytest.fixture
async def guarded() -> AsyncIterator[HttpNode]:
    """A node that wants a key of everybody."""
    keys = {"all": Grant(frozenset(Scope)), "theirs": Grant(frozenset(Scope), frozenset({"theirs"}))}
    policy = make_policy(own_uid=os.getuid(), own_names=[], trust_local=False, verify=keys.get)
    async with running_node(access=policy) as node:
        echo = ProcessConfig("echo", PYTHON, args=["-c", ECHO], redirect_output=["out"], redirect_input=True)
        node.manager.load(echo)
        await eventually_async(lambda: node.manager.pids() == [1])
        yield node


@pytest.mark.row("STR-32")
async def test_a_key_can_come_in_the_first_frame(guarded: HttpNode) -> None:
    async with channel(guarded, 1) as socket:
        await write(socket, "1", b"AUTH:all")
        assert await read(socket) == Frame("response", "1", b"OK")
        await write(socket, "2", b"AUTH:all\n")
        others, output = await read_all(socket, 9)
        assert output == b"AUTH:all\n", "only the first frame is a key"
        assert others in ([], [Frame("response", "2", b"OK")])
    async with channel(guarded, 1, **{"X-Api-Key": "all"}) as socket:
        await write(socket, "1", b"AUTH:all")
        assert await read(socket) == Frame("response", "1", b"OK")


@pytest.mark.row("STR-32")
@pytest.mark.parametrize(
    ("first", "code", "error"),
    [
        (Frame("message", "1", b"AUTH:nope").encode(), 4401, "AUTH_REQUIRED"),
        (Frame("message", "1", b"AUTH:" + b"x" * 2000).encode(), 4401, "AUTH_REQUIRED"),
        (Frame("message", "1", b"ECHO\n").encode(), 4401, "AUTH_REQUIRED"),
        (b"no frame", 4401, "AUTH_REQUIRED"),
        (Frame("message", "1", b"AUTH:theirs").encode(), 4403, "EPERM"),
    ],
)
async def test_a_client_without_a_good_key_gets_nothing(guarded: HttpNode, first: bytes, code: int, error: str) -> None:
    for pid in (1, 999) if code == 4401 else (1,):  # nobody learns which processes there are
        async with channel(guarded, pid) as socket:
            await socket.send(first)
            id, body = await read_error(socket)
            assert (id, body["error"]) == ("gaffer_error", error)
            assert (await socket.closing()).code == code


async def test_a_known_client_that_shows_another_key_goes_on_with_that(guarded: HttpNode) -> None:
    async with channel(guarded, 1, **{"X-Api-Key": "all"}) as socket:
        await write(socket, "1", b"AUTH:theirs")
        assert (await read_error(socket))[1]["error"] == "EPERM"
        assert (await socket.closing()).code == 4403


async def test_a_client_that_never_sends_a_key_is_sent_away(guarded: HttpNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gaffer.api.process_socket.AUTH_TIMEOUT", 0.1)
    async with channel(guarded, 1) as socket:
        assert (await socket.closing()).code == 4401
