"""`gaffer doctor` on nodes and lookups that work, and on some that do not."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gaffer_client.cli.findings import used
from gaffer_client.cli.host_checks import check_pipes, check_state
from support.client import Commands, Ran
from support.daemons import Daemon, gafferd, lookupd
from support.needs import faketime_library, needs_faketime
from support.poll import eventually

KEY = "gk_0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def registry() -> Iterator[Daemon]:
    with lookupd("--ttl", "60", "--interval", "20") as registry:
        yield registry


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("node") / "state"


@pytest.fixture(scope="module")
def node(registry: Daemon, state: Path) -> Iterator[Daemon]:
    options = ("--keeper", "--lookupd-address", registry.url, "--node-name", "one")
    with gafferd(*options, state_dir=state) as node:
        node.wait_for_line("announcing to")
        yield node


def findings(ran: Ran) -> dict[str, dict[str, Any]]:
    """The findings by what they are about and what was checked."""
    listed = json.loads(ran.out)["findings"]
    return {f"{each['about'] or ''} {each['check']}".strip(): each for each in listed}


def test_all_is_well(gaffer: Commands, node: Daemon, registry: Daemon, state: Path) -> None:
    words = ("doctor", "-g", node.url, "-L", registry.url)
    ran = gaffer(*words)
    assert (ran.status, ran.err) == (0, "")
    lines = [line.split()[:2] for line in ran.out.splitlines() if line.startswith("  ")]
    assert {verdict for verdict, _ in lines} == {"ok"}
    found = findings(gaffer(*words, "--json"))
    checks = "reach clock access version state keeper announces processes pipes permissions disk"
    assert {f"{node.url} {check}" for check in checks.split()} | {f"{node.url} open files"} <= found.keys(), found
    assert {f"{registry.url} {check}" for check in ("reach", "clock", "version")} <= found.keys()
    assert found["cluster nodes"]["message"] == "1 nodes, all heard lately"
    assert str(state) in found[f"{node.url} disk"]["message"]
    assert "0.6" in found[f"{node.url} version"]["message"] or "gafferd" in found[f"{node.url} version"]["message"]
    same = findings(gaffer("doctor", "--cluster", "-L", registry.url, "--json"))
    assert same["one keeper"]["verdict"] == "ok"


def test_what_can_not_be_reached(gaffer: Commands, node: Daemon, registry: Daemon, closed: str) -> None:
    ran = gaffer("doctor", "-g", closed, "-L", f"{closed},{registry.url}", "--json")
    found = findings(ran)
    assert (ran.status, json.loads(ran.out)["ok"]) == (1, False)
    assert found[f"{closed} reach"]["verdict"] == "fail"
    assert "can't reach" in found[f"{closed} reach"]["message"]
    assert found[f"{closed} reach"]["hint"]
    assert found[f"{registry.url} reach"]["verdict"] == "ok"
    found = findings(gaffer("doctor", "-g", registry.url, "-L", node.url, "--json"))
    assert "this is a gaffer_lookupd" in found[f"{registry.url} access"]["hint"]
    assert "this is a gafferd" in found[f"{node.url} reach"]["hint"]


def test_a_node_without_lookups_and_keeper(gaffer: Commands, closed: str) -> None:
    with gafferd("--no-keeper", "--node-name", "two") as node:
        ran = gaffer("doctor", "-g", node.url, "--json")
        found = findings(ran)
        assert ran.status == 0
        assert found[f"{node.url} keeper"]["verdict"] == "warn"
        assert found["lookups lookups"]["verdict"] == "skip"
    with gafferd("--no-keeper", "--lookupd-address", closed) as node:
        eventually(lambda: "announces" in gaffer("doctor", "-g", node.url, "-L", closed).out)
        ran = gaffer("doctor", "-g", node.url, "-L", closed, "--json")
        found = findings(ran)
        assert ran.status == 1
        assert found[f"{node.url} announces"]["verdict"] == "fail"
        assert found[f"{node.url} announces"]["hint"]


def test_others_must_not_read_the_state(gaffer: Commands, node: Daemon, registry: Daemon, state: Path) -> None:
    state.chmod(0o755)
    try:
        ran = gaffer("doctor", "-g", node.url, "-L", registry.url)
    finally:
        state.chmod(0o700)
    assert ran.status == 1
    assert f"fail  permissions  others can read or change {state}" in ran.out
    assert f"chmod go-rwx and chown them to the user of gafferd: {state}" in ran.out


@pytest.mark.expects_errors("is readable by other users")
def test_keys(gaffer: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, config = tmp_path / "key", tmp_path / "gafferd.ini"
    key.touch(0o600)
    key.write_text(f"{KEY}\n")
    config.write_text("[gaffer]\ntrust_local = false\nrequire_key = true\n")
    with gafferd(str(config), "--api-key-file", str(key)) as node:
        ran = gaffer("doctor", "-g", node.url, "--json")
        assert ran.status == 1
        assert findings(ran)[f"{node.url} access"]["verdict"] == "fail"
        assert "--api-key-file" in findings(ran)[f"{node.url} access"]["hint"]
        ran = gaffer("doctor", "-g", node.url, "--api-key-file", key, "--json")
        assert ran.status == 0
        assert "--api-key-file" in findings(ran)["settings"]["message"]
        key.chmod(0o644)
        ran = gaffer("doctor", "-g", node.url, "--api-key-file", key, "--json")
        assert ran.status == 1
        assert findings(ran)["settings"]["verdict"] == "fail"
        assert str(key) in findings(ran)["settings"]["message"]


def test_limits_of_the_process(gaffer: Commands) -> None:
    with gafferd("--no-keeper", enter=("prlimit", "--nofile=400:400")) as node:
        ran = gaffer("doctor", "-g", node.url)
    assert ran.status == 0
    assert "warn  open files" in ran.out
    assert "at most 400 open files" in ran.out
    assert "LimitNOFILE" in ran.out


@needs_faketime
def test_a_clock_that_is_wrong(gaffer: Commands, node: Daemon) -> None:
    faked = {"LD_PRELOAD": str(faketime_library()), "FAKETIME": "+1h", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    with lookupd(env=faked) as ahead:
        ran = gaffer("doctor", "-g", node.url, "-L", ahead.url, "--json")
        found = findings(ran)[f"{ahead.url} clock"]
    assert (ran.status, found["verdict"]) == (1, "fail")
    assert 3590 < float(found["message"].split()[3]) < 3610
    assert "ahead of" in found["message"]
    assert "NTP" in found["hint"]


# What is judged


@pytest.mark.parametrize(
    ("number", "limit", "verdict"), [(0, 10, "ok"), (7, 10, "ok"), (8, 10, "warn"), (95, 100, "fail"), (0, 0, "fail")]
)
def test_a_limit_is_near_at_80_percent(number: int, limit: int, verdict: str) -> None:
    found = used("files", "open files", number, limit, "raise it")
    assert found.verdict == verdict
    assert (found.hint is None) == (verdict == "ok")


def test_pipes_of_a_user_are_counted_once_each() -> None:
    assert [found.verdict for found in check_pipes(["pipe:[1]"], 0)] == ["ok"]
    limit = int(Path("/proc/sys/fs/pipe-user-pages-soft").read_text())
    links = [f"pipe:[{number}]" for number in range(limit // 16)]
    assert [found.verdict for found in check_pipes([*links, "socket:[1]"], 1000)] == ["warn"]
    assert [found.verdict for found in check_pipes([*links[:5], *links[:5]], 1000)] == ["ok"]
    [found] = check_pipes([*links[:5], *links[:5]], 1000)
    assert found.message == f"pages of pipe buffers: 80 of {limit} used"


def test_files_of_another_user_are_reported(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "keys.json").touch(0o600)
    own = tmp_path.stat().st_uid
    assert [found.verdict for found in check_state(tmp_path, own)][:1] == ["ok"]
    assert [found.verdict for found in check_state(tmp_path, own + 1)][:1] == ["fail"]
    (tmp_path / "keys.json").chmod(0o640)
    found = next(check_state(tmp_path, own))
    assert (found.verdict, str(tmp_path / "keys.json") in found.message) == ("fail", True)
