"""What is said of the roles of deploy/ansible is so, without hosts: variables, defaults, configurations."""

import json
import os
import secrets
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from gafferd.config.file import load_config
from support.daemons import clean_env, command_path

ANSIBLE = Path(__file__).parents[2] / "deploy/ansible"
SETTINGS = {"LC_ALL": "C.UTF-8", "ANSIBLE_LOCALHOST_WARNING": "0", "ANSIBLE_INVENTORY_UNPARSED_WARNING": "0"}
ROLES = ("gaffer_install", "gaffer_lookupd", "gaffer_node")


def run(home: Path, command: str, *args: str) -> str:
    """Run a command of Ansible; return its stdout. AssertionError with what it wrote when it fails."""
    done = subprocess.run(
        [command_path(command), *args],
        env=clean_env({**SETTINGS, "ANSIBLE_HOME": str(home), "ANSIBLE_REMOTE_TMP": str(home)}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return done.stdout


def read(role: str, path: str) -> Any:
    return yaml.safe_load((ANSIBLE / "roles" / role / path).read_text())


def options(role: str) -> dict[str, dict[str, Any]]:
    """The variables of a role, as its argument specification describes them."""
    specification = read(role, "meta/argument_specs.yml")["argument_specs"]["main"]
    found: dict[str, dict[str, Any]] = specification["options"]
    return found


def test_the_sample_playbook_is_valid(tmp_path: Path) -> None:
    run(tmp_path, "ansible-playbook", "--syntax-check", "-i", str(ANSIBLE / "inventory"), str(ANSIBLE / "site.yml"))


@pytest.mark.parametrize("role", ROLES)
def test_each_default_is_described(role: str) -> None:
    described = {name: option.get("default") for name, option in options(role).items() if not option.get("required")}

    assert read(role, "defaults/main.yml") == described


SHOP = {
    "shop.web": {
        "cmd": "/srv/web --port $PORT --motto '100% off'",
        "numprocesses": 2,
        "port": "8000+",
        "env": {"DEBUG": "off", "VERSION": "3.10", "GREETING": 'two\nlines of "ünïcode"'},
        "after": ["db"],
    },
    "shop.db": {"cmd": "/srv/db", "graceful_timeout": "90s"},
}


def render(home: Path, role: str, template: str, **variables: Any) -> Path:
    """Write a template of a role as a host gets it, checked as there, with `home` for /etc/gaffer."""
    source = home / template
    source.write_text((ANSIBLE / "roles" / role / "templates" / template).read_text().replace("/etc/gaffer", str(home)))
    (home / "variables.json").write_text(json.dumps(read(role, "defaults/main.yml") | variables))
    [task] = [
        task["ansible.builtin.template"]
        for path in (ANSIBLE / "roles" / role / "tasks").iterdir()
        for task in yaml.safe_load(path.read_text())
        if task.get("ansible.builtin.template", {}).get("src") == template
    ]
    target = home / template.removesuffix(".j2")
    task |= {"src": str(source), "dest": str(target), "owner": os.geteuid()}
    if "validate" in task:
        task["validate"] = task["validate"].replace("/opt/gaffer/bin/gafferd", command_path("gafferd"))
    module = ("--module-name=ansible.builtin.template", f"--args={json.dumps(task)}")
    run(home, "ansible", "localhost", "--connection=local", *module, f"--extra-vars=@{home}/variables.json")
    return target


def test_jobs_and_webhooks_of_the_inventory(tmp_path: Path) -> None:
    webhooks = {"exit": "http://127.0.0.1:8080/exits"}

    path = render(tmp_path, "gaffer_node", "jobs.yaml.j2", gaffer_node_jobs=SHOP, gaffer_node_webhooks=webhooks)

    assert yaml.safe_load(path.read_text()) == {"jobs": SHOP, "webhooks": webhooks}
    assert sorted(map(str, load_config(path).jobs)) == ["shop.db", "shop.web"]


def test_without_jobs(tmp_path: Path) -> None:
    assert not load_config(render(tmp_path, "gaffer_node", "jobs.yaml.j2")).jobs


def test_settings_of_the_inventory_and_of_the_role(tmp_path: Path) -> None:
    (tmp_path / "jobs.d").mkdir()
    for name in ("api.key", "cluster.key"):
        (tmp_path / name).write_text(secrets.token_hex())
    certificate = trustme.CA().issue_cert("node1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "node.crt")
    certificate.private_key_pem.write_to_path(tmp_path / "node.key")
    given = dict.fromkeys(("gaffer_api_key", "gaffer_cluster_key", "gaffer_node_certificate"), "given")
    settings = {"bind": "0.0.0.0:5000", "state_dir": "/srv/gaffer"}

    path = render(tmp_path, "gaffer_node", "gafferd.yaml.j2", gaffer_node_config={"gaffer": settings}, **given)

    assert yaml.safe_load(path.read_text()) == {
        "gaffer": {
            "include_dir": f"{tmp_path}/jobs.d",
            "api_key_file": f"{tmp_path}/api.key",
            "cluster_key_file": f"{tmp_path}/cluster.key",
            **settings,
        },
        "ssl": {"certfile": f"{tmp_path}/node.crt", "keyfile": f"{tmp_path}/node.key"},
    }


def test_arguments_and_certificate_of_a_registry(tmp_path: Path) -> None:
    arguments = ["--bind=10.0.0.5:5010", 'a "b" 100% $c \\ d']

    path = render(
        tmp_path, "gaffer_lookupd", "ansible.conf.j2", gaffer_lookupd_args=arguments, gaffer_lookupd_certificate="given"
    )

    command = "/opt/gaffer_lookupd/bin/gaffer_lookupd --cluster-key-file ${CREDENTIALS_DIRECTORY}/cluster.key"
    certificate = "--certfile ${CREDENTIALS_DIRECTORY}/lookupd.crt --keyfile ${CREDENTIALS_DIRECTORY}/lookupd.key"
    assert path.read_text().splitlines()[1:] == [
        "[Service]",
        f"LoadCredential=lookupd.crt:{tmp_path}/lookupd.crt",
        f"LoadCredential=lookupd.key:{tmp_path}/lookupd.key",
        "ExecStart=",
        rf'ExecStart={command} {certificate} "--bind=10.0.0.5:5010" "a \"b\" 100%% $$c \\ d"',
    ]
