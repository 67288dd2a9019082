"""What is desired of the jobs outlives gafferd: however it ends, and whatever happens to the file."""

import asyncio
import json
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests

from gaffer import Manager
from gaffer.errors import NotStored, PortConflict
from gaffer.jobs.desired import Desired
from gaffer.jobs.names import JobName
from gaffer.jobs.states import Disabled, Phase
from gaffer.process import ProcessConfig
from gafferd.state.documents import Document, NewerFile
from gafferd.state.durable import DurableJobs
from gafferd.state.jobs_file import JobsFile, Stored, digest_of
from support.daemons import Daemon, gafferd, run_command
from support.needs import needs_mount
from support.poll import eventually

pytestmark = pytest.mark.expects_errors("left by an earlier gafferd")

SLEEP = "sleep 1000"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@contextmanager
def killed(*args: str, state_dir: Path) -> Iterator[Daemon]:
    """A gafferd that is killed by SIGKILL at the end of the block."""
    node = Daemon("gafferd", "--state-dir", str(state_dir), "--bind=127.0.0.1:0", *args)
    try:
        node.wait_for_line("listening on ")
        yield node
    finally:
        node.kill()


def post(node: Daemon, path: str, body: Any = None, status: int = 200) -> Any:
    answer = requests.post(node.url + path, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def load(node: Daemon, name: str, **settings: Any) -> None:
    post(node, "/jobs/shop", {"name": name, "cmd": SLEEP, "startsecs": 0, **settings})


def set_state(node: Daemon, name: str, state: int) -> None:
    answer = requests.post(f"{node.url}/jobs/shop/{name}/state", data=str(state))
    assert answer.status_code == 202, answer.text


def info(node: Daemon, name: str) -> dict[str, Any]:
    found: dict[str, Any] = requests.get(f"{node.url}/jobs/{name.replace('.', '/')}").json()
    return found


def jobs(node: Daemon) -> list[str]:
    names: list[str] = requests.get(f"{node.url}/jobs").json()["jobs"]
    return names


def serial(state: Path) -> int:
    """How often the file was written."""
    return int(json.loads((state / "state.json").read_bytes())["serial"])


# Through the daemon


def test_changes_outlive_a_kill_right_after_the_answer(state: Path) -> None:
    with killed(state_dir=state) as node:
        for name in ("web", "db", "batch", "old"):
            load(node, name, env={"TOKEN": "x y"})
        post(node, "/jobs/shop/web/numprocesses", {"scale": "+2"})
        set_state(node, "db", 0)
        post(node, "/jobs/shop/batch/disable", {"reason": "broken", "for": 3600}, 202)
        requests.put(f"{node.url}/jobs/shop/web", json={"cmd": "sleep 2000", "startsecs": 0})
        assert requests.delete(f"{node.url}/jobs/shop/old").status_code == 200
    with gafferd(state_dir=state) as node:
        assert jobs(node) == ["shop.web", "shop.db", "shop.batch"]
        web = info(node, "shop.web")
        assert (web["max_processes"], web["config"]["cmd"], web["generation"]) == (3, "sleep 2000", 2)
        assert eventually(lambda: info(node, "shop.web")["running"] == 3)
        db = info(node, "shop.db")
        assert (db["state"], db["active"], db["config"]["env"]) == ("stopped", False, {"TOKEN": "x y"})
        batch = info(node, "shop.batch")
        assert (batch["state"], batch["active"], batch["disabled"]["reason"]) == ("stopped", False, "broken")
        assert post(node, "/jobs/shop/web/rollback", status=202)["generation"] == 3
        assert info(node, "shop.web")["config"]["cmd"] == SLEEP


def test_what_happens_by_itself_is_kept_too(state: Path) -> None:
    with gafferd(state_dir=state) as node:
        load(node, "setup", cmd="true", kind="once")
        load(node, "broken", cmd="false", kind="once", restart="never")
        load(node, "late")
        eventually(lambda: info(node, "shop.setup")["state"] == "completed")
        eventually(lambda: info(node, "shop.broken")["state"] == "failed")
        eventually(lambda: b'"completed"' in (state / "state.json").read_bytes())
        eventually(lambda: b'"failed"' in (state / "state.json").read_bytes())
    with gafferd(state_dir=state) as node:
        found = info(node, "shop.setup")
        assert (found["state"], found["instances"]) == ("completed", [])
        found = info(node, "shop.broken")
        assert (found["state"], found["instances"]) == ("failed", [])
        assert "exited with 1" in found["reason"]
        set_state(node, "broken", 1)
        eventually(lambda: info(node, "shop.broken")["restarts"] == 0)


def test_exits_are_remembered(state: Path) -> None:
    with killed(state_dir=state) as node:
        load(node, "loud", cmd="sh -c 'echo output; exit 3'", kind="once", restart="never")
        load(node, "absent", cmd="/no/such/program", kind="once", restart="never")
        eventually(lambda: info(node, "shop.loud")["state"] == "failed")
        eventually(lambda: b'"output":"output' in (state / "past.json").read_bytes(), retry_on=(OSError,))
        eventually(lambda: b"shop.absent" in (state / "past.json").read_bytes())
    with gafferd(state_dir=state) as node:
        [found] = requests.get(f"{node.url}/jobs/shop/loud/exits").json()["exits"]
        assert (found["exit_code"], found["reason"], found["output"]) == (3, "exited", "output")
        assert info(node, "shop.loud")["last_exit"] == found
        [found] = requests.get(f"{node.url}/jobs/shop/absent/exits").json()["exits"]
        assert found["exit_code"] is None


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_stop_of_gafferd_is_no_stop_of_its_jobs(state: Path, signum: int) -> None:
    with gafferd(state_dir=state) as node:
        load(node, "web")
        node.signal(signum)
        assert node.wait() == 0
    with gafferd(state_dir=state) as node:
        assert eventually(lambda: info(node, "shop.web")["running"]) == 1
        node.signal(signal.SIGTERM)
        node.signal(signal.SIGTERM)
        assert node.wait() == 0
    with gafferd(state_dir=state) as node:
        assert eventually(lambda: info(node, "shop.web")["running"]) == 1


def test_a_job_of_the_configuration_file_follows_the_file(state: Path, tmp_path: Path) -> None:
    config = tmp_path / "gafferd.ini"
    web = "[process:web]\ncmd = sleep 1000\nstartsecs = 0\n[process:db]\ncmd = sleep 1000\n"
    config.write_text(web)
    with killed(str(config), state_dir=state) as node:
        post(node, "/jobs/default/web/numprocesses", {"scale": "=3"})
        post(node, "/jobs/default/db/disable", {"reason": "moved"}, 202)
        post(node, "/jobs/default", {"name": "extra", "cmd": SLEEP})
    with killed(str(config), state_dir=state) as node:  # as it was left
        assert info(node, "default.web")["max_processes"] == 3
        assert info(node, "default.db")["reason"] == "disabled: moved"
        assert jobs(node) == ["default.web", "default.db", "default.extra"]
        assert requests.delete(f"{node.url}/jobs/default/web").status_code == 200
    config.write_text(web.replace("1000", "2000") + "[process:extra]\ncmd = sleep 3000\n")
    with gafferd(str(config), state_dir=state) as node:  # as the file has it
        assert info(node, "default.web")["max_processes"] == 1
        assert info(node, "default.web")["config"]["cmd"] == "sleep 2000"
        assert info(node, "default.db")["reason"] == "disabled: moved"  # until it is enabled
        assert info(node, "default.extra")["config"]["cmd"] == "sleep 3000"
        node.wait_for_line("default.extra is now defined by the configuration file")
        eventually(lambda: b"sleep 3000" in (state / "state.json").read_bytes())
    config.write_text("")
    with gafferd(str(config), state_dir=state) as node:
        assert jobs(node) == []


def test_jobs_come_back_in_the_order_that_they_need(state: Path) -> None:
    with killed(state_dir=state) as node:
        load(node, "web")
        load(node, "db")
        answer = requests.put(f"{node.url}/jobs/shop/web", json={"cmd": SLEEP, "startsecs": 0, "after": ["db"]})
        assert answer.status_code == 201, answer.text
    with gafferd(state_dir=state) as node:
        assert sorted(jobs(node)) == ["shop.db", "shop.web"]
        assert eventually(lambda: info(node, "shop.web")["running"]) == 1


@pytest.mark.expects_errors("can't restore the job shop.web")
def test_a_job_that_can_not_come_back_is_kept(state: Path, tmp_path: Path) -> None:
    config = tmp_path / "gafferd.ini"
    config.write_text("[process:db]\ncmd = sleep 1000\nport = 8123\n")
    with killed(state_dir=state) as node:
        load(node, "web", port="8123")
    with gafferd(str(config), state_dir=state) as node:
        node.wait_for_line("can't restore the job shop.web: ")
        assert jobs(node) == ["default.db"]
        load(node, "other")
    with gafferd(state_dir=state) as node:
        assert sorted(jobs(node)) == ["shop.other", "shop.web"]


def test_jobs_are_forgotten_on_request(state: Path, tmp_path: Path) -> None:
    config = tmp_path / "gafferd.ini"
    config.write_text("[gaffer]\nkeep_jobs = false\n[process:web]\ncmd = sleep 1000\n")
    with gafferd(str(config), state_dir=state) as node:
        load(node, "extra")
    assert not (state / "state.json").exists()
    with gafferd(str(config), state_dir=state) as node:
        assert jobs(node) == ["default.web"]


def test_changes_at_the_same_time_share_a_write(state: Path) -> None:
    with gafferd(state_dir=state) as node:
        names = [f"j{number}" for number in range(16)]
        for name in names:
            load(node, name, start=False)
        before = serial(state)
        barrier = threading.Barrier(len(names))

        def scale(name: str) -> None:
            with requests.Session() as session:
                session.get(f"{node.url}/ping")
                barrier.wait()
                for number in range(10):
                    url = f"{node.url}/jobs/shop/{name}/numprocesses"
                    assert session.post(url, json={"scale": f"={number}"}).json() == {"numprocesses": number}

        with ThreadPoolExecutor(len(names)) as threads:
            list(threads.map(scale, names))
        assert serial(state) - before < 10 * len(names) // 2
        assert {info(node, f"shop.{name}")["max_processes"] for name in names} == {9}


def test_changes_of_one_job_are_made_in_turn(state: Path) -> None:
    with gafferd(state_dir=state) as node:
        load(node, "web", start=False, numprocesses=0)
        with ThreadPoolExecutor(8) as threads:
            url = f"{node.url}/jobs/shop/web/numprocesses"
            answers = list(threads.map(lambda _: requests.post(url, json={"scale": "+1"}).json(), range(40)))
        assert sorted(each["numprocesses"] for each in answers) == list(range(1, 41))


def test_a_refused_change_is_not_stored(state: Path) -> None:
    with gafferd(state_dir=state) as node:
        load(node, "web", port="8000")
        before = serial(state)
        post(node, "/jobs/shop", {"name": "web", "cmd": SLEEP}, 409)
        post(
            node,
            "/jobs/shop",
            {"jobs": [{"name": "a", "cmd": SLEEP}, {"name": "b", "cmd": SLEEP, "port": "8000"}]},
            409,
        )
        post(node, "/jobs/shop/web/numprocesses", {"scale": "+1"}, 400)
        post(node, "/jobs/shop/none/numprocesses", {"scale": "+1"}, 404)
        post(node, "/jobs/shop/web/disable", {"reason": ""}, 400)
        assert requests.post(f"{node.url}/jobs/shop/web/restart").status_code == 202  # changes nothing desired
        assert serial(state) == before
        assert jobs(node) == ["shop.web"]


@needs_mount
def test_it_stores_again_once_the_disk_has_room(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    assert os.system(f"mount -t tmpfs -o size=256k none {disk}") == 0
    try:
        with gafferd(state_dir=disk / "state") as node:
            load(node, "web")
            fill = disk / "fill"
            fill.write_bytes(b"x" * (os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize))
            assert post(node, "/jobs/shop/web/numprocesses", {"scale": "=2"}, 507)["error"] == "not_stored"
            set_state_answer = requests.post(f"{node.url}/jobs/shop/web/state", data="0")
            assert set_state_answer.status_code == 507
            assert (info(node, "shop.web")["max_processes"], info(node, "shop.web")["active"]) == (1, True)
            fill.unlink()
            assert post(node, "/jobs/shop/web/numprocesses", {"scale": "=2"}) == {"numprocesses": 2}
            assert requests.get(f"{node.url}/health").json()["state_error"] is None
            node.kill()
        with gafferd(state_dir=disk / "state") as node:
            assert info(node, "shop.web")["max_processes"] == 2
    finally:
        assert os.system(f"umount {disk}") == 0


# Its changes


@asynccontextmanager
async def durable_jobs(directory: Path) -> AsyncIterator[tuple[Manager, DurableJobs]]:
    """A manager whose changes are stored in a directory."""
    manager, file = Manager(asyncio.get_running_loop()), JobsFile(directory)
    file.load()
    durable = DurableJobs(manager, file, dict)
    manager.start([durable])
    yield manager, durable
    stopped = asyncio.Event()
    manager.stop(lambda _: stopped.set())
    await stopped.wait()


async def test_of_two_jobs_with_one_port_only_one_is_stored(tmp_path: Path) -> None:
    async with durable_jobs(tmp_path) as (manager, durable):
        configs = [ProcessConfig(name, SLEEP, port="8123") for name in "ab"]
        loads = [durable.change(partial(manager.load, config)) for config in configs]
        done = await asyncio.gather(*loads, return_exceptions=True)
        assert [type(each) for each in done] == [type(None), PortConflict]
        assert serial(tmp_path) == 1
    assert [str(name) for name in JobsFile(tmp_path).load()] == ["default.a"]


async def test_a_change_is_made_although_its_caller_has_gone(tmp_path: Path) -> None:
    async with durable_jobs(tmp_path) as (manager, durable):
        gone = asyncio.ensure_future(durable.change(lambda: manager.load(ProcessConfig("a", SLEEP, start=False))))
        await asyncio.sleep(0)
        gone.cancel()
        await durable.change(lambda: manager.load(ProcessConfig("b", SLEEP, start=False)))
        assert manager.jobs() == ["default.a", "default.b"]


async def test_a_fault_of_a_change_is_that_of_its_caller(tmp_path: Path) -> None:
    async with durable_jobs(tmp_path) as (manager, durable):
        wrong: Any = None
        with pytest.raises(TypeError):
            await durable.change(lambda: manager.scale(wrong, 1))
        await durable.change(lambda: manager.load(ProcessConfig("a", SLEEP, start=False)))
        assert manager.jobs() == ["default.a"]


@pytest.mark.expects_errors("state.json: out of memory: changes of jobs are refused", "can be written again")
async def test_a_change_for_which_there_is_no_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object, **__: object) -> bytes:
        raise MemoryError

    async with durable_jobs(tmp_path) as (manager, durable):
        with monkeypatch.context() as patch:
            patch.setattr("msgspec.json.encode", exhausted)
            with pytest.raises(NotStored, match="out of memory"):
                await durable.change(lambda: manager.load(ProcessConfig("a", SLEEP, start=False)))
        await durable.change(lambda: manager.load(ProcessConfig("a", SLEEP, start=False)))
        assert durable.error is None
        assert manager.jobs() == ["default.a"]


async def test_a_job_that_a_plugin_loads_is_its_own(tmp_path: Path) -> None:
    async with durable_jobs(tmp_path) as (manager, durable):
        manager.load(ProcessConfig("a", SLEEP, start=False))
        assert await durable.change(lambda: manager.scale("a", "=3")) == 3
        await durable.change(lambda: manager.load(ProcessConfig("b", SLEEP, start=False)))
        await durable.change(lambda: manager.unload("a"))
        assert manager.jobs() == ["default.b"]
    assert [str(name) for name in JobsFile(tmp_path).load()] == ["default.b"]


# The file


class Content(msgspec.Struct):
    jobs: list[Any]


def stored(name: str = "web", digest: str | None = None, **settings: Any) -> Stored:
    config = ProcessConfig(name, SLEEP, **settings)
    return Stored(Desired(JobName("shop", name), Phase.STOPPED, 2, ((3, config),), Disabled("why", 1.0, 2.5)), digest)


def save(directory: Path, *jobs: Stored) -> None:
    file = JobsFile(directory)
    file.load()
    file.save(jobs)


def test_the_file_gives_back_what_it_got(tmp_path: Path) -> None:
    config = ProcessConfig("web", SLEEP, env={"A": "b"}, args=["x y"], after=["db"])
    one, other = stored(digest=digest_of(config)), stored("db", numprocesses=4, flapping="5, 1, 7, 3")
    save(tmp_path, one, other)
    assert list(JobsFile(tmp_path).load().items()) == [(each.desired.name, each) for each in (one, other)]
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff", b'{"format":2,"serial":9,"checksum":"00","jobs":[]}'])
@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.expects_errors("using .*state.json.copy")
def test_a_damaged_file_is_replaced_by_the_one_before(tmp_path: Path, damage: bytes, gone: bool) -> None:
    save(tmp_path, stored("old"))
    save(tmp_path, stored("old"), stored("new"))
    (tmp_path / "state.json").unlink() if gone else (tmp_path / "state.json").write_bytes(damage)
    assert [name.name for name in JobsFile(tmp_path).load()] == ["old"]


@pytest.mark.expects_errors("starting without the jobs loaded over the API; .* kept as state.json.damaged and")
def test_damaged_files_are_moved_aside(tmp_path: Path) -> None:
    save(tmp_path, stored())
    save(tmp_path, stored())
    for name in ("state.json", "state.json.copy"):
        (tmp_path / name).write_bytes(b"{")
    assert JobsFile(tmp_path).load() == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.json.copy.damaged", "state.json.damaged"]
    save(tmp_path, stored())
    assert len(JobsFile(tmp_path).load()) == 1


def test_a_file_of_a_later_version_is_left_alone(state: Path) -> None:
    state.mkdir(mode=0o700)
    content = b'{"format":3,"serial":1,"checksum":"' + b"0" * 64 + b'","jobs":[]}'
    (state / "state.json").write_bytes(content)
    with pytest.raises(NewerFile):
        JobsFile(state).load()
    refused = run_command("gafferd", "--state-dir", str(state), "--bind=127.0.0.1:0")
    assert refused.returncode == 1
    assert "state.json was written by a later version of gafferd" in refused.stderr
    assert (state / "state.json").read_bytes() == content


def test_a_file_of_an_earlier_version_has_no_jobs(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"processes": []}')
    assert JobsFile(tmp_path).load() == {}


@pytest.mark.expects_errors(
    "can't restore the job shop.web: Expected `float` <= 253402300799.0 - at `\\$.disabled.until`"
)
def test_a_time_is_one_that_a_date_can_stand_for(tmp_path: Path) -> None:
    web = stored()
    disabled = Disabled("why", 1.0, 1e12)
    save(tmp_path, web._replace(desired=msgspec.structs.replace(web.desired, disabled=disabled)))
    assert JobsFile(tmp_path).load() == {}


@pytest.mark.expects_errors("can't restore the job shop.future: unknown key")
def test_an_entry_that_can_not_be_read_is_kept(tmp_path: Path) -> None:
    definition = {"generation": 1, "config": {"name": "future", "cmd": "x", "novel": 1}}
    future = {"name": "shop.future", "phase": "started", "processes": 1, "definitions": [definition]}
    Document(tmp_path / "state.json", Content, format=2).save(Content([future]), sync=False)
    file = JobsFile(tmp_path)
    assert file.load() == {}
    file.save([stored()])
    assert b'"novel":1' in (tmp_path / "state.json").read_bytes()
    file.save([stored("future")])
    assert b'"novel":1' not in (tmp_path / "state.json").read_bytes()


FAILING_DIRECTORY = """
import os, stat
__all__ = []
sync = os.fsync
def fsync(descriptor):
    if os.path.exists({fault!r}) and stat.S_ISDIR(os.fstat(descriptor).st_mode):
        raise OSError(5, "Input/output error")
    sync(descriptor)
os.fsync = fsync
"""


@pytest.mark.expects_errors("the plugin disk failed", "Input/output error: changes of jobs are refused")
def test_a_refused_change_does_not_come_back(state: Path, tmp_path: Path) -> None:
    fault = tmp_path / "fault"
    plugin = tmp_path / "plugins" / "disk" / "plugin.py"
    plugin.parent.mkdir(parents=True)
    plugin.write_text(FAILING_DIRECTORY.format(fault=str(fault)))
    with gafferd("-p", str(plugin.parent.parent), state_dir=state) as node:
        load(node, "web")
        fault.touch()
        post(node, "/jobs/shop/web/numprocesses", {"scale": "=2"}, 507)
        post(node, "/jobs/shop", {"name": "db", "cmd": SLEEP}, 507)
        fault.unlink()
    with gafferd(state_dir=state) as node:
        assert (jobs(node), info(node, "shop.web")["max_processes"]) == (["shop.web"], 1)
