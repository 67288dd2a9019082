"""Probes of addresses and by commands: real sockets, and what is reported of them."""

import asyncio
import contextlib
import itertools
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

import support
from gaffer.jobs.config import JobConfig
from gaffer.jobs.probing import Question
from gaffer.supervision.probes import checks, prober
from gaffer.supervision.probes.listeners import BATCH
from support import turnable
from support.leaks import open_descriptors
from support.needs import needs_linux
from support.poll import eventually, eventually_async
from support.probed import Probed, probed, probing
from support.scripted import Visit, scripted_server

LIVE = Question.LIVE
SUPPORT = Path(support.__file__).parent.parent
FAST: dict[str, Any] = {"ready_interval": 0.02, "live_interval": 0.02}


@pytest.fixture
def bound() -> Iterator[socket.socket]:
    """A socket on a port of its own, which does not listen yet."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


# tcp


async def test_a_process_is_ready_when_its_port_accepts(bound: socket.socket) -> None:
    port = port_of(bound)
    async with probing() as verdicts:
        verdicts.prober.start(Probed(JobConfig(name="web", cmd="serve", ready="tcp", port="auto"), port=port))
        await verdicts.last(f"connection refused on 127.0.0.1:{port}")
        bound.listen()
        await verdicts.last("good")


async def test_an_opening_port_is_seen_long_before_the_next_probe_is_due(bound: socket.socket) -> None:
    async with probing() as verdicts:
        verdicts.prober.start(probed(ready=f"tcp:{port_of(bound)}", ready_interval=3600))
        await verdicts.last(f"connection refused on 127.0.0.1:{port_of(bound)}")
        bound.listen()
        await verdicts.last("good")


async def test_a_port_that_opens_before_the_first_probe(bound: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prober, "FIRST_DELAY", 3600)
    async with probing() as verdicts:
        verdicts.prober.start(probed(ready=f"tcp:{port_of(bound)}", ready_interval=3600))
        bound.listen()
        await verdicts.last("good")
        assert verdicts.of() == ["good"]


async def test_many_that_wait_for_one_port_all_see_it_open(bound: socket.socket) -> None:
    pids = range(3 * BATCH)
    async with probing() as verdicts:
        for pid in pids:
            verdicts.prober.start(probed(pid, ready=f"tcp:{port_of(bound)}", ready_interval=3600))
        await eventually_async(lambda: len(verdicts.seen) == len(pids))
        bound.listen(len(pids))
        await eventually_async(lambda: all(verdicts.of(pid=pid)[-1] == "good" for pid in pids))


async def test_a_port_that_closes_and_opens_again(bound: socket.socket) -> None:
    port = port_of(bound)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.listen(1000)
    with ExitStack() as stack:
        async with probing() as verdicts:
            verdicts.prober.start(probed(ready=f"tcp:{port}", ready_failures=2, **FAST))
            await verdicts.last("good")
            bound.close()
            await verdicts.last(f"connection refused on 127.0.0.1:{port}")
            stack.enter_context(socket.create_server(("127.0.0.1", port)))
            await verdicts.last("good")


async def test_a_server_sees_the_end_of_the_connection_and_no_reset(bound: socket.socket) -> None:
    bound.listen()
    bound.setblocking(False)
    loop = asyncio.get_running_loop()
    async with probing() as verdicts:
        verdicts.prober.start(probed(ready=f"tcp:{port_of(bound)}"))
        connection, _ = await loop.sock_accept(bound)
        with connection:
            assert await loop.sock_recv(connection, 100) == b""
        await verdicts.last("good")


@needs_linux
async def test_probes_leave_no_connections_behind_that_hold_ports(bound: socket.socket) -> None:
    port = port_of(bound)
    bound.listen(1000)
    async with probing() as verdicts:
        verdicts.prober.start(probed(live=f"tcp:{port}", **FAST))
        await verdicts.last("good", LIVE)
        for _ in range(5):
            await eventually_async(lambda: _accepted(bound))
    assert not [each for each in psutil.net_connections("tcp") if each.raddr and each.raddr.port == port]


async def test_a_port_that_lets_nobody_in_gets_one_probe_at_a_time() -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        filler = stack.enter_context(socket.socket())
        filler.connect(listener.getsockname())  # now its backlog is full
        waiting: list[int] = []
        async with probing() as verdicts:
            probe = f"tcp:{port_of(listener)}"
            verdicts.prober.start(probed(live=probe, live_timeout=0.2, live_failures=2, **FAST))

            def failed() -> bool:
                waiting.append(len(verdicts.prober.tasks))
                return verdicts.of(LIVE) == ["no answer within 0.2 s"]

            await eventually_async(failed)
        assert max(waiting) == 1


@pytest.mark.parametrize(("host", "bind"), [("localhost", "127.0.0.1"), ("[::1]", "::1"), ("127.0.0.9", "127.0.0.9")])
@pytest.mark.parametrize("kind", ["tcp", "http"])
async def test_hosts(kind: str, host: str, bind: str) -> None:
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with socket.socket(family) as sock:
        async with probing() as verdicts:
            sock.bind((bind, 0))
            verdicts.prober.start(probed(ready=f"{kind}:{host}:{port_of(sock)}", ready_timeout=0.3))
            await verdicts.last(f"connection refused on {host}:{port_of(sock)}")
            sock.listen()
            await verdicts.last("good" if kind == "tcp" else "no answer within 0.3 s")


async def test_a_host_that_is_unknown() -> None:
    async with probing() as verdicts:
        verdicts.prober.start(probed(ready="tcp:nowhere.invalid:80", ready_timeout=10))
        await eventually_async(lambda: verdicts.of())
        assert verdicts.of()[0].startswith("can't resolve nowhere.invalid: ")


async def test_lookups_that_hang_do_not_pile_up_and_hold_up_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []
    over = threading.Event()
    original = socket.getaddrinfo

    def look_up(host: str, *args: Any, **options: Any) -> Any:
        if not host.endswith(".invalid"):
            return original(host, *args, **options)
        looked_up.append(host)
        over.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with socket.create_server(("127.0.0.1", 0)) as server:
        async with probing() as verdicts:
            for pid, host in enumerate(("a", "a", "b"), start=1):
                verdicts.prober.start(probed(pid, ready=f"tcp:{host}.invalid:80", ready_timeout=0.01, **FAST))
            for pid in (1, 2, 3):
                await verdicts.last("no answer within 0.01 s", pid=pid)
            verdicts.prober.start(probed(4, ready=f"tcp:localhost:{port_of(server)}"))
            await verdicts.last("good", pid=4)
            assert sorted(looked_up) == ["a.invalid", "b.invalid"]
            over.set()


async def test_a_process_without_a_port() -> None:
    process = probed(ready="tcp", env={"PORT": "80"})
    async with probing() as verdicts:
        verdicts.prober.start(process)
        await verdicts.last("the process has no port")


def test_a_connection_to_itself_is_no_listener() -> None:
    """A connecting socket may get the very port that it connects to."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.connect(sock.getsockname())
        with pytest.raises(ConnectionRefusedError):
            checks._check_peer(sock)


