"""The configurations that we ship are good, with their examples on as well as off."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import requests
import yaml

from gafferd.config.file import load_config
from support.daemons import command_path, gafferd
from support.docker import COMPOSE, run
from support.needs import needs_docker, needs_root, needs_systemd
from support.poll import eventually
from support.strangers import OVERFLOW

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "deploy/systemd"


@pytest.mark.parametrize(
    ("path", "jobs"),
    [
        ("deploy/gafferd.ini", 0),
        ("deploy/gafferd.yaml", 0),
        ("deploy/compose/gafferd.ini", 3),
    ],
)
def test_configuration_as_it_is(path: str, jobs: int) -> None:
    config = load_config(ROOT / path)

    assert len(config.jobs) == jobs
    assert config.warnings == ()


def test_configuration_with_its_examples(tmp_path: Path) -> None:
    text = (ROOT / "deploy/gafferd.ini").read_text().replace("/etc/gaffer", str(tmp_path))
    text = re.sub(r"^; (?=[A-Za-z_]+ = |\[)", "", text, flags=re.MULTILINE)
    yaml_text = (ROOT / "deploy/gafferd.yaml").read_text().replace("/etc/gaffer", str(tmp_path))
    yaml_text = re.sub(r"^( *)# (?= *[A-Za-z_.]+:( |$))", r"\1", yaml_text, flags=re.MULTILINE)
    for name in ("node.crt", "node.key", "cluster.key", "api.key"):
        (tmp_path / name).touch()
    (tmp_path / "gafferd.ini").write_text(text)
    (tmp_path / "gafferd.yaml").write_text(yaml_text)

    config = load_config(tmp_path / "gafferd.ini")
    same = load_config(tmp_path / "gafferd.yaml")

    assert (same.settings, same.jobs, same.warnings) == (config.settings, config.jobs, ())
    options = re.findall("^[a-z_]+ = ", text.partition("[process")[0], flags=re.MULTILINE)
    assert len(config.settings) == len(options)
    assert list(map(str, config.jobs)) == ["shop.web"]
    assert config.warnings == ()


@needs_docker
def test_with_two_lookupds_every_node_and_client_knows_both() -> None:
    files = ["-f", "docker-compose.yml", "-f", "deploy/compose.two-lookupds.yml"]
    services = yaml.safe_load(run([COMPOSE, *files, "config"]))["services"]

    lookupds = {name for name, service in services.items() if service["command"][0] == "gaffer_lookupd"}
    addresses = [f"http://{name}:5010" for name in sorted(lookupds)]
    assert len(lookupds) == 2
    nodes = [service for service in services.values() if service["command"][0] == "gafferd"]
    assert len(nodes) == 3
    for node in nodes:
        flags = [word for word in node["command"] if word.startswith("--lookupd-address=")]
        assert flags == [f"--lookupd-address={address}" for address in addresses]
        assert node["environment"]["GAFFER_LOOKUPD"] == ",".join(addresses)
    same = [[*services[name]["command"], services[name]["healthcheck"]] for name in lookupds]
    assert same[0] == same[1]


@needs_systemd
@pytest.mark.parametrize("drop_ins", [False, True], ids=["plain", "with drop-ins"])
def test_systemd_accepts_the_units(tmp_path: Path, drop_ins: bool) -> None:
    programs = str(Path(command_path("gafferd")).parent)
    units = []
    for unit in UNITS.iterdir():
        if unit.is_dir() and drop_ins:
            shutil.copytree(unit, tmp_path / unit.name)
        elif unit.is_file():
            units.append(tmp_path / unit.name)
            units[-1].write_text(unit.read_text().replace("/opt/gaffer/bin", programs))
    assert len(units) == 4
    verify = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, timeout=60, check=False
    )
    assert (verify.returncode, verify.stdout, verify.stderr) == (0, "", "")


@needs_root
def test_jobs_of_other_users_run_with_the_capabilities_of_the_unit(tmp_path: Path) -> None:
    """Another user, limits, a priority, the log, and the end."""
    dropped = re.findall("CAP_([A-Z_]+)", " ".join(re.findall("^CapabilityBoundingSet=~(.*)$", unit("gafferd"), re.M)))
    assert "SYS_MODULE" in dropped
    bounding = f"--bounding-set={','.join(f'-{name.lower()}' for name in dropped)}"
    tmp_path.chmod(0o755)
    with gafferd(state_dir=tmp_path / "state", enter=["setpriv", bounding, f"--inh-caps={bounding[15:]}"]) as node:
        says = "sh -c 'echo here; exec sleep 1000'"
        for job in (
            {"name": "other", "cmd": says, "uid": OVERFLOW, "gid": OVERFLOW},
            {"name": "limits", "cmd": says, "nice": -5, "rlimit_nofile": 512},
        ):
            assert requests.post(f"{node.url}/jobs/default", json=job, timeout=10).ok
        logs = [tmp_path / f"state/logs/default.{name}.1.out.log" for name in ("other", "limits")]
        eventually(lambda: [log.read_text() for log in logs] == ["here\n"] * 2, retry_on=(OSError,))
        [instance] = requests.get(f"{node.url}/jobs/default/other", timeout=10).json()["instances"]
        status = Path(f"/proc/{instance['os_pid']}/status").read_text()
        assert re.search(rf"^Uid:\s+{OVERFLOW}\s", status, re.M)
        node.stop()
        assert not Path(f"/proc/{instance['os_pid']}").exists()


def unit(name: str) -> str:
    return (UNITS / f"{name}.service").read_text()
