"""`gafferctl watch` as people use it, on a real gafferd."""

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gaffer_client import Job, Server
from support.client import Commands
from support.daemons import Daemon, gafferd
from support.following import Following, following
from support.poll import eventually


@contextmanager
def watching(server: Server, *args: str) -> Iterator[Following]:
    """Run it until the block ends; it is connected when the block begins."""
    with following("gafferctl", "--connect", server.url, "watch", *args) as watch:
        eventually(lambda: followers(server) == 1)
        yield watch


def followers(server: Server) -> int:
    """How many clients follow a feed of the node."""
    text = server.transport.request("GET", "/metrics").body.decode()
    match = re.search(r"^gaffer_http_feeds (\d+)", text, re.MULTILINE)
    assert match, text
    return int(match[1])


@pytest.fixture(scope="module")
def node() -> Iterator[Daemon]:
    with gafferd() as node:
        yield node


@pytest.fixture
def server(node: Daemon) -> Iterator[Server]:
    with Server(node.url) as server:
        yield server
        for name in server.jobs():
            server.unload(name)


@pytest.fixture
def dummy(server: Server) -> Job:
    job = server.load({"name": "dummy", "cmd": "sleep 1000", "startsecs": 0})
    eventually(lambda: job.pids)
    return job


def crash(job: Job) -> None:
    """End the only process of a job as a crash would."""
    [instance] = job.info()["instances"]
    assert instance["os_pid"] is not None
    os.kill(instance["os_pid"], signal.SIGKILL)


def texts(lines: list[str]) -> list[str]:
    """The lines without the time, each of which has its form."""
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d \S+ \| \S+ \S+( \((SIGKILL|process \d+)\))?", line) for line in lines)
    return [re.sub(r" \(process \d+\)$", " (process N)", line[9:]) for line in lines]


@pytest.mark.row("GC-11", "GC-12", "GC-13", "CL-65", "HTTP-37")
def test_all_events(server: Server, dummy: Job) -> None:
    with watching(server) as watch:
        crash(dummy)
        eventually(lambda: any("proc.dummy.ready" in line for line in watch.lines))
        assert watch.interrupt() == (130, "")
    assert texts(watch.lines) == [
        "dummy | exit dummy (SIGKILL)",
        "dummy | proc.dummy.exit dummy (SIGKILL)",
        "dummy | spawn dummy",
        "dummy | proc.dummy.spawn dummy",
        "dummy | ready dummy (process N)",
        "dummy | proc.dummy.ready dummy (process N)",
    ]


@pytest.mark.row("GC-11", "GC-12", "CL-65")
@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (
            "proc.dummy",
            ["proc.dummy.exit dummy (SIGKILL)", "proc.dummy.spawn dummy", "proc.dummy.ready dummy (process N)"],
        ),
        ("proc.dummy.spawn", ["proc.dummy.spawn dummy"]),
    ],
)
def test_some_events(server: Server, dummy: Job, pattern: str, expected: list[str]) -> None:
    with watching(server, pattern) as watch:
        server.load({"name": "other", "cmd": "sleep 1000"})
        crash(dummy)
        eventually(lambda: any(expected[-1].partition(" (process")[0] in line for line in watch.lines))
        assert watch.interrupt() == (130, "")
    assert texts(watch.lines) == [f"dummy | {event}" for event in expected]


@pytest.mark.row("GC-12", "CL-65")
def test_a_colour_for_each_template(server: Server, dummy: Job) -> None:
    with watching(server, "spawn", "--colorize") as watch:
        server.load({"name": "other", "cmd": "sleep 1000"})
        crash(dummy)
        eventually(lambda: len(watch.lines) == 2)
        watch.interrupt()
    colours = {re.sub(r".* spawn (\w+)\x1b\[0m", r"\1", line): line[:5] for line in watch.lines}
    assert set(colours) == {"other", "dummy"}
    assert len(set(colours.values())) == 2
    assert all(colour.startswith("\x1b[") for colour in colours.values())


def test_documents(server: Server, dummy: Job) -> None:
    with watching(server, "exit", "--json") as watch:
        crash(dummy)
        eventually(lambda: watch.lines)
        watch.interrupt()
    event = json.loads(watch.lines[0])
    assert (event["event"], event["name"], event["term_signal"]) == ("exit", "dummy", 9)


def test_a_node_that_is_started_again() -> None:
    with gafferd() as first:
        port = first.port
        with Server(first.url) as server, watching(server, "create") as watch:
            server.load({"name": "once", "cmd": "sleep 1000"})
            eventually(lambda: watch.lines)
            first.stop()
            with gafferd("--bind", f"127.0.0.1:{port}"):
                eventually(lambda: followers(server) == 1)
                server.load({"name": "again", "cmd": "sleep 1000"})
                eventually(lambda: len(watch.lines) == 2)
                status, stderr = watch.interrupt()
    assert texts(watch.lines) == ["once | create once", "again | create again"]
    assert status == 130
    *lost, missing = stderr.splitlines()
    assert all(line.startswith("warning: ") and line.endswith("; reconnecting") for line in lost)
    begins_anew = "its events begin anew, and an unknown number of them may be missing"
    assert missing == f"warning: the node was restarted: {begins_anew}"


def test_mistakes(gafferctl: Commands, closed: str) -> None:
    assert gafferctl("watch", "--heartbeat", "never").status == 2
    ran = gafferctl("--connect", closed, "watch")
    assert (ran.status, ran.out) == (3, "")
    assert "connection refused" in ran.err
