"""What is written to a process and comes back, through a client that connects again while gafferd is replaced."""

import hashlib
import random
import sys
import threading
import time
from pathlib import Path

import pytest

from gaffer_client import Server
from support.http_node import ECHO
from support.survival import TIMEOUT, Node, kept_node

JOB = {"name": "echo", "cmd": sys.executable, "args": ["-I", "-S", "-c", ECHO], "redirect_input": True}


def echo(node: Node, size: int, piece: int, kills: int, pause: float) -> str:
    """Send random bytes to a process that returns them, kill gafferd and upgrade it meanwhile, and compare."""
    randomness = random.Random(5)
    node.load({**JOB, "redirect_output": ["stdout", "stderr"]})
    [instance] = node.running("echo", 1)
    sent, received = hashlib.sha256(), hashlib.sha256()
    done = 0
    failures: list[BaseException] = []
    over = threading.Event()
    with Server(node.url) as server, server.get_process(instance.pid).socket(reconnect=TIMEOUT) as channel:

        def write() -> None:
            nonlocal done
            try:
                while not over.is_set() or done < size:
                    data = randomness.randbytes(randomness.randrange(1, piece))
                    channel.write(data, timeout=TIMEOUT)
                    sent.update(data)
                    done += len(data)
            except BaseException as error:
                failures.append(error)
                raise

        def kill() -> None:
            try:
                for _ in range(kills):
                    time.sleep(randomness.uniform(0.0, pause))  # at any moment is what the test is about
                    node.kill()
                node.upgrade()
            finally:
                over.set()

        threads = [threading.Thread(target=write), threading.Thread(target=kill)]
        for thread in threads:
            thread.start()
        back, last = 0, time.monotonic()
        try:
            while any(thread.is_alive() for thread in threads) or back < done:
                try:
                    data = channel.read(timeout=0.1)
                except TimeoutError:  # perhaps that was all
                    assert time.monotonic() < last + TIMEOUT, f"{done - back} bytes don't come back"
                    continue
                assert data, channel.end_reason
                assert channel.lost == 0
                last = time.monotonic()
                received.update(data)
                back += len(data)
        finally:
            over.set()
            for thread in threads:
                thread.join(TIMEOUT)
        assert failures == []
        assert channel.lost == 0
        assert back == done
        assert received.digest() == sent.digest()
    assert node.running("echo", 1) == [instance]
    return f"{done} bytes there and back during {kills} kills of gafferd and an upgrade: 0 lost, 0 twice, in order"


def test_no_byte_of_an_echo_is_lost(tmp_path: Path) -> None:
    with kept_node(tmp_path) as node:
        print(echo(node, size=200_000, piece=4096, kills=2, pause=0.3))


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_no_byte_of_an_echo_is_lost_in_fifty_kills(tmp_path: Path) -> None:
    with kept_node(tmp_path) as node:
        print(echo(node, size=20_000_000, piece=65536, kills=50, pause=1.0))
