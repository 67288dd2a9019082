"""The units of deploy/systemd under systemd: one story, told in this order."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.machines import Machine, machine
from support.needs import needs_cgroup, needs_mount, needs_netns, needs_pidns, needs_root, needs_systemd
from support.network import network
from support.poll import eventually
from support.wheels import built_wheels, dependency_wheels

UNITS = Path(__file__).parents[2] / "deploy/systemd"
# That of the test may be where a DynamicUser= can't read.
PYTHON = "/usr/bin/python3"
PROGRAMS = "/opt/gaffer/bin"
JOB = "[process:{}]\ncmd = sleep 1000\n"

pytestmark = [
    pytest.mark.faults,
    needs_root,
    needs_netns,
    needs_pidns,
    needs_mount,
    needs_cgroup,
    needs_systemd,
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with the programs, the units and a configuration."""
    packages, dependencies = built_wheels(tmp_path_factory), dependency_wheels(tmp_path_factory, PYTHON)
    with network() as net, machine("node", net.host()) as made:
        made.run(PYTHON, "-m", "venv", "/opt/gaffer")
        wheels = ("--no-index", f"--find-links={packages}", f"--find-links={dependencies}")
        made.run(f"{PROGRAMS}/pip", "install", "--quiet", *wheels, "gafferd", "gaffer-lookupd", "gaffer-client")
        made.run("mkdir", "-m", "0755", "/etc/gaffer")
        made.run("sh", "-c", f"umask 077; {PROGRAMS}/gaffer key:new > /etc/gaffer/cluster.key")
        configure(made, JOB.format("a") + "uid = nobody\n")
        for unit in UNITS.glob("*.s*"):
            if unit.is_file():
                shutil.copy(unit, made.path(f"/etc/systemd/system/{unit.name}"))
        made.run("systemctl", "daemon-reload")
        yield made
        print(made.run("journalctl", "--no-pager", "--lines=100"))


def configure(host: Machine, jobs: str) -> None:
    host.path("/etc/gaffer/gafferd.ini").write_text(jobs)


def health(host: Machine) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.run("curl", "-sS", "http://127.0.0.1:5000/health"))
    return found


def show(host: Machine, unit: str, name: str) -> str:
    return host.run("systemctl", "show", f"--property={name}", "--value", unit).strip()


def sleepers(host: Machine) -> list[str]:
    """The users of the jobs' processes."""
    listed = host.run("ps", "-eo", "user,args")
    return re.findall(r"^(\S+) +sleep 1000$", listed, re.MULTILINE)


def test_they_report_when_they_serve_and_what(host: Machine) -> None:
    host.run("systemctl", "start", "gafferd", "gaffer_lookupd")
    assert host.run("curl", "-sS", "http://127.0.0.1:5000/ping") == "OK"
    assert host.run("curl", "-sS", "http://127.0.0.1:5010/ping") == "OK"
    eventually(lambda: show(host, "gafferd", "StatusText") == "1 job, 1 process")
    assert show(host, "gaffer_lookupd", "StatusText") == "0 nodes"
    assert sleepers(host) == ["nobody"]
    assert "gafferd: node node, 1 job, 1 process" in host.run("systemctl", "status", "gafferd")


def test_local_callers_need_no_key(host: Machine) -> None:
    """By netlink, which the unit allows."""
    assert '"default.a"' in host.run("curl", "-sS", "http://127.0.0.1:5000/jobs")


def test_a_reload_is_applied(host: Machine) -> None:
    configure(host, JOB.format("a") + JOB.format("b"))
    host.run("systemctl", "reload", "gafferd")
    eventually(lambda: show(host, "gafferd", "StatusText") == "2 jobs, 2 processes")
    eventually(lambda: sleepers(host) == ["root"] * 2)


