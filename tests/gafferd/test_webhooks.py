"""The webhooks of a node: from its configuration file, and changed by a reload."""

import hmac
import signal
from pathlib import Path

import pytest
import requests

from support.daemons import gafferd
from support.poll import eventually
from support.webhooks import receiver

JOB = "[process:dummy]\ncmd = sleep 1000\n"


@pytest.mark.row("WH-02", "WH-01", "CFG-11")
def test_the_webhooks_of_the_file_are_called(tmp_path: Path) -> None:
    config = tmp_path / "gafferd.ini"
    with receiver() as server:
        config.write_text(f"[webhooks]\ncreate = {server.url}/create\nproc.dummy.spawn = {server.url}/spawn\n{JOB}")
        with gafferd(str(config)):
            eventually(lambda: server.names("/create") == ["create"])
            eventually(lambda: server.names("/spawn") == ["proc.dummy.spawn"])


def test_requests_are_signed_and_counted(tmp_path: Path) -> None:
    config, secret = tmp_path / "gafferd.ini", tmp_path / "secret"
    secret.write_text("a-secret-of-some-length")
    secret.chmod(0o600)
    with receiver() as server:
        config.write_text(
            f"[gaffer]\nwebhook_secret_file = {secret}\n[webhooks]\ncreate = {server.url}/a?key=hidden\n{JOB}"
        )
        with gafferd(str(config)) as node:
            eventually(lambda: requests.get(f"{node.url}/health").json()["webhooks"][0]["delivered"] == 1)
            assert requests.get(f"{node.url}/health").json()["webhooks"] == [
                {
                    "url": f"{server.url}/a",
                    "pending": 0,
                    "dropped": 0,
                    "delivered": 1,
                    "failed": 0,
                    "unsaved": 0,
                    "last_error": None,
                }
            ]
            metrics = requests.get(f"{node.url}/metrics").text
            assert f'gaffer_webhook_deliveries_total{{url="{server.url}/a",outcome="delivered"}} 1' in metrics
            secret.write_text("")
            node.signal(signal.SIGHUP)
            node.wait_for_line("the configuration was not applied: the key file ")
            secret.write_text("another-secret-of-that-length")
            config.write_text(config.read_text().replace("dummy", "other"))
            node.signal(signal.SIGHUP)
            eventually(lambda: len(server.bodies) == 2)
    for headers, body, key in zip(
        server.headers, server.bodies, [b"a-secret-of-some-length", b"another-secret-of-that-length"], strict=True
    ):
        assert headers["X-Gaffer-Signature"] == f"sha256={hmac.new(key, body, 'sha256').hexdigest()}"


@pytest.mark.row("WH-08")
def test_a_reload_changes_the_webhooks(tmp_path: Path) -> None:
    config = tmp_path / "gafferd.ini"
    with receiver() as server:
        config.write_text(f"[webhooks]\nupdate = {server.url}/old\n")
        with gafferd(str(config)) as node:
            config.write_text(f"[webhooks]\nupdate = {server.url}/new\ncreate = {server.url}/new\n{JOB}")
            node.signal(signal.SIGHUP)
            node.wait_for_line("reloaded: add default.dummy")
            config.write_text(config.read_text() + "numprocesses = 2\n")
            node.signal(signal.SIGHUP)
            eventually(lambda: server.names("/new") == ["create", "update"])
        assert not server.names("/old")


@pytest.mark.row("WH-07")
def test_a_queue_on_disk_survives_a_kill(tmp_path: Path) -> None:
    config, state = tmp_path / "gafferd.ini", tmp_path / "state"
    with receiver() as server:
        server.status = 503
        config.write_text(f"[gaffer]\nwebhook_queue = disk\n[webhooks]\ncreate = {server.url}/\n{JOB}")
        with gafferd(str(config), state_dir=state) as node:
            for number in range(3):
                requests.post(f"{node.url}/jobs/shop", json={"name": f"job{number}", "cmd": "sleep 1000"})
            eventually(lambda: sum(b"shop" in path.read_bytes() for path in (state / "webhooks").glob("*.jsonl")))
            eventually(lambda: b"job2" in next((state / "webhooks").glob("*.jsonl")).read_bytes())
            node.kill()
        tried = len(server.headers)
        first = server.headers[0]["X-Gaffer-Delivery"]
        server.status = 200
        with gafferd(str(config), state_dir=state) as node:
            eventually(lambda: len(server.headers) >= tried + 4)
            names = [event["job"] for _, event in server.events["/"][tried:]][:4]
            assert names == ["default.dummy", "shop.job0", "shop.job1", "shop.job2"]
            assert server.headers[tried]["X-Gaffer-Delivery"] == first
