import os
import subprocess

import pytest

from gaffer.pidfile import Pidfile


@pytest.fixture
def path(tmp_path):
    return tmp_path / "d.pid"


@pytest.fixture
def other():
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
def test_create_and_unlink(path):
    pidfile = Pidfile(path)
    pidfile.create(os.getpid())
    assert path.read_text() == f"{os.getpid()}\n"
    assert path.stat().st_mode & 0o777 == 0o644
    pidfile.create(os.getpid())
    pidfile.unlink()
    assert list(path.parent.iterdir()) == []
    pidfile.unlink()


@pytest.mark.row("MISC-PID-01")
def test_without_a_name_it_makes_a_temporary_file():
    pidfile = Pidfile()
    pidfile.create(os.getpid())
    assert pidfile.validate() == os.getpid()
    pidfile.unlink()
    assert not os.path.exists(pidfile.fname)


@pytest.mark.row("MISC-PID-02")
def test_a_live_owner_is_respected(path, other):
    path.write_text(f"{other.pid}\n")
    with pytest.raises(RuntimeError, match=f"already running with pid {other.pid}"):
        Pidfile(path).create(os.getpid())
    assert path.read_text() == f"{other.pid}\n"


@pytest.mark.row("MISC-PID-05")
@pytest.mark.parametrize("content", ["", "garbage", "-1", "0", "12 34", "9" * 40, "\xff\0"])
def test_garbage_is_stale(path, content):
    path.write_text(content, encoding="latin-1")
    pidfile = Pidfile(path)
    assert pidfile.validate() is None
    pidfile.create(os.getpid())
    assert pidfile.validate() == os.getpid()


@pytest.mark.row("MISC-PID-05")
def test_a_dead_owner_is_stale(path):
    path.write_text(str(ended_pid()))
    assert Pidfile(path).validate() is None
    assert Pidfile(path.with_name("missing")).validate() is None


@pytest.mark.row("MISC-PID-05")
def test_an_owner_of_another_user_is_alive(path):
    path.write_text("1\n")
    assert Pidfile(path).validate() == 1


@pytest.mark.row("MISC-PID-02")
def test_a_missing_directory_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="no directory"):
        Pidfile(tmp_path / "missing" / "d.pid").create(os.getpid())


@pytest.mark.row("MISC-PID-04")
def test_unlink_leaves_the_file_of_another(path, other):
    pidfile = Pidfile(path)
    pidfile.create(os.getpid())
    path.write_text(f"{other.pid}\n")
    pidfile.unlink()
    assert path.exists()


@pytest.mark.row("MISC-PID-03")
def test_rename(path):
    pidfile = Pidfile(path)
    with pytest.raises(RuntimeError, match="not created"):
        pidfile.rename(path.with_name("new.pid"))
    pidfile.create(os.getpid())
    pidfile.rename(path.with_name("new.pid"))
    assert [p.name for p in path.parent.iterdir()] == ["new.pid"]
    assert pidfile.validate() == os.getpid()
