"""The raw websocket of a process: R-80, STR-20 to STR-24."""

import asyncio
import hashlib
import json
import os
import re
import sys
from pathlib import Path

import pytest

from gaffer.http.access import Grant, Scope, make_policy
from support.http_node import ECHO, HttpNode, run_script, running_node
from support.poll import eventually_async
from support.websocket import CLOSE, HANDSHAKE, PING, Closed, WebSocket, connected

MIB = 1024 * 1024
PAGE = Path(__file__).parents[3] / "docs" / "websockets.md"


@pytest.mark.row("STR-20", "R-80")
@pytest.mark.parametrize("message", ["ECHO\n", b"ECHO\n", b"\xff\x00\n"])
async def test_what_is_sent_goes_to_stdin_and_stdout_comes_back_once(node: HttpNode, message: str | bytes) -> None:
    pid = await run_script(node)
    async with connected(node.address, f"/wstreams/{pid}") as socket:
        for _ in range(2):
            await socket.send(message)
            expected = message if message == b"\xff\x00\n" else "ECHO\n"
            assert await socket.receive() == expected
        await node.call("POST", f"/streams/{pid}/stdin", b"over http\n")
        assert await socket.receive() == "over http\n"


@pytest.mark.row("STR-20")
async def test_the_program_in_the_documentation(node: HttpNode) -> None:
    pid = await run_script(node)
    [program] = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    address = node.address.removeprefix("http://")
    program = program.replace("127.0.0.1:5000/wstreams/1", f"{address}/wstreams/{pid}")
    done = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-c", program, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await asyncio.wait_for(done.communicate(), 20)
    assert output == b"ECHO\n"
    assert done.returncode == 0


@pytest.mark.row("STR-21")
async def test_several_clients_read_and_write(node: HttpNode) -> None:
    pid = await run_script(node)
    path = f"/wstreams/{pid}"
    async with connected(node.address, path) as one, connected(node.address, path) as other:
        await one.send("one\n")
        assert await one.receive() == await other.receive() == "one\n"
        await other.send("other\n")
        assert await one.receive() == await other.receive() == "other\n"


@pytest.mark.row("STR-24")
async def test_stderr_joins_stdout_under_one_label(node: HttpNode) -> None:
    pid = await run_script(node, ECHO.replace("write(1", "write(2"), redirect_output=["all", "all"])
    async with connected(node.address, f"/wstreams/{pid}") as socket:
        await socket.send("oops\n")
        assert await socket.receive() == "oops\n"


@pytest.mark.parametrize(
    ("query", "expected"),
    [("", b""), ("?tail=1", b"three\n"), ("?tail=5b", b"hree\n"), ("?after=4", b"two\nthree\n"), ("?tail=0", b"")],
)
async def test_output_can_begin_earlier(node: HttpNode, query: str, expected: bytes) -> None:
    pid = await run_script(node)
    async with connected(node.address, f"/wstreams/{pid}") as first:
        await first.send("one\ntwo\nthree\n")
        await first.receive_until(b"three\n")
        async with connected(node.address, f"/wstreams/{pid}{query}") as socket:
            await first.send("new\n")
            assert await socket.receive_until(b"new\n") == expected + b"new\n"


@pytest.mark.row("STR-22")
@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/wstreams/abc", 400, "bad_value"),
        ("/wstreams/-1", 400, "bad_value"),
        ("/wstreams/999", 404, "not_found"),
        ("/wstreams/99999999999999999999", 404, "not_found"),
        ("/wstreams/{pid}?after=99", 400, "bad_value"),
        ("/wstreams/{pid}?tail=x", 400, "bad_value"),
        ("/wstreams/{pid}?after=1&tail=1", 400, "bad_value"),
        ("/wstreams/{pid}?tail=%ff", 400, "bad_request"),
    ],
)
async def test_an_error_is_told_as_json_before_the_end(node: HttpNode, path: str, status: int, error: str) -> None:
    pid = await run_script(node)
    async with connected(node.address, path.format(pid=pid)) as socket:
        told = await socket.receive_json()
        assert (told["error"], told["errno"]) == (error, status)
        assert set(told) == {"error", "errno", "message", "path", "hint"}
        closed = await socket.closing()
        assert (closed.code, closed.reason) == (4000 + status, error)


