"""Losing lookupd changes nothing on the nodes, and the tools say what they can't reach."""

import time
from typing import Any

import pytest
import requests

from support.daemons import Daemon, gafferd, lookupd, run_command
from support.poll import eventually

TTL = 1.0
LEASE = ("--ttl", f"{TTL:g}", "--interval", "0.3")


def load(node: Daemon, name: str, count: int) -> None:
    job = {"name": name, "cmd": "/bin/sleep 1000", "numprocesses": count, "startsecs": 0}
    requests.post(f"{node.url}/jobs/shop", json=job, timeout=10).raise_for_status()


def instances(node: Daemon, name: str) -> list[tuple[int, int, str]]:
    info = requests.get(f"{node.url}/jobs/shop/{name}", timeout=10).json()
    return [(each["pid"], each["os_pid"], each["state"]) for each in info["instances"]]


def located(registry: Daemon, name: str) -> dict[str, list[int]]:
    answer: Any = requests.get(f"{registry.url}/findJob?name=shop.{name}", timeout=10).json()
    return {source["name"]: source["pids"] for source in answer["sources"]}


@pytest.mark.row("FEAT-02")
def test_lookupd_may_be_away_for_long() -> None:
    with (
        lookupd(*LEASE) as registry,
        gafferd("--lookupd-address", registry.url, "--node-name", "one") as one,
        gafferd("--lookupd-address", registry.url, "--node-name", "two") as two,
    ):
        load(one, "web", 3)
        load(two, "web", 1)
        eventually(lambda: {name: len(pids) for name, pids in located(registry, "web").items()} == {"one": 3, "two": 1})
        before = instances(one, "web"), instances(two, "web")
        answer = located(registry, "web")
        registry.kill()

        away = time.monotonic() + 4 * TTL
        while time.monotonic() < away:
            assert (instances(one, "web"), instances(two, "web")) == before
        lost = run_command("gaffer", "lookup:job", "shop.web", "-L", registry.url)
        assert lost.returncode == 3
        assert registry.url in lost.stderr
        assert "Traceback" not in lost.stderr

        with lookupd("--bind", f"127.0.0.1:{registry.port}", *LEASE) as again:
            eventually(lambda: located(again, "web") == answer, timeout=2, message="the map is not complete again")
            assert (instances(one, "web"), instances(two, "web")) == before
            found = run_command("gaffer", "lookup:job", "shop.web", "-L", again.url)
            assert found.returncode == 0
            unknown = run_command("gaffer", "lookup:job", "shop.nothing", "-L", again.url)
            assert unknown.returncode == 4
            assert "shop.nothing" in unknown.stderr
