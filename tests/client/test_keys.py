"""Keys from the command line: made, listed, used, revoked."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gaffer.runtime.keyfile import new_key
from gaffer_client import Server, errors
from support.client import Commands
from support.daemons import Daemon, gafferd


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "api.key"
    path.write_text(new_key())
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def node(key_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    config = tmp_path_factory.mktemp("config") / "gafferd.ini"
    config.write_text("[gaffer]\nrequire_key = yes\n")
    with gafferd("-c", str(config), "--api-key-file", str(key_file)) as node:
        yield node


@pytest.fixture
def owner(node: Daemon, gaffer: Commands, key_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The holder of the key file; `gaffer` is run for him."""
    monkeypatch.setenv("GAFFER_ENDPOINT", node.url)
    monkeypatch.setenv("GAFFER_API_KEY_FILE", str(key_file))
    with Server(node.url, api_key=key_file.read_text()) as server:
        yield server


def ids(server: Server) -> list[str]:
    found = server.keys()
    return [key["id"] for key in found]


@pytest.mark.row("CL-38", "R-91")
def test_a_key_is_made_used_and_revoked(owner: Server, gaffer: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    made = gaffer("key:create", "--scope", "read", "--scope=define", "--session", "blog")
    assert made.status == 0
    [key] = made.out.split()
    own, identifier = ids(owner)
    assert own == "file"
    assert identifier in made.err
    assert key not in made.err

    listed = gaffer("key:list")
    assert listed.out.splitlines()[0].split() == ["ID", "SCOPES", "SESSIONS", "CREATED"]
    assert ["file", "control", "define", "read", "all"] in [line.split() for line in listed.out.splitlines()]
    assert [identifier, "define", "read", "blog"] in [line.split()[:4] for line in listed.out.splitlines()]
    assert key not in listed.out

    with Server(owner.url, api_key=key) as limited:
        assert limited.jobs() == []
        with pytest.raises(errors.Forbidden):
            limited.load({"name": "shop.web", "cmd": "true"})
        with pytest.raises(errors.Forbidden):
            limited.create_key(["control"], ["blog"])

    revoked = gaffer("key:revoke", identifier)
    assert (revoked.status, revoked.out) == (0, f"revoked {identifier}\n")
    with Server(owner.url, api_key=key) as limited, pytest.raises(errors.StatusError) as refusal:
        limited.jobs()
    assert refusal.value.errno == 401


def test_json_is_the_document_of_the_route(owner: Server, gaffer: Commands) -> None:
    made = json.loads(gaffer("key:create", "--scope", "control", "--json").out)
    assert set(made) == {"id", "key"}
    assert json.loads(gaffer("key:list", "--json").out) == {"keys": owner.keys()}
    assert json.loads(gaffer("key:revoke", made["id"], "--json").out) == {"ok": True}


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["key:create"], 2, "--scope"),
        (["key:create", "--scope", "raed"], 2, "read"),
        (["key:create", "--scope", "read", "--session", "a b"], 1, "a b"),
        (["key:revoke"], 2, "key:revoke"),
        (["key:revoke", "nope"], 4, "nope"),
        (["key:revoke", "file"], 1, "--api-key-file"),
        (["key:list", "--endpoint", "http://127.0.0.1:1"], 3, "127.0.0.1:1"),
    ],
)
def test_mistakes_are_told(owner: Server, gaffer: Commands, arguments: list[str], status: int, told: str) -> None:
    ran = gaffer(*arguments)
    assert (ran.status, ran.out) == (status, "")
    assert told in ran.err
    assert ids(owner) == ["file"]


def test_without_a_key_the_node_is_closed(
    owner: Server, gaffer: Commands, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("GAFFER_API_KEY_FILE")
    ran = gaffer("key:list")
    assert ran.status == 1
    assert "key" in ran.err