@pytest.mark.row("STR-22")
async def test_without_input_it_can_be_read_and_says_that_it_cannot_be_written(node: HttpNode) -> None:
    pid = await run_script(
        node, "import os, time\nwhile True: os.write(1, b'tick'); time.sleep(0.05)", redirect_input=False
    )
    async with connected(node.address, f"/wstreams/{pid}") as socket:
        assert await socket.receive() == "tick"
        await socket.send("x")
        while (message := await socket.receive()) == "tick":
            pass
        assert json.loads(message)["error"] == "forbidden_write"
        assert await socket.receive() == "tick"


async def test_without_output_it_can_be_written(node: HttpNode) -> None:
    pid = await run_script(node, "input(); raise SystemExit", redirect_output=[], numprocesses=1)
    async with connected(node.address, f"/wstreams/{pid}") as socket:
        await socket.send("go\n")
        assert (await socket.closing()).code == 1000


@pytest.mark.row("STR-22")
async def test_with_neither_it_says_so_and_closes(node: HttpNode) -> None:
    pid = await run_script(node, "import time; time.sleep(1000)", redirect_output=[], redirect_input=False)
    async with connected(node.address, f"/wstreams/{pid}") as socket:
        assert (await socket.receive_json())["error"] == "forbidden_write"
        assert (await socket.closing()).code == 4403


async def test_it_ends_with_the_process_after_the_last_output(node: HttpNode) -> None:
    pid = await run_script(node, "import sys\ninput()\nsys.stdout.write('x' * 150_000 + 'end')")
    async with connected(node.address, f"/wstreams/{pid}") as socket:
        await socket.send("go\n")
        assert await socket.receive_until(b"end") == b"x" * 150_000 + b"end"
        with pytest.raises(Closed, match="1000 the process has exited"):
            await socket.receive()


async def test_it_stays_open_for_writing_when_the_process_has_closed_its_output(node: HttpNode) -> None:
    pid = await run_script(node, "import os\nos.close(1); os.close(2)\ninput()")
    async with connected(node.address, f"/wstreams/{pid}") as socket:
        await eventually_async(lambda: node.manager.ring(pid, "out").closed)
        await socket.send_frame(PING)
        await socket.send("go\n")
        assert (await socket.closing()).code == 1000


async def test_it_ends_well_when_the_node_stops(node: HttpNode) -> None:
    pid = await run_script(node)
    async with connected(node.address, f"/wstreams/{pid}") as socket:
        await socket.send("last words\n")
        await socket.receive_until(b"last words\n")
        stopping = asyncio.create_task(node.stop())
        assert (await socket.closing()).code in (1000, 1001)
        await stopping


async def test_a_client_that_is_gone_is_forgotten(node: HttpNode) -> None:
    pid = await run_script(node)
    ring = node.manager.ring(pid, "out")
    async with connected(node.address, f"/wstreams/{pid}"), connected(node.address, f"/wstreams/{pid}") as polite:
        await eventually_async(lambda: ring.watchers == 2)
        await polite.send_frame(CLOSE, b"\x03\xe8")
        await eventually_async(lambda: ring.watchers == 1)
    await eventually_async(lambda: ring.watchers == 0)


async def test_a_reader_that_does_not_read_costs_the_others_nothing(node: HttpNode) -> None:
    pid = await run_script(node)
    path = f"/wstreams/{pid}"
    async with connected(node.address, path) as lazy, connected(node.address, path) as keen:
        for _ in range(20):
            await keen.send(b"z" * (MIB - 1) + b"\n")
            await keen.receive_until(b"\n")
        assert await lazy.receive()


async def test_a_process_gets_all_however_much_faster_it_is_sent_than_read(node: HttpNode) -> None:
    code = """
import hashlib, os, sys, time
found, size = hashlib.sha256(), 0
while size < 40 << 20:
    data = os.read(0, 1 << 20)
    found.update(data); size += len(data)
    time.sleep(0.0005)
print(found.hexdigest())
"""
    pid = await run_script(node, code)
    data = [os.urandom(MIB) for _ in range(40)]
    async with connected(node.address, f"/wstreams/{pid}") as socket:
        for piece in data:
            await socket.send(piece)
        assert await socket.receive_until(b"\n") == hashlib.sha256(b"".join(data)).hexdigest().encode() + b"\n"


