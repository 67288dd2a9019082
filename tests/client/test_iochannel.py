"""The input and output of a process over one websocket, on a real gafferd."""

import random
import re
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gaffer.schemas.frames import Frame
from gaffer_client import IOChannel, Process, Server, errors, iochannel
from support.cutting import cutting_proxy
from support.daemons import gafferd
from support.poll import eventually
from support.scripted import answer, scripted_server
from support.scripted_socket import BINARY, Peer, close_frame, frame, websocket

Run = Callable[..., Process]


@pytest.fixture(scope="module")
def urls() -> Iterator[list[str]]:
    with gafferd() as node:
        yield eventually(lambda: len(node.urls) == 2 and node.urls)


@pytest.fixture
def server(urls: list[str]) -> Iterator[Server]:
    with Server(urls[0]) as server:
        yield server
        for name in server.jobs():
            server.unload(name)


@pytest.fixture
def run(server: Server) -> Run:
    """Run a program, and give its process."""

    def run(cmd: str, *args: str, **settings: Any) -> Process:
        described = {"redirect_input": True, "redirect_output": ["out", "err"], **settings}
        job = server.load({"name": "it", "cmd": cmd, "args": list(args), **described})
        [pid] = eventually(lambda: job.pids)
        return server.get_process(pid)

    return run


