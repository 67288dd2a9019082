"""Listening sockets of jobs that a keeper holds while one manager follows another."""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gaffer.errors import StartFailed
from gaffer.jobs.names import JobName
from gaffer.processes.sockets import JobSockets
from support.holder import Holder
from support.needs import needs_linux, needs_root

pytestmark = needs_linux

WEB, API = JobName("default", "web"), JobName("shop", "api")
TCP = "tcp:127.0.0.1:0"


@contextmanager
def manager(holder: Holder) -> Iterator[JobSockets]:
    """The sockets of a manager that hands over, or ends by SIGKILL: its descriptors are closed, and that is all."""
    sockets = JobSockets(asyncio.get_running_loop(), holder)
    try:
        yield sockets
    finally:
        sockets.leave()


@pytest.fixture
def holder() -> Iterator[Holder]:
    holder = Holder()
    yield holder
    holder.close()


def places(sockets: JobSockets, job: JobName = WEB) -> list[dict[str, str | int]]:
    found = sockets.addresses(job)
    assert found
    return found


def connect(place: dict[str, str | int]) -> socket.socket:
    if "path" in place:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(10)
        try:
            client.connect(str(place["path"]))
        except BaseException:
            client.close()
            raise
        return client
    return socket.create_connection((str(place["address"]), int(place["port"])), timeout=10)


def is_refused(place: dict[str, str | int]) -> bool:
    try:
        connect(place).close()
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    return False


def answer(descriptor: int, count: int) -> None:
    """Accept so many connections, and greet each."""
    with socket.socket(fileno=os.dup(descriptor)) as listening:
        for _ in range(count):
            listening.accept()[0].close()


async def test_the_next_manager_continues_with_the_same_sockets(holder: Holder, tmp_path: Path) -> None:
    specs = [f"a={TCP}", f"b={TCP}", TCP, TCP, f"u=unix:{tmp_path}/a|b é.sock", "tcp:[::1]:0"]
    with manager(holder) as first:
        first.open(WEB, specs)
        before = places(first)
        inode = os.stat(str(before[4]["path"])).st_ino
    waiting = [connect(place) for place in before]
    with manager(holder) as second:
        descriptors = [each for _, each in second.open(WEB, specs)]
        assert sorted(map(str, places(second))) == sorted(map(str, before))
        assert [place["name"] for place in places(second)] == ["a", "b", "tcp", "tcp", "u", "tcp"]
        assert os.stat(str(before[4]["path"])).st_ino == inode
        for descriptor in descriptors:
            assert os.get_blocking(descriptor)
            assert not os.get_inheritable(descriptor)
            answer(descriptor, 1)
        for client in waiting:
            assert client.recv(1) == b""
            client.close()
    assert len(holder.kept) == len(specs)


async def test_a_changed_definition_closes_only_what_it_no_longer_has(holder: Holder, tmp_path: Path) -> None:
    old, path = tmp_path / "old.sock", tmp_path / "kept.sock"
    with manager(holder) as first:
        first.open(WEB, [f"a={TCP}", f"b={TCP}", f"unix:{old}", f"unix:{path}"])
        a, b, *_ = places(first)
    with manager(holder) as second:
        second.open(WEB, [f"x=unix:{path}", f"b={TCP}", f"c={TCP}"])
        assert is_refused(a)
        assert not old.exists()
        assert places(second)[1] == b
        assert not any(map(is_refused, places(second)))
    assert len(holder.kept) == 3


async def test_an_address_that_has_just_been_closed_can_be_bound_again(holder: Holder) -> None:
    """The keeper closes its duplicate when it comes to it, and until then the system regards the address as in use."""
    with manager(holder) as sockets:
        sockets.open(WEB, [TCP])
        port = places(sockets)[0]["port"]
        sockets.open(WEB, [f"tcp:*:{port}"])
        sockets.close(WEB)
        sockets.open(API, [f"tcp:127.0.0.1:{port}"])
        sockets.open(API, [f"tcp:*:{port}"])
    with manager(holder) as second:
        second.open(API, [f"tcp:127.0.0.1:{port}"])
        assert not is_refused(places(second, API)[0])


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_another_job_gets_the_socket_of_one_that_is_gone(holder: Holder, kind: str, tmp_path: Path) -> None:
    with manager(holder) as first:
        first.open(WEB, [TCP])
        port = places(first)[0]["port"]
        spec = f"tcp:127.0.0.1:{port}" if kind == "tcp" else f"unix:{tmp_path}/web.sock"
        first.open(WEB, [spec])
        first.open(API, [TCP])
        place, other = places(first)[0], places(first, API)[0]
    with connect(place) as waiting, manager(holder) as second:
        [(_, descriptor)] = second.open(API, [spec])
        answer(descriptor, 1)
        assert waiting.recv(1) == b""
        assert is_refused(other)  # its own, which it no longer has
    with manager(holder) as third:
        third.open(API, [spec])
        third.close_unused([])
        assert not is_refused(place)
        third.open(WEB, [TCP])
        assert port != places(third)[0]["port"]


