"""The files of programs, and what is noticed when they change."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gaffer.processes.programs import find_changed, mark_files
from support.poll import eventually

PATH = "/usr/bin:/bin"
NO_PROCESS = 2**22 + 1  # more than the largest pid


def paths(*argv: str, cwd: Path) -> list[str]:
    return [mark.path for mark in mark_files(argv, PATH, str(cwd))]


@pytest.mark.parametrize("interpreter", ["python3", "python3.11", "node", "ruby", "perl", "bash", "sh", "java"])
def test_an_interpreter_runs_its_first_argument_that_is_no_option(tmp_path: Path, interpreter: str) -> None:
    (tmp_path / interpreter).touch(0o755)
    (tmp_path / "app.x").touch()
    program = str(tmp_path / interpreter)
    assert paths(program, "-u", "app.x", "data", cwd=tmp_path) == [program, str(tmp_path / "app.x")]
    assert paths(program, "-m", "module", "app.x", cwd=tmp_path) == [program]
    assert paths(program, "-V", cwd=tmp_path) == [program]


def test_arguments_of_other_programs_are_data(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    assert paths("cat", "log", cwd=tmp_path) == [shutil.which("cat", path=PATH)]
    assert paths("no-such-program", "log", cwd=tmp_path) == []
    (tmp_path / "run").touch(0o755)
    assert paths("./run", "log", cwd=tmp_path) == [f"{tmp_path}/./run"]


def test_a_program_without_a_slash_is_the_first_on_the_path(tmp_path: Path) -> None:
    for folder, mode in (("a", None), ("b", 0o644), ("c", 0o755), ("d", 0o755)):
        (tmp_path / folder).mkdir()
        if mode is None:
            (tmp_path / folder / "run").mkdir()
        else:
            (tmp_path / folder / "run").touch(mode)
    path = ":".join(str(tmp_path / folder) for folder in "abcd")
    assert [mark.path for mark in mark_files(["run"], path, None)] == [str(tmp_path / "c/run")]


def test_a_file_that_was_written_replaced_or_linked_anew_has_changed(tmp_path: Path) -> None:
    written, replaced, kept, removed, link = (
        tmp_path / name for name in ("written", "replaced", "kept", "gone", "link")
    )
    for file in (written, replaced, kept, removed):
        file.touch(0o755)
    link.symlink_to(kept)
    programs = {
        number: (NO_PROCESS, mark_files([str(file)], PATH, None))
        for number, file in enumerate((written, replaced, kept, removed, link))
    }
    assert find_changed(programs) == {}
    os.utime(written, (1, 1))
    shutil.copy2(replaced, tmp_path / "new")  # with its time, as packages are installed
    (tmp_path / "new").replace(replaced)
    removed.unlink()
    link.unlink()
    link.symlink_to(replaced)
    assert list(find_changed(programs).values()) == [str(written), str(replaced), str(link)]


def test_the_executable_that_a_shell_started_in_its_place(tmp_path: Path) -> None:
    program = tmp_path / "sleep"
    shutil.copy2("/bin/sleep", program)
    with subprocess.Popen(["sh", "-c", f"exec {program} 1000"]) as process:
        eventually(lambda: os.readlink(f"/proc/{process.pid}/exe") == str(program))
        assert find_changed({7: (process.pid, ())}) == {}
        program.unlink()
        assert find_changed({7: (process.pid, ())}) == {}, "no newer one"
        shutil.copy2("/bin/sleep", program)
        assert find_changed({7: (process.pid, ())}) == {7: str(program)}
        process.kill()
    assert find_changed({7: (process.pid, mark_files([sys.executable], PATH, None))}) == {}