def read(channel: IOChannel, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = channel.read(10)
        assert more, data
        data += more
    return data


@pytest.mark.row("STR-34", "STR-30", "STR-31")
def test_an_echo(run: Run) -> None:
    with run("cat").socket() as channel:
        channel.write("ECHO\n")
        assert read(channel, 5) == b"ECHO\n"
        channel.write(b"\0\xff NUL\n")
        assert read(channel, 7) == b"\0\xff NUL\n"
        assert channel.offset is not None
        assert re.fullmatch("[0-9a-f]+:12", channel.offset)
        assert channel.lost == 0


def test_an_echo_over_a_connection_that_is_cut_again_and_again(run: Run, urls: list[str]) -> None:
    rng = random.Random(3)
    [url] = [url for url in urls if url.startswith("http:")]
    sent = b"".join(b"%d\n" % number for number in range(200_000))
    process = run("cat")
    with cutting_proxy(url) as proxy, Server(proxy.url) as server:
        with server.get_process(process.pid).socket(reconnect=20.0) as channel:
            done = threading.Event()
            room = threading.Semaphore(20)  # the node keeps 256 KiB for a reader that was cut off

            def write() -> None:
                at = 0
                while at < len(sent):
                    assert room.acquire(timeout=20)
                    piece = sent[at : at + rng.choice((1, 100, 5000))]
                    channel.write(piece, 20)
                    at += len(piece)
                done.set()

            def cut() -> None:
                while not done.wait(random.uniform(0.001, 0.03)):
                    proxy.cut()

            threads = [threading.Thread(target=write), threading.Thread(target=cut)]
            for thread in threads:
                thread.start()
            try:
                found = b""
                while len(found) < len(sent) and (data := channel.read(20)):
                    found += data
                    room.release(1 + len(data) // 5000)
                assert channel.lost == 0
                assert found == sent
            finally:
                done.set()
                for thread in threads:
                    thread.join()
        assert proxy.cuts >= 10


def test_what_is_not_known_of_a_write_on_a_lost_connection_is_an_error(run: Run, urls: list[str]) -> None:
    [url] = [url for url in urls if url.startswith("http:")]
    process = run("cat")
    with (
        cutting_proxy(url) as proxy,
        Server(proxy.url) as server,
        process.socket() as other,
        server.get_process(process.pid).socket(reconnect=20.0) as channel,
    ):
        done = threading.Event()

        def write() -> None:
            while True:  # until a cut comes between a write and its response
                channel.write("x", 20)

        def disturb() -> None:
            while not done.wait(0.003):
                other.write("y")
                proxy.cut()
                other.write("y")

        thread = threading.Thread(target=disturb)
        thread.start()
        try:
            with pytest.raises(errors.Unreachable, match="other clients"):
                write()
        finally:
            done.set()
            thread.join()


def test_a_connection_that_is_lost_before_any_output_begins_where_the_first_did() -> None:
    def script(peer: Peer) -> None:
        output = Frame("message", "e:0"), Frame("message", "e:5", b"hello")
        peer.send(*(frame(BINARY, each.encode()) for each in output), close_frame(1000, "the process has exited"))

    described = answer(200, '{"os_pid": 7}')
    plays = described, lambda visit: None, websocket(lambda peer: None), websocket(script), described
    with scripted_server(*plays) as server, Server(server.url) as node:
        with IOChannel(node.transport, 1, tail="4096b", reconnect=20.0) as channel:
            assert b"".join(channel) == b"hello"
        assert ["tail=4096b" in visit.path for visit in server.visits] == [False, True, True, True, False]


@pytest.mark.row("STR-34")
def test_over_a_unix_socket(run: Run, urls: list[str]) -> None:
    process = run("cat")
    [unix] = [url for url in urls if url.startswith("unix:")]
    with Server(unix) as server, server.get_process(process.pid).socket() as channel:
        channel.write("x\n")
        assert read(channel, 2) == b"x\n"


def test_much_at_once_in_both_directions(run: Run) -> None:
    sent = bytes(range(256)) * 4096 * 3
    with run("cat").socket() as channel:
        received: list[bytes] = []
        thread = threading.Thread(target=lambda: received.append(read(channel, len(sent))))
        thread.start()
        channel.write(sent)
        thread.join(20)
        assert received[0] == sent


def test_output_from_before_and_to_the_end(run: Run) -> None:
    process = run("sh", "-c", "printf 'one\\ntwo\\n'; exec cat")
    with IOChannel(process.server.transport, process.pid, tail=9) as channel:
        assert read(channel, 8) == b"one\ntwo\n"
    with IOChannel(process.server.transport, process.pid, tail=1) as channel:
        assert read(channel, 4) == b"two\n"
        channel.write("three\n")
        process.kill("KILL")
        assert b"".join(channel) in (b"", b"three\n")
        assert channel.end_reason == "the process has exited"
        assert channel.read() == b""
        with pytest.raises(errors.Unreachable, match="is closed"):
            channel.write("x")


@pytest.mark.row("STR-30")
def test_another_stream_and_a_custom_one(run: Run) -> None:
    script = "import os, sys; sys.stderr.write('E'); sys.stderr.flush(); os.write(3, os.read(3, 9)); sys.stdin.read()"
    process = run(sys.executable, "-c", script, custom_streams=["side"])
    with process.socket("side") as side, IOChannel(process.server.transport, process.pid, "err", tail="9b") as err:
        side.write("ping")
        assert read(side, 4) == b"ping"
        assert read(err, 1) == b"E"


@pytest.mark.row("STR-32")
@pytest.mark.parametrize(
    ("settings", "stream", "mode", "kind"),
    [
        ({}, "none", 3, errors.NotFound),
        ({"redirect_output": []}, None, iochannel.READ, errors.Forbidden),
        ({"redirect_input": False}, None, iochannel.WRITE, errors.Forbidden),
        ({}, None, 4, errors.BadRequest),
    ],
)
def test_what_can_not_be_opened(run: Run, settings: dict[str, object], stream: str, mode: int, kind: type) -> None:
    with run("sleep", "1000", **settings).socket(stream, mode) as channel, pytest.raises(kind):
        channel.read(10)


@pytest.mark.row("STR-32")
def test_what_can_not_be_written(run: Run) -> None:
    process = run("sleep", "1000", redirect_input=False)
    with process.socket() as channel, pytest.raises(errors.Forbidden) as caught:
        channel.write("x")
    assert caught.value.reason == "forbidden_write"


def test_no_such_process(server: Server) -> None:
    with Process(server, 999_999).socket() as channel, pytest.raises(errors.NotFound):
        channel.read(10)


def test_timeouts(run: Run) -> None:
    with run("sleep", "1000").socket() as channel:
        with pytest.raises(TimeoutError):
            channel.read(0.01)
        with pytest.raises(TimeoutError):
            channel.write(bytes(8 * 1024 * 1024), timeout=0.2)


def test_closing_ends_a_read(run: Run) -> None:
    channel = run("cat").socket()
    ended: list[bytes] = []
    thread = threading.Thread(target=lambda: ended.append(channel.read()))
    thread.start()
    channel.close()
    thread.join(10)
    assert ended == [b""]


def test_what_is_lost_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iochannel, "KEPT", 100)
    monkeypatch.setattr(iochannel, "FULL_TIMEOUT", 0.0)

    def script(peer: Peer) -> None:
        gap = b'{"error": "GAP", "errno": 410, "message": "", "from": 0, "to": 50}'
        peer.send(frame(BINARY, Frame("error", "gaffer_error", gap).encode()))
        for number in range(1, 6):
            peer.send(frame(BINARY, Frame("message", str(50 + number * 40), b"%d" % number * 40).encode()))
        peer.send(close_frame(1000, "the process has exited"))
        peer.receive()

    with scripted_server(websocket(script)) as server, Server(server.url) as node, Process(node, 1).socket() as channel:
        eventually(lambda: channel.end_reason)
        assert (b"".join(channel), channel.lost) == (b"3" * 40 + b"4" * 40 + b"5" * 40, 50 + 80)
        assert channel.offset == "250"


@pytest.mark.parametrize("alone", [True, False])
def test_a_pending_write_costs_no_output_that_another_thread_reads(
    monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    monkeypatch.setattr(iochannel, "KEPT", 100)
    sent = threading.Event()

    def script(peer: Peer) -> None:
        peer.send(frame(BINARY, Frame("message", "10", b"first line").encode()))
        peer.receive()
        for number in range(1, 6):
            peer.send(frame(BINARY, Frame("message", str(10 + number * 40), b"%d" % number * 40).encode()))
        peer.send(frame(BINARY, Frame("response", "1", b"OK").encode()))
        sent.set()
        peer.send(close_frame(1000, "the process has exited"))
        peer.receive()

    with scripted_server(websocket(script)) as server, Server(server.url) as node, Process(node, 1).socket() as channel:
        assert channel.read(10) == b"first line"
        writer = threading.Thread(target=channel.write, args=(b"x", 10))
        if alone:
            channel.write(b"x", 10)
        else:
            writer.start()
            assert sent.wait(10)
        assert (len(b"".join(channel)), channel.lost) == ((120, 80) if alone else (200, 0))
        if not alone:
            writer.join()


@pytest.mark.parametrize("sent", [b"V2 message 1\0x", b"V1 message x\0y", b"V1 error 1\0no", b"\0"])
def test_what_is_no_frame(sent: bytes) -> None:
    with (
        scripted_server(websocket(lambda peer: (peer.send(frame(BINARY, sent)), peer.end()))) as server,
        Server(server.url) as node,
        Process(node, 1).socket() as channel,
        pytest.raises(errors.MalformedAnswer),
    ):
        channel.read(10)
