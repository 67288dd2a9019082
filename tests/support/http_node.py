"""A manager with its HTTP API on the test's own loop, and a client that talks to it over real sockets."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from gaffer import Manager
from gaffer.http_handler import HttpEndpoint, HttpHandler
from support.poll import eventually_async

PYTHON = sys.executable


@dataclass
class Answer:
    """A response, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The code in an error body, which must be one."""
        body = self.json
        assert set(body) >= {"error", "errno", "message", "path", "hint"}, body
        assert body["errno"] == self.status
        code: str = body["error"]
        return code


@dataclass
class Exchange:
    """A request under way: the response's head is read, its body is still to come."""

    status: int
    headers: dict[str, str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    _left: bytes = field(default=b"", repr=False)

    async def read_some(self) -> bytes:
        """The next chunk of the body; empty at its end."""
        if self.headers.get("transfer-encoding") == "chunked":
            size = int((await self.reader.readline()).strip() or b"0", 16)
            data = await self.reader.readexactly(size)
            await self.reader.readexactly(2)
            return data
        length = int(self.headers.get("content-length", "0"))
        self.headers["content-length"] = "0"
        return await self.reader.readexactly(length)

    async def read_until(self, part: bytes) -> bytes:
        """The body up to where `part` has come, and all that came with it."""
        while part not in self._left:
            more = await self.read_some()
            assert more, f"the body ended without {part!r}: {self._left!r}"
            self._left += more
        return self._left

    async def read_all(self) -> bytes:
        while more := await self.read_some():
            self._left += more
        return self._left

    def close(self) -> None:
        self.writer.close()


async def open_exchange(
    address: str,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Exchange:
    """Send a request to `http://host:port` or `unix:/path` and read the head of the response."""
    if address.startswith("unix:"):
        reader, writer = await asyncio.open_unix_connection(address.removeprefix("unix:"))
        host = "localhost"
    else:
        host = address.removeprefix("http://")
        name, _, port = host.rpartition(":")
        reader, writer = await asyncio.open_connection(name.strip("[]"), int(port))
    lines = {"Host": host, **(headers or {})}
    if body is not None:
        lines.setdefault("Content-Length", str(len(body)))
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items() if v) + "\r\n"
    try:
        writer.write(head.encode() + (body or b""))
        status = int((await reader.readline()).split()[1])
        found = {}
        while (line := await reader.readline()) != b"\r\n":
            name, _, value = line.decode().partition(":")
            found[name.lower()] = value.strip()
    except BaseException:
        writer.close()
        raise
    return Exchange(status, found, reader, writer)


@dataclass
class HttpNode:
    """A running manager with its API."""

    manager: Manager
    handler: HttpHandler
    _followed: list[Exchange] = field(default_factory=list)

    @property
    def address(self) -> str:
        return self.handler.addresses[0]

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        address: str | None = None,
    ) -> Answer:
        """One request; a body that is not bytes is sent as JSON. `headers` with an empty value are left out."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        async with asyncio.timeout(20):
            exchange = await open_exchange(address or self.address, method, path, data, headers)
            try:
                content = b"" if method == "HEAD" or exchange.status == 204 else await exchange.read_all()
            finally:
                exchange.close()
        return Answer(exchange.status, exchange.headers, content)

    async def follow(self, path: str, headers: Mapping[str, str] | None = None) -> Exchange:
        """A GET whose body comes bit by bit; closed with the node at the latest."""
        exchange = await open_exchange(self.address, "GET", path, None, headers)
        self._followed.append(exchange)
        return exchange

    async def stop(self) -> None:
        self.manager.stop(now=True)
        await eventually_async(lambda: not self.manager.started, message="the manager did not stop")

    def close_followed(self) -> None:
        for exchange in self._followed:
            exchange.close()


@asynccontextmanager
async def running_node(
    endpoint: HttpEndpoint | None = None,
    apps: Sequence[Any] = (),
    *,
    of_manager: Mapping[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[HttpNode]:
    """A node with further applications, on a free port unless an endpoint is given.

    `settings` go to HttpHandler, `of_manager` to Manager.
    """
    handler = HttpHandler([endpoint or HttpEndpoint("127.0.0.1:0")], **settings)
    manager = Manager(asyncio.get_running_loop(), **(of_manager or {}))
    manager.start([handler, *apps])
    node = HttpNode(manager, handler)
    try:
        yield node
    finally:
        node.close_followed()
        await node.stop()


def sleeper(name: str = "sleeper", **settings: Any) -> dict[str, Any]:
    """The description of a job that only waits."""
    return {"name": name, "cmd": "sleep 1000", **settings}


def script(name: str, code: str, **settings: Any) -> dict[str, Any]:
    """The description of a job that runs a piece of Python."""
    return {
        "name": name,
        "cmd": PYTHON,
        "args": ["-u", "-c", code],
        "env": {"PATH": os.environ["PATH"]},
        **settings,
    }


ECHO = "import os\nwhile data := os.read(0, 1 << 16): os.write(1, data)"


async def run_script(node: HttpNode, code: str = ECHO, **settings: Any) -> int:
    """Run a piece of Python as the job `job`, stdin and both outputs redirected; returns its pid."""
    job = script("job", code, **{"redirect_output": ["out", "err"], "redirect_input": True, **settings})
    assert (await node.call("POST", "/jobs/default", job)).status == 200

    async def pids() -> list[int]:
        found: list[int] = (await node.call("GET", "/jobs/default/job/pids")).json["pids"]
        return found

    return (await eventually_async(pids))[0]
