"""Measure the effect of clients that do not read on the program, another client, and the memory of gafferd.

python bench/slow_clients.py [--clients 1000] [--rate 50] [--seconds 10] [--rounds 3]

A program writes at a steady rate to a client that reads, first alone, then together with clients that connect and never
read: a third each on the raw websocket, the channel and a continuous feed. The reading client uses each kind in turn.
"""

import argparse
import multiprocessing
import resource
import socket
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from _measure import Daemon, daemon, show, show_ratio

PRODUCER = """
import os, sys, time, zlib
rate, seconds, folder = float(sys.argv[1]) * 1e6, float(sys.argv[2]), sys.argv[3]
os.read(0, 1)
size, check, written = 65536, 0, 0
began = time.perf_counter()
while written < rate * seconds:
    block = (b"%015d\\n" % written) * (size // 16)
    check = zlib.crc32(block, check)
    while block:
        block = block[os.write(1, block):]
    written += size
    ahead = written / rate - (time.perf_counter() - began)
    if ahead > 0:
        time.sleep(ahead)
os.write(1, b"the end\\n")
check = zlib.crc32(b"the end\\n", check)
took = time.perf_counter() - began
with open(f"{folder}/result.new", "w") as file:
    file.write(f"{written / took / 1e6} {written + 8} {check}")
os.rename(f"{folder}/result.new", f"{folder}/result")
time.sleep(1000)
"""

MIB = 1024 * 1024
END = b"the end\n"
HANDSHAKE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@dataclass(frozen=True)
class Kind:
    """A way to follow output: path, headers, message to send, and a function that extracts the output."""

    name: str
    path: str
    headers: str = HANDSHAKE
    message: str = ""
    output: Callable[[Iterator[bytes]], Iterator[bytes]] = lambda pieces: pieces


def _chunks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the contents of HTTP chunks."""
    buffer = b""
    for piece in pieces:
        buffer += piece
        while (end := buffer.find(b"\r\n")) >= 0:
            size = int(buffer[:end], 16)
            if len(buffer) < end + 4 + size:
                break
            yield buffer[end + 2 : end + 2 + size]
            buffer = buffer[end + 4 + size :]


def _messages(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the payloads of websocket frames."""
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
        while len(buffer) >= 2:
            size, begin = buffer[1], 2
            if size == 126 and len(buffer) >= 4:
                (size,), begin = struct.unpack("!H", buffer[2:4]), 4
            elif size == 127 and len(buffer) >= 10:
                (size,), begin = struct.unpack("!Q", buffer[2:10]), 10
            if (size in (126, 127) and begin == 2) or len(buffer) < begin + size:
                break
            if buffer[0] & 0x0F in (1, 2):
                yield bytes(buffer[begin : begin + size])
            del buffer[: begin + size]


