"""`Server`, `Job` and `Process` against a real gafferd."""

import signal
from collections.abc import Iterator

import pytest

from gaffer_client import Job, Server, errors
from support.daemons import gafferd
from support.poll import eventually

SLEEP = {"cmd": "sleep 1000"}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with gafferd() as node:
        yield node.url


@pytest.fixture
def server(url: str) -> Iterator[Server]:
    with Server(url) as server:
        yield server
        for name in server.jobs():
            server.unload(name)
        eventually(lambda: not server.pids(), message="the jobs are still stopping")


def test_the_node(server: Server) -> None:
    assert server.ping() is True
    assert server.version
    assert server.sessions() == []
    assert server.jobs() == []


@pytest.mark.row("STR-34")
def test_the_life_of_a_job(server: Server) -> None:
    job = server.load({"name": "nap", "numprocesses": 2, **SLEEP}, "shop")
    assert job.name == "shop.nap"
    assert server.sessions() == ["shop"]
    assert server.jobs() == server.jobs("shop") == ["shop.nap"]
    assert server.job_exists("shop.nap")
    assert not server.job_exists("shop.none")
    eventually(lambda: job.running == 2)
    assert job.active
    assert job.numprocesses == 2
    assert sorted(job.pids) == sorted(job.info()["processes"])

    assert job.scale("=3") == 3
    assert job.scale("-1") == 2
    assert job.scale("+1") == 3
    assert job.scale(1) == 4
    assert job.add(2) == 6
    assert job.sub(5) == 1
    eventually(lambda: job.status()["running"] == 1)

    job.stop()
    eventually(lambda: not job.pids)
    assert not job.active
    job.start()
    before = eventually(lambda: len(job.pids) == 2 and job.pids)  # a start goes back to the configured number
    job.restart()
    eventually(lambda: len(job.pids) == 2 and not set(job.pids) & set(before))
    assert "cpu" in job.stats()

    server.unload("shop.nap")
    assert not server.job_exists("shop.nap")


def test_a_job_can_be_loaded_without_being_started(server: Server) -> None:
    job = server.load({"name": "shop.nap", **SLEEP}, start=False)
    assert job.name == "shop.nap"
    assert not job.active


def test_several_jobs_are_loaded_or_none(server: Server) -> None:
    server.load({"name": "taken", **SLEEP}, "shop")
    with pytest.raises(errors.Conflict):
        server.load_all([{"name": "fresh", **SLEEP}, {"name": "taken", **SLEEP}], "shop")
    assert server.jobs("shop") == ["shop.taken"]
    server.load_all([{"name": "one", **SLEEP}, {"name": "two", **SLEEP}], "shop", start=False)
    assert sorted(server.jobs("shop")) == ["shop.one", "shop.taken", "shop.two"]


def test_a_job_is_updated(server: Server) -> None:
    server.load({"name": "nap", **SLEEP}, "shop")
    job = server.update({"name": "nap", "cmd": "sleep 2000"}, "shop")
    assert job.info()["config"]["args"] == ["2000"] or "2000" in job.info()["config"]["cmd"]


@pytest.mark.row("STR-34")
def test_processes(server: Server) -> None:
    job = server.load({"name": "nap", **SLEEP}, "shop")
    [pid] = eventually(lambda: job.pids)
    assert server.pids() == [pid]
    assert server.is_process(pid)
    process = server.get_process(pid)
    assert process.active
    assert process.info()["pid"] == pid
    assert isinstance(process.stats(), dict)
    process.kill("KILL")
    eventually(lambda: not process.active)
    eventually(lambda: job.pids and job.pids != [pid])
    job.kill(signal.SIGKILL)


def test_a_process_beside_the_job(server: Server) -> None:
    job = server.load({"name": "nap", **SLEEP}, "shop", start=False)
    pid = job.commit(graceful_timeout=1, env={"A": "b"})
    assert eventually(lambda: job.running_out == 1)
    server.get_process(pid).stop()
    eventually(lambda: job.running_out == 0)


@pytest.mark.row("STR-34")
def test_templates(server: Server) -> None:
    server.add_process({"name": "nap", **SLEEP})
    with pytest.raises(errors.Conflict):
        server.add_process({"name": "nap", **SLEEP})
    assert server.processes() == ["nap"]
    assert server.template("nap")["name"] == "nap"
    [pid] = eventually(server.running)
    server.send_signal(pid, "KILL")
    eventually(lambda: server.running() and server.running() != [pid])
    server.send_signal("nap", 9)
    server.save_process({"name": "nap", "cmd": "sleep 2000"})
    server.save_process({"name": "other", **SLEEP}, start=False)
    assert sorted(server.processes()) == ["nap", "other"]
    server.remove_process("nap")
    assert server.processes() == ["other"]


