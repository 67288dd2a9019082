"""Clients that don't read: what they cost the node, and what they can't keep it from."""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator

import pytest
from tornado.iostream import IOStream

from gaffer.streams.rings import DEFAULT_LIMIT, READ_SIZE
from support.http_node import HttpNode, script
from support.poll import eventually_async

LINE = b"x" * 1023 + b"\n"
ECHO = "import os\nwhile data := os.read(0, 1 << 16): os.write(1, data)"
FLOOD = f"import os\ndata = {LINE!r} * 64\nwhile True: os.write(1, data)"
BURST = f"import os, time\nfor _ in range(64): os.write(1, {LINE!r} * 64)\ntime.sleep(1000)"


async def start(node: HttpNode, code: str) -> int:
    job = script("job", code, redirect_output=["out"])
    assert (await node.call("POST", "/jobs/default", job)).status == 200
    await eventually_async(lambda: node.manager.pids("job"))
    return node.manager.pids("job")[0]


class Lazy:
    """A client that asks and reads nothing, with room for little."""

    def __init__(self, node: HttpNode, path: str) -> None:
        host, _, port = node.address.removeprefix("http://").rpartition(":")
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect((host, int(port)))
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())


@pytest.fixture
async def lazy(node: HttpNode) -> AsyncIterator[list[Lazy]]:
    """Twenty clients of a process that writes all the time, which have taken what they can."""
    pid = await start(node, FLOOD)
    clients = [
        Lazy(node, f"/streams/{pid}/out?feed={kind}") for kind in ("continuous", "eventsource") for _ in range(10)
    ]
    ring = node.manager.ring(pid, "out")
    # Who waits for output is no stalled client.
    await eventually_async(lambda: len(waiting_to_write()) == len(clients) and not ring.watchers)
    yield clients
    for client in clients:
        client.socket.close()


def waiting_to_write() -> list[int]:
    """The bytes that wait on each connection that can't take them."""
    streams = [each for each in gc.get_objects() if isinstance(each, IOStream)]
    return [len(stream._write_buffer) for stream in streams if not stream.closed() and len(stream._write_buffer)]


async def test_one_piece_at_most_waits_for_each_and_the_process_for_none(node: HttpNode, lazy: list[Lazy]) -> None:
    ring = node.manager.ring(node.manager.pids("job")[0], "out")
    end = ring.end
    await eventually_async(lambda: ring.end > end + 16 * DEFAULT_LIMIT)
    assert len(waiting_to_write()) == len(lazy)
    assert max(waiting_to_write()) <= READ_SIZE + READ_SIZE // 64


async def test_who_reads_misses_nothing_because_of_them(node: HttpNode, lazy: list[Lazy]) -> None:
    job = script("echo", ECHO, redirect_output=["out"], redirect_input=True)
    assert (await node.call("POST", "/jobs/default", job)).status == 200
    await eventually_async(lambda: node.manager.pids("echo"))
    [pid] = node.manager.pids("echo")
    feed = await node.follow(f"/streams/{pid}/out?feed=continuous")
    sent = [b"%d %s" % (number, LINE) for number in range(100)]
    for line in sent:
        assert (await node.call("POST", f"/streams/{pid}/stdin", line)).status == 200
    assert await asyncio.wait_for(feed.read_until(sent[-1]), 20) == b"".join(sent)


async def test_a_node_stops_without_waiting_for_them(node: HttpNode, lazy: list[Lazy]) -> None:
    begin = asyncio.get_running_loop().time()
    await node.stop()
    assert asyncio.get_running_loop().time() - begin < 8
    assert waiting_to_write() == []


async def test_those_that_leave_are_forgotten(node: HttpNode, lazy: list[Lazy]) -> None:
    for client in lazy:
        client.socket.close()
    await eventually_async(lambda: waiting_to_write() == [])
    await node.call("DELETE", "/jobs/default/job")
    await eventually_async(lambda: not node.manager.running)
    assert node.handler._application is not None
    assert not node.handler._application.feeds


async def test_what_readers_lost_is_counted_for_longer_than_the_process_lives(node: HttpNode) -> None:
    pid = await start(node, BURST)
    ring = node.manager.ring(pid, "out")
    await eventually_async(lambda: ring.end == 64 * 64 * len(LINE))
    assert node.manager.dropped_bytes == 0, "nobody has lost what nobody wanted"
    for feed in ("continuous", "eventsource"):
        following = await node.follow(f"/streams/{pid}/out?after=1000&feed={feed}")
        await following.read_until(LINE)
    lost = 2 * (ring.start - 1000)
    assert node.manager.dropped_bytes == lost > 0
    await node.call("DELETE", "/jobs/default/job")
    await eventually_async(lambda: not node.manager.running)
    assert node.manager.dropped_bytes == lost
