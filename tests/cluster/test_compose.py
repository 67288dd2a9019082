"""The cluster of docker-compose.yml, from the image that deploy/Dockerfile makes: one story, told in this order."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from support.docker import Compose, make_images
from support.needs import needs_base_image, needs_docker
from support.poll import eventually

NODES = {"node1", "node2", "node3"}
TTL = 6.0  # seconds, as in docker-compose.yml

pytestmark = [needs_docker, needs_base_image, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Compose]:
    make_images()
    compose = Compose("gaffer-test")
    compose("down", "--volumes", "--timeout", "0")  # what a killed run left
    try:
        compose("up", "--detach", "--no-build", timeout=200)
        yield compose
    finally:
        compose("down", "--volumes", "--timeout", "10")


def sources(cluster: Compose) -> dict[str, Any]:
    """What lookupd says of demo.web, by node."""
    answer = json.loads(cluster.exec("node1", "gaffer", "lookup:job", "demo.web", "--json"))
    return {source["node_info"]["name"]: source for source in answer["sources"]}


def pids(cluster: Compose) -> dict[str, set[int]]:
    """The processes of demo.web that take work, by node; fails until each of the three nodes has two."""
    found = {node: set(source["pids"]) for node, source in sources(cluster).items()}
    assert found.keys() == NODES
    assert all(len(processes) == 2 for processes in found.values())
    return found


def test_tells_where_a_job_runs(cluster: Compose) -> None:
    eventually(lambda: pids(cluster), 60)

    text = cluster.exec("node1", "gaffer", "lookup:job", "demo.web")
    assert all(node in text for node in NODES)
    (endpoint,) = sources(cluster)["node2"]["processes"][0]["endpoints"]
    url = f"http://{endpoint['address']}:{endpoint['port']}/"
    fetch = f"import urllib.request; print(urllib.request.urlopen({url!r}, timeout=10).read().decode())"
    assert "on node2" in cluster.exec("node1", "python3", "-c", fetch)


def test_publishes_lookupd_on_this_host(cluster: Compose) -> None:
    answer = requests.get("http://127.0.0.1:5010/nodes", timeout=10).json()

    assert {node["name"] for node in answer["nodes"]} == NODES


def test_reports_health(cluster: Compose) -> None:
    eventually(lambda: cluster("ps").count("(healthy)") == 4, 60, message="the containers did not become healthy")


def test_replaces_a_killed_process(cluster: Compose) -> None:
    before = pids(cluster)
    jobs = json.loads(cluster.exec("node2", "gaffer", "ps", "demo", "--json"))["jobs"]
    victim = next(job for job in jobs if job["name"] == "demo.web")["instances"][0]

    cluster.exec("node2", "sh", "-c", f"kill -KILL {victim['os_pid']}")

    after = eventually(
        lambda: found if (found := pids(cluster))["node2"] != before["node2"] else None,
        message="node2 still shows the killed process",
    )
    assert victim["pid"] not in after["node2"]
    assert {node: after[node] for node in ("node1", "node3")} == {node: before[node] for node in ("node1", "node3")}


def test_a_restarted_lookupd_hears_everything_again(cluster: Compose) -> None:
    before = pids(cluster)

    cluster("restart", "--timeout", "10", "lookupd")

    assert eventually(lambda: pids(cluster), 60) == before


def test_a_killed_node_is_suspect_then_gone(cluster: Compose) -> None:
    cluster("kill", "node3")

    eventually(lambda: sources(cluster)["node3"]["status"] == "suspect", 30)
    eventually(lambda: sources(cluster).keys() == {"node1", "node2"}, TTL + 30)

    cluster("start", "node3")
    eventually(lambda: pids(cluster), 60)
