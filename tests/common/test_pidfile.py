import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gaffer.pidfile import Pidfile
from support.needs import needs_root
from support.poll import eventually


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "d.pid"


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """A living process that is not ours."""
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def ended_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.mark.row("MISC-PID-02", "MISC-PID-04")
def test_create_and_unlink(path: Path) -> None:
    pidfile = Pidfile(path)
    pidfile.create(os.getpid())
    assert path.read_text() == f"{os.getpid()}\n"
    assert path.stat().st_mode & 0o777 == 0o644
    pidfile.create(os.getpid())
    pidfile.unlink()
    assert list(path.parent.iterdir()) == []
    pidfile.unlink()


@pytest.mark.row("MISC-PID-01")
def test_without_a_name_it_makes_a_temporary_file() -> None:
    pidfile = Pidfile()
    pidfile.create(os.getpid())
    assert pidfile.validate() == os.getpid()
    assert pidfile.fname is not None
    pidfile.unlink()
    assert not os.path.exists(pidfile.fname)


@pytest.mark.row("MISC-PID-02")
def test_a_live_owner_is_respected(path: Path, other: subprocess.Popen[bytes]) -> None:
    path.write_text(f"{other.pid}\n")
    with pytest.raises(RuntimeError, match=f"already running with pid {other.pid}"):
        Pidfile(path).create(os.getpid())
    assert path.read_text() == f"{other.pid}\n"


@pytest.mark.row("MISC-PID-05")
@pytest.mark.parametrize("content", ["", "garbage", "-1", "0", "12 34", "9" * 40, "\xff\0"])
def test_garbage_is_stale(path: Path, content: str) -> None:
    path.write_text(content, encoding="latin-1")
    pidfile = Pidfile(path)
    assert pidfile.validate() is None
    pidfile.create(os.getpid())
    assert pidfile.validate() == os.getpid()


@pytest.mark.row("MISC-PID-05")
def test_a_dead_owner_is_stale(path: Path) -> None:
    path.write_text(str(ended_pid()))
    assert Pidfile(path).validate() is None
    assert Pidfile(path.with_name("missing")).validate() is None


@pytest.mark.row("MISC-PID-05")
def test_an_owner_of_another_user_is_alive(path: Path) -> None:
    path.write_text("1\n")
    assert Pidfile(path).validate() == 1


@pytest.mark.row("MISC-PID-02")
def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no directory"):
        Pidfile(tmp_path / "missing" / "d.pid").create(os.getpid())


@pytest.mark.row("MISC-PID-04")
def test_unlink_leaves_the_file_of_another(path: Path, other: subprocess.Popen[bytes]) -> None:
    pidfile = Pidfile(path)
    pidfile.create(os.getpid())
    path.write_text(f"{other.pid}\n")
    pidfile.unlink()
    assert path.exists()


@pytest.mark.row("MISC-PID-03")
def test_rename(path: Path) -> None:
    pidfile = Pidfile(path)
    with pytest.raises(RuntimeError, match="not created"):
        pidfile.rename(path.with_name("new.pid"))
    pidfile.create(os.getpid())
    pidfile.rename(path.with_name("new.pid"))
    assert [p.name for p in path.parent.iterdir()] == ["new.pid"]
    assert pidfile.validate() == os.getpid()


# With a lock: who runs is known by it, not by a number


@pytest.mark.parametrize("content", ["{other}\n", "1\n", "{own}\n"])
def test_the_number_of_another_program_is_stale(path: Path, other: subprocess.Popen[bytes], content: str) -> None:
    """After a crash, in a restarted container say, the number may be anybody's."""
    path.write_text(content.format(other=other.pid, own=os.getpid()))
    pidfile = Pidfile(path, lock=True)
    assert pidfile.validate() is None
    pidfile.create(os.getpid())
    assert pidfile.validate() == os.getpid()
    assert path.read_text() == f"{os.getpid()}\n"
    pidfile.unlink()
    assert not path.exists()


HOLD = (
    "import os, sys; from gaffer.pidfile import Pidfile; Pidfile(sys.argv[1], lock=True).create(os.getpid()); input()"
)


def test_the_holder_of_the_lock_runs_until_it_ends(path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE) as holder:
        eventually(lambda: path.exists())
        assert Pidfile(path, lock=True).validate() == holder.pid
        with pytest.raises(RuntimeError, match=f"already running with pid {holder.pid}"):
            Pidfile(path, lock=True).create(os.getpid())
        holder.kill()
        holder.wait()
    pidfile = Pidfile(path, lock=True)
    pidfile.create(os.getpid())
    pidfile.rename(path.with_name("new.pid"))
    assert pidfile.validate() == os.getpid()
    pidfile.unlink()


