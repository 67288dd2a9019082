"""The roles of deploy/ansible on machines with systemd and on one without: one story, told in this order."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.daemons import clean_env, command_path
from support.machines import Machine, machine
from support.needs import needs_cgroup, needs_mount, needs_netns, needs_pidns, needs_root, needs_systemd
from support.network import network
from support.poll import eventually
from support.wheels import built_wheels, dependency_wheels

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy/ansible"
SETTINGS = {
    "LC_ALL": "C.UTF-8",
    "ANSIBLE_CONNECTION_PLUGINS": str(ROOT / "tests/support/ansible"),
    "ANSIBLE_PIPELINING": "1",
    "ANSIBLE_NOCOLOR": "1",
    "ANSIBLE_DEPRECATION_WARNINGS": "0",
}
# That of the test may be where a DynamicUser= can't read.
PYTHON = "/usr/bin/python3"
KEY = "0123456789abcdef0123456789abcdef-{}"
PASSWORD = "a password of a job"
# In a container, gafferd is the first process.
CONTAINER = """
until [ -e /etc/gaffer/gafferd.yaml ]; do sleep 0.1; done
exec /opt/gaffer/bin/gafferd --config /etc/gaffer/gafferd.yaml
"""

pytestmark = [
    pytest.mark.faults,
    needs_root,
    needs_netns,
    needs_pidns,
    needs_mount,
    needs_cgroup,
    needs_systemd,
    pytest.mark.timeout(900),
]


def job(name: str, **settings: Any) -> dict[str, Any]:
    return {f"shop.{name}": {"cmd": "sleep 1000", "env": {"PASSWORD": PASSWORD}, **settings}}


class Site:
    """Three machines, and what a user of the playbook has: an inventory with keys, and wheels."""

    def __init__(self, home: Path, packages: Path, dependencies: Path, machines: dict[str, Machine]) -> None:
        self.machines = machines
        self._inventory = home / "inventory"
        shutil.copytree(DEPLOY / "inventory", self._inventory)
        (home / "password").write_text("of the vault\n")
        (self._inventory / "secrets").mkdir()
        for name in ("cluster", "api"):
            (self._inventory / f"secrets/{name}.key").write_text(KEY.format(name) + "\n")
        self._env = clean_env(
            {**SETTINGS, "ANSIBLE_HOME": str(home), "ANSIBLE_VAULT_PASSWORD_FILE": str(home / "password")}
        )
        self.command("ansible-vault", "encrypt", str(self._inventory / "secrets/api.key"))
        nodes = {
            name: {"ansible_host": host.address, "machine_pid": host.pid, "ansible_connection": "machine"}
            for name, host in machines.items()
        }
        nodes["node2"] |= {"gaffer_service_manager": "none", "gaffer_node_reload_command": ["kill", "-HUP", "1"]}
        hosts = {
            "all": {
                "vars": {
                    "ansible_become": False,
                    "ansible_python_interpreter": sys.executable,
                    "gaffer_python": PYTHON,
                    "gaffer_system_packages": [],
                    "gaffer_wheels": str(packages),
                    "gaffer_pip_args": f"--no-index --find-links {dependencies}",
                }
            },
            "gaffer_lookupds": {"hosts": {"registry": nodes.pop("registry")}},
            "gaffer_nodes": {"hosts": nodes},
        }
        (self._inventory / "hosts.yml").write_text(yaml.safe_dump(hosts))

    def command(self, *command: str, status: int = 0) -> str:
        """Run a command of Ansible; return its output."""
        done = subprocess.run(
            [command_path(command[0]), *command[1:]],
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=800,
        )
        assert done.returncode == status, done.stdout + self._journals()
        return done.stdout

    def _journals(self) -> str:
        return "".join(host.run("journalctl", "--no-pager", "--lines=50") for host in self.machines.values())

    def play(self, jobs: dict[str, Any], *options: str, status: int = 0, **settings: str) -> dict[str, dict[str, int]]:
        """Run the playbook with jobs and settings for the nodes; return the numbers of tasks by host and result."""
        path = self._inventory / "group_vars/gaffer_nodes.yml"
        variables = yaml.safe_load(path.read_text())
        variables["gaffer_node_jobs"] = jobs
        variables["gaffer_node_config"]["gaffer"] |= settings
        path.write_text(yaml.safe_dump(variables))
        self.output = self.command(
            "ansible-playbook", "-i", str(self._inventory), str(DEPLOY / "site.yml"), "--diff", *options, status=status
        )
        lines = self.output.partition("PLAY RECAP")[2].splitlines()
        return {
            line.split()[0]: {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", line)}
            for line in lines
            if "=" in line
        }

    def ask(self, path: str) -> Any:
        """The document that the registry answers."""
        return json.loads(self.machines["registry"].run("curl", "-sS", f"http://127.0.0.1:5010{path}"))

    def started(self, node: str) -> str:
        """When systemd started the gafferd that runs."""
        return self.machines[node].run("systemctl", "show", "--property=ExecMainStartTimestampMonotonic", "gafferd")

    def pids(self, name: str) -> dict[str, list[int]]:
        """The processes of a job, by node, as the registry lists them."""
        sources = self.ask(f"/findJob?name=shop.{name}")["sources"]
        return {source["node_info"]["name"]: source["pids"] for source in sources}


def build_version(version: str, copy: Path) -> None:
    """Build wheels of another version, from a copy of the checkout, in its directory `dist`."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout.split(b"\0")
    subprocess.run(["cp", "--parents", "-P", *filter(None, names), copy], cwd=ROOT, check=True)
    build = "import release; from pathlib import Path; release.build(Path('dist'))"
    for command in ([sys.executable, "tools/metadata.py", version], [sys.executable, "-c", build]):
        subprocess.run(command, cwd=copy, env=clean_env({"PYTHONPATH": "tools"}), check=True, timeout=100)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    packages = built_wheels(tmp_path_factory)
    dependencies = dependency_wheels(tmp_path_factory, PYTHON)
    with (
        network() as net,
        machine("registry", net.host()) as registry,
        machine("node1", net.host()) as node1,
        machine("node2", net.host(), ("sh", "-c", CONTAINER)) as node2,
    ):
        machines = {"registry": registry, "node1": node1, "node2": node2}
        yield Site(tmp_path_factory.mktemp("ansible"), packages, dependencies, machines)