@pytest.mark.row("STR-34")
def test_walking_over_jobs(server: Server) -> None:
    server.load_all([{"name": "one", **SLEEP}, {"name": "two", **SLEEP}], "shop", start=False)
    seen: list[str] = []
    server.jobs_walk(lambda _server, job: seen.append(job.name), "shop")
    assert sorted(seen) == ["shop.one", "shop.two"]


@pytest.mark.row("STR-34")
@pytest.mark.parametrize(
    "ask",
    [
        lambda server: server.get_job("shop.none"),
        lambda server: server.get_process(999_999),
        lambda server: server.jobs("none"),
        lambda server: server.unload("shop.none"),
        lambda server: Job(server, "shop.none").start(),
        lambda server: server.template("none"),
    ],
)
def test_what_is_not_there(server: Server, ask: object) -> None:
    with pytest.raises(errors.NotFound) as caught:
        ask(server)  # type: ignore[operator]
    assert caught.value.errno == 404
    assert "none" in caught.value.message or "999999" in caught.value.message


@pytest.mark.parametrize("name", ["", ".", "..", "shop/..", "a b", "shop.a/b", "12", "x" * 65])
def test_a_name_that_is_none_never_becomes_a_path(server: Server, name: str) -> None:
    with pytest.raises(errors.BadRequest) as caught:
        server.unload(name)
    assert caught.value.reason == "bad_name"


@pytest.mark.row("STR-34", "HTTP-36")
def test_groups(server: Server) -> None:
    server.load_all([{"name": "one", **SLEEP}, {"name": "two", **SLEEP}], "shop")
    server.load({"name": "alone", **SLEEP})
    assert server.groups() == ["shop"]
    assert sorted(server.get_group("shop")) == ["shop:one", "shop:two"]
    server.stop_group("shop")
    eventually(lambda: len(server.pids()) == 1)
    server.start_group("shop")
    before = eventually(lambda: len(server.pids()) == 3 and server.pids())
    server.restart_group("shop")
    eventually(lambda: len(server.pids()) == 3 and len(set(server.pids()) & set(before)) == 1)
    server.remove_group("shop")
    assert server.jobs() == ["default.alone"]
    with pytest.raises(errors.NotFound):
        server.get_group("shop")


@pytest.mark.row("STR-34", "STR-33")
def test_a_watcher(server: Server) -> None:
    watcher = server.get_watcher("proc.nap", heartbeat=1)
    heard: list[tuple[str, int]] = []
    watcher.subscribe("proc.nap.spawn", lambda event, message: heard.append((event, message["pid"])))
    watcher.start()
    try:
        eventually(lambda: watcher.connected)
        job = server.load({"name": "nap", **SLEEP})
        eventually(lambda: heard == [("proc.nap.spawn", pid) for pid in job.pids])
    finally:
        watcher.stop()


def test_a_watcher_of_an_event_with_a_long_name(server: Server) -> None:
    watcher = server.get_watcher("job.shop.nap.spawn")
    heard: list[str] = []
    watcher.subscribe(".", lambda event, message: heard.append(event))
    watcher.start()
    try:
        eventually(lambda: watcher.connected)
        server.load({"name": "nap", **SLEEP}, "shop")
        eventually(lambda: heard == ["job.shop.nap.spawn"])
    finally:
        watcher.stop()


@pytest.mark.row("STR-34", "R-74")
def test_stats_of_all_jobs(server: Server) -> None:
    job = server.load({"name": "nap", **SLEEP})
    eventually(lambda: job.pids)
    [stats] = server.stats()
    assert stats["cpu"] != "N/A"


@pytest.mark.row("STR-34")
def test_writing_to_a_process(server: Server) -> None:
    job = server.load({"name": "cat", "cmd": "cat", "redirect_input": True, "redirect_output": ["out"]})
    [pid] = eventually(lambda: job.pids)
    process = server.get_process(pid)
    with process.socket(mode=1) as channel:
        process.send("one\n")
        assert channel.read(10) == b"one\n"
    server.unload("cat")
    eventually(lambda: not process.active)
    with pytest.raises(errors.NotFound):
        process.send("x")