async def test_a_wider_socket_of_a_job_that_is_gone_is_not_in_the_way(holder: Holder) -> None:
    with manager(holder) as first:
        first.open(WEB, ["tcp:*:0"])
        port = places(first)[0]["port"]
        first.open(WEB, [f"tcp:*:{port}"])
    with manager(holder) as second:
        second.open(API, [f"tcp:127.0.0.1:{port}"])
        assert is_refused({"address": "::1", "port": port})
        assert not is_refused({"address": "127.0.0.1", "port": port})
    assert len(holder.kept) == 1


async def test_sockets_that_no_job_has_are_closed(holder: Holder, tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with manager(holder) as first:
        first.open(WEB, [TCP])
        first.open(API, [TCP, f"unix:{path}"])
        web, api = places(first)[0], places(first, API)
    with manager(holder) as second:
        assert not second.awaits_opening(WEB)
        second.close_unused([WEB])
        assert second.awaits_opening(WEB)
        assert all(map(is_refused, api))
        assert not path.exists()
        assert not is_refused(web)
        assert len(holder.kept) == 1
        second.open(WEB, [TCP])
        assert not second.awaits_opening(WEB)
        assert places(second) == [web]


async def test_a_manager_that_did_not_begin_leaves_them_to_the_next(holder: Holder, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    with manager(holder) as first:
        first.open(WEB, [f"unix:{path}"])
        place = places(first)[0]
    JobSockets(asyncio.get_running_loop(), holder).close_all()
    with connect(place) as waiting, manager(holder) as second:
        [(_, descriptor)] = second.open(WEB, [f"unix:{path}"])
        answer(descriptor, 1)
        assert waiting.recv(1) == b""


async def test_a_manager_that_stops_closes_them_but_not_for_detached_processes(holder: Holder, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    sockets = JobSockets(asyncio.get_running_loop(), holder)
    [(_, fd), _] = sockets.open(WEB, [TCP, f"unix:{path}"])
    place = places(sockets)[0]
    of_process = os.dup(fd)
    sockets.close_all()
    assert holder.kept == {}
    assert not path.exists()
    with connect(place) as client:
        answer(of_process, 1)
        assert client.recv(1) == b""
    os.close(of_process)


async def test_a_failure_to_open_leaves_nothing_behind(holder: Holder, tmp_path: Path) -> None:
    with manager(holder) as sockets:
        with pytest.raises(StartFailed):
            sockets.open(WEB, [TCP, f"unix:{tmp_path}/missing/web.sock"])
        assert holder.kept == {}


async def test_a_removed_socket_file_is_made_again(holder: Holder, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    with manager(holder) as first:
        first.open(WEB, [f"unix:{path}"])
    path.unlink()
    with manager(holder) as second:
        second.open(WEB, [f"unix:{path}"])
        assert not is_refused(places(second)[0])
    assert len(holder.kept) == 1


@needs_root
async def test_the_owner_of_a_socket_file_is_remembered(holder: Holder, tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 0)
    path = tmp_path / "web.sock"
    with manager(holder) as first:
        first.open(WEB, [f"unix:{path}"], uid="nobody")
        inode = path.stat().st_ino
    with manager(holder) as second:
        second.open(WEB, [f"unix:{path}"], uid="nobody")
        assert path.stat().st_ino == inode
    with manager(holder) as third, connect({"path": str(path)}):
        third.open(WEB, [f"unix:{path}"], uid="nobody", gid=0)
        assert (path.stat().st_uid, path.stat().st_gid) == (65534, 0)


@pytest.mark.parametrize(
    "name",
    ["", "default.web", "default.web:=tcp:127.0.0.1:0", "a.b.c:=tcp:127.0.0.1:0|1", "default.web:=unix:/a|1|2|3",
     "default.web:=tcp:127.0.0.1:0|x", "default.web:tcp|1", "default.web:=unix:/a|||x|"],
)  # fmt: skip
async def test_what_can_not_be_understood_is_closed(holder: Holder, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        holder.keep(name, listening.fileno())
    with manager(holder) as sockets:
        assert holder.kept == {}
        sockets.open(WEB, [TCP])


async def test_what_does_not_listen_is_closed(holder: Holder) -> None:
    reader, writer = os.pipe()
    with socket.socket() as unbound:
        holder.keep("default.web:tcp=tcp:127.0.0.1:0|1", reader)
        holder.keep("default.web:b=tcp:127.0.0.1:0|1", unbound.fileno())
    os.close(reader)
    os.close(writer)
    with manager(holder) as sockets:
        assert holder.kept == {}
        sockets.open(WEB, [TCP])