def test_a_holder_with_our_own_pid_is_another_process(path: Path) -> None:
    """Two containers that share a directory: the daemon of each has the pid 1."""
    holds = HOLD.replace("os.getpid()", str(os.getpid()))
    with subprocess.Popen([sys.executable, "-c", holds, path], stdin=subprocess.PIPE) as holder:
        eventually(lambda: path.exists())
        pidfile = Pidfile(path, lock=True)
        with pytest.raises(RuntimeError, match=f"already running with pid {os.getpid()}"):
            pidfile.create(os.getpid())
        pidfile.unlink()
        assert path.exists()
        holder.kill()


def test_a_holder_whose_pid_does_not_exist_here_runs(path: Path) -> None:
    holds = HOLD.replace("os.getpid()", str(ended_pid()))
    with subprocess.Popen([sys.executable, "-c", holds, path], stdin=subprocess.PIPE) as holder:
        eventually(lambda: path.exists())
        with pytest.raises(RuntimeError, match="already running"):
            Pidfile(path, lock=True).create(os.getpid())
        holder.kill()


WAYS: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: None,
    "stale": lambda path: path.write_text("1\n"),
    "pipe": os.mkfifo,
    "link": lambda path: path.symlink_to("precious"),
}


@pytest.mark.parametrize("make", WAYS.values(), ids=WAYS)
def test_of_several_daemons_that_start_at_once_one_gets_the_file(path: Path, make: Callable[[Path], object]) -> None:
    def race(pidfile: Pidfile) -> bool:
        start.wait()
        try:
            pidfile.create(os.getpid())
        except RuntimeError as error:
            return "already running" not in str(error)
        return True

    racers = 4
    start = threading.Barrier(racers)
    with ThreadPoolExecutor(racers) as pool:
        for _ in range(50):
            make(path)
            pidfiles = [Pidfile(path, lock=True) for _ in range(racers)]
            assert sum(pool.map(race, pidfiles)) == 1
            assert Pidfile(path, lock=True).validate() == os.getpid()
            for pidfile in pidfiles:
                pidfile.unlink()
            assert list(path.parent.iterdir()) == []


def test_a_directory_in_the_way_is_an_error(path: Path) -> None:
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        Pidfile(path, lock=True).create(os.getpid())
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("lock", [False, True])
def test_a_file_with_more_than_a_number_is_left_alone(path: Path, lock: bool) -> None:
    config = "[gaffer]\nbind = 127.0.0.1:5000\n" * 3
    path.write_text(config)
    pidfile = Pidfile(path, lock=lock)
    with pytest.raises(RuntimeError, match=f"{path} is not a pidfile: it has 93 bytes"):
        pidfile.create(os.getpid())
    pidfile.unlink()
    assert path.read_text() == config


def test_a_file_that_was_replaced_is_not_deleted(path: Path) -> None:
    pidfile = Pidfile(path, lock=True)
    pidfile.create(os.getpid())
    path.unlink()
    path.write_text(f"{os.getpid()}\n")
    pidfile.unlink()
    assert path.exists()


@needs_root
def test_the_file_of_another_user_is_none_of_a_daemon(path: Path) -> None:
    """In a directory where everybody can create files, anyone could claim the name, and keep a daemon from starting."""
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE) as holder:
        eventually(lambda: path.exists())
        os.chown(path, 1234, 1234)
        pidfile = Pidfile(path, lock=True)
        pidfile.create(os.getpid())
        assert (path.read_text(), path.stat().st_uid) == (f"{os.getpid()}\n", os.geteuid())
        pidfile.unlink()
        holder.kill()


def test_a_reader_of_the_file_does_not_pass_for_its_daemon(path: Path, other: subprocess.Popen[bytes]) -> None:
    path.write_text(f"{other.pid}\n")
    with path.open("rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_EX)
        fcntl.lockf(reader, fcntl.LOCK_SH)
        assert Pidfile(path, lock=True).validate() is None


@pytest.mark.parametrize("lock", [False, True])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("precious")], ids=["pipe", "link"])
def test_what_is_in_the_way_is_replaced(path: Path, lock: bool, make: Callable[[Path], object]) -> None:
    precious = path.with_name("precious")
    precious.write_text("")
    make(path)
    pidfile = Pidfile(path, lock=lock)
    pidfile.create(os.getpid())
    assert path.read_text() == f"{os.getpid()}\n"
    assert not path.is_symlink()
    assert precious.read_text() == ""
    pidfile.unlink()