async def test_what_waits_for_a_process_that_does_not_read_is_bounded(node: HttpNode) -> None:
    pid = await run_script(node, "import time; time.sleep(1000)")
    pipe = node.manager.get_process(pid).streams["stdin"].input
    assert pipe is not None
    async with connected(node.address, f"/wstreams/{pid}") as one, connected(node.address, f"/wstreams/{pid}") as other:
        sending = [asyncio.create_task(_send_for_ever(socket)) for socket in (one, other)]
        await eventually_async(lambda: pipe.waiting > MIB // 4)
        for _ in range(20):
            assert pipe.waiting <= MIB
            await node.call("GET", "/ping")
        for task in sending:
            task.cancel()


async def _send_for_ever(socket: WebSocket) -> None:
    while True:
        await socket.send(b"x" * (MIB // 2))


async def test_a_message_that_is_too_large_ends_the_connection(node: HttpNode) -> None:
    pid = await run_script(node)
    async with connected(node.address, f"/wstreams/{pid}") as socket:
        await socket.send(b"x" * (MIB + 1))
        assert (await socket.closing()).code in (1009, 1006)  # it may be gone before the client reads why


async def test_a_client_that_answers_no_ping_is_given_up() -> None:
    async with running_node(websocket_ping_interval=0.05, websocket_ping_timeout=0.2) as node:
        pid = await run_script(node)
        path = f"/wstreams/{pid}"
        async with connected(node.address, path) as alive, connected(node.address, path, answers_pings=False) as dead:
            told = asyncio.create_task(alive.receive())
            assert (await dead.closing()).code == 4408
            await eventually_async(lambda: alive.pings > 6)
            await alive.send("ECHO\n")
            assert await told == "ECHO\n"


async def test_a_client_is_not_given_up_while_the_process_keeps_it_waiting() -> None:
    code = "import sys, time\ntime.sleep(0.5)\nsys.stdin.buffer.read(3 << 19); print('done')"
    async with running_node(websocket_ping_interval=0.02, websocket_ping_timeout=0.1) as node:
        pid = await run_script(node, code)
        async with connected(node.address, f"/wstreams/{pid}") as socket:
            for _ in range(3):
                await socket.send(b"x" * (MIB // 2))
            assert await socket.receive_until(b"\n") == b"done\n"


@pytest.mark.parametrize(
    ("header", "value", "status", "error"),
    [
        ("Upgrade", "", 426, "upgrade_required"),
        ("Upgrade", "h2c", 426, "upgrade_required"),
        ("Connection", "keep-alive", 426, "upgrade_required"),
        ("Sec-WebSocket-Version", "8", 426, "upgrade_required"),
        ("Sec-WebSocket-Key", "", 400, "bad_request"),
    ],
)
async def test_a_handshake_that_is_none(node: HttpNode, header: str, value: str, status: int, error: str) -> None:
    pid = await run_script(node)
    answer = await node.call("GET", f"/wstreams/{pid}", headers={**HANDSHAKE, header: value})
    assert (answer.status, answer.error) == (status, error)
    if status == 426:
        assert (answer.headers["upgrade"], answer.headers["sec-websocket-version"]) == ("websocket", "13")


async def test_it_is_only_for_websockets(node: HttpNode) -> None:
    pid = await run_script(node)
    assert (await node.call("GET", f"/wstreams/{pid}")).status == 426
    assert (await node.call("HEAD", f"/wstreams/{pid}", headers=HANDSHAKE)).status == 426


KEYS = {
    "reader": Grant(frozenset({Scope.READ})),
    "other": Grant(frozenset(Scope), frozenset({"other"})),
    "session": Grant(frozenset(Scope), frozenset({"default"})),
}


async def test_writing_needs_a_key_for_it() -> None:
    policy = make_policy(own_uid=os.getuid(), own_names=[], verify=KEYS.get)
    async with running_node(access=policy) as node:
        pid = await run_script(node)
        path = f"/wstreams/{pid}"
        async with (
            connected(node.address, path, {"X-Api-Key": "reader"}) as reader,
            connected(node.address, path, {"X-Api-Key": "session"}) as writer,
        ):
            await reader.send("x")
            assert (await reader.receive_json())["error"] == "forbidden"
            await writer.send("ECHO\n")
            assert await reader.receive() == await writer.receive() == "ECHO\n"
        for key, status in (("other", 403), ("unknown", 401)):
            answer = await node.call("GET", path, headers={"X-Api-Key": key})
            assert answer.status == status
