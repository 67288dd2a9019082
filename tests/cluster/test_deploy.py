"""The configurations that we ship are good, with their examples on as well as off."""

import re
from pathlib import Path

import pytest
import yaml

from gafferd.config.file import load_config
from support.docker import run
from support.needs import COMPOSE, needs_docker

ROOT = Path(__file__).parents[2]


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
