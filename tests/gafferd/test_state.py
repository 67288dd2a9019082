import asyncio
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gaffer.process import ProcessRecord
from gaffer.processes import procfs
from gaffer.schemas.messages import node_id
from gafferd.state import documents
from gafferd.state.directory import Node, StateDir, StateDirError, default_path
from gafferd.state.leftovers import is_alive
from gafferd.state.lock import Owner, is_original, parse_owner
from support.needs import needs_root
from support.poll import eventually, eventually_async

Spawn = Callable[..., subprocess.Popen[str]]

pytestmark = pytest.mark.expects_errors("left by an earlier gafferd", "ignored SIGTERM")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Starts children in a group of their own, as the manager does, and collects them at the end."""
    processes: list[subprocess.Popen[str]] = []

    def start(*argv: str, cookie: str | None = None, session: bool = False) -> subprocess.Popen[str]:
        env = {**os.environ, **({"GAFFER_PROCESS": cookie} if cookie else {})}
        place = {"start_new_session": True} if session else {"process_group": 0}
        process = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True, **place)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def python(code: str) -> tuple[str, str, str]:
    return (sys.executable, "-c", textwrap.dedent(code))


def stat_of(pid: int) -> procfs.Stat:
    stat = procfs.read_stat(pid)
    assert stat is not None
    return stat


def line_of(process: subprocess.Popen[str]) -> str:
    """The next line that the process writes."""
    assert process.stdout is not None
    return process.stdout.readline()


def record_of(process: subprocess.Popen[str], pid: int = 1, node_id: str = "node", **changes: Any) -> ProcessRecord:
    stat = stat_of(process.pid)
    fields = {
        "pid": pid,
        "job": "default.web",
        "slot": 1,
        "os_pid": process.pid,
        "pgid": process.pid,
        "start_time": stat.start_time,
        "boot_id": procfs.boot_id(),
        "cookie": f"{node_id}:{pid}",
        "graceful_timeout": 10.0,
        "detach": False,
    }
    return ProcessRecord(**{**fields, **changes})


async def write(path: Path, *records: ProcessRecord) -> Node:
    """What a gafferd does that started the processes of `records` and is killed then."""
    state = StateDir.open(path)
    for record in records:
        state.spawned(record)
    state.close()
    return state.node


def end_leftovers(path: Path) -> int:
    state = StateDir.open(path)
    try:
        return state.end_leftovers()
    finally:
        state.close()


def processes_of(path: Path) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = msgspec.json.decode((path / "processes.json").read_bytes())["processes"]
    return records


# The directory


def test_the_directory_is_private(path: Path) -> None:
    StateDir.open(path).close()
    assert path.stat().st_mode & 0o777 == 0o700
    names = ("lock", "node.json", "node.json.copy", "processes.json", "processes.json.copy")
    assert {p.name: p.stat().st_mode & 0o777 for p in path.iterdir()} == dict.fromkeys(names, 0o600)


def test_it_is_private_whatever_the_umask_is(path: Path) -> None:
    before = os.umask(0)
    try:
        StateDir.open(path / "below" / "state").close()
        StateDir.open(path / "below" / "state").close()
    finally:
        os.umask(before)
    below = path / "below"
    assert [place.stat().st_mode & 0o777 for place in (path, below, below / "state")] == [0o755, 0o755, 0o700]


def test_an_open_directory_is_closed_to_others_only_when_it_is_ours(path: Path) -> None:
    path.mkdir(mode=0o755)
    StateDir.open(path).close()
    path.chmod(0o755)
    StateDir.open(path).close()
    assert path.stat().st_mode & 0o777 == 0o700

    shared = path.with_name("shared")
    shared.mkdir(mode=0o755)
    (shared / "file").touch()
    with pytest.raises(StateDirError, match="contains other files"):
        StateDir.open(shared)
    assert shared.stat().st_mode & 0o777 == 0o755


def test_what_can_not_be_a_state_directory(path: Path) -> None:
    path.write_text("")
    for wrong in (path, path / "below"):
        with pytest.raises(StateDirError, match=r"is a file|Not a directory"):
            StateDir.open(wrong)


def test_two_gafferds_can_not_share_it(path: Path) -> None:
    state = StateDir.open(path)
    with pytest.raises(StateDirError, match=rf"another gafferd \(pid {os.getpid()}\)") as caught:
        StateDir.open(path)
    assert "--state-dir" in (caught.value.hint or "")
    state.close()
    StateDir.open(path).close()


def test_where_it_is_by_default(tmp_path: Path) -> None:
    assert str(default_path(True, tmp_path, "/x")) == "/var/lib/gaffer"
    assert default_path(False, tmp_path, None) == tmp_path / ".local/state/gaffer"
    assert str(default_path(False, tmp_path, "/x")) == "/x/gaffer"


# The node


def identity(path: Path) -> Node:
    state = StateDir.open(path)
    state.close()
    return state.node


def test_the_id_stays_and_the_incarnation_grows(path: Path) -> None:
    first, second, third = identity(path), identity(path), identity(path)
    assert first.id == second.id == third.id
    assert [first.incarnation, second.incarnation, third.incarnation] == [1, 2, 3]
    assert identity(path.with_name("other")).id != first.id


@pytest.mark.expects_errors("the node gets a new id")
@pytest.mark.parametrize("change", [{"hostname": "elsewhere"}, {"machine_id": "0123"}])
def test_a_copy_on_another_machine_is_another_node(path: Path, change: dict[str, str]) -> None:
    first = identity(path)
    node = msgspec.structs.replace(first, **change)
    documents.Document(path / "node.json", Node).save(node, sync=False)
    copy = identity(path)
    assert copy.id != first.id
    assert copy.incarnation == 1


def test_an_id_is_made_from_a_secret_that_stays(path: Path) -> None:
    first, second = identity(path), identity(path)
    assert first.id == node_id(first.secret)
    assert second.secret == first.secret
    assert len(first.secret) == 64


@pytest.mark.expects_errors("can't prove its id")
def test_a_node_of_an_earlier_version_gets_an_id_that_it_can_prove(path: Path) -> None:
    first = identity(path)
    document = documents.Document(path / "node.json", Node)
    document.load()
    document.save(msgspec.structs.replace(first, id="0" * 32, secret="", incarnation=7), sync=False)
    second, third = identity(path), identity(path)
    assert second.id == node_id(second.secret) != "0" * 32
    assert (second.incarnation, third.id, third.incarnation) == (1, second.id, 2)


def test_an_incarnation_that_grows_while_the_node_runs_is_kept(path: Path) -> None:
    state = StateDir.open(path)
    state.advance(9)
    state.close()
    assert identity(path).incarnation == 10


# Damage


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def changed(content: bytes) -> bytes:
    return content.replace(b'"pid":1', b'"pid":9').replace(b'"incarnation":1', b'"incarnation":7')


def older(*changes: tuple[str, object]) -> Callable[[bytes], bytes]:
    """What a gafferd without checksums wrote, with a mistake in it."""

    def change(content: bytes) -> bytes:
        fields = msgspec.json.decode(content)
        del fields["format"], fields["serial"], fields["checksum"]
        record = fields["processes"][0] if "processes" in fields else fields
        record.update(changes)
        return msgspec.json.encode(fields)

    return change


DAMAGE = {
    "empty": lambda content: b"",
    "a brace": lambda content: b"{",
    "truncated": truncated,
    "without its end": lambda content: content[:-1],
    "something after it": lambda content: content + b"x",
    "zeros": lambda content: bytes(len(content)),
    "a NUL in it": lambda content: content[:-20] + b"\0" + content[-19:],
    "not UTF-8": lambda content: b"\xff" + content[1:],
    "deeply nested": lambda content: b"[" * 100_000,
    "a list": lambda content: b"[]",
    "null": lambda content: b"null",
    "nothing in it": lambda content: b"{}",
    "another value": changed,
    "another order": lambda content: msgspec.json.encode(msgspec.json.decode(content), order="sorted"),
    "formatted": lambda content: msgspec.json.format(content),
    "no checksum": lambda content: content.replace(b'"checksum"', b'"checksun"'),
    "format 0": lambda content: content.replace(b'"format":1', b'"format":"1"'),
}
WRONG_RECORDS: list[dict[str, object]] = [
    {"os_pid": "1"},
    {"os_pid": 0},
    {"os_pid": -1},
    {"os_pid": 10**30},
    {"start_time": 1.5},
    {"start_time": -(10**20)},
    {"pid": None},
    {"job": "a b"},
    {"job": ""},
    {"detach": "no"},
    {"detach": 0},
    {"graceful_timeout": -1},
    {"port": 10**9},
    {"boot_id": 3},
    {"orphans": "kill"},
]
WRONG_NODES: list[dict[str, object]] = [
    {"id": 3},
    {"id": "x"},
    {"incarnation": "1"},
    {"incarnation": 0},
    {"incarnation": 10**30},
]
CASES = [
    *[(name, damage, id_) for name in ("node.json", "processes.json") for id_, damage in DAMAGE.items()],
    *[("processes.json", older(*wrong.items()), f"{wrong}") for wrong in WRONG_RECORDS],
    *[("node.json", older(*wrong.items()), f"{wrong}") for wrong in WRONG_NODES],
    ("processes.json", lambda content: duplicate(content), "a process twice"),
]


def duplicate(content: bytes) -> bytes:
    fields = msgspec.json.decode(content)
    return msgspec.json.encode({"processes": fields["processes"] * 2})


@pytest.mark.expects_errors("processes.json", "node.json")
@pytest.mark.parametrize(
    ("name", "damage"), [case[:2] for case in CASES], ids=[f"{name} {id_}" for name, _, id_ in CASES]
)
async def test_damage_is_mended_from_the_copy_and_ends_nothing(
    path: Path, spawn: Spawn, name: str, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """With one copy damaged all goes on as before; with both nothing starts, and nothing is touched."""
    detached, plain = spawn("sleep", "60"), spawn("sleep", "60")
    first = await write(path, record_of(detached, 1, detach=True), record_of(plain, 2))
    file, copy = path / name, path / f"{name}.copy"
    good = file.read_bytes()
    assert copy.read_bytes() == good
    bad = damage(good)

    for broken in (file, copy):
        broken.write_bytes(bad)
    with pytest.raises(StateDirError, match=f"{name} is damaged") as error:
        StateDir.open(path)
    assert "remove both files" in (error.value.hint or "")
    assert file.read_bytes() == copy.read_bytes() == bad

    copy.write_bytes(good)
    state = StateDir.open(path)
    assert f"using {copy}" in caplog.text
    assert (state.node.id, state.node.incarnation) == (first.id, 2)
    assert state.end_leftovers() == 1
    assert [record.os_pid for record in state.detached] == [detached.pid]
    state.close()
    assert detached.poll() is None
    assert plain.wait() == -signal.SIGTERM
    assert file.read_bytes() == copy.read_bytes()


@given(position=st.integers(0, 10**6), value=st.integers(0, 255), cut=st.integers(0, 10**6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_change_of_a_byte_goes_unnoticed(tmp_path: Path, position: int, value: int, cut: int) -> None:
    path, node = tmp_path / "node.json", Node("0" * 32, 5, "host", "machine")
    document = documents.Document(path, Node)
    document.save(node, sync=False)
    content = bytearray(path.read_bytes())
    content[position % len(content)] = value
    del content[len(content) - cut % 3 :]
    path.write_bytes(content)
    try:
        assert document.load() == node
    except (documents.DamagedFile, documents.NewerFile):
        assert content != document.copy.read_bytes()


@pytest.mark.expects_errors("is not the newest")
async def test_an_older_file_that_was_brought_back_is_not_believed(
    path: Path, spawn: Spawn, caplog: pytest.LogCaptureFixture
) -> None:
    """Its copy knows of the processes that were started since."""
    first = await write(path)
    older = {name: (path / name).read_bytes() for name in ("node.json", "processes.json")}
    detached = spawn("sleep", "60", cookie=f"{first.id}:2:1")
    await write(path, record_of(detached, 1, f"{first.id}:2", detach=True))
    for name, content in older.items():
        (path / name).write_bytes(content)
    state = StateDir.open(path)
    assert (state.node.id, state.node.incarnation) == (first.id, 3)
    assert state.end_leftovers() == 0
    assert [record.os_pid for record in state.detached] == [detached.pid]
    state.close()
    assert caplog.text.count("is not the newest") == 2


async def test_a_detached_process_without_its_record_is_never_ended(path: Path, spawn: Spawn) -> None:
    """All files are from before it was started: it must neither end nor be started a second time."""
    first = await write(path)
    mark = msgspec.structs.replace(first, incarnation=2).mark
    detached = spawn("sleep", "60", cookie=f"{mark}:1:detached", session=True)
    plain = spawn("sleep", "60", cookie=f"{mark}:2")
    with pytest.raises(StateDirError, match=f"are missing from .*: {detached.pid}$") as error:
        end_leftovers(path)
    assert "restore it or end the processes" in (error.value.hint or "")
    assert detached.poll() is plain.poll() is None
    detached.kill()
    detached.wait()
    assert end_leftovers(path) == 1


def test_a_made_up_cookie_keeps_nobody_from_starting(path: Path, spawn: Spawn) -> None:
    """Queries of lookupd list the id of a node, and any user can put it into an environment."""
    node = identity(path)
    other = msgspec.structs.replace(node, incarnation=7).mark.rpartition(":")[2]
    marks = [
        node.id,
        f"{node.id}:1",
        f"{node.id}:1:",
        f"{node.id}:1:{'0' * 32}",
        f"{node.id}:1:{other}",
        f"{node.id}:\udcff",
    ]
    strangers = [spawn("sleep", "60", cookie=f"{mark}:1:detached", session=True) for mark in marks]
    assert end_leftovers(path) == 0
    assert [stranger.poll() for stranger in strangers] == [None] * len(marks)


def test_a_later_version_is_refused(path: Path) -> None:
    identity(path)
    for name in ("node.json", "processes.json"):
        good = (path / name).read_bytes()
        for newer in (good.replace(b'"format":1', b'"format":2'), b'{"format": 99, "all": "new"}'):
            (path / name).write_bytes(newer)
            with pytest.raises(StateDirError, match="written by a later version of gafferd"):
                StateDir.open(path)
            assert (path / name).read_bytes() == newer
        (path / name).write_bytes(good)


async def test_what_an_earlier_version_wrote_is_read(path: Path, spawn: Spawn) -> None:
    detached = spawn("sleep", "60")
    first = await write(path, record_of(detached, detach=True))
    for name in ("node.json", "processes.json"):
        fields = msgspec.json.decode((path / name).read_bytes())
        del fields["format"], fields["serial"], fields["checksum"]
        (path / name).write_bytes(msgspec.json.encode(fields))
        (path / f"{name}.copy").unlink()
    (path / "lock").write_text("4194304\n")
    state = StateDir.open(path)
    assert state.node.id == first.id
    state.end_leftovers()
    assert [record.os_pid for record in state.detached] == [detached.pid]
    state.close()


@pytest.mark.expects_errors("processes.json")
async def test_records_that_are_damaged_do_not_matter_after_a_boot(path: Path) -> None:
    first = identity(path)
    for name in ("processes.json", "processes.json.copy"):
        (path / name).write_bytes(b"{")
    lock = (path / "lock").read_text().split()
    (path / "lock").write_text(" ".join([*lock[:2], "earlier-boot", *lock[3:]]) + "\n")
    state = StateDir.open(path)
    assert state.node.id == first.id
    assert state.end_leftovers() == 0
    state.close()


async def test_without_records_nothing_is_ended(path: Path, spawn: Spawn) -> None:
    """Which of the processes of this node are detached, no record says."""
    node = identity(path)
    process = spawn("sleep", "60", cookie=f"{node.mark}:7")
    for name in ("processes.json", "processes.json.copy"):
        (path / name).unlink()
    state = StateDir.open(path)
    with pytest.raises(StateDirError, match=f"running processes of this node are missing from .*: {process.pid}"):
        state.end_leftovers()
    state.close()
    assert process.poll() is None


# Copies of a directory


def copy_to(path: Path, name: str, owner: subprocess.Popen[str]) -> Path:
    """What `cp -a` makes of it while the process `owner` is its gafferd."""
    copy = path.with_name(name)
    shutil.copytree(path, copy)
    last = parse_owner((copy / "lock").read_bytes())
    assert last is not None
    start_time = stat_of(owner.pid).start_time
    (copy / "lock").write_bytes(last._replace(pid=owner.pid, start_time=start_time).write())
    return copy


@pytest.mark.expects_errors("this state directory is a copy", "to their own gafferd")
async def test_a_copy_ends_nothing_of_the_original(path: Path, spawn: Spawn) -> None:
    original = StateDir.open(path)
    cookie = f"{original.node.id}:{original.node.incarnation}"
    plain, detached = spawn("sleep", "60", cookie=f"{cookie}:1"), spawn("sleep", "60", cookie=f"{cookie}:2")
    original.spawned(record_of(plain, 1, cookie))
    original.spawned(record_of(detached, 2, cookie, detach=True))
    owner = spawn("sleep", "60")
    copy, orphaned = copy_to(path, "copy", owner), copy_to(path, "orphaned", owner)

    second = StateDir.open(copy)
    assert second.node.id != original.node.id
    assert second.node.incarnation == 1
    assert second.end_leftovers() == 0
    assert second.detached == []
    second.close()
    third = StateDir.open(copy)  # it is a directory of its own by now
    assert (third.node.id, third.node.incarnation) == (second.node.id, 2)
    assert third.end_leftovers() == 0
    third.close()

    owner.kill()
    owner.wait()
    for _ in range(2):
        with pytest.raises(StateDirError, match="is a copy of another state directory") as error:
            StateDir.open(orphaned)
        assert f"{plain.pid}, {detached.pid}" in error.value.message
    for name in ("processes.json", "processes.json.copy"):
        (orphaned / name).unlink()
    StateDir.open(orphaned).close()

    assert plain.poll() is detached.poll() is None
    original.close()
    assert len(processes_of(path)) == 2


HERE = Owner(10, 100, "boot", 1, 2)


@pytest.mark.parametrize(
    ("last", "runs", "expected"),
    [
        (HERE, False, True),
        (Owner(7, 70, "boot", 1, 2), False, True),
        (Owner(7, 70, "boot", 1, 2), True, False),
        (Owner(7, 70, "boot", 1, 3), False, False),
        (Owner(7, 70, "boot", 9, 2), False, False),
        (Owner(7, 70, "earlier", 9, 2), False, True),
        (Owner(7, 70, "earlier", 1, 3), False, False),
        (Owner(7), False, True),
        (Owner(7), True, False),
        (None, False, False),
    ],
)
def test_which_directory_is_an_original(last: Owner | None, runs: bool, expected: bool) -> None:
    assert is_original(last, HERE, runs) is expected


@pytest.mark.parametrize("content", [b"", b"\0", b"12 34", b"x", b"1 2 boot 3", b"1 2 boot 3 4 5", b"\xff", b"-1"])
def test_a_damaged_lock_names_nobody(content: bytes) -> None:
    assert parse_owner(content) is None
    assert parse_owner(HERE.write()) == HERE
    assert parse_owner(b"12\n") == Owner(12)


@pytest.mark.expects_errors("this state directory is a copy")
@pytest.mark.parametrize("content", [b"", b"garbage", None])
async def test_without_its_lock_a_directory_is_no_original(path: Path, spawn: Spawn, content: bytes | None) -> None:
    process = spawn("sleep", "60")
    first = await write(path, record_of(process))
    if content is None:
        (path / "lock").unlink()
    else:
        (path / "lock").write_bytes(content)
    with pytest.raises(StateDirError, match="is a copy"):
        StateDir.open(path)
    assert process.poll() is None
    process.kill()
    process.wait()
    assert identity(path).id != first.id


# What others put there


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770])
def test_a_directory_that_others_may_write_to_is_refused(path: Path, mode: int) -> None:
    identity(path)
    path.chmod(mode)
    with pytest.raises(StateDirError, match="is writable by other users") as error:
        StateDir.open(path)
    assert "chmod 700" in (error.value.hint or "")
    empty = path.with_name("empty")
    empty.mkdir()
    empty.chmod(mode)
    StateDir.open(empty).close()
    assert empty.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "name", ["lock", "node.json", "node.json.new", "processes.json", "processes.json.copy.new", "logs"]
)
def test_no_link_is_written_through(path: Path, name: str) -> None:
    precious = path.with_name("precious")
    precious.write_text("precious")
    path.mkdir(mode=0o700)
    (path / name).symlink_to(precious)
    if name.endswith(".new"):
        StateDir.open(path).close()
        assert not (path / name).is_symlink()
    else:
        with pytest.raises(StateDirError, match=rf"{name} is not trusted"):
            StateDir.open(path)
    assert precious.read_text() == "precious"


@needs_root
@pytest.mark.parametrize(
    "name", ["lock", "node.json", "node.json.copy", "processes.json", "processes.json.copy", "logs"]
)
@pytest.mark.parametrize("make", ["file", "pipe"])
def test_what_a_stranger_put_there_is_refused(path: Path, name: str, make: str) -> None:
    """While the directory was open to others."""
    identity(path)
    planted = path / name
    if name.endswith(".copy"):
        planted.with_suffix("").unlink()
    planted.unlink(missing_ok=True)
    if make == "pipe":
        os.mkfifo(planted)
    else:
        planted.write_text("{}")
    os.chown(planted, 4242, 4242)
    with pytest.raises(StateDirError, match="is not trusted"):
        StateDir.open(path)


# The records


async def test_records_follow_the_processes(path: Path, spawn: Spawn) -> None:
    first, second = spawn("sleep", "60"), spawn("sleep", "60")
    state = StateDir.open(path)
    state.spawned(record_of(first, 1))
    state.spawned(record_of(second, 2))
    state.ended(1)
    state.ended(99)
    assert processes_of(path) == []  # one write for all that happens in one turn of the loop
    await asyncio.sleep(0.01)
    assert [p["os_pid"] for p in processes_of(path)] == [second.pid]
    state.ended(2)
    state.close()
    assert processes_of(path) == []


async def test_the_end_of_a_process_is_written_in_time(path: Path, spawn: Spawn) -> None:
    state = StateDir.open(path)
    state.spawned(record_of(spawn("sleep", "60"), 1))
    await eventually_async(lambda: processes_of(path))
    state.ended(1)
    await eventually_async(lambda: processes_of(path) == [])
    state.close()


async def test_a_start_is_written_at_once_though_an_end_waits(
    path: Path, spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gafferd.state.directory._ENDED_DELAY", 1000)
    first, second = spawn("sleep", "60"), spawn("sleep", "60")
    state = StateDir.open(path)
    state.spawned(record_of(first, 1))
    await eventually_async(lambda: processes_of(path))
    state.ended(1)
    state.spawned(record_of(second, 2))
    await eventually_async(lambda: [p["os_pid"] for p in processes_of(path)] == [second.pid])
    state.close()


@pytest.mark.expects_errors("can't write")
async def test_a_state_file_that_can_not_be_written_stops_nothing(
    path: Path, spawn: Spawn, caplog: pytest.LogCaptureFixture
) -> None:
    process = spawn("sleep", "60")
    state = StateDir.open(path)
    blocker = path / "processes.json"
    blocker.unlink()
    blocker.mkdir()
    for pid in (1, 2):
        state.spawned(record_of(process, pid))
        await asyncio.sleep(0.02)
    assert caplog.text.count("can't write") == 1
    blocker.rmdir()
    state.spawned(record_of(process, 3))
    state.close()
    assert len(processes_of(path)) == 3


# Leftovers


async def test_leftovers_are_ended_with_their_group(path: Path, spawn: Spawn) -> None:
    leader = spawn("sh", "-c", "env -i sleep 60 & echo $!; wait")
    member = psutil.Process(int(line_of(leader)))
    await write(path, record_of(leader))
    assert end_leftovers(path) == 2
    assert leader.wait() == -signal.SIGTERM
    eventually(lambda: not member.is_running())
    assert processes_of(path) == []
    assert end_leftovers(path) == 0


async def test_what_ignores_sigterm_is_killed_after_its_own_timeout(path: Path, spawn: Spawn) -> None:
    ignorer = python("""
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("ready", flush=True)
        while True:
            signal.pause()
    """)
    stubborn, polite = spawn(*ignorer), spawn("sleep", "60")
    line_of(stubborn)
    await write(path, record_of(stubborn, 1, graceful_timeout=0.3), record_of(polite, 2, graceful_timeout=30))
    assert end_leftovers(path) == 2
    assert stubborn.wait() == -signal.SIGKILL
    assert polite.wait() == -signal.SIGTERM


async def test_a_recycled_pid_is_never_touched(path: Path, spawn: Spawn) -> None:
    """The start time tells a stranger that got the recorded pid from the process that had it."""
    stranger = spawn("sleep", "60")
    started = stat_of(stranger.pid).start_time
    await write(path, record_of(stranger, start_time=started - 1))
    assert end_leftovers(path) == 0
    assert stranger.poll() is None


async def test_records_of_an_earlier_boot_mean_nothing(path: Path, spawn: Spawn) -> None:
    stranger = spawn("sleep", "60")
    await write(path, record_of(stranger, boot_id="earlier"))
    assert end_leftovers(path) == 0
    assert stranger.poll() is None


@pytest.mark.expects_errors("is damaged")
def test_without_records_the_cookie_finds_leftovers(path: Path, spawn: Spawn) -> None:
    node = identity(path)
    ours = spawn("sleep", "60", cookie=f"{node.mark}:7")
    others = spawn("sleep", "60", cookie=f"{node.mark}0:7")
    (path / "processes.json").write_bytes(b'{"processes": [{"pid')
    assert end_leftovers(path) == 1
    assert ours.wait() == -signal.SIGTERM
    assert others.poll() is None


async def test_a_daemon_that_left_its_group_is_found_by_its_cookie(path: Path, spawn: Spawn) -> None:
    node = identity(path)
    forker = python("""
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                print(os.getpid(), flush=True)
                time.sleep(60)
            os._exit(0)
        os.wait()
    """)
    leader = spawn(*forker, cookie=f"{node.id}:1")
    daemon = psutil.Process(int(line_of(leader)))
    record = record_of(leader, node_id=node.id)
    leader.wait()
    await write(path, record)
    assert end_leftovers(path) == 1
    eventually(lambda: not daemon.is_running())


async def test_what_a_leftover_starts_while_it_ends_is_ended_too(path: Path, spawn: Spawn) -> None:
    node = identity(path)
    respawner = python("""
        import signal, subprocess, sys
        def respawn(*_):
            child = subprocess.Popen(["sleep", "60"], start_new_session=True)
            print(child.pid, flush=True)
            sys.exit()
        signal.signal(signal.SIGTERM, respawn)
        print("ready", flush=True)
        while True:
            signal.pause()
    """)
    leader = spawn(*respawner, cookie=f"{node.id}:1")
    line_of(leader)
    await write(path, record_of(leader, node_id=node.id))
    assert end_leftovers(path) == 2
    assert not psutil.pid_exists(int(line_of(leader)))


@pytest.mark.expects_errors("was detached and runs on")
async def test_detached_processes_live_on_and_keep_their_records(path: Path, spawn: Spawn) -> None:
    node = identity(path)
    detached = spawn("sleep", "60", cookie=f"{node.id}:1")
    await write(path, record_of(detached, node_id=node.id, detach=True))
    for _ in range(2):
        assert end_leftovers(path) == 0
        assert [p["os_pid"] for p in processes_of(path)] == [detached.pid]
    detached.kill()
    detached.wait()
    assert end_leftovers(path) == 0
    assert processes_of(path) == []


def test_a_zombie_is_not_alive(spawn: Spawn) -> None:
    process = spawn("sleep", "60")
    record = record_of(process)
    assert is_alive(record)
    os.kill(process.pid, signal.SIGKILL)
    assert eventually(lambda: stat_of(process.pid).state == "Z")
    assert not is_alive(record)
