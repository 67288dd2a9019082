"""What follows a node goes on when its gafferd is killed, upgraded or started again."""

import hashlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gaffer_client import IOChannel, Process, Server, errors
from gaffer_client.cli import piping
from gaffer_client.eventsource import Received
from support.client import Commands
from support.daemons import clean_env, command_path, gafferd
from support.following import Following, following
from support.http_node import ECHO
from support.poll import eventually
from support.survival import TIMEOUT, Node, kept_node, kill_and_wait

ECHO_JOB = {
    "cmd": sys.executable,
    "args": ["-I", "-S", "-c", ECHO],
    "redirect_input": True,
    "redirect_output": ["out"],
}
DIGEST = "import hashlib, os, sys; print(hashlib.sha256(sys.stdin.buffer.read(int(sys.argv[1]))).hexdigest())"
SLOW = re.compile(r"warning: .*; reconnecting|warning: reconnected after [0-9.]+ s")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with kept_node(tmp_path_factory.mktemp("node")) as node:
        yield node


@pytest.fixture
def server(node: Node) -> Iterator[Server]:
    with Server(node.url) as server:
        yield server
        for name in server.jobs():
            server.unload(name)


def started(server: Server, name: str, **settings: object) -> Process:
    """A process of a new job."""
    job = server.load({"name": name, **settings})
    [pid] = eventually(lambda: job.pids)
    return server.get_process(pid)


