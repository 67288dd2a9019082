"""Another user of this host gets nothing done over loopback, however fast it leaves."""

import asyncio
import os
import time
from typing import Any

import pytest

from gaffer.http.limits import Limits
from gaffer.http_handler import HttpEndpoint
from support.http_node import HttpNode, running_node, sleeper
from support.needs import needs_root
from support.poll import eventually_async
from support.strangers import stranger

pytestmark = needs_root

CALLS = 10_000
MANY_CALLS = int(os.environ.get("GAFFER_TEST_CALLS", "100000"))
CALLERS = 4

# Sends a whole POST and is gone: what is left of its socket belongs to uid 0 for the kernel. Each caller has its own
# address, to have enough ports, and tries again when the node accepts more slowly than it comes.
SEND_AND_CLOSE = """
host, port, caller, calls = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
body = b'{"name": "evil", "cmd": "true"}'
head = "POST /jobs/default HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body)
timeout = 60  # seconds in which the node accepts nothing
while calls:
    with socket.socket() as s:
        s.bind(("127.0.0.%d" % (100 + caller), 0))
        s.settimeout(1)
        try:
            s.connect((host, port))
        except TimeoutError:
            timeout -= 1
            assert timeout
            continue
        s.sendall(head.encode() + body)
        calls -= 1
"""

CALL = """
host, port, method, path, header = sys.argv[1:]
lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Content-Length: 0", "Connection: close", header]
with socket.socket() as s:
    s.connect((host, int(port)))
    s.sendall("".join(line + "\\r\\n" for line in lines if line).encode() + b"\\r\\n")
    answer = b""
    while more := s.recv(65536):
        answer += more
print(answer.split(b" ")[1].decode())
"""


@pytest.mark.parametrize(
    "calls",
    [
        pytest.param(CALLS, marks=pytest.mark.timeout(180)),
        pytest.param(MANY_CALLS, marks=[pytest.mark.faults, pytest.mark.timeout(1800)]),
    ],
)
async def test_posts_of_a_stranger_that_leaves_at_once(calls: int) -> None:
    """GAFFER_TEST_CALLS sets how many the long variant makes."""
    seen: dict[int, int] = {}

    def count(handler: Any) -> None:
        seen[handler.get_status()] = seen.get(handler.get_status(), 0) + 1

    limits = Limits(max_strangers=None)  # each is answered, and none displaced
    async with _node(log_function=count, limits=limits) as node, asyncio.TaskGroup() as tasks:
        load = tasks.create_task(_keep_busy())
        honest = tasks.create_task(_call_all_the_time(node))
        host, port = _host_and_port(node)
        with (
            stranger(SEND_AND_CLOSE, host, port, 0, calls // CALLERS),
            stranger(SEND_AND_CLOSE, host, port, 1, calls // CALLERS),
            stranger(SEND_AND_CLOSE, host, port, 2, calls // CALLERS),
            stranger(SEND_AND_CLOSE, host, port, 3, calls // CALLERS),
        ):
            await eventually_async(
                lambda: seen.get(401, 0) == calls or node.manager.jobs(),
                0.015 * calls,
                message="all calls of the strangers are answered",
            )
        print(f"{calls} posts of another user: {seen.get(401, 0)} refused, {len(node.manager.jobs())} accepted")
        load.cancel()
        honest.cancel()
        assert node.manager.jobs() == []
        assert set(seen) == {200, 401}
        assert (await node.call("POST", "/jobs/default", sleeper(start=False))).status == 200


@pytest.mark.parametrize(
    ("method", "path", "header", "status"),
    [
        ("GET", "/jobs", "", 401),
        ("POST", "/jobs/default", "", 401),
        ("DELETE", "/jobs/default/web", "", 401),
        ("GET", "/streams/1/out", "", 401),
        ("GET", "/nope", "", 401),
        ("GET", "/ping", "", 200),
        ("HEAD", "/ping", "", 200),
        ("GET", "/jobs", "X-Api-Key: wrong", 401),
    ],
)
async def test_a_stranger_that_stays_gets_only_ping(method: str, path: str, header: str, status: int) -> None:
    async with _node() as node:
        with stranger(CALL, *_host_and_port(node), method, path, header) as caller:
            output, _ = await asyncio.to_thread(caller.communicate)
    assert output.strip() == str(status)


async def _keep_busy() -> None:
    """Block the loop for as long as one batch of spawns may, so that callers are gone when they are looked at."""
    while True:
        time.sleep(0.02)  # noqa: ASYNC251
        await asyncio.sleep(0.02)


async def _call_all_the_time(node: HttpNode) -> None:
    while True:
        answer = await node.call("GET", "/jobs")
        assert answer.status == 200, answer.body


def _node(**settings: Any) -> Any:
    return running_node(endpoint=HttpEndpoint("127.0.0.1:0", backlog=4096), **settings)


def _host_and_port(node: HttpNode) -> tuple[str, str]:
    host, _, port = node.address.removeprefix("http://").rpartition(":")
    return host, port
