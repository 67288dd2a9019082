"""Jobs that are disabled stay so, whatever happens to gafferd and its configuration file."""

import signal
import time
from pathlib import Path

import pytest

from gaffer.processes import procfs
from gaffer_client import Server
from gaffer_client.jobs import Job
from support.daemons import Daemon, gafferd
from support.poll import eventually

WEB = "[process:web]\ncmd = sleep 1000\nstartsecs = 0\n"
API = {"name": "api", "cmd": "sleep 1001", "startsecs": 0}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration file with the job `web`."""
    path = tmp_path / "gafferd.ini"
    path.write_text(WEB)
    return path


def why(job: Job) -> str | None:
    """Why the job is disabled, once it has no process; None if it is not."""
    info = job.info()
    if info["disabled"] is None:
        return None
    assert (info["active"], info["processes"]) == (False, [])
    assert (info["reason"] or "").endswith(info["disabled"]["reason"])
    return info["disabled"]["reason"]


def reload(node: Daemon, expected: str) -> None:
    seen = node.stderr.count(expected)
    node.signal(signal.SIGHUP)
    eventually(lambda: node.stderr.count(expected) > seen)


@pytest.mark.parametrize("killed", [True, False])
def test_it_stays_disabled_over_a_restart(tmp_path: Path, config: Path, killed: bool) -> None:
    state, starts = tmp_path / "state", tmp_path / "starts"
    command = f"sh -c 'echo $GAFFER_JOB >> {starts}; exec sleep 1000'"
    config.write_text(WEB.replace("sleep 1000", command))
    with gafferd(str(config), state_dir=state) as node, Server(node.url) as server:
        web, api = server.get_job("web"), server.load({**API, "cmd": command})
        eventually(lambda: starts.read_text().count("\n") == 2, retry_on=(FileNotFoundError,))
        web.disable("disk is replaced")
        api.disable("moved", 3600)
        api.scale(1)
        before = api.info()["disabled"]
        if killed:
            node.kill()
        else:
            node.stop()
    with gafferd(str(config), state_dir=state) as node, Server(node.url) as server:
        web, api = server.get_job("web"), server.get_job("api")
        assert (why(web), why(api)) == ("disk is replaced", "moved")
        assert before is not None
        assert api.info()["disabled"] == pytest.approx(before, abs=1.0)
        assert starts.read_text().count("\n") == 2, "started although it is disabled"
        web.enable()
        api.enable()
        eventually(lambda: len(web.pids) == 1 and len(api.pids) == 2)
        node.kill()
    with gafferd(str(config), state_dir=state) as node, Server(node.url) as server:
        eventually(lambda: len(server.get_job("web").pids) == 1 and len(server.get_job("api").pids) == 2)


def test_it_stays_disabled_over_reloads_of_the_configuration_file(tmp_path: Path, config: Path) -> None:
    state = tmp_path / "state"
    with gafferd(str(config), "--log-level=info", state_dir=state) as node, Server(node.url) as server:
        web = server.get_job("web")
        eventually(lambda: web.pids)
        web.disable("disk is replaced")
        node.wait_for_line("default.web: disabled: disk is replaced")
        eventually(lambda: why(web) == "disk is replaced")
        reload(node, "reloaded: nothing changed")
        assert why(web) == "disk is replaced"
        config.write_text(WEB.replace("1000", "2000"))
        reload(node, "reloaded: update default.web")
        assert why(web) == "disk is replaced"
        assert web.info()["config"]["cmd"] == "sleep 2000"
        config.write_text(WEB.replace("1000", "3000") + "numprocesses = 2\n")
        node.kill()
    with gafferd(str(config), "--log-level=info", state_dir=state) as node, Server(node.url) as server:
        web = server.get_job("web")
        assert why(web) == "disk is replaced"
        assert (web.info()["config"]["cmd"], web.numprocesses) == ("sleep 3000", 2)
        web.enable()
        node.wait_for_line("default.web: enabled")
        eventually(lambda: len(web.pids) == 2)
        config.write_text("")
        reload(node, "reloaded: remove default.web")
        config.write_text(WEB)
        reload(node, "reloaded: add default.web")
        eventually(lambda: web.pids)


def test_it_ends_in_time_also_while_gafferd_is_down(tmp_path: Path, config: Path) -> None:
    state = tmp_path / "state"
    with gafferd(str(config), state_dir=state) as node, Server(node.url) as server:
        server.load_all([{**API, "name": name} for name in ("api", "soon", "later")], "default")
        began = time.time()
        for name, seconds in {"web": 0.5, "api": 0.5, "soon": 2.5, "later": 3600.0}.items():
            server.get_job(name).disable("moved", seconds)
        node.kill()
    eventually(lambda: time.time() > began + 1)
    with gafferd(str(config), state_dir=state) as node, Server(node.url) as server:
        eventually(lambda: all(server.get_job(name).pids for name in ("web", "api")))
        eventually(lambda: server.get_job("soon").pids)
        assert time.time() > began + 2.4
        assert why(server.get_job("later")) == "moved"
        assert [server.get_job(name).info()["disabled"] for name in ("web", "api", "soon")] == [None, None, None]


def test_a_detached_process_that_was_to_be_stopped_is(tmp_path: Path, config: Path) -> None:
    """gafferd was killed before the process of the disabled job had ended."""
    state, go, up = tmp_path / "state", tmp_path / "go", tmp_path / "up"
    config.write_text(
        f"[process:web]\ndetach = yes\ngraceful_timeout = 60\n"
        f"cmd = sh -c 'trap \"test -e {go} && exit 0\" TERM; touch {up}; while :; do sleep 0.05; done'\n"
    )
    with gafferd(str(config), state_dir=state) as first, Server(first.url) as server:
        web = server.get_job("web")
        eventually(up.exists)
        (os_pid,) = [each["os_pid"] for each in web.info()["instances"]]
        assert os_pid is not None
        web.disable("disk is replaced")
        eventually(lambda: web.info()["state"] == "stopping")
        first.kill()
        assert procfs.read_stat(os_pid) is not None
        go.touch()
        with gafferd(str(config), state_dir=state) as second, Server(second.url) as server:
            web = server.get_job("web")
            eventually(lambda: web.info()["state"] == "stopped")
            assert why(web) == "disk is replaced"
            assert procfs.read_stat(os_pid) is None


def test_jobs_that_are_not_kept_are_enabled_by_a_restart(tmp_path: Path, config: Path) -> None:
    state = tmp_path / "state"
    config.write_text(f"[gaffer]\nkeep_jobs = no\n{WEB}")
    with gafferd(str(config), state_dir=state) as node, Server(node.url) as server:
        web = server.get_job("web")
        web.disable("disk is replaced")
        eventually(lambda: why(web) == "disk is replaced")
        node.stop()
    with gafferd(str(config), state_dir=state) as node, Server(node.url) as server:
        eventually(lambda: server.get_job("web").pids)