def test_a_killed_gafferd_is_replaced_below_the_main_process(host: Machine) -> None:
    main, first, jobs = show(host, "gafferd", "MainPID"), health(host)["pid"], host.run("pgrep", "-x", "sleep")
    assert main == str(health(host)["keeper"]["pid"]) != str(first)
    host.run("kill", "-KILL", str(first))
    eventually(lambda: health(host)["pid"] != first)
    assert (show(host, "gafferd", "MainPID"), show(host, "gafferd", "NRestarts")) == (main, "0")
    assert host.run("pgrep", "-x", "sleep") == jobs
    eventually(lambda: show(host, "gafferd", "StatusText") == "2 jobs, 2 processes")
    assert show(host, "gafferd", "ActiveState") == "active"


def test_an_upgrade_keeps_the_main_process_and_the_jobs(host: Machine) -> None:
    main, jobs = show(host, "gafferd", "MainPID"), host.run("pgrep", "-x", "sleep")
    assert "2 processes untouched" in host.run(f"{PROGRAMS}/gafferctl", "upgrade")
    assert (show(host, "gafferd", "MainPID"), show(host, "gafferd", "NRestarts")) == (main, "0")
    assert host.run("pgrep", "-x", "sleep") == jobs
    eventually(lambda: show(host, "gafferd", "ActiveState") == "active")
    host.run("systemctl", "reload", "gafferd")
    eventually(lambda: show(host, "gafferd", "StatusText") == "2 jobs, 2 processes")


def test_without_the_main_process_the_unit_is_restarted(host: Machine) -> None:
    main, jobs = show(host, "gafferd", "MainPID"), host.run("pgrep", "-x", "sleep").split()
    host.run("kill", "-KILL", main)
    eventually(lambda: show(host, "gafferd", "NRestarts") == "1", timeout=30)
    eventually(lambda: show(host, "gafferd", "ActiveState") == "active", timeout=30)
    assert show(host, "gafferd", "MainPID") not in (main, "0")
    eventually(lambda: len(sleepers(host)) == 2)
    assert not {*jobs} & {*host.run("pgrep", "-x", "sleep").split()}


def test_a_loop_that_hangs_is_restarted(host: Machine) -> None:
    drop_in = host.path("/run/systemd/system/gaffer_lookupd.service.d/watchdog.conf")
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("[Service]\nWatchdogSec=1\n")
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "restart", "gaffer_lookupd")
    host.run("systemctl", "kill", "--signal=STOP", "gaffer_lookupd")
    eventually(lambda: int(show(host, "gaffer_lookupd", "NRestarts")) > 0, timeout=30)
    eventually(lambda: show(host, "gaffer_lookupd", "ActiveState") == "active", timeout=30)


def test_the_first_connection_starts_it(host: Machine) -> None:
    host.run("systemctl", "stop", "gafferd")
    assert sleepers(host) == []
    host.run("systemctl", "start", "gafferd.socket")
    assert show(host, "gafferd", "ActiveState") == "inactive"
    assert '"default.a"' in host.run("curl", "-sS", "http://127.0.0.1:5000/jobs")
    eventually(lambda: show(host, "gafferd", "ActiveState") == "active")


def test_connections_wait_while_it_restarts(host: Machine) -> None:
    pid = show(host, "gafferd", "MainPID")
    host.run("systemctl", "restart", "--no-block", "gafferd")
    while show(host, "gafferd", "MainPID") in (pid, "0"):
        assert host.run("curl", "-sS", "http://127.0.0.1:5000/ping") == "OK"
    assert host.run("curl", "-sS", "http://127.0.0.1:5000/ping") == "OK"


def test_jobs_without_privileges(host: Machine) -> None:
    host.run("useradd", "--system", "gaffer")
    shutil.copytree(UNITS / "gafferd.service.d", host.path("/etc/systemd/system/gafferd.service.d"))
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "restart", "gafferd")
    eventually(lambda: sleepers(host) == ["gaffer"] * 2)
    [pid] = host.run("pgrep", "--oldest", "-x", "sleep").split()
    status = host.path(f"/proc/{pid}/status").read_text()
    assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    assert "gafferd" in host.path(f"/proc/{pid}/cgroup").read_text()
    host.run("systemctl", "stop", "gafferd.socket", "gafferd")
    assert sleepers(host) == []