@pytest.mark.expects_errors("can't probe shop.web .*too many open files")
async def test_a_lack_of_descriptors_of_our_own_says_nothing_about_a_process(
    bound: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    bound.listen(1000)
    async with probing() as verdicts:
        verdicts.prober.start(probed(live=f"tcp:{port_of(bound)}", live_failures=1, **FAST))
        await verdicts.last("good", LIVE)
        with no_descriptors_left():
            await eventually_async(lambda: "too many open files" in caplog.text)
        assert verdicts.of(LIVE) == ["good"]


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """Let this process open nothing more until the block ends."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, open_descriptors())) + 10, limits[1]))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        with contextlib.suppress(OSError):
            while True:
                stack.enter_context(socket.socket())
        yield


# http


OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
RESPONSES = {
    "200": (OK, "good"),
    "204": ("HTTP/1.1 204 No Content\r\n\r\n", "good"),
    "HTTP/1.0 without a reason": ("HTTP/1.0 200\r\n\r\n", "good"),
    "bare line feeds": ("HTTP/1.1 200 OK\n\n", "good"),
    "a redirect, which is not followed": ("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", "good"),
    "304": ("HTTP/1.1 304 Not Modified\r\n\r\n", "good"),
    "interim responses": ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" + OK, "good"),
    "400": ("HTTP/1.1 400 Bad Request\r\n\r\n", "GET /health on ADDRESS answered 400"),
    "503": ("HTTP/1.1 503 Unavailable\r\n\r\nbusy", "GET /health on ADDRESS answered 503"),
    "101": ("HTTP/1.1 101 Switching Protocols\r\n\r\n", "GET /health on ADDRESS answered 101"),
    "nothing": ("", "GET /health on ADDRESS: the connection was closed without an answer"),
    "the end after an interim response": (
        "HTTP/1.1 100 Continue\r\n\r\n",
        "GET /health on ADDRESS: the connection was closed without an answer",
    ),
    "a banner": ("SSH-2.0-OpenSSH_9.2\r\n", "GET /health on ADDRESS answered something that is not HTTP"),
    "bytes": (b"\x15\x03\x01\x00\x02\x02\x46", "GET /health on ADDRESS answered something that is not HTTP"),
    "a status with four digits": ("HTTP/1.1 2000 OK\r\n", "GET /health on ADDRESS answered something that is not HTTP"),
    "a status without an end": ("HTTP/1.1 200", "GET /health on ADDRESS answered something that is not HTTP"),
    "an endless status line": (
        "HTTP/1.1 200 " + "x" * 20_000,
        "GET /health on ADDRESS answered something that is not HTTP",
    ),
}


@pytest.mark.parametrize(("response", "verdict"), RESPONSES.values(), ids=RESPONSES)
async def test_responses(response: str | bytes, verdict: str) -> None:
    with scripted_server(lambda visit: visit.send(response)) as server:
        async with probing() as verdicts:
            address = server.url.removeprefix("http://")
            verdicts.prober.start(probed(ready=f"http:{address}/health", ready_interval=3600))
            await verdicts.last(verdict.replace("ADDRESS", address))
    assert len(server.visits) == 1


async def test_the_request() -> None:
    with scripted_server(lambda visit: visit.send(OK)) as server:
        async with probing() as verdicts:
            address = server.url.removeprefix("http://")
            verdicts.prober.start(probed(ready=f"http:{address}/grün?a=%20b&c", ready_interval=3600))
            await verdicts.last("good")
    (visit,) = server.visits
    assert visit.head.splitlines()[0] == "GET /gr%C3%BCn?a=%20b&c HTTP/1.1"
    assert visit.header("Host") == address
    assert visit.header("Connection") == "close"
    assert (visit.header("User-Agent") or "").startswith("gaffer/")


async def test_a_response_that_comes_byte_by_byte() -> None:
    def play(visit: Visit) -> None:
        visit.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in OK.encode():
            visit.send(bytes([byte]))

    with scripted_server(play) as server:
        async with probing() as verdicts:
            verdicts.prober.start(probed(ready=server.url.replace("http://", "http:"), ready_interval=3600))
            await verdicts.last("good")


async def test_a_server_can_finish_its_response() -> None:
    finished = []

    def play(visit: Visit) -> None:
        visit.send("HTTP/1.1 503 Busy\r\n\r\n")
        for _ in range(5):
            eventually(lambda: verdicts.seen)  # the status was read
            visit.send("please come back later")
        finished.append(visit)

    with scripted_server(play) as server:
        async with probing() as verdicts:
            address = server.url.removeprefix("http://")
            verdicts.prober.start(probed(ready=f"http:{address}", ready_interval=3600))
            await verdicts.last(f"GET / on {address} answered 503")
            await eventually_async(lambda: finished)


async def test_a_body_without_end_is_not_read_to_the_end() -> None:
    sent = 0

    def play(visit: Visit) -> None:
        nonlocal sent
        visit.send("HTTP/1.1 200 OK\r\n\r\n")
        while True:  # until it fails
            sent += visit.sock.send(bytes(64 * 1024))

    with scripted_server(play) as server:
        async with probing() as verdicts:
            verdicts.prober.start(probed(ready=server.url.replace("http://", "http:"), ready_interval=3600))
            await verdicts.last("good")
            await eventually_async(lambda: not verdicts.prober.tasks)
    assert 0 < sent < 64 * 1024 * 1024


async def test_a_server_that_keeps_the_connection_open_holds_nothing_up() -> None:
    def play(visit: Visit) -> None:
        visit.send("HTTP/1.1 200 OK\r\n\r\n")
        visit.wait_for_end()

    with scripted_server(play) as server:
        async with probing() as verdicts:
            probe = server.url.replace("http://", "http:")
            verdicts.prober.start(probed(ready=probe, ready_interval=3600, ready_timeout=3600))
            await verdicts.last("good")
            await eventually_async(lambda: not verdicts.prober.tasks)


async def test_a_server_that_resets_the_connection() -> None:
    def play(visit: Visit) -> None:
        visit.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with scripted_server(play) as server:
        async with probing() as verdicts:
            address = server.url.removeprefix("http://")
            verdicts.prober.start(probed(ready=f"http:{address}", ready_interval=3600))
            await verdicts.last(f"GET / on {address}: connection reset by peer")


async def test_a_server_that_accepts_and_never_answers(bound: socket.socket) -> None:
    bound.listen()
    async with probing() as verdicts:
        probe = f"http:{port_of(bound)}/"
        verdicts.prober.start(probed(live=probe, live_timeout=0.1, live_failures=2, **FAST))
        await verdicts.last("no answer within 0.1 s", LIVE)
        assert _accepted(bound) <= 3, "one for each probe, and one that waits"


# exec


class Commands:
    """Runs commands as the test tells: they wait until `results` has one."""

    def __init__(self) -> None:
        self.started: list[tuple[int, str, float]] = []
        self.cancelled = 0
        self.running = self.most = 0
        self.results: asyncio.Queue[str] = asyncio.Queue()

    async def run(self, process: Probed, command: str, timeout: float) -> str:
        self.started.append((process.pid, command, timeout))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            return await self.results.get()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


async def test_a_command_decides() -> None:
    commands = Commands()
    async with probing(commands.run) as verdicts:
        verdicts.prober.start(probed(7, ready="exec:pg_isready -q", ready_timeout=5, ready_failures=1, **FAST))
        await commands.results.put("pg_isready exited with 2")
        await verdicts.last("pg_isready exited with 2", pid=7)
        await commands.results.put("")
        await verdicts.last("good", pid=7)
        await commands.results.put("pg_isready exited with 1")
        await verdicts.last("pg_isready exited with 1", pid=7)
    assert commands.started[0] == (7, "pg_isready -q", 5.0)
    assert commands.most == 1


async def test_a_stopped_probe_ends_its_command_and_reports_nothing() -> None:
    commands = Commands()
    async with probing(commands.run) as verdicts:
        verdicts.prober.start(probed(ready="exec:check", **FAST))
        await eventually_async(lambda: commands.running)
        verdicts.prober.stop(1)
        verdicts.prober.stop(1)
        await eventually_async(lambda: commands.cancelled == 1 and not verdicts.prober.tasks)
    assert verdicts.seen == []
    assert len(commands.started) == 1


# life


async def test_live_probes_begin_when_the_process_is_ready(bound: socket.socket) -> None:
    commands = Commands()
    async with probing(commands.run) as verdicts:
        verdicts.prober.start(probed(ready=f"tcp:{port_of(bound)}", live="exec:check", **FAST))
        await verdicts.last(f"connection refused on 127.0.0.1:{port_of(bound)}")
        assert commands.started == []
        bound.listen(1000)
        await verdicts.last("good")
        await commands.results.put("")
        await verdicts.last("good", LIVE)
        assert [each.question for each in verdicts.seen].count(LIVE) == 1


async def test_a_process_that_exits_during_a_probe(bound: socket.socket) -> None:
    bound.listen()
    process = probed(ready=f"http:{port_of(bound)}", live=f"tcp:{port_of(bound)}", ready_timeout=0.1, **FAST)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        async with probing() as verdicts:
            process.child = child
            verdicts.prober.start(process)
            await eventually_async(lambda: verdicts.prober.tasks)
            child.kill()
            child.wait()
            await eventually_async(lambda: not verdicts.prober.tasks)
            assert verdicts.seen == []


async def test_a_process_that_exits_while_it_is_waited_for(bound: socket.socket) -> None:
    process = probed(ready=f"tcp:{port_of(bound)}", **FAST)
    async with probing() as verdicts:
        before = open_descriptors()
        verdicts.prober.start(process)
        await verdicts.last(f"connection refused on 127.0.0.1:{port_of(bound)}")
        await eventually_async(lambda: open_descriptors() != before)
        process.alive = False
        await eventually_async(lambda: open_descriptors() == before, message="ports are still watched")


async def test_a_closed_prober_reports_nothing(bound: socket.socket) -> None:
    bound.listen()
    async with probing() as verdicts:
        verdicts.prober.start(probed(1, ready=f"http:{port_of(bound)}", **FAST))
        verdicts.prober.start(probed(2, ready=f"tcp:{port_of(bound)}", **FAST))
        await verdicts.last("good", pid=2)
        verdicts.prober.close()
        seen = len(verdicts.seen)
        await eventually_async(lambda: not verdicts.prober.tasks)
    assert len(verdicts.seen) == seen


def test_a_process_without_probes_costs_nothing() -> None:
    async def main() -> None:
        async with probing() as verdicts:
            before = open_descriptors()
            verdicts.prober.start(probed())
            assert turnable.timers() == []
            assert open_descriptors() == before

    turnable.run(main())


def test_the_probes_of_many_processes_are_spread() -> None:
    async def main() -> None:
        async with probing() as verdicts:
            for pid in range(200):
                verdicts.prober.start(probed(pid, live="tcp:1", live_interval=10))
            times = sorted(timer.when() for timer in turnable.timers())
            assert len(times) == 200
            assert times[-1] - times[0] > 5
            gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
            assert max(gaps) < 2

    turnable.run(main())


def test_a_probe_that_is_late_is_not_made_up_for() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
            async with probing() as verdicts:
                verdicts.prober.start(probed(live=f"tcp:{port_of(listener)}", live_interval=10))
                turnable.turn(10)
                await verdicts.last("good", LIVE)
                assert _accepted(listener) == 1
                turnable.turn(1000)
                for _ in range(100):
                    await asyncio.sleep(0)
                assert _accepted(listener) == 1

    turnable.run(main())


# A program without netlink sockets, as in a sandbox: seccomp(2) refuses socket(AF_NETLINK).
WITHOUT_NETLINK = """
import asyncio, ctypes, platform, socket, struct
from gaffer.supervision.probes.listeners import ListenerWatch
from support.poll import eventually_async
from support.probed import probed, probing

LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
program = b"".join(struct.pack("=HBBI", *step) for step in (
    (LOAD, 0, 0, 0), (EQUAL, 0, 3, {"x86_64": 41, "aarch64": 198}[platform.machine()]),
    (LOAD, 0, 0, 16), (EQUAL, 0, 1, socket.AF_NETLINK), (RETURN, 0, 0, 0x50001), (RETURN, 0, 0, 0x7FFF0000),
))
memory = ctypes.create_string_buffer(program, len(program))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(memory)), 0, 0) == 0

