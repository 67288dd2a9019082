"""Watching files: which ones patterns match, and changes of real ones."""

import asyncio
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from gaffer.supervision.file_watch import FileWatcher, Pattern, Watched, find_directories
from support.needs import needs_userns
from support.poll import eventually


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("*.toml", ["a.toml"], ["a.py", "sub/a.toml", ".a.toml", "a.toml~"]),
        ("src/**/*.py", ["src/a.py", "src/b/a.py", "src/b/c/a.py"], ["a.py", "src/a.pyc", "other/a.py", "src/b/.a.py"]),
        ("**/*.py", ["a.py", "b/a.py"], ["node_modules/a.py", "b/__pycache__/a.py", ".git/a.py", "b/.hid/a.py"]),
        ("node_modules/**/*.js", ["node_modules/a.js", "node_modules/b/node_modules/a.js"], ["a.js"]),
        (
            "src/**",
            ["src/a", "src/b/c"],
            ["src/.a.swp", "src/a~", "src/#a#", "src/4913", "srcs/a"],
        ),
        ("src", ["src/a", "src/b/c"], ["srcs"]),
        ("conf/[ab]?.ini", ["conf/ax.ini"], ["conf/a.ini", "conf/cx.ini", "conf/a/.ini"]),
        ("conf/app.ini", ["conf/app.ini"], ["conf/app.ini.bak", "app.ini"]),
        (".env", [".env"], ["env", ".envrc"]),
        (".config/*/.x*", [".config/a/.xy"], [".config/.a/.xy", ".config/a/xy"]),
        ("../lib/*.py", ["../lib/a.py"], ["lib/a.py"]),
        ("a/**/b/**/c", ["a/b/c", "a/x/b/y/z/c", "a/b/b/c"], ["a/c", "b/c", "a/b"]),
    ],
)
def test_patterns(tmp_path: Path, pattern: str, matching: list[str], others: list[str]) -> None:
    (tmp_path / "app" / "src").mkdir(parents=True)
    made = Pattern(pattern, str(tmp_path / "app"))

    def matched(names: list[str]) -> list[str]:
        return [name for name in names if made.matches(os.path.normpath(tmp_path / "app" / name))]

    assert (matched(matching), matched(others)) == (matching, [])


@given(st.lists(st.sampled_from(["**", "*", "a", "ab", "a*"]), min_size=1, max_size=12), st.integers(0, 200))
def test_matching_takes_no_exponential_time(names: list[str], depth: int) -> None:
    Pattern("/".join(names), "/nowhere").matches("/nowhere/" + "/".join(["ab"] * depth + ["b"]))


def test_only_directories_that_patterns_name_are_watched(tmp_path: Path) -> None:
    for name in ("src/a/b", "src/node_modules/x", "src/.git/objects", "src/__pycache__", "docs/deep", "conf"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "src" / "loop").symlink_to(tmp_path / "src")

    def found(*patterns: str) -> set[str]:
        directories, omitted = find_directories(Pattern(each, str(tmp_path)) for each in patterns)
        assert omitted is None
        return {os.path.relpath(each, tmp_path) for each in directories}

    assert found("src/**/*.py") == {".", "src", "src/a", "src/a/b"}
    assert found("*.toml", "conf/x.ini") == {"..", ".", "conf"}
    assert found("*/*.md") == {"..", ".", "src", "docs", "conf"}
    assert found("missing/far/**/x") == {"."}


def test_the_number_of_directories_is_bounded(tmp_path: Path) -> None:
    directories, omitted = find_directories([Pattern("/**/*.py", "/")], 50)
    assert len(directories) == 50
    assert omitted is not None
    assert "/usr" in directories  # near ones first


