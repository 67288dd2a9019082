"""A crowd of clients that don't read: gafferd's memory, the program, and a client that does read."""

import json
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from support.daemons import Daemon, gafferd
from support.http_node import script
from support.poll import eventually
from support.websocket import HANDSHAKE, connected

CLIENTS = 240
ROUNDS, BLOCK = 150, 200_000

# Writes a block for each byte it reads, so that the reader sets the pace.
PRODUCER = f"""
import os
for number in range({ROUNDS}):
    os.read(0, 1)
    block = (b"%09d\\n" % number) * {BLOCK // 10}
    while block:
        block = block[os.write(1, block):]
os.read(0, 1)
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Daemon]:
    with gafferd(state_dir=tmp_path) as node:
        yield node


def follow(node: Daemon, number: int, pid: int) -> socket.socket:
    """Begin to follow the output in one of three ways, and read none of it."""
    path = (f"/wstreams/{pid}", "/channel/websocket", f"/streams/{pid}/out?feed=continuous")[number % 3]
    headers = {"Host": "localhost", **(HANDSHAKE if number % 3 < 2 else {})}
    connection = socket.create_connection(("127.0.0.1", node.port))
    head = f"GET {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    connection.sendall(head.encode() + b"\r\n")
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += connection.recv(1)
    if number % 3 == 1:
        message = json.dumps({"event": "SUB", "data": {"topic": f"STREAM:{pid}"}}).encode()
        connection.sendall(struct.pack("!BB4x", 0x81, 0x80 | len(message)) + message)
    return connection


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


@pytest.fixture
def pid(node: Daemon) -> int:
    """The process that writes."""
    job = script("job", PRODUCER, redirect_output=["out"], redirect_input=True)
    assert requests.post(f"{node.url}/jobs/default", json=job).ok
    pids: list[int] = eventually(lambda: requests.get(f"{node.url}/pids").json()["pids"])
    return pids[0]


async def test_it_costs_little_memory_and_nobody_else_anything(node: Daemon, pid: int) -> None:
    before = resident(node.pid)
    with ExitStack() as crowd:
        for number in range(CLIENTS):
            crowd.enter_context(follow(node, number, pid))
        async with connected(node.url, f"/wstreams/{pid}") as reader:
            for number in range(ROUNDS):
                await reader.send("x")
                line = b"%09d\n" % number
                assert await reader.receive_size(BLOCK) == line * (BLOCK // 10)
            assert resident(node.pid) - before < CLIENTS * 256 * 1024