@contextmanager
def piped(*args: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run `gaffer` with a pipe to its standard input."""
    process = subprocess.Popen(
        [command_path("gaffer"), *args],
        env=clean_env(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(command: Following) -> tuple[int, list[str]]:
    """The exit status of a command, and what it said except that it was away for long."""
    status, stderr = command.wait()
    return status, [line for line in stderr.splitlines() if not SLOW.fullmatch(line)]


def test_recv_and_attach_lose_and_repeat_nothing(node: Node, server: Server) -> None:
    unix = f"unix:{node.state}/gafferd.sock"
    process = started(server, "echo", **ECHO_JOB)
    expected: list[str] = []
    with (
        piped("-g", node.url, "attach", str(process.pid)) as attach,
        following("gaffer", "-g", node.url, "recv", str(process.pid), "--tail=9999") as recv,
        following("gaffer", "-g", unix, "--json", "recv", str(process.pid), "--tail=9999") as documents,
    ):
        assert attach.stdin is not None

        def type_lines(count: int) -> None:
            lines = [f"line {number}" for number in range(len(expected), len(expected) + count)]
            expected.extend(lines)
            assert attach.stdin is not None
            attach.stdin.write("".join(f"{line}\n" for line in lines).encode())
            attach.stdin.flush()

        type_lines(100)
        eventually(lambda: recv.lines == expected and documents.lines)
        for strike in (node.kill, node.upgrade, node.kill):
            striking = threading.Thread(target=strike)
            striking.start()
            while striking.is_alive():
                type_lines(1)
                striking.join(0.01)
            type_lines(100)
            eventually(lambda: recv.lines == expected, timeout=TIMEOUT)
        eventually(lambda: "".join(json.loads(line)["data"] for line in documents.lines).splitlines() == expected)
        process.stop()
        assert ended(recv) == (0, [])
        assert ended(documents) == (0, [])
        out, err = attach.communicate(timeout=TIMEOUT)
        assert (attach.returncode, out.decode().splitlines()) == (0, expected)
        assert [line for line in err.decode().splitlines() if not SLOW.fullmatch(line)] == []


def test_a_long_absence_is_reported(node: Node, server: Server) -> None:
    process = started(server, "echo", **ECHO_JOB)
    with piped("-g", node.url, "recv", str(process.pid), "--tail=9") as recv:
        assert recv.stderr is not None
        assert recv.stdout is not None
        channel = process.socket(reconnect=TIMEOUT)
        channel.write("one\n")
        assert recv.stdout.readline() == b"one\n"
        node.keeper.signal(signal.SIGSTOP)  # nothing starts gafferd again
        try:
            kill_and_wait(node.pid)
            assert re.fullmatch(rb"warning: .*; reconnecting\n", recv.stderr.readline())
            begin = time.monotonic()
            channel.close()  # does not wait for the node
            assert time.monotonic() - begin < TIMEOUT / 2
        finally:
            node.keeper.signal(signal.SIGCONT)
        assert re.fullmatch(rb"warning: reconnected after [0-9.]+ s\n", recv.stderr.readline())
        eventually(lambda: not channel._thread.is_alive(), timeout=TIMEOUT)


def test_a_pipe_into_a_process(node: Node, server: Server) -> None:
    data = bytes(range(256)) * 40_000
    settings = {"redirect_input": True, "redirect_output": ["out"], "startsecs": 0, "restart": "never"}
    process = started(server, "digest", cmd=sys.executable, args=["-I", "-S", "-c", DIGEST, str(len(data))], **settings)
    with piped("-g", node.url, "send", str(process.pid), "-") as send:
        assert send.stdin is not None
        send.stdin.write(data[: len(data) // 2])
        striking = threading.Thread(target=node.kill)
        striking.start()
        send.stdin.write(data[len(data) // 2 :])
        striking.join()
        _, err = send.communicate(timeout=TIMEOUT)
        assert send.returncode == 0, err
    eventually(lambda: server.get_job("digest").exits(), timeout=TIMEOUT)
    assert (
        eventually(lambda: node.log("digest", 1), retry_on=(FileNotFoundError,)).decode().strip()
        == hashlib.sha256(data).hexdigest()
    )


def test_a_key_that_only_permits_control(
    gaffer: Commands, node: Node, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = started(server, "kept", **ECHO_JOB)
    monkeypatch.setenv("GAFFER_API_KEY", server.create_key(["control"])["key"])
    for command in (("send", process.pid, "hallo"), ("send", f"{process.pid}.ttin", "again")):
        assert gaffer("-g", node.url, *command).status == 0
    assert eventually(lambda: node.log("kept", 1) == b"hallo\nagain\n", retry_on=(FileNotFoundError,))


def test_events_begin_anew(node: Node, server: Server) -> None:
    started(server, "nap", cmd="sleep 1000", startsecs=0)
    with (
        following("gaffer", "-g", node.url, "events", "default.nap") as events,
        following("gafferctl", "--connect", node.url, "watch", "proc.nap") as watch,
    ):

        def seen(kind: str) -> bool:
            return any(f" | {kind}" in line for line in events.lines) and any(
                f" | proc.nap.{kind} nap" in line for line in watch.lines
            )

        def restart_until_seen() -> bool:
            server.get_job("nap").restart()  # a command that has not connected yet misses it
            return seen("exit")

        eventually(restart_until_seen)
        node.kill()
        eventually(lambda: seen("adopt"), timeout=TIMEOUT)
        for command in (events, watch):
            status, err = command.interrupt()
            assert status == 130
            *lost, missing = err.splitlines()
            assert lost
            assert all(re.fullmatch(r"warning: .*; reconnecting", line) for line in lost)
            assert missing == (
                "warning: the node was restarted: its events begin anew, and an unknown number of them may be missing"
            )


@pytest.mark.pure
@pytest.mark.parametrize(
    ("start", "end", "id", "lost"),
    [
        (5, 9, "ab:5", 4),
        (7, 9, "ab:5", 2),
        (0, 0, "ab:5", None),
        (0, 3, "ab:5", None),
        (0, 3, "", 3),
        (0, 0, "", None),
    ],
)
def test_how_many_events_a_gap_reports(start: int, end: int, id: str, lost: int | None) -> None:
    assert Received("gap", {"from": start, "to": end}, id).lost == lost


def test_the_pid_of_another_process_is_no_place_to_resume(tmp_path: Path) -> None:
    script, config = tmp_path / "echo.py", tmp_path / "gafferd.ini"
    script.write_text(ECHO)
    command = f"{sys.executable} -I -S {script}"
    config.write_text(f"[process:echo]\ncmd = {command}\nredirect_input = yes\nredirect_output = out\n")
    with gafferd(str(config)) as first, Server(first.url) as server:
        [pid] = eventually(lambda: server.get_job("echo").pids)
        process = server.get_process(pid)
        with (
            following("gaffer", "-g", first.url, "recv", str(process.pid), "--tail=9") as recv,
            process.socket(reconnect=TIMEOUT) as channel,
        ):
            channel.write("old\n")
            eventually(lambda: recv.lines == ["old"])
            first.kill()
            with (
                gafferd(str(config), "--bind", f"127.0.0.1:{first.port}") as second,
                Server(second.url) as again,
            ):
                assert eventually(lambda: again.get_job("echo").pids) == [pid]
                with pytest.raises(errors.NotFound, match="has ended"):
                    channel.write("new\n")
                status, [text] = ended(recv)
                assert (status, recv.lines) == (0, ["old"])
                assert text.endswith("it ended while the connection was lost, and its last output may be missing")


def test_a_node_that_does_not_return(gaffer: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piping, "RECONNECT", 0.3)
    with gafferd() as lonely, Server(lonely.url) as server:
        process = started(server, "echo", **ECHO_JOB)
        said: list[object] = []
        with IOChannel(server.transport, process.pid, reconnect=0.3, on_lost=said.append) as channel:
            killing = threading.Timer(0.3, lonely.kill)
            killing.start()
            ran = gaffer("-g", lonely.url, "recv", process.pid)
            killing.join()
            assert ran.status == 3
            assert "gaffer: the connection was lost, and not opened again within 0.3 s: " in ran.err
            with pytest.raises(errors.Unreachable, match=r"not opened again within 0\.3 s"):
                channel.read(TIMEOUT)
            assert [type(error) for error in said] == [errors.ConnectionLost]


def test_a_process_without_input(server: Server) -> None:
    process = started(server, "deaf", cmd="sleep 1000", redirect_output=["out"])
    with process.socket(reconnect=TIMEOUT) as channel, pytest.raises(errors.Forbidden, match="'stdin'"):
        channel.write("x", TIMEOUT)


def test_the_outcome_of_an_action_that_is_not_known(node: Node, server: Server) -> None:
    server.load({"name": "shop", "cmd": "sleep 1000", "action": {"go": "sh -c 'echo begun; exec sleep 1000'"}})
    with following("gaffer", "-g", node.url, "exec", "default.shop", "go") as action:
        eventually(lambda: action.lines == ["begun"])
        node.kill()
        status, err = action.wait()
    assert status == 3
    assert err.startswith("gaffer: the connection was lost before the action ended, whose outcome is unknown: ")