class Changes:
    """What a watcher reports."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self.seen: list[tuple[str, set[str]]] = []
        self.warnings: list[str] = []

    def note(self, job: str, paths: list[str]) -> None:
        assert paths
        self.seen.append((job, {os.path.basename(path) for path in paths}))
        self.news.set()

    async def of(self, job: str, name: str) -> None:
        """Wait until a change of the file was reported for the job."""
        async with asyncio.timeout(20):
            while not any(job == seen and name in names for seen, names in self.seen):
                self.news.clear()
                await self.news.wait()


@pytest_asyncio.fixture
async def changes(tmp_path: Path) -> AsyncIterator[Changes]:
    """What is reported of the jobs `py` (src/**/*.py) and `ini` (conf/*.ini)."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").touch()
    made = Changes()
    jobs = {"py": Watched(["src/**/*.py"], str(tmp_path)), "ini": Watched(["conf/*.ini"], str(tmp_path))}
    watcher = FileWatcher(asyncio.get_running_loop(), jobs, made.note, made.warnings.append)
    watcher.start()
    await watcher.ready()
    yield made
    await watcher.stop()
    assert made.warnings == []


async def test_changes_are_reported_to_the_job_that_watches(tmp_path: Path, changes: Changes) -> None:
    (tmp_path / "src" / "notes.txt").touch()
    (tmp_path / "src" / "a.py").write_text("1")
    await changes.of("py", "a.py")
    (tmp_path / "src" / "b.py").touch()
    await changes.of("py", "b.py")
    (tmp_path / "src" / "b.py").unlink()
    await changes.of("py", "b.py")
    assert {name for _, names in changes.seen for name in names} == {"a.py", "b.py"}
    assert {job for job, _ in changes.seen} == {"py"}


async def test_several_changes_are_reported_together(tmp_path: Path, changes: Changes) -> None:
    for number in range(50):
        (tmp_path / "src" / f"{number}.py").touch()
    await changes.of("py", "49.py")
    assert len(changes.seen) < 5


async def test_new_directories_are_watched_with_the_files_they_have_already(tmp_path: Path, changes: Changes) -> None:
    (tmp_path / "new" / "deep").mkdir(parents=True)
    (tmp_path / "new" / "deep" / "early.py").touch()
    (tmp_path / "new").rename(tmp_path / "src" / "new")
    await changes.of("py", "early.py")
    (tmp_path / "src" / "new" / "deep" / "late.py").touch()
    await changes.of("py", "late.py")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "x.ini").touch()
    await changes.of("ini", "x.ini")


async def test_a_directory_that_is_replaced_is_watched_again(tmp_path: Path, changes: Changes) -> None:
    shutil.rmtree(tmp_path / "src")
    await changes.of("py", "a.py")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "early.py").touch()
    await changes.of("py", "early.py")
    (tmp_path / "src" / "late.py").touch()
    await changes.of("py", "late.py")


async def test_nothing_is_reported_after_the_stop_and_nothing_is_left(tmp_path: Path) -> None:
    made = Changes()
    descriptors = set(os.listdir("/proc/self/fd"))
    watcher = FileWatcher(asyncio.get_running_loop(), {"x": Watched(["*"], str(tmp_path))}, made.note)
    await watcher.stop()  # before the start
    watcher.start()
    await watcher.ready()
    (tmp_path / "a").touch()
    await made.of("x", "a")
    (tmp_path / "b").touch()
    await watcher.stop()
    seen = list(made.seen)
    await asyncio.sleep(0)
    assert made.seen == seen
    eventually(lambda: set(os.listdir("/proc/self/fd")) == descriptors)  # a thread of the library closes them
    assert "file watcher" not in {thread.name for thread in threading.enumerate()}


LIMITED = """\
import asyncio, sys
from gaffer.supervision.file_watch import FileWatcher, Watched

async def main():
    watcher = FileWatcher(asyncio.get_running_loop(), {"x": Watched(["/usr/**"], "/")}, print, print)
    watcher.start()
    await watcher.ready()
    await watcher.stop()

asyncio.run(main())
"""


@needs_userns
@pytest.mark.parametrize(("limit", "number"), [("instances", 0), ("watches", 2)])
def test_a_limit_of_inotify_is_reported(limit: str, number: int) -> None:
    script = f'echo {number} > /proc/sys/user/max_inotify_{limit}; exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "-Ur", "sh", "-c", script, sys.executable, LIMITED], capture_output=True, text=True, timeout=30
    )
    assert done.stderr == ""
    assert f"no files are watched: the limit of inotify {limit} is reached; raise it" in done.stdout
