"""The files of the history: rotation, paging, damage and a disk that fails."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gaffer.runtime.background_writer import write_fully
from gaffer.schemas.history import new_entry
from gafferd.history import store
from gafferd.history.store import Store
from support.poll import eventually


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.jsonl"


@pytest.fixture
def opened() -> Iterator[list[Store]]:
    """The stores of a test, which are closed after it."""
    stores: list[Store] = []
    yield stores
    for each in stores:
        each.close()


@pytest.fixture
def open_store(path: Path, opened: list[Store]) -> Any:
    def open_store(**options: Any) -> Store:
        opened.append(Store(path, **options))
        return opened[-1]

    return open_store


def fill(found: Store, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        found.append(new_entry(number, "node", f"n{number}"))


def lost(found: Store, count: int) -> bool:
    return found.lost == count


def actions(found: Store, **query: Any) -> list[str]:
    return [entry["action"] for entry in found.read(**{"limit": 1000, **query})["entries"]]


def test_pages_continue_over_rotations(path: Path, open_store: Any) -> None:
    found = open_store(max_bytes=2000, backups=3)
    fill(found, 12)
    names = [f"n{number}" for number in reversed(range(12))]
    assert actions(found) == names
    assert path.with_name("history.jsonl.1").exists()
    seen, before = [], None
    for _ in range(20):
        page = found.read(limit=5, before=before)
        seen += [entry["action"] for entry in page["entries"]]
        before = page["next"]
        if before is None:
            break
    assert seen == names
    assert actions(found, since=9) == ["n11", "n10", "n9"]


def test_old_entries_are_removed(path: Path, open_store: Any) -> None:
    found = open_store(max_bytes=2000, backups=2)
    fill(found, 100)
    kept = actions(found)
    assert kept == [f"n{number}" for number in range(99, 99 - len(kept), -1)]
    assert 10 < len(kept) < 40
    assert sorted(each.name for each in path.parent.iterdir()) == [path.name, f"{path.name}.1", f"{path.name}.2"]
    assert sum(each.stat().st_size for each in path.parent.iterdir()) <= 6000


def test_reading_during_rotations_shows_each_entry_once(open_store: Any) -> None:
    found = open_store(max_bytes=2000, backups=9)
    fill(found, 20)
    assert len(actions(found)) == 20
    entries = found.entries()
    numbers = [next(entries)["action"]]
    fill(found, 20, 20)
    assert len(actions(found)) == 40
    numbers += [entry["action"] for entry in entries]
    assert numbers == [f"n{number}" for number in reversed(range(20))]


@pytest.mark.parametrize("rest", ['{"id":', "\xff", '{"id":1}', ""])
def test_damaged_lines_are_skipped_and_ids_still_grow(path: Path, open_store: Any, rest: str) -> None:
    found = open_store()
    fill(found, 2)
    last = found.read(limit=1)["entries"][0]["id"]
    found.close()
    with path.open("a", encoding="latin-1") as file:
        file.write(rest)
    again = open_store()
    fill(again, 1, 2)
    assert actions(again) == ["n2", "n1", "n0"]
    assert again.read(limit=1)["entries"][0]["id"] > last


@pytest.mark.expects_errors("has no valid entry at its end")
def test_a_file_of_any_size_can_be_there(path: Path, open_store: Any) -> None:
    path.touch()
    os.truncate(path, 1 << 40)
    found = open_store(max_bytes=2000)
    fill(found, 2)
    assert actions(found) == ["n1", "n0"]


def test_ids_grow_when_the_clock_is_set_back(open_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = open_store()
    fill(found, 1)
    found.close()
    monkeypatch.setattr("time.time", lambda: 1000.0)
    again = open_store()
    fill(again, 2, 1)
    assert actions(again) == ["n2", "n1", "n0"]
    [first, *_, last] = [entry["id"] for entry in again.read(limit=5)["entries"]]
    assert (first, actions(again, before=first)) == (last + 2, ["n1", "n0"])


@pytest.mark.expects_errors("can't write .*: No space left", "can't write .*it is a symbolic link", "can't read .*link")
def test_a_disk_that_fails_loses_entries_that_are_counted(
    path: Path, open_store: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path.symlink_to(path.with_name("elsewhere"))
    found = open_store()
    for number in range(3):
        fill(found, 1, number)
        eventually(partial(lost, found, number + 1))
    assert actions(found) == []
    assert caplog.text.count("can't write") == 1
    path.unlink()
    assert not path.with_name("elsewhere").exists()
    fill(found, 1, 3)
    assert actions(found) == ["n3", "lost"]
    assert found.read(limit=2)["entries"][1]["count"] == 3

    def write_half(descriptor: int, data: bytes) -> None:
        written(descriptor, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    written = write_fully
    monkeypatch.setattr(store, "write_fully", write_half)
    fill(found, 1, 4)
    eventually(lambda: found.lost == 4)
    monkeypatch.setattr(store, "write_fully", written)
    fill(found, 1, 5)
    assert actions(found) == ["n5", "lost", "n3", "lost"]
    assert path.read_bytes().count(b"\n") == 4


@pytest.mark.parametrize(
    ("job", "found"),
    [
        ("shop.web", ["reload", "all", "group", "web"]),
        ("shop.api", ["all", "group", "api"]),
        ("shop", ["reload", "all", "group", "api", "web"]),
        ("web", ["default"]),
        ("other.web", []),
    ],
)
def test_a_job_and_its_session(open_store: Any, job: str, found: list[str]) -> None:
    entries = open_store()
    for action, session, name, jobs in (
        ("start", None, None, None),
        ("web", "shop", "shop.web", None),
        ("api", "shop", "shop.api", None),
        ("default", "default", "default.web", None),
        ("group", "shop", None, None),
        ("all", "shop", None, ["web", "shop.api"]),
        ("some", "shop", None, ["x"]),
        ("reload", None, None, ["shop.web"]),
    ):
        details = {"jobs": jobs} if jobs is not None else {}
        entries.append(new_entry(1.0, "call", action, session=session, job=name, details=details))
    expected = found if job != "shop" else ["reload", "some", *found[1:]]
    assert actions(entries, job=job) == expected
    assert "default" not in actions(entries, sessions=frozenset({"shop"}))
    assert "start" not in actions(entries, sessions=frozenset({"shop"}))