def _bodies(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the output in frames of version 1."""
    for message in _messages(pieces):
        head, _, body = message.partition(b"\0")
        if head.startswith(b"V1 message"):
            yield body


def _texts(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the output in messages of the channel."""
    for message in _messages(pieces):
        data = msgspec.json.decode(message)["data"]
        if data.get("event") == "out":
            yield data["data"].encode()


KINDS = (
    Kind("raw websocket", "/wstreams/{pid}", output=_messages),
    Kind(
        "channel",
        "/channel/websocket",
        message='{{"event": "SUB", "data": {{"topic": "STREAM:{pid}.out"}}}}',
        output=_texts,
    ),
    Kind("continuous feed", "/streams/{pid}/out?feed=continuous", headers="", output=_chunks),
    Kind("framed websocket", "/{pid}/channel?mode=1", output=_bodies),
)


def connect(url: str, pid: int, kind: Kind) -> socket.socket:
    """Open a connection that follows the output."""
    address = urlsplit(url)
    connection = socket.create_connection((address.hostname, address.port))
    path, message = kind.path.format(pid=pid), kind.message.format(pid=pid).encode()
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{kind.headers}\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    if message:
        connection.sendall(struct.pack("!BB4x", 0x81, 0x80 | len(message)) + message)
    return connection


class Reader:
    """A client that reads, in a separate process."""

    def __init__(self, url: str, pid: int, kind: Kind) -> None:
        self.kind = kind
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.Process(target=_read, args=(url, pid, kind, theirs), daemon=True)
        self._process.start()
        self._pipe.recv()

    def result(self) -> tuple[int, int]:
        """Return the total bytes received, and their checksum."""
        if not self._pipe.poll(30):
            self._process.terminate()
            return 0, 0
        received, check = self._pipe.recv()
        self._process.join()
        return received, check


def _read(url: str, pid: int, kind: Kind, pipe: Connection) -> None:
    connection = connect(url, pid, kind)
    pipe.send(None)
    received = check = 0
    tail = b""
    for output in kind.output(iter(lambda: connection.recv(1 << 18), b"")):
        received += len(output)
        check = zlib.crc32(output, check)
        tail = (tail + output)[-len(END) :]
        if tail == END:
            break
    pipe.send((received, check))


@dataclass(frozen=True)
class Run:
    """Results of a run: MB/s of the program, peak growth of gafferd's memory and of the system's socket buffers in MiB,
    and the share of the output that each kind of reader received (1 only if identical).
    """

    speed: float
    memory: float
    buffers: float
    shares: dict[str, float]


def run(clients: int, readers: Sequence[Kind], rate: float, seconds: float) -> Run:
    """Run the program with `clients` clients that do not read and one reader of each kind in `readers`."""
    with tempfile.TemporaryDirectory() as folder, daemon("gafferd") as node:
        job = {"name": "producer", "cmd": sys.executable, "args": ["-c", PRODUCER, str(rate), str(seconds), folder]}
        node.call("POST", "/jobs/default", {**job, "redirect_output": ["out"], "redirect_input": True})
        while not (pids := node.call("GET", "/pids")["pids"]):
            time.sleep(0.05)
        memory, buffers = _memory(node), _socket_buffers()
        pipe, theirs = multiprocessing.Pipe()
        crowd = multiprocessing.Process(target=_crowd, args=(node.url, pids[0], clients, theirs), daemon=True)
        crowd.start()
        pipe.recv()
        following = [Reader(node.url, pids[0], kind) for kind in readers]
        node.call("POST", f"/streams/{pids[0]}/stdin", "go")
        while not (result := Path(folder, "result")).exists():
            buffers_now = _socket_buffers()
            time.sleep(0.1)
        speed, written, check = result.read_text().split()
        shares = {}
        for reader in following:
            received, its_check = reader.result()
            same = (received, its_check) == (int(written), int(check))
            shares[reader.kind.name] = 1.0 if same else min(received / int(written), 0.999)
        crowd.terminate()
        return Run(float(speed), _memory(node, "VmHWM") - memory, buffers_now - buffers, shares)


def _crowd(url: str, pid: int, count: int, pipe: Connection) -> None:
    """Connect clients that do not read, and keep the connections open."""
    connections = [connect(url, pid, KINDS[number % 3]) for number in range(count)]
    pipe.send(len(connections))
    time.sleep(1000)


def _memory(node: Daemon, field: str = "VmRSS") -> float:
    text = Path(f"/proc/{node.process.pid}/status").read_text()
    return int(text.split(f"{field}:")[1].split()[0]) / 1024


def _socket_buffers() -> float:
    """Return the MiB of TCP socket buffers on this host."""
    text = Path("/proc/net/sockstat").read_text()
    return int(text.split("TCP:")[1].split("mem")[1].split()[0]) * resource.getpagesize() / MIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=50, help="MB/s of the program")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 2 * chosen.clients + 500), hard), hard))

    for kind in KINDS:
        alone, beside = [], []
        for _ in range(chosen.rounds):
            alone.append(run(0, [kind], chosen.rate, chosen.seconds))
            beside.append(run(chosen.clients, [kind], chosen.rate, chosen.seconds))
        print(f"{chosen.clients} clients that do not read, one {kind.name} that does:")
        show("  the program, with the reader only", [each.speed for each in alone], "MB/s", 1)
        show("  the program", [each.speed for each in beside], "MB/s", 1)
        show_ratio("  ratio", [each.speed for each in beside], [each.speed for each in alone])
        show("  the reader's share, with the reader only", [each.shares[kind.name] for each in alone], "", 1)
        show("  the reader's share", [each.shares[kind.name] for each in beside], "", 1)
        show("  growth of gafferd's memory", [each.memory for each in beside], "MiB", 1)
        show("  growth of socket buffers", [each.buffers for each in beside], "MiB", 1)


if __name__ == "__main__":
    main()
