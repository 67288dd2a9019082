"""`POST /reload` on a running gafferd."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from support.daemons import Daemon, gafferd
from support.poll import eventually

KEPT = "[process:kept]\ncmd = sleep 1000\n"
BEFORE = KEPT + "[process:old]\ncmd = sleep 1001\n[process:web]\ncmd = sleep 1000\n"
AFTER = KEPT + "[process:web]\ncmd = sleep 1003\npriority = 1\n[process:new]\ncmd = sleep 1002\n"


def reload(node: Daemon, query: str = "") -> Any:
    answer = requests.post(f"{node.url}/reload{query}", timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


def state(node: Daemon) -> Any:
    return requests.get(f"{node.url}/reload", timeout=30).json()


def info(node: Daemon, job: str) -> Any:
    return requests.get(f"{node.url}/jobs/default/{job}", timeout=30).json()


def jobs(node: Daemon) -> Any:
    return requests.get(f"{node.url}/jobs", timeout=30).json()["jobs"]


def write(path: Path, text: str) -> None:
    """As editors do, so that gafferd never reads half a file."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gafferd.ini"
    path.write_text(BEFORE)
    return path


@pytest.mark.row("GD-19")
def test_a_reload_applies_the_difference_and_a_dry_run_only_shows_it(config: Path) -> None:
    changes = [
        {"job": "default.old", "action": "remove", "settings": [], "restart": False},
        {"job": "default.web", "action": "update", "settings": ["cmd", "priority"], "restart": True},
        {"job": "default.new", "action": "add", "settings": [], "restart": False},
    ]
    with gafferd(str(config)) as node:
        kept = eventually(lambda: info(node, "kept")["instances"][0]["os_pid"])
        write(
            config,
            "[gaffer]\nlog_level = debug\n[webhooks]\nexit = http://u:secret@127.0.0.1:9/?k=secret\n[proces:x]\n"
            + AFTER,
        )
        shown = reload(node, "?dry_run=true")
        assert shown == {
            "dry_run": True,
            "changes": changes,
            "failed": [],
            "webhooks": [{"event": "exit", "url": "http://127.0.0.1:9/", "action": "add"}],
            "restart_required": ["log_level"],
            "warnings": [
                {
                    "path": f"{config}:5",
                    "message": "[proces:x] unknown section, ignored unless a plugin reads it",
                    "hint": "did you mean 'process'?",
                }
            ],
        }
        assert jobs(node) == ["default.kept", "default.old", "default.web"]
        assert requests.get(f"{node.url}/health", timeout=30).json()["webhooks"] == []

        assert reload(node) == {**shown, "dry_run": False}
        node.wait_for_line("restart gafferd to apply them: log_level")
        node.wait_for_line(
            "reloaded: remove default.old, update default.web, add default.new, add webhook exit of http"
        )
        assert jobs(node) == ["default.kept", "default.web", "default.new"]
        assert info(node, "web")["config"]["cmd"] == "sleep 1003"
        assert info(node, "kept")["instances"][0]["os_pid"] == kept

        assert state(node)["restart_required"] == ["log_level"]
        again = reload(node)
        assert (again["changes"], again["webhooks"]) == ([], [])
        assert again["restart_required"] == ["log_level"], "until it is restarted"
        assert "secret" not in node.stderr


def test_a_broken_file_changes_nothing_and_is_answered_with_all_mistakes(config: Path) -> None:
    with gafferd(str(config)) as node:
        started = state(node)
        assert started == {
            "path": str(config),
            "applied_at": pytest.approx(time.time(), abs=60),
            "error": None,
            "problems": [],
            "failed": [],
            "restart_required": [],
        }
        write(config, AFTER + "[process:bad]\ncommand = x\nnumprocesses = many\n")
        for query in ("", "?dry_run=true"):
            answer = requests.post(f"{node.url}/reload{query}", timeout=30)
            assert answer.status_code == 400
            assert [(each["path"], each["message"]) for each in answer.json()["problems"]] == [
                (f"{config}:8", "[process:bad] cmd is missing"),
                (f"{config}:9", "[process:bad] unknown key 'command'"),
                (f"{config}:10", "[process:bad] numprocesses: expected a whole number of 0 or more, got 'many'"),
            ]
        node.wait_for_line("the configuration is invalid, keeping the current one")
        assert jobs(node) == ["default.kept", "default.old", "default.web"]
        left = state(node)
        assert (left["error"], left["problems"]) == (answer.json()["message"], answer.json()["problems"])
        assert left["applied_at"] == started["applied_at"]
        config.unlink()
        answer = requests.post(f"{node.url}/reload", timeout=30)
        assert (answer.status_code, answer.json()["path"]) == (400, str(config))
        assert jobs(node) == ["default.kept", "default.old", "default.web"]
        config.write_text(BEFORE)
        reload(node)
        assert state(node)["error"] is None


def test_a_change_that_fails_is_told_and_the_others_are_applied(config: Path) -> None:
    with gafferd(str(config)) as node:
        requests.post(f"{node.url}/jobs/default/web/numprocesses", json={"scale": "=2"}, timeout=30)
        write(config, AFTER.replace("1003", "1003\nport = 8123"))
        result = reload(node)
        assert [each["job"] for each in result["changes"]] == ["default.old", "default.new"]
        assert result["failed"] == [
            {
                "job": "default.web",
                "action": "update",
                "error": "bad_request",
                "message": "port: 2 processes can't share port 8123",
                "hint": "write 8123+ to give each its own port from 8123 on, or auto",
            }
        ]
        node.wait_for_line("reload: update of default.web failed and will be retried at the next reload")
        assert state(node)["failed"] == result["failed"]


def test_reloads_come_one_after_the_other(config: Path) -> None:
    with gafferd(str(config)) as node, ThreadPoolExecutor(8) as threads:
        write(config, AFTER)
        answers = [threads.submit(reload, node) for _ in range(8)]
        node.signal(signal.SIGHUP)
        changed = [answer.result()["changes"] for answer in answers]
        eventually(lambda: node.stderr.count(" reloaded: ") == 9)
        assert node.stderr.count("reloaded: remove default.old, update default.web, add default.new") == 1
        assert node.stderr.count("reloaded: nothing changed") == 8
        assert sum(map(bool, changed)) <= 1


def test_without_a_file_there_is_nothing_to_reload() -> None:
    with gafferd() as node:
        answer = requests.post(f"{node.url}/reload", timeout=30)
        assert (answer.status_code, answer.json()["error"]) == (409, "no_config_file")
        assert answer.json()["hint"] == "restart it with -c FILE, or load jobs over the API"
        node.signal(signal.SIGHUP)
        node.wait_for_line("nothing to reload: gafferd runs without a configuration file")


def test_a_key_for_some_sessions_may_not_reload(config: Path) -> None:
    with gafferd(str(config)) as node:
        key = requests.post(f"{node.url}/keys", json={"scopes": ["define"], "sessions": ["default"]}, timeout=30).json()
        answer = requests.post(f"{node.url}/reload", headers={"X-Api-Key": key["key"], "Via": "x"}, timeout=30)
        assert (answer.status_code, answer.json()["error"]) == (403, "forbidden")
        assert answer.json()["message"].startswith("a reload affects all sessions of the node")
