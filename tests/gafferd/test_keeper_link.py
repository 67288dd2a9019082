"""The connection to the keeper, with a keeper as a process."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import msgspec
import psutil
import pytest

from gaffer.jobs.recorder import Recorder
from gaffer.jobs.records import ProcessRecord
from gaffer.loop import new_loop
from gaffer.processes import procfs
from gafferd.keeping.kept import KeptProcesses
from gafferd.keeping.link import KeeperLink, KeptChild
from support.kept import Directed, Kept, is_gone, kept, pipe
from support.poll import eventually

TERM, RECORD = int(signal.SIGTERM), '{"pid":1}'


@contextmanager
def linked(above: Kept, gafferd: Directed, watchdog: float = 10.0) -> Iterator[KeeperLink]:
    """What a gafferd has of its keeper; the test is its event loop."""
    link = KeeperLink(gafferd.connection.dup(), above.pid, watchdog)
    try:
        yield link
    finally:
        link.close()


@contextmanager
def running(link: KeeperLink) -> Iterator[Callable[[Callable[[], object]], Any]]:
    """Start the link on a loop; yields a function that runs the loop until something is true."""
    loop = asyncio.new_event_loop()
    link.start(loop, None)  # type: ignore[arg-type]

    def until(probe: Callable[[], object]) -> Any:
        def turn() -> object:
            loop.run_until_complete(asyncio.sleep(0.01))
            return probe()

        return eventually(turn)

    try:
        yield until
    finally:
        link.close()
        loop.close()


def content(reader: int) -> bytes:
    try:
        return os.read(reader, 100)
    finally:
        os.close(reader)


def take(above: Kept, gafferd: Directed) -> list[KeptChild]:
    """Kill the gafferd; return what the next one is told."""
    gafferd.kill()
    with linked(above, above.gafferd()) as link:
        return link.children()


def test_a_process_with_its_record_and_descriptors_reaches_the_next_gafferd() -> None:
    with kept() as above, pipe(b"unread") as reader, pipe(b"label") as other:
        gafferd = above.gafferd()
        gafferd.send("READY=1")
        pid = gafferd.spawn("sleep", "1000")
        with linked(above, gafferd) as link:
            assert link.children() == []
            link.register(pid, "7", 5, TERM, "old", {"stdout": reader, "stream:a%2Fb": other})
            link.update(pid, "7", 9, 2, RECORD)
            link.store("7", "stdout.journal", other)
            link.remove("7", "stream:a%2Fb")
        [child] = take(above, gafferd)
        assert (child.os_pid, child.id, child.record, child.status) == (pid, "7", RECORD, None)
        assert sorted(child.descriptors) == ["stdout", "stdout.journal"]
        assert [content(child.descriptors[name]) for name in sorted(child.descriptors)] == [b"unread", b"label"]


def test_an_exit_that_gafferd_saw_reaches_the_next_one_unless_it_is_forgotten() -> None:
    with kept() as above:
        gafferd = above.gafferd()
        gafferd.send("READY=1")
        began = time.monotonic()
        pids = [gafferd.do("result = subprocess.Popen(['true'], process_group=0).pid") for _ in range(2)]
        with linked(above, gafferd) as link:
            for pid in pids:
                link.register(pid, str(pid), 5, TERM, RECORD, {})
                link.exited(pid, 42 << 8)
            link.forget(str(pids[0]))
        [child] = take(above, gafferd)
        assert child.exited_at is not None
        assert began < child.exited_at < time.monotonic()
        assert child == KeptChild(pids[1], str(pids[1]), RECORD, 42 << 8, child.exited_at, {})


@pytest.mark.expects_errors("started again by the keeper")
def test_a_kept_process_that_exits_is_reported_once_and_reaped_later() -> None:
    with kept() as above:
        gafferd = above.gafferd()
        gafferd.send("READY=1")
        pid = gafferd.spawn("sleep", "1000")
        with linked(above, gafferd) as link:
            link.register(pid, "7", 5, TERM, RECORD, {})
        gafferd.kill()
        seen: list[tuple[int, int | None]] = []
        with linked(above, above.gafferd()) as link:
            assert len(link.children()) == 1
            link.on_exit = lambda os_pid, status, exited_at: seen.append((os_pid, status))
            with running(link) as until:
                os.kill(pid, signal.SIGTERM)
                until(lambda: seen)
                link.acknowledge(pid)
                link.reap(pid)
                until(lambda: is_gone(pid))
        assert seen == [(pid, TERM)]


@pytest.mark.expects_errors("started again by the keeper")
def test_an_exit_between_the_dump_and_the_adoption_is_reported() -> None:
    with kept() as above:
        gafferd = above.gafferd()
        gafferd.send("READY=1")
        pid = gafferd.spawn("sleep", "1000")
        record = ProcessRecord(7, "default.j", 1, pid, pid, 0, procfs.boot_id(), "node:7", 5.0, False)
        with linked(above, gafferd) as link:
            link.register(pid, "7", 5, TERM, msgspec.json.encode(record).decode(), {})
        gafferd.kill()
        with linked(above, above.gafferd()) as link:
            processes = KeptProcesses(link, Recorder(), lambda callback: None)
            [survivor] = processes.survivors()
            assert not survivor.exited
            seen: list[int | None] = []
            report = link.on_exit

            def adopt_now(*exited: Any) -> None:
                report(*exited)
                adopt = partial(processes.watch, pid, lambda status, exited_at: seen.append(status))
                asyncio.get_running_loop().call_soon(adopt)

            link.on_exit = adopt_now
            with running(link) as until:
                os.kill(pid, signal.SIGTERM)
                until(lambda: seen)
        assert seen == [TERM]


STRANGERS = 2**22  # no pid is larger


def test_what_a_stopped_keeper_misses_it_is_told_later() -> None:
    with kept() as above, pipe(b"unread") as reader:
        gafferd = above.gafferd()
        gafferd.send("READY=1")
        with linked(above, gafferd, 0.2) as link:
            link.register(STRANGERS, "0", 5, TERM, RECORD, {"stdin": reader, "stdout": reader})
            link.register(STRANGERS + 1, "1", 5, TERM, RECORD, {"stdin": reader})
            with running(link) as until:
                above.signal(signal.SIGSTOP)
                until(lambda: is_stopped(above.pid))
                for k in range(2, 800):
                    link.register(STRANGERS + k, str(k), 5, TERM, RECORD, {"stdin": reader, "stdout": reader})
                    link.remove(str(k), "stdout")
                for k in range(1, 800):
                    link.exited(STRANGERS + k, k)
                    if k % 2:
                        link.forget(str(k))
                link.store("0", "stdout.journal", reader)
                link.remove("0", "stdout")
                link.update(STRANGERS, "0", 5, TERM, "new")
                assert len(link._pending) > 300
                error = until(lambda: link.state["error"])
                assert error.startswith(f"the keeper (pid {above.pid}) has not read for 0 s: ")
                above.signal(signal.SIGCONT)
                until(lambda: not link._pending)
                assert link.state["error"] is None
        found = {child.id: child for child in take(above, gafferd)}
        assert sorted(map(int, found)) == list(range(0, 800, 2))
        assert {child.status for child in found.values()} == {"unknown", *range(2, 800, 2)}
        assert (found["0"].record, sorted(found["0"].descriptors)) == ("new", ["stdin", "stdout.journal"])
        assert all(list(child.descriptors) == ["stdin"] for id, child in found.items() if id != "0")
        for child in found.values():
            for descriptor in child.descriptors.values():
                assert os.fstat(descriptor).st_ino == os.fstat(reader).st_ino
                os.close(descriptor)


def test_a_stopped_keeper_shows_although_nothing_changes() -> None:
    with kept() as above:
        gafferd = above.gafferd()
        with linked(above, gafferd, 0.5) as link, running(link) as until:
            link.ready()
            above.signal(signal.SIGSTOP)
            error = until(lambda: link.state["error"])
            assert error.startswith(f"the keeper (pid {above.pid}) has not read for ")
            above.signal(signal.SIGCONT)
            until(lambda: link.state["error"] is None)


def test_more_descriptors_than_a_message_has_room_for() -> None:
    with kept() as above, pipe(b"") as reader:
        gafferd = above.gafferd()
        gafferd.send("READY=1")
        names = [f"stream:{'n' * (40 + k)}" for k in range(100)]
        with linked(above, gafferd) as link:
            link.register(STRANGERS, "7", 5, TERM, RECORD, dict.fromkeys(names, reader))
        [child] = take(above, gafferd)
        assert sorted(child.descriptors) == names
        for descriptor in child.descriptors.values():
            os.close(descriptor)


def test_descriptors_by_name() -> None:
    with kept() as above, pipe(b"first") as first, pipe(b"second") as second:
        gafferd = above.gafferd()
        gafferd.send("READY=1")
        with linked(above, gafferd) as link:
            link.store_descriptors("socket:a", [first, first])
            link.store_descriptors("socket:b", [first])
            link.store_descriptors("socket:a", [second])
            link.store_descriptors("socket:c", [first])
            link.remove_descriptors("socket:c")
        gafferd.kill()
        gafferd = above.gafferd()
        with linked(above, gafferd) as link:
            assert sorted(link.names("socket:")) == ["socket:a", "socket:b"]
            assert [content(each) for each in link.take_descriptors("socket:a")] == [b"second"]
            assert link.take_descriptors("socket:a") == []
            link.remove_descriptors("socket:b")
        gafferd.kill()
        with linked(above, above.gafferd()) as link:
            assert link.names("socket:") == ["socket:a"]  # what is taken is kept on


@pytest.mark.expects_errors("the keeper can't keep 7/stdin: the descriptor was closed")
def test_a_descriptor_that_was_closed_is_not_taken_for_another() -> None:
    with kept() as above, pipe(b"stranger") as other:
        gafferd = above.gafferd()
        gafferd.send("READY=1")
        with linked(above, gafferd) as link, running(link) as until:
            link.register(STRANGERS, "1", 5, TERM, "x", {})
            above.signal(signal.SIGSTOP)
            until(lambda: is_stopped(above.pid))
            while not link._pending:
                link.update(STRANGERS, "1", 5, TERM, link._children["1"].record + "x")
            reader, writer = os.pipe()
            link.register(STRANGERS + 1, "7", 5, TERM, RECORD, {"stdin": reader})
            os.close(writer)
            os.dup2(other, reader)
            above.signal(signal.SIGCONT)
            until(lambda: not link._pending)
            os.close(reader)
        assert {child.id: child.descriptors for child in take(above, gafferd)}["7"] == {}


def is_stopped(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED


@pytest.mark.expects_errors("the keeper .* has ended")
@pytest.mark.parametrize("library", ["asyncio", "uvloop"])
def test_the_end_of_a_keeper_with_unread_messages_is_noticed(library: str) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for message in (b"CHILD=5 1 1 15", b"DUMPED=1"):
        theirs.send(message)
    link = KeeperLink(ours, os.getpid(), 10.0)
    exits: list[int] = []
    lost: list[str] = []
    link.on_exit = lambda os_pid, status, exited_at: exits.append(os_pid)
    link.on_lost = lambda: lost.append("lost")
    loop = new_loop(library)
    try:
        link.start(loop, None)  # type: ignore[arg-type]
        theirs.send(b"EXITED=5 0")
        theirs.close()  # before it has read DUMP
        eventually(lambda: loop.run_until_complete(asyncio.sleep(0.01)) or lost)
        assert (exits, lost) == ([5], ["lost"])
    finally:
        link.close()
        loop.close()
