"""The history of a node: who changed what, with keys, channels, signals and refused callers."""

import json
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from gaffer.runtime.keyfile import new_key
from gaffer_client import Server
from support.daemons import Daemon, gafferd
from support.poll import eventually
from support.webhooks import receiver

JOB = {"name": "web", "cmd": "sleep 1000", "env": {"PASSWORD": "hunter2"}, "numprocesses": 2}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state directory of `node`."""
    return tmp_path_factory.mktemp("node") / "state"


@pytest.fixture(scope="module")
def node(shared: Path) -> Iterator[Daemon]:
    """A node for tests with sessions of their own."""
    with gafferd(state_dir=shared) as node:
        yield node


def history(node: Daemon, **query: Any) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = requests.get(f"{node.url}/history", params=query).json()["entries"]
    return entries


def test_a_call(node: Daemon, shared: Path) -> None:
    assert requests.post(f"{node.url}/jobs/shop", json=JOB).ok
    assert requests.post(f"{node.url}/jobs/shop/web/numprocesses", json={"scale": "+1"}).ok
    assert requests.post(f"{node.url}/jobs/shop/web/state", data=b"0").ok
    assert requests.post(f"{node.url}/jobs/shop/none/signal?token=s3cret", json={"signal": "HUP"}).status_code == 404
    requests.get(f"{node.url}/jobs")
    signalled, stopped, scaled, loaded = history(node, job="shop")
    started = history(node, limit=1000)[-1]
    assert scaled.pop("duration") < 5
    assert scaled == {
        "id": scaled["id"],
        "at": scaled["at"],
        "kind": "call",
        "action": "POST",
        "what": "scale",
        "route": "/jobs/{sid}/{job}/numprocesses",
        "caller": f"uid:{Path(f'/proc/{node.pid}').stat().st_uid}",
        "address": "127.0.0.1",
        "session": "shop",
        "job": "shop.web",
        "pid": None,
        "outcome": "ok",
        "status": 200,
        "error": None,
        "count": 1,
        "details": {"scale": "+1"},
    }
    assert (loaded["job"], loaded["details"]) == ("shop.web", {"numprocesses": 2})
    assert stopped["details"] == {"state": "0"}
    assert (signalled["outcome"], signalled["status"], signalled["error"]) == ("failed", 404, "not_found")
    assert signalled["details"] == {"signal": "HUP"}
    assert (started["kind"], started["action"]) == ("node", "start")
    file = shared / "history.jsonl"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "hunter2" not in file.read_text()
    assert "s3cret" not in file.read_text()


def test_callers(state: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(new_key())
    (tmp_path / "key").chmod(0o600)
    owner = {"X-Api-Key": (tmp_path / "key").read_text()}
    config = tmp_path / "gafferd.ini"
    config.write_text("[gaffer]\nrequire_key = true\n")
    with gafferd(str(config), "--api-key-file", str(tmp_path / "key"), state_dir=state) as node:
        made = requests.post(f"{node.url}/keys", json={"scopes": ["read"], "sessions": ["shop"]}, headers=owner).json()
        reader = {"X-Api-Key": made["key"]}
        assert requests.post(f"{node.url}/jobs/shop", json=JOB, headers=reader).status_code == 403
        assert requests.get(f"{node.url}/history", headers=reader).status_code == 403
        assert requests.get(f"{node.url}/watch/audit", headers=reader).status_code == 403
        assert requests.post(f"{node.url}/auth/session", json={"key": made["key"]}).ok
        assert requests.post(f"{node.url}/auth/session", json={"key": "wrong"}).status_code == 401
        for _ in range(3):
            assert requests.post(f"{node.url}/jobs/shop", json=JOB).status_code == 401
        assert requests.get(f"{node.url}/jobs", headers={"X-Api-Key": "wrong"}).status_code == 401
        assert requests.get(f"{node.url}/jobs").status_code == 401
        assert requests.delete(f"{node.url}/keys/{made['id']}", headers=owner).ok
        entries = requests.get(f"{node.url}/history", headers=owner).json()["entries"]
        text = (state / "history.jsonl").read_text()
    uid = f"uid:{state.stat().st_uid}"
    assert [(e["action"], e["route"], e["caller"], e["outcome"], e["error"]) for e in entries[:-1]] == [
        ("DELETE", "/keys/{id}", "key:file", "ok", None),
        ("POST", "/auth/session", uid, "refused", "auth_required"),  # and the others within a minute
        ("POST", "/auth/session", f"key:{made['id']}", "ok", None),
        ("POST", "/jobs/{sid}", f"key:{made['id']}", "refused", "forbidden"),
        ("POST", "/keys", "key:file", "ok", None),
    ]
    assert entries[0]["details"] == {"id": made["id"]}
    assert entries[4]["details"] == {"id": made["id"], "scopes": ["read"], "sessions": ["shop"]}
    assert made["key"] not in text
    assert "wrong" not in text
    summary = next(
        entry
        for entry in map(json.loads, (state / "history.jsonl").read_text().splitlines()[::-1])
        if entry["count"] > 1
    )
    assert (summary["count"], summary["outcome"], summary["address"]) == (4, "refused", "127.0.0.1")


def test_commands_of_a_channel(node: Daemon) -> None:
    with Server(node.url) as server:
        server.load(JOB, "channels")
        socket = server.socket()
        socket.start()
        try:
            socket.send_command("scale", "channels.web", "+1")
        finally:
            socket.close()
    entry = eventually(lambda: [each for each in history(node) if each["kind"] == "command"])[0]
    assert (entry["action"], entry["route"], entry["job"]) == ("scale", "/channel/websocket", "channels.web")


def test_what_happens_without_a_call(tmp_path: Path, state: Path) -> None:
    config = tmp_path / "gafferd.ini"
    config.write_text("")
    with gafferd(str(config), state_dir=state) as node:
        config.write_text("[process:bad]\ncmd = false\nkind = once\nrestart = never\n")
        node.signal(signal.SIGHUP)
        failed = eventually(lambda: [each for each in history(node, job="bad") if each["action"] == "failed"])[0]
        assert (failed["kind"], failed["caller"], failed["outcome"]) == ("job", None, "failed")
        config.write_text("[process:bad]\n")
        node.signal(signal.SIGHUP)
        eventually(lambda: history(node)[0]["outcome"] == "failed")
        config.write_text("")
        requests.post(f"{node.url}/reload?dry_run=true")
        requests.post(f"{node.url}/reload")
        [reloaded, *_] = history(node, job="bad")
        assert (reloaded["route"], reloaded["details"]) == ("/reload", {"jobs": ["default.bad"], "failed": []})
        assert history(node)[1]["details"] == {"dry_run": "true"}
    with gafferd(state_dir=state) as node:
        found = [(e["action"], e["caller"], e["outcome"], e["details"].get("jobs")) for e in history(node)]
    assert found == [
        ("start", None, "ok", None),
        ("stop", None, "ok", None),
        ("POST", f"uid:{os.getuid()}", "ok", ["default.bad"]),
        ("POST", f"uid:{os.getuid()}", "ok", None),
        ("reload", "signal", "failed", None),
        ("failed", None, "failed", None),
        ("exit", None, "failed", None),
        ("reload", "signal", "ok", ["default.bad"]),
        ("start", None, "ok", None),
    ]


def test_the_audit_is_posted_to_webhooks_that_name_it(tmp_path: Path) -> None:
    config = tmp_path / "gafferd.ini"
    with receiver() as server:
        config.write_text(f"[webhooks]\naudit = {server.url}/audit\n. = {server.url}/all\n")
        with gafferd(str(config)) as node:
            requests.post(f"{node.url}/jobs/shop", json={**JOB, "numprocesses": 0})
            eventually(lambda: "create" in server.names("/all"))
            entry = eventually(lambda: [e for _, e in server.events["/audit"] if e["kind"] == "call"])[0]
            [kept] = history(node, job="shop.web")
        assert {**entry, "id": kept["id"], "what": "load"} == {"event": "audit", **kept}
        assert "audit" not in server.names("/all")


def test_what_can_be_asked(node: Daemon) -> None:
    for number in range(5):
        requests.post(f"{node.url}/jobs/paging", json={**JOB, "name": f"job{number}", "numprocesses": 0})
    with Server(node.url) as server:
        page = server.history("paging", limit=3)
        assert [entry["job"] for entry in page["entries"]] == ["paging.job4", "paging.job3", "paging.job2"]
        rest = server.history("paging", before=page["next"])
        assert [entry["job"] for entry in rest["entries"]] == ["paging.job1", "paging.job0"]
        assert rest["next"] is None
        assert [entry["job"] for entry in server.history("paging.job3")["entries"]] == ["paging.job3"]
        assert server.history(since=page["entries"][0]["at"] + 1000)["entries"] == []
    for query in (
        "limit=0",
        "limit=1001",
        "limit=x",
        "since=-1",
        "since=nan",
        "before=x",
        "job=a b",
        "job=paging.",
        "job=%00",
        "job=",
    ):
        answer = requests.get(f"{node.url}/history?{query}")
        assert (answer.status_code, answer.json()["error"]) in ((400, "bad_value"), (400, "bad_name")), query


def test_a_key_for_a_session_sees_only_its_entries(node: Daemon) -> None:
    key = requests.post(f"{node.url}/keys", json={"scopes": ["control", "read"], "sessions": ["mine"]}).json()["key"]
    for session in ("mine", "other"):
        requests.post(f"{node.url}/jobs/{session}", json={**JOB, "numprocesses": 0})
    entries = requests.get(f"{node.url}/history", headers={"X-Api-Key": key}).json()["entries"]
    assert [entry["job"] for entry in entries] == ["mine.web"]


def test_a_disabled_job_that_is_enabled_by_its_timer(node: Daemon) -> None:
    requests.post(f"{node.url}/jobs/disabled", json=JOB)
    requests.post(f"{node.url}/jobs/disabled/web/disable", json={"for": 0.2, "reason": "moving disks"})
    enabled = eventually(lambda: [e for e in history(node, job="disabled.web") if e["action"] == "enabled"])[0]
    assert (enabled["kind"], enabled["caller"], enabled["job"]) == ("job", None, "disabled.web")
    asked = next(each for each in history(node, job="disabled.web") if each["route"] == "/jobs/{sid}/{job}/disable")
    assert asked["details"] == {"for": 0.2, "reason": "moving disks"}


def test_a_job_that_fails_again_and_again_has_one_entry_a_minute(node: Daemon) -> None:
    requests.post(f"{node.url}/jobs/failing", json={"name": "bad", "cmd": "no-such-program"})
    eventually(lambda: requests.get(f"{node.url}/jobs/failing/bad").json()["state"] == "backoff")
    eventually(lambda: len(requests.get(f"{node.url}/jobs/failing/bad/exits").json()["exits"]) >= 3)
    assert {entry["action"]: entry["count"] for entry in history(node, job="failing.bad")} == {
        "start_failed": 1,
        "POST": 1,
    }
