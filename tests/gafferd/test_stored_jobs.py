"""What is desired of jobs survives damage, copies and other changes around its file."""

import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gaffer.jobs.recorder import Past
from gaffer_client import Server
from gaffer_client.errors import NotStored
from gafferd.state import documents
from gafferd.state.documents import Document
from gafferd.state.past import PastFile
from support.daemons import gafferd, run_command
from support.poll import eventually

WEB = {"name": "web", "cmd": "sleep 1000", "startsecs": 0}
DB = {"name": "db", "cmd": "sleep 1001", "startsecs": 0}


class AnyPast(msgspec.Struct, frozen=True):
    jobs: dict[str, Any]


class Number(msgspec.Struct, frozen=True):
    number: int


@pytest.mark.expects_errors("is damaged")
def test_a_failed_write_after_damage_leaves_the_valid_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "number.json"
    document = Document(path, Number, keep_previous=True)
    for number in (1, 2):
        document.save(Number(number), sync=False)
    path.write_bytes(b"damaged")
    document = Document(path, Number, keep_previous=True)
    assert document.load_either() == Number(1)
    replace = os.replace

    def refuse(source: Any, target: Any) -> None:
        if target == path:
            raise OSError("the host crashes")
        replace(source, target)

    with monkeypatch.context() as crash:
        crash.setattr(os, "replace", refuse)
        with pytest.raises(OSError, match="crashes"):
            document.save(Number(3), sync=False)
    document = Document(path, Number, keep_previous=True)
    assert document.load_either() == Number(1)
    for number in (4, 5):
        document.save(Number(number), sync=False)
    assert (document.load(), Document(document.copy, Number).load()) == (Number(5), Number(4))


@pytest.mark.expects_errors("number.json is larger than 256 MiB: using .*number.json.copy")
def test_a_document_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = Document(tmp_path / "number.json", Number)
    document.save(Number(1), sync=False)
    os.truncate(document.path, 1 << 40)
    assert document.load_either() == Number(1)
    monkeypatch.setattr(documents, "MAX_SIZE", 10)
    with pytest.raises(OSError, match="File too large"):
        document.save(Number(2), sync=False)


def test_a_copy_never_runs_the_jobs_of_an_original_that_ran(tmp_path: Path) -> None:
    """Not even at its second start, when the directory is its own."""
    ignored = shutil.ignore_patterns("*.sock")
    with gafferd(state_dir=tmp_path / "state") as original, Server(original.url) as server:
        server.load(WEB)
        shutil.copytree(tmp_path / "state", tmp_path / "copy", ignore=ignored)
        for start in range(2):
            with gafferd(state_dir=tmp_path / "copy") as node, Server(node.url) as copy:
                assert copy.jobs() == []
                assert ("kept as state.json.original" in node.stderr) is (start == 0)
        original.stop()
    shutil.copytree(tmp_path / "state", tmp_path / "moved", ignore=ignored)
    with gafferd(state_dir=tmp_path / "moved") as node, Server(node.url) as server:
        eventually(lambda: server.get_job("web").pids, message="a backup that was restored has its jobs")


def test_a_job_waits_for_one_that_was_unloaded(tmp_path: Path) -> None:
    with gafferd(state_dir=tmp_path / "state") as node, Server(node.url) as server:
        server.load(DB)
        server.load({**WEB, "after": ["db"]})
        eventually(lambda: server.get_job("web").pids)
        server.unload("db")
        node.stop()
    with gafferd(state_dir=tmp_path / "state") as node, Server(node.url) as server:
        assert server.get_job("web").info()["reason"] == "waiting for db, which does not exist: load it"
        server.load(DB)
        eventually(lambda: server.get_job("web").pids)


@pytest.mark.parametrize("order", ["web db", "db web"])
@pytest.mark.expects_errors("can't restore the job default.web: after: a cycle: ")
def test_a_change_of_the_file_may_make_a_cycle_with_one_of_the_api(tmp_path: Path, order: str) -> None:
    sections = {"web": "[process:web]\ncmd = sleep 1000\n", "db": "[process:db]\ncmd = sleep 1001\n"}
    config = tmp_path / "gafferd.ini"
    config.write_text("".join(sections[name] for name in order.split()))
    with gafferd(str(config), state_dir=tmp_path / "state") as node, Server(node.url) as server:
        server.update({**WEB, "after": ["db"]})
        node.stop()
    sections["db"] += "after = web\n"
    config.write_text("".join(sections[name] for name in order.split()))
    with gafferd(str(config), state_dir=tmp_path / "state") as node, Server(node.url) as server:
        assert [server.get_job(name).info()["config"]["after"] for name in ("web", "db")] == [[], ["web"]]


