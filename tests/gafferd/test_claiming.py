"""A gafferd takes over from one whose keeper was killed."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from support.daemons import Daemon, clean_env, command_path, gafferd
from support.needs import needs_root
from support.poll import eventually
from support.survival import (
    TIMEOUT,
    Node,
    count_lines,
    feeds,
    kept_node,
    ping,
    serve_below_tostop,
    without_gafferd,
    writers,
)

IN_USE = "is in use by another gafferd"


@contextmanager
def orphan(tmp_path: Path, *args: str) -> Iterator[Node]:
    """A node whose keeper was killed, perhaps a moment ago."""
    with kept_node(tmp_path, *args) as node:
        node.load(writers("w", 2))
        node.running("w", 2)
        yield node


def kill_keeper(node: Node) -> None:
    node.keeper.signal(signal.SIGKILL)
    eventually(lambda: node.keeper.returncode is not None)


def address(node: Node) -> str:
    found = os.stat(node.state / "lock")
    return f"\0gafferd-keeper/{found.st_dev}/{found.st_ino}"


def claim(node: Node) -> socket.socket:
    """Connect to the keeper of an orphan, once it listens."""

    def connect() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.connect(address(node))
        except OSError:
            connection.close()
            raise
        connection.settimeout(TIMEOUT)
        return connection

    return eventually(connect, timeout=TIMEOUT, retry_on=(OSError,))


def start(node: Node, *args: str, enter: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Start a gafferd that is expected to be refused."""
    bind = args or ("--bind", "127.0.0.1:0")
    return subprocess.run(
        [*enter, command_path("gafferd"), "--state-dir", str(node.state), *bind],
        env=clean_env(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


@pytest.mark.parametrize("wait", [True, False], ids=["later", "at once"])
def test_the_next_one_goes_on_with_its_processes(tmp_path: Path, wait: bool) -> None:
    with orphan(tmp_path) as node:
        before = node.instances("w")
        with feeds(node, before) as following:
            kill_keeper(node)
            if wait:
                claim(node).close()
            with gafferd("--keeper", state_dir=node.state) as keeper:
                other = Node(keeper, node.state)
                assert other.url == node.url  # the same socket
                assert other.instances("w") == before
                assert other.info("w")["restarts"] == 0
                health = other.get("/health")
                assert (health["keeper"]["pid"], health["keeper"]["error"]) == (keeper.pid, None)
                assert psutil.Process(other.pid).ppid() == keeper.pid
                other.kill()  # it is protected again
                assert other.instances("w") == before
                os.kill(before[0].os_pid, signal.SIGKILL)
                eventually(lambda: before[0] not in other.instances("w"), timeout=TIMEOUT)
                after = other.running("w", 2)
                other.unload("w")
                for feed in following:
                    assert feed.over.wait(TIMEOUT)
            assert not any(psutil.pid_exists(each.os_pid) for each in (*before, *after))
        assert count_lines(bytes(following[1].data)).flaws == (0, 0, 0)
        assert count_lines(node.ended_log("w", 2)).flaws == (0, 0, 0)


def test_it_brings_its_own_settings(tmp_path: Path) -> None:
    with orphan(tmp_path) as node:
        before = node.instances("w")
        kill_keeper(node)
        config = tmp_path / "other.ini"
        config.write_text("[job:more]\ncmd = sleep 1000\n")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with gafferd("--keeper", "--bind", f"127.0.0.1:{port}", str(config), state_dir=node.state) as keeper:
            other = Node(keeper, node.state)
            assert keeper.port == port
            assert other.instances("w") == before
            assert len(other.running("more", 1)) == 1
            with pytest.raises(OSError, match="refused"):
                ping(node.url)


def test_without_gafferd_sigterm_ends_whole_trees(tmp_path: Path) -> None:
    script, config = tmp_path / "tree.sh", tmp_path / "gafferd.ini"
    script.write_text("trap '' TERM\nsleep 1000 &\nsetsid sleep 1000 &\ntrap - TERM\nsleep 1000 & wait\n")
    config.write_text("[gaffer]\n")
    with orphan(tmp_path) as node:
        node.load({"name": "tree", "cmd": f"sh {script}", "graceful_timeout": 0.5})
        [leader] = node.running("tree", 1)
        children = eventually(lambda: len(found := psutil.Process(leader.os_pid).children()) == 3 and found)
        kill_keeper(node)
        with gafferd("--keeper", str(config), state_dir=node.state) as keeper:
            other = Node(keeper, node.state)
            assert other.instances("tree") == [leader]
            with without_gafferd(other, config):
                keeper.stop()  # what the gafferd before it had started is of process 1 now
                assert [each.pid for each in children if each.is_running()] == []


def test_in_the_background(tmp_path: Path) -> None:
    with orphan(tmp_path) as node:
        before = node.instances("w")
        kill_keeper(node)
        pidfile, log = tmp_path / "pid", tmp_path / "log"
        subprocess.run(
            [
                *(command_path("gafferd"), "--state-dir", str(node.state), "--bind", "127.0.0.1:0", "--daemon"),
                *("--pidfile", str(pidfile), "--error-log", str(log)),
            ],
            env=clean_env(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,  # which is closed, or this would wait
            stderr=subprocess.STDOUT,
            check=True,
            timeout=TIMEOUT,
        )
        keeper = eventually(lambda: int(pidfile.read_text()), timeout=TIMEOUT, retry_on=(FileNotFoundError, ValueError))
        eventually(lambda: node.get("/health")["keeper"]["pid"] == keeper, timeout=TIMEOUT, retry_on=(OSError,))
        assert node.instances("w") == before
        assert "it took over from a gafferd whose keeper was killed" in log.read_text()
        os.kill(keeper, signal.SIGTERM)
        eventually(lambda: not psutil.pid_exists(keeper), timeout=TIMEOUT)
        assert not any(psutil.pid_exists(each.os_pid) for each in before)


def test_a_node_that_has_its_keeper_is_left_alone(tmp_path: Path) -> None:
    with orphan(tmp_path) as node:
        first, before = node.pid, node.instances("w")
        refused = start(node)
        assert (refused.returncode, IN_USE in refused.stderr) == (1, True)
        kill_keeper(node)
        claim(node).close()
        with gafferd("--keeper", state_dir=node.state) as keeper:
            refused = start(node)
            assert (refused.returncode, IN_USE in refused.stderr) == (1, True)
            assert Node(keeper, node.state).pid != first
            assert Node(keeper, node.state).instances("w") == before


def test_it_goes_on_when_the_other_dies_in_between(tmp_path: Path) -> None:
    with orphan(tmp_path) as node:
        before = node.instances("w")
        kill_keeper(node)
        with claim(node) as connection:
            connection.send(b"something else")
            assert connection.recv(100) == b""
        assert node.instances("w") == before
        pid = node.pid
        with claim(node) as connection:
            connection.send(b"CLAIM")
            assert connection.recv(100)
        eventually(lambda: node.pid != pid, timeout=TIMEOUT)
        assert node.instances("w") == before
        assert "the other gafferd did not take over: going on" in node.logged
        os.kill(node.get("/health")["keeper"]["pid"], signal.SIGTERM)
        eventually(lambda: not any(psutil.pid_exists(each.os_pid) for each in before), timeout=TIMEOUT)


@needs_root
def test_no_other_user_can_take_over(tmp_path: Path) -> None:
    with orphan(tmp_path) as node:
        before = node.instances("w")
        kill_keeper(node)
        claim(node).close()
        asks = (
            "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); "
            "s.connect(chr(0) + sys.argv[1]); s.send(b'CLAIM'); print(s.recv(100))"
        )
        found = subprocess.run(
            [
                "setpriv",
                "--reuid",
                "65534",
                "--clear-groups",
                sys.executable,
                "-I",
                "-S",
                "-c",
                asks,
                address(node)[1:],
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.stdout in ("b''\n", "")  # refused, or the connection was closed before it asked
        assert node.instances("w") == before
        os.kill(node.get("/health")["keeper"]["pid"], signal.SIGTERM)
        eventually(lambda: not any(psutil.pid_exists(each.os_pid) for each in before), timeout=TIMEOUT)


def test_the_next_one_may_fail_to_start(tmp_path: Path) -> None:
    with orphan(tmp_path) as node:
        before = node.instances("w")
        kill_keeper(node)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            keeper = Daemon(
                *("gafferd", "--keeper", "--state-dir", str(node.state)),
                *("--bind", f"127.0.0.1:{taken.getsockname()[1]}"),
            )
            keeper.wait_for_line("exited with status 1: starting it again")
            assert all(psutil.pid_exists(each.os_pid) for each in before)
        keeper.wait_for_line("listening on http:")
        assert Node(keeper, node.state).instances("w") == before
        keeper.stop()
        assert not any(psutil.pid_exists(each.os_pid) for each in before)


def test_a_node_that_can_not_start_takes_nothing(tmp_path: Path) -> None:
    with orphan(tmp_path) as node:
        before = node.instances("w")
        kill_keeper(node)
        claim(node).close()
        assert node.instances("w") == before
        pid = node.pid
        refused = start(node, "--bind", "0.0.0.0:0")
        assert (refused.returncode, "no API key" in refused.stderr) == (2, True)
        assert (node.pid, node.instances("w")) == (pid, before)
        node.stop()


def test_a_limit_that_is_too_low_for_what_is_kept(tmp_path: Path) -> None:
    with orphan(tmp_path) as node:
        before = node.instances("w")
        kill_keeper(node)
        claim(node).close()
        kept = len(list(Path(f"/proc/{node.get('/health')['keeper']['pid']}/fd").iterdir()))
        for limit in (max(kept, 48), kept + 30):
            refused = start(node, enter=("prlimit", f"--nofile={limit}"))
            assert (refused.returncode, IN_USE in refused.stderr or "which has died" in refused.stderr) == (1, True)
            assert node.instances("w") == before
        assert "the limit of open files is" in refused.stderr
        node.stop()


def test_more_is_kept_than_the_soft_limit_of_the_next_one(tmp_path: Path) -> None:
    with orphan(tmp_path) as node:
        before = node.instances("w")
        streams = [f"s{number}" for number in range(40)]
        node.load({"name": "many", "cmd": "sleep", "args": ["1000"], "custom_streams": streams})
        many = node.running("many", 1)
        kill_keeper(node)
        with gafferd("--keeper", state_dir=node.state, enter=("prlimit", "--nofile=64:4096")) as keeper:
            other = Node(keeper, node.state)
            other.kill()
            assert (other.instances("w"), other.instances("many")) == (before, many)


def test_a_terminal_that_stops_background_writers(tmp_path: Path) -> None:
    with orphan(tmp_path) as node:
        before = node.instances("w")
        kill_keeper(node)
        assert node.instances("w") == before
        serve_below_tostop(node.state)
        assert not any(psutil.pid_exists(each.os_pid) for each in before)
