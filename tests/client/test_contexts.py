"""Named contexts, and where settings come from."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gaffer_client import Server
from support.client import Commands
from support.daemons import Daemon, gafferd, lookupd
from support.poll import eventually


@pytest.fixture(scope="module")
def registry() -> Iterator[Daemon]:
    with lookupd() as registry:
        yield registry


@pytest.fixture(scope="module")
def node(registry: Daemon) -> Iterator[Daemon]:
    with gafferd("--lookupd-address", registry.url, "--node-name", "one") as node, Server(node.url) as server:
        server.load({"name": "web", "cmd": "sleep 1000"}, "shop")
        yield node


@pytest.fixture
def folder(gaffer: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / ".gaffer"


def source(gaffer: Commands, setting: str, *options: str) -> tuple[str, str]:
    found = json.loads(gaffer("config", "show", "--json", *options).out)[setting]
    return found["value"], found["source"]


def test_a_context_chooses_the_node(gaffer: Commands, folder: Path, node: Daemon, closed: str) -> None:
    assert gaffer("context").out.startswith("There are no contexts")
    assert gaffer("context", "set", "here", f"endpoint={node.url}", "lookupd=http://127.0.0.1:1").status == 0
    assert gaffer("context", "set", "nowhere", f"endpoint={closed}").status == 0
    assert (folder / "contexts.ini").stat().st_mode & 0o777 == 0o600
    assert gaffer("apps", "--context=nowhere").status == 3
    assert gaffer("apps", "--context", "here").out == "shop\n"
    assert gaffer("--context=here", "apps").out == "shop\n"
    gaffer("context", "use", "here")
    assert gaffer("apps").out == "shop\n"
    assert [line.split()[:2] for line in gaffer("context").out.splitlines()[1:]] == [["*", "here"], ["nowhere", closed]]
    gaffer("context", "remove", "here")
    assert json.loads(gaffer("context", "--json").out) == {
        "current": None,
        "contexts": {"nowhere": {"endpoint": closed}},
    }


def test_each_setting_has_one_source(gaffer: Commands, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert source(gaffer, "endpoint") == ("http://127.0.0.1:5000", "default")
    folder.mkdir(mode=0o700)
    (folder / "gaffer.ini").write_text('[client]\nendpoint = http://file:1\n[node "http://named:1"]\ninsecure = true\n')
    assert source(gaffer, "endpoint") == ("http://file:1", "[client] endpoint")
    gaffer("context", "set", "named", "endpoint=http://named:1")
    gaffer("context", "use", "named")
    assert source(gaffer, "endpoint") == ("http://named:1", "[context named] endpoint")
    assert source(gaffer, "context") == ("named", "contexts.ini")
    assert source(gaffer, "insecure") == ("true", "[node] insecure")
    monkeypatch.setenv("GAFFER_ENDPOINT", "http://variable:1")
    assert source(gaffer, "endpoint") == ("http://variable:1", "GAFFER_ENDPOINT")
    assert source(gaffer, "endpoint", "--context=named") == ("http://named:1", "--context=named")
    assert source(gaffer, "endpoint", "-g", "http://flag:1", "--context=named") == ("http://flag:1", "--endpoint")
    monkeypatch.setenv("GAFFER_API_KEY", "gk_secret")
    ran = gaffer("config", "show")
    assert ran.status == 0
    assert "gk_secret" not in ran.out


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["set", "x", "endpont=y"], "unknown setting 'endpont'", "did you mean 'endpoint'?"),
        (["set", "x", "insecure=maybe"], "insecure: expected true or false, got 'maybe'", None),
        (["set", "x", "endpoint=a\nb"], "endpoint: 'a\\nb' has control characters", "give a line of text"),
        (["set", "x"], "no settings given", "give KEY=VALUE, or remove the context"),
        (["usee", "x"], "unknown action 'usee'", "did you mean 'use'?"),
        (["show"], "no context given", "name one: gaffer context show NAME"),
    ],
)
def test_mistakes(gaffer: Commands, folder: Path, words: list[str], message: str, hint: str | None) -> None:
    ran = gaffer("context", *words)
    assert (ran.status, ran.err.splitlines()) == (2, [f"gaffer: {message}", *([f"  {hint}"] if hint else [])])
    assert not folder.exists()


def test_an_unknown_context_comes_with_the_one_that_was_perhaps_meant(gaffer: Commands, folder: Path) -> None:
    gaffer("context", "set", "prod", "endpoint=http://127.0.0.1:1")
    ran = gaffer("apps", "--context=prdo")
    assert (ran.status, ran.err.splitlines()[1]) == (2, "  did you mean 'prod'?")


def test_contexts_that_another_program_has_broken(gaffer: Commands, folder: Path) -> None:
    gaffer("context", "set", "current", "endpoint=http://127.0.0.1:1", "lookupd=http://127.0.0.1:2")
    file = folder / "contexts.ini"
    file.write_text(f"{file.read_text()}[context prod]\nendpoint\nlookup = 1\n")
    for words in (("apps",), ("context",), ("config", "show")):
        ran = gaffer(*words)
        assert (ran.status, ran.out) == (2, "")
        assert ran.err.splitlines() == [
            f"gaffer: {file}:5: [context prod] expected key = value, got 'endpoint'",
            f"gaffer: {file}:6: [context prod] unknown key 'lookup'",
            "  did you mean 'lookupd'?",
        ]


def test_a_node_is_chosen_by_its_name(
    gaffer: Commands, node: Daemon, registry: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAFFER_LOOKUPD", registry.url)
    eventually(lambda: gaffer("lookup:job", "shop.web").status == 0)
    assert gaffer("apps", "-g", "one").out == "shop\n"
    ran = gaffer("apps", "-g", "onne")
    assert (ran.status, ran.err.splitlines()) == (4, ["gaffer: no node is named onne", "  did you mean 'one'?"])
    monkeypatch.setenv("GAFFER_LOOKUPD", "http://127.0.0.1:1")
    assert gaffer("apps", "-g", "one").status == 3


def test_settings_that_can_not_be_reached_are_not_taken_for_none(gaffer: Commands, folder: Path) -> None:
    folder.symlink_to(folder)  # a loop; also for root, unlike a folder without permissions
    for words in (("apps",), ("context",)):
        ran = gaffer(*words)
        assert (ran.status, ran.out) == (2, "")
        assert f"can't read {folder}" in ran.err


def test_a_home_that_does_not_exist_has_no_settings(gaffer: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    for home in ("/nonexistent", "/dev/null"):
        monkeypatch.setenv("HOME", home)
        assert source(gaffer, "endpoint") == ("http://127.0.0.1:5000", "default")
