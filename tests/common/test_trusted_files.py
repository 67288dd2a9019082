"""Files that decide what Gaffer does: which are believed, and which are refused, whoever prepared them."""

import grp
import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gaffer.runtime.trusted_files import (
    UntrustedFile,
    check_way,
    find_danger,
    inherited_descriptor,
    open_log,
    open_trusted,
    read_trusted,
)
from support.needs import needs_root, needs_userns
from support.writable import OTHERS_WRITE

STRANGER = 4242


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "inner" / "file"
    path.parent.mkdir(mode=0o755)
    path.write_text("content")
    path.chmod(0o644)
    return path


def modes(mode: int, directory: bool = False) -> Callable[[Path], None]:
    return lambda path: (path.parent if directory else path).chmod(mode)


def owned(directory: bool = False) -> Callable[[Path], None]:
    return lambda path: os.chown(path.parent if directory else path, STRANGER, STRANGER)


def replaced_by(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.rename(path.with_name("other"))
        make(path)

    return change


def linked_by_a_stranger(path: Path) -> None:
    """The directory is reached through a link of another user, in a directory with the sticky bit."""
    os.rename(path.parent, path.parent.with_name("real"))
    path.parent.parent.chmod(0o1777)
    os.symlink("real", path.parent)
    os.chown(path.parent, STRANGER, STRANGER, follow_symlinks=False)


GOOD = {
    "others may read it": modes(0o644),
    "only we may": modes(0o400),
    "a directory that its group may read": modes(0o750, directory=True),
    "a sticky directory": modes(0o1777, directory=True),
}
BAD = {
    "a link": (replaced_by(lambda path: path.symlink_to("other")), "it is a symbolic link"),
    "a pipe": (replaced_by(os.mkfifo), "it is not a regular file"),
    "a directory": (replaced_by(Path.mkdir), "it is not a regular file"),
}
BAD_FOR_ROOT = {
    "it is a stranger's": (owned(), f"it belongs to the user {STRANGER}"),
    "a link of a stranger on the way": (linked_by_a_stranger, f"belongs to the user {STRANGER}"),
}


@pytest.mark.parametrize("change", GOOD.values(), ids=GOOD)
def test_what_only_root_and_we_can_change_is_believed(file: Path, change: Callable[[Path], None]) -> None:
    change(file)
    assert read_trusted(file).data == b"content"
    assert read_trusted(os.path.relpath(file)).data == b"content"


def refused(file: Path, change: Callable[[Path], None], why: str) -> None:
    change(file)
    with pytest.raises(UntrustedFile, match="is not trusted") as error:
        open_trusted(file)
    assert why in error.value.message
    assert str(file) in error.value.message
    assert error.value.hint


@pytest.mark.parametrize(("change", "why"), OTHERS_WRITE)
def test_what_others_can_change_is_refused(file: Path, change: Callable[[Path], None], why: str) -> None:
    refused(file, change, why)


@pytest.mark.parametrize(("change", "why"), BAD.values(), ids=BAD)
def test_what_is_no_file_is_refused(file: Path, change: Callable[[Path], None], why: str) -> None:
    refused(file, change, why)


@needs_root
@pytest.mark.parametrize(("change", "why"), BAD_FOR_ROOT.values(), ids=BAD_FOR_ROOT)
def test_what_others_own_is_refused(file: Path, change: Callable[[Path], None], why: str) -> None:
    refused(file, change, why)


@pytest.mark.expects_errors("other users can move .* away")
@pytest.mark.parametrize(("let_others_write", "why"), OTHERS_WRITE)
def test_a_directory_that_others_can_write_to_is_logged(
    file: Path, let_others_write: Callable[[Path], None], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What they put in the place of the file would be theirs, and refused."""
    let_others_write(file.parent)
    for _ in range(2):
        assert read_trusted(file).data == b"content"
    [record] = caplog.records
    assert f"other users can move {file} away, because of the directory {file.parent}: {why}" in record.getMessage()
    assert record.getMessage().endswith(f"`chmod go-w {file.parent}`")
    with pytest.raises(UntrustedFile, match="because of the directory"):
        check_way(file, strict=True)


def status(mode: int, uid: int, gid: int) -> os.stat_result:
    return os.stat_result((mode, 0, 0, 1, uid, gid, 0, 0, 0, 0))


def test_the_group_of_a_user_alone_may_write() -> None:
    """Where the umask of users is 002, all their directories are such."""
    own = next(u for u in pwd.getpwall() if u.pw_uid and grp.getgrgid(u.pw_gid)[0::3] == (u.pw_name, []))
    other = next(group.gr_gid for group in grp.getgrall() if group.gr_gid != own.pw_gid)
    assert find_danger(status(0o40775, own.pw_uid, own.pw_gid), own.pw_uid) is None
    assert find_danger(status(0o40775, own.pw_uid, other), own.pw_uid) == "its group can write to it"
    assert find_danger(status(0o40777, own.pw_uid, own.pw_gid), own.pw_uid) == "everyone can write to it"
    assert find_danger(status(0o40775, 0, 0), 0) == "its group can write to it"
    assert find_danger(status(0o40775, 4242, 4242), 4242) == "its group can write to it"


def test_directories_on_the_way_may_be_links_of_ours(file: Path) -> None:
    link = file.parent.with_name("link")
    link.symlink_to("inner/../inner")
    assert read_trusted(link / "file").data == b"content"
    loop = file.parent.with_name("loop")
    loop.symlink_to("loop")
    with pytest.raises(OSError, match="symbolic links"):
        open_trusted(loop / "file")


def test_certificates_may_be_links(file: Path) -> None:
    """Such as those in /etc/letsencrypt/live."""
    link = file.with_name("link")
    link.symlink_to(file)
    os.close(open_trusted(link, follow=True))
    file.chmod(0o666)
    with pytest.raises(UntrustedFile, match="everyone can write"):
        open_trusted(link, follow=True)


def test_a_missing_file_is_no_matter_of_trust(file: Path) -> None:
    for missing in (file.with_name("missing"), file / "below", file.parent / "no" / "such"):
        with pytest.raises(OSError):
            open_trusted(missing)


def test_a_descriptor_of_the_shell_is_believed() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"content")
    os.close(writer)
    try:
        assert inherited_descriptor(f"/dev/fd/{reader}") == reader
        assert read_trusted(f"/proc/self/fd/{reader}", descriptors=True).data == b"content"
        with pytest.raises((UntrustedFile, OSError)):
            open_trusted(f"/dev/fd/{reader}")
    finally:
        os.close(reader)
    assert [inherited_descriptor(f"/dev/std{name}") for name in ("in", "out", "err")] == [0, 1, 2]
    assert inherited_descriptor("/dev/fd/x") is inherited_descriptor("key") is None


# Logs


def test_a_log_is_made_and_appended_to(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for _ in range(2):
        descriptor = open_log(log, 0o640)
        os.write(descriptor, b"line\n")
        os.close(descriptor)
    assert log.read_text() == "line\n" * 2
    assert log.stat().st_mode & 0o777 == 0o640
    os.close(open_log("/dev/null"))
    os.close(open_log("/dev/stderr"))


def hard_link(path: Path) -> None:
    path.parent.chmod(0o1777)
    os.link(path.with_name("other"), path)


@pytest.mark.parametrize(
    "make",
    [lambda path: path.symlink_to("other"), lambda path: path.symlink_to("missing"), os.mkfifo, Path.mkdir, hard_link],
    ids=["link", "link to nothing", "pipe", "directory", "hard link"],
)
def test_a_log_goes_through_nothing_else(file: Path, make: Callable[[Path], object]) -> None:
    replaced_by(make)(file)
    with pytest.raises(UntrustedFile):
        open_log(file)
    assert file.with_name("other").read_text() == "content"
    assert not file.with_name("missing").exists()


@needs_root
def test_a_log_is_not_that_of_a_stranger(file: Path) -> None:
    owned()(file)
    with pytest.raises(UntrustedFile, match="belongs to the user"):
        open_log(file)


IN_A_USER_NAMESPACE = """
import ctypes, os, sys
from gaffer.runtime.trusted_files import UntrustedFile, read_trusted
os.setgroups([])
os.setgid(4242)
os.setuid(4242)
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE, for /proc/self to be ours
assert libc.unshare(0x10000000) == 0  # CLONE_NEWUSER
with open("/proc/self/uid_map", "w") as file:
    file.write("1000 4242 1")
print(read_trusted(sys.argv[1]).data.decode())
try:
    read_trusted(sys.argv[2])
except UntrustedFile as error:
    print(error.message)
"""


@needs_userns
def test_in_a_user_namespace_directories_of_the_host_will_do() -> None:
    """`/` belongs to a user that the namespace doesn't know (user_namespaces(7)). A file of that one is refused."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        ours, others = Path(folder) / "ours", Path(folder) / "others"
        for path in (ours, others):
            path.write_text("content")
        os.chown(ours, STRANGER, STRANGER)
        done = subprocess.run(
            [sys.executable, "-c", IN_A_USER_NAMESPACE, ours, others], capture_output=True, text=True, timeout=30
        )
    first, second = done.stdout.splitlines()
    assert first == "content"
    assert second.startswith(f"{others} is not trusted: it belongs to the user")
