"""The cluster of docker-compose.yml, from the image that deploy/Dockerfile makes: one story, told in this order."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from support.docker import Compose, make_images
from support.needs import needs_base_image, needs_docker
from support.poll import eventually

NODES = {"node1", "node2", "node3"}
TWO_LOOKUPDS = ("docker-compose.yml", "deploy/compose.two-lookupds.yml")
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
        # With both files, so that it knows of all containers.
        Compose("gaffer-test", *TWO_LOOKUPDS)("down", "--volumes", "--timeout", "10")


def sources(port: int = 5010) -> dict[str, Any]:
    """What the lookupd that is published at this port says of demo.web, by node; fails while it doesn't answer."""
    try:
        answer = requests.get(f"http://127.0.0.1:{port}/findJob?name=demo.web", timeout=20).json()
    except requests.ConnectionError as error:
        raise AssertionError("no answer") from error
    return {source["node_info"]["name"]: source for source in answer["sources"]}


def pids(port: int = 5010) -> dict[str, set[int]]:
    """The processes of demo.web that take work, by node; fails until each of the three nodes has two."""
    found = {node: set(source["pids"]) for node, source in sources(port).items()}
    assert found.keys() == NODES
    assert all(len(processes) == 2 for processes in found.values())
    return found


def test_tells_where_a_job_runs(cluster: Compose) -> None:
    eventually(pids, 60)

    text = cluster.exec("node1", "gaffer", "lookup:job", "demo.web")
    assert all(node in text for node in NODES)
    (endpoint,) = sources()["node2"]["processes"][0]["endpoints"]
    url = f"http://{endpoint['address']}:{endpoint['port']}/"
    fetch = f"import urllib.request; print(urllib.request.urlopen({url!r}, timeout=10).read().decode())"
    assert "on node2" in cluster.exec("node1", "python3", "-c", fetch)


def test_publishes_lookupd_on_this_host(cluster: Compose) -> None:
    answer = requests.get("http://127.0.0.1:5010/nodes", timeout=10).json()

    assert {node["name"] for node in answer["nodes"]} == NODES


def test_reports_health(cluster: Compose) -> None:
    eventually(lambda: cluster("ps").count("(healthy)") == 4, 60, message="the containers did not become healthy")


@pytest.mark.parametrize("service", ["lookupd", "node1"])
def test_nothing_runs_as_root(cluster: Compose, service: str) -> None:
    owners = cluster.exec(service, "sh", "-c", "stat --format=%U /proc/[0-9]*").split()

    assert set(owners) == {"gaffer"}


@pytest.mark.parametrize("service", ["lookupd", "node1"])
def test_the_first_process_reaps_orphans(cluster: Compose, service: str) -> None:
    orphan = cluster.exec(service, "sh", "-c", "sleep 0.1 >/dev/null & echo $!").strip()

    gone = f"! test -e /proc/{orphan} && echo gone || true"
    eventually(lambda: cluster.exec(service, "sh", "-c", gone), 40, message="a zombie is left")


def test_replaces_a_killed_process(cluster: Compose) -> None:
    before = pids()
    jobs = json.loads(cluster.exec("node2", "gaffer", "ps", "demo", "--json"))["jobs"]
    victim = next(job for job in jobs if job["name"] == "demo.web")["instances"][0]

    cluster.exec("node2", "sh", "-c", f"kill -KILL {victim['os_pid']}")

    after = eventually(
        lambda: found if (found := pids())["node2"] != before["node2"] else None,
        message="node2 still shows the killed process",
    )
    assert victim["pid"] not in after["node2"]
    assert {node: after[node] for node in ("node1", "node3")} == {node: before[node] for node in ("node1", "node3")}


def test_a_restarted_lookupd_hears_everything_again(cluster: Compose) -> None:
    before = pids()

    cluster("restart", "--timeout", "10", "lookupd")

    assert eventually(pids, 60) == before


def test_a_killed_node_is_suspect_then_gone(cluster: Compose) -> None:
    with ThreadPoolExecutor() as pool:  # docker-compose may return later than the node is gone
        killed = pool.submit(cluster, "kill", "node3")
        eventually(lambda: sources()["node3"]["status"] == "suspect", 60)
        killed.result()

    eventually(lambda: sources().keys() == {"node1", "node2"}, TTL + 30)

    cluster("start", "node3")
    eventually(pids, 60)


@pytest.mark.parametrize("service", ["lookupd", "node1"])
def test_stops_in_time_and_with_success(cluster: Compose, service: str) -> None:
    cluster("stop", service)

    state = cluster.state(service)
    assert (state["Status"], state["ExitCode"], state["OOMKilled"]) == ("exited", 0, False)

    cluster("start", service)
    eventually(pids, 60)


def test_another_container_is_the_same_node(cluster: Compose) -> None:
    before = sources()["node1"]["node_info"]

    cluster("up", "--detach", "--no-build", "--no-deps", "--force-recreate", "node1")

    eventually(
        lambda: (found := sources().get("node1")) and found["node_info"]["incarnation"] != before["incarnation"], 60
    )
    assert sources()["node1"]["node_info"]["id"] == before["id"]
    eventually(pids, 60)


def test_a_second_lookupd_answers_while_the_first_is_down(cluster: Compose) -> None:
    both = Compose(cluster.project, *TWO_LOOKUPDS)

    both("up", "--detach", "--no-build", timeout=200)
    eventually(lambda: pids(5011), 90)
    both("stop", "lookupd")

    assert pids(5011).keys() == NODES
    assert all(node in both.exec("node1", "gaffer", "lookup:job", "demo.web") for node in NODES)