@pytest.mark.parametrize("order", ["web db", "db web"])
def test_jobs_are_restored_in_any_order(tmp_path: Path, order: str) -> None:
    """One was loaded before the other, and came after it later."""
    jobs = {"web": WEB, "db": DB}
    with gafferd(state_dir=tmp_path / "state") as node, Server(node.url) as server:
        for name in order.split():
            server.load(jobs[name])
        server.update({**WEB, "after": ["db"]})
        node.stop()
    with gafferd(state_dir=tmp_path / "state") as node, Server(node.url) as server:
        eventually(lambda: all(server.get_job(name).pids for name in jobs))


def test_a_job_of_the_file_that_can_not_be_restored_is_loaded_from_it_and_stays_disabled(tmp_path: Path) -> None:
    config = tmp_path / "gafferd.ini"
    web, api = "[process:web]\ncmd = sleep 1000\n", "[process:api]\ncmd = sleep 1001\nport = 4712\n"
    config.write_text(web)
    with gafferd(str(config), state_dir=tmp_path / "state") as node, Server(node.url) as server:
        server.update({**WEB, "port": "4712"})
        server.get_job("web").disable("moved")
        node.stop()
    config.write_text(api + web)  # whose port the job had over the API
    with gafferd(str(config), state_dir=tmp_path / "state") as node, Server(node.url) as server:
        node.wait_for_line("can't restore the job default.web: ")
        info = server.get_job("web").info()
        assert (info["config"]["port"], info["reason"]) == (None, "disabled: moved")


def test_damage_of_both_files_and_a_later_version(tmp_path: Path) -> None:
    state, config = tmp_path / "state", tmp_path / "gafferd.ini"
    config.write_text("[process:db]\ncmd = sleep 1000\n")
    with gafferd(str(config), state_dir=state) as node, Server(node.url) as server:
        server.load(WEB)
        server.get_job("db").stop()
        node.stop()
    good = (state / "state.json").read_bytes()
    later = good.replace(b'"format":2', b'"format":3')
    (state / "state.json").write_bytes(later)
    refused = run_command("gafferd", str(config), "--state-dir", str(state), "--bind=127.0.0.1:0")
    assert (refused.returncode, "state.json was written by a later version" in refused.stderr) == (1, True)
    assert (state / "state.json").read_bytes() == later

    (state / "state.json").write_bytes(good[:-1])
    (state / "state.json.copy").write_bytes(b"")
    with gafferd(str(config), state_dir=state) as node, Server(node.url) as server:
        assert "the files are kept as state.json.damaged and state.json.copy.damaged" in node.stderr
        assert server.jobs() == ["default.db"]
        eventually(lambda: server.get_job("db").pids)
        assert (state / "state.json.damaged").read_bytes() == good[:-1]


@pytest.mark.expects_errors("left by an earlier gafferd", "the state directory was removed or replaced")
def test_a_directory_that_was_replaced_is_not_written_to(tmp_path: Path) -> None:
    state, backup = tmp_path / "state", tmp_path / "backup"
    with gafferd(state_dir=state) as node, Server(node.url) as server:
        server.load(WEB)
        state.rename(backup)  # first, since gafferd may be writing
        shutil.copytree(backup, state, ignore=shutil.ignore_patterns("*.sock"))
        with pytest.raises(NotStored, match="was removed or replaced"):
            server.load(DB)
        assert server.jobs() == ["default.web"]
        assert b'"db"' not in (state / "state.json").read_bytes()


@pytest.mark.expects_errors("starting without the exits of default.odd: Object missing required field `reason`")
async def test_an_odd_past_of_one_job_does_not_touch_the_others(tmp_path: Path) -> None:
    good = {"last_run": 5.0}
    odd = {"exits": [{"pid": 1, "slot": 1, "exit_code": 0, "term_signal": 0}]}
    Document(tmp_path / "past.json", AnyPast, keep_previous=True).save(
        AnyPast({"default.odd": odd, "default.good": good}), sync=False
    )
    assert PastFile(tmp_path).load() == {"default.good": Past(5.0)}