def test_checks_what_it_would_do_on_new_hosts(site: Site) -> None:
    recap = site.play(job("web"), "--check")

    assert all(results["failed"] == 0 and results["changed"] > 0 for results in recap.values())
    assert not any(host.path("/opt/gaffer").exists() for host in site.machines.values())


def test_brings_up_a_cluster(site: Site) -> None:
    site.play(job("web") | job("db"))

    eventually(lambda: site.pids("web").keys() == {"node1", "node2"}, 60)


def test_shows_no_secret(site: Site) -> None:
    assert PASSWORD not in site.output
    assert not any(KEY.format(name) in site.output for name in ("cluster", "api"))


def test_secrets_are_for_gafferd_only(site: Site) -> None:
    for name in ("node1", "node2"):
        modes = {
            path.name: path.stat().st_mode & 0o777 for path in site.machines[name].path("/etc/gaffer").rglob("*.*")
        }
        assert modes.pop("jobs.d") == 0o755
        assert modes == dict.fromkeys(("api.key", "cluster.key", "gafferd.yaml", "ansible.yaml"), 0o600)
        assert site.machines[name].path("/var/lib/gaffer").stat().st_mode & 0o777 == 0o700


def test_a_second_run_changes_nothing(site: Site) -> None:
    before = site.pids("web")

    recap = site.play(job("web") | job("db"))

    assert all(results["changed"] == results["failed"] == 0 for results in recap.values())
    assert site.pids("web") == before


def test_changed_jobs_leave_the_others_running(site: Site) -> None:
    before = site.pids("web")

    site.play(job("web") | job("worker", numprocesses=2), "--limit=gaffer_nodes", "--tags=gaffer_jobs")

    eventually(lambda: [len(pids) for pids in site.pids("worker").values()] == [2, 2], 30)
    assert site.ask("/findJob?name=shop.db")["sources"] == []
    assert site.pids("web") == before


def test_changed_settings_restart_gafferd(site: Site) -> None:
    before, started = site.pids("web"), site.started("node1")

    site.play(job("web"), "--limit=node1", log_level="debug")

    assert site.started("node1") != started
    eventually(lambda: site.pids("web")["node1"] not in ([], before["node1"]), 60)
    assert site.pids("web")["node2"] == before["node2"]


def test_newer_wheels_are_an_upgrade(site: Site, tmp_path: Path) -> None:
    started = site.started("node1")
    build_version("99.0.0", tmp_path)

    site.play(job("web"), "--limit=node1", f"--extra-vars=gaffer_wheels={tmp_path}/dist")

    assert "99.0.0" in site.machines["node1"].run("/opt/gaffer/bin/gafferd", "--version")
    assert site.started("node1") != started


def test_a_mistake_in_the_jobs_changes_nothing(site: Site) -> None:
    before = eventually(lambda: found if all((found := site.pids("web")).values()) else None, 60)

    site.play(job("web", numproceses=3), "--limit=gaffer_nodes", "--tags=gaffer_jobs", status=2)

    assert "numprocesses" in site.output  # the suggestion
    assert site.pids("web") == before