async def main():
    refused = asyncio.Event()
    ListenerWatch(asyncio.get_running_loop()).add(1, refused.set)
    await asyncio.wait_for(refused.wait(), 10)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        async with probing() as verdicts:
            verdicts.prober.start(probed(ready=f"tcp:{sock.getsockname()[1]}", ready_interval=3600))
            await verdicts.last(f"connection refused on 127.0.0.1:{sock.getsockname()[1]}")
            await eventually_async(lambda: not verdicts.prober.listeners.works)
            sock.listen()
            await verdicts.last("good")

asyncio.run(main())
"""


@needs_linux
def test_where_ports_can_not_be_watched_they_are_probed_more_often() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_NETLINK], check=True, timeout=30, cwd=SUPPORT)


def _accepted(listener: socket.socket) -> int:
    """Accept what waits; how many connections there were."""
    listener.setblocking(False)
    count = 0
    while True:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return count
        connection.close()
        count += 1


@pytest.mark.parametrize("ready", ["log:never", "notify"])
async def test_a_process_that_was_ready_before_stays_ready_and_its_live_probes_begin(
    bound: socket.socket, ready: str
) -> None:
    process = probed(ready=ready, live=f"tcp:{port_of(bound)}", **FAST)
    bound.listen()
    async with probing() as verdicts:
        verdicts.prober.start(process, ready=True)
        await verdicts.last("good", LIVE)
        assert verdicts.of() == ["good"]
