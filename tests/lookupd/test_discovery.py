"""Discovery for programs as they are: what they are told, and that they follow a job from node to node."""

import contextlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests

from gaffer.schemas.common import ProcessState
from gaffer.schemas.messages import Endpoint, Process
from gaffer_lookupd.discovery import InstanceAddress, find_addresses, nginx_upstream, prometheus_groups
from support.daemons import gafferd, lookupd
from support.needs import NGINX, needs_nginx, needs_prometheus
from support.peer import peer
from support.poll import eventually
from support.registry import Lookup

# What is told


def instance(pid: int, port: int, *more: Endpoint, state: ProcessState = "ready", address: str = "10.0.0.7") -> Process:
    return Process(pid, state, (Endpoint("http", address, port), *more))


@pytest.fixture
def lookup() -> Lookup:
    """n1, in zone a, has two instances of shop.web, of which one starts; n2 one of it and one of db.main."""
    lookup = Lookup()
    lookup.announce_table(
        lookup.identify(labels={"zone": "a"}),
        {"shop.web": [instance(1, 8000), instance(2, 8001, state="starting")]},
    )
    lookup.announce_table(
        lookup.identify(name="n2", id="id2"),
        {"shop.web": [instance(3, 8000, Endpoint("metrics", "fd00::7", 9100))], "db.main": [instance(4, 5432)]},
    )
    return lookup


def groups(lookup: Lookup, **wanted: Any) -> list[tuple[Any, ...]]:
    """Each group as (session, job, node, zone, endpoint, targets)."""
    found = msgspec.json.decode(b"".join(prometheus_groups(lookup.registry, **wanted)))
    names = [f"__meta_gaffer_{name}" for name in ("session", "job", "node", "zone", "endpoint")]
    assert all(list(group["labels"]) == names for group in found)
    return sorted((*group["labels"].values(), group["targets"]) for group in found)


def addresses(lookup: Lookup, *wanted: Any) -> list[str]:
    return list(map(str, find_addresses(lookup.registry, *wanted)))


WEB = [
    ("shop", "web", "n1", "a", "http", ["10.0.0.7:8000"]),
    ("shop", "web", "n2", "", "http", ["10.0.0.7:8000"]),
    ("shop", "web", "n2", "", "metrics", ["[fd00::7]:9100"]),
]
MAIN = ("db", "main", "n2", "", "http", ["10.0.0.7:5432"])


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, [MAIN, *WEB]),
        ({"session": "shop"}, WEB),
        ({"job": "web"}, WEB),
        ({"job": "db.main"}, [MAIN]),
        ({"job": "main", "session": "shop"}, []),
        ({"endpoint": "metrics"}, WEB[2:]),
    ],
)
def test_prometheus_is_told_the_instances_that_are_ready(
    lookup: Lookup, wanted: dict[str, str], expected: list[tuple[Any, ...]]
) -> None:
    assert groups(lookup, **wanted) == expected


def test_instances_of_a_suspect_node_stay_and_those_of_one_that_drains_go(lookup: Lookup) -> None:
    assert groups(lookup) == [MAIN, *WEB]
    suspect, draining = lookup.registry.nodes
    assert suspect.session is not None
    lookup.disconnect(suspect.session)
    lookup.registry.tables.set_draining(draining, True)
    assert groups(lookup) == WEB[:1]
    assert addresses(lookup, "shop.web") == ["10.0.0.7:8000"]


def test_an_instance_is_told_once_it_is_ready_and_no_longer_when_it_drains(lookup: Lookup) -> None:
    node, _ = lookup.registry.nodes
    told = []
    for process in (instance(2, 8001), instance(1, 8000, state="draining"), instance(2, 8002)):
        lookup.registry.tables.put_process(node, "shop.web", process)
        told += [targets for _, _, name, _, _, targets in groups(lookup) if name == "n1"]
    assert told == [["10.0.0.7:8000", "10.0.0.7:8001"], ["10.0.0.7:8001"], ["10.0.0.7:8002"]]


def test_an_instance_counts_with_its_first_endpoint_or_the_one_that_is_asked_for(lookup: Lookup) -> None:
    assert addresses(lookup, "shop.web") == ["10.0.0.7:8000", "10.0.0.7:8000"]
    assert addresses(lookup, "shop.web", "metrics") == ["[fd00::7]:9100"]
    assert addresses(lookup, "shop.nothing") == []


def test_an_endpoint_without_a_port_is_passed_over() -> None:
    lookup = Lookup()
    lookup.announce_table(lookup.identify(), {"s.j": [instance(2, 0)]})
    assert groups(lookup) == []
    assert addresses(lookup, "s.j") == []


def test_the_forms_of_the_answers() -> None:
    endpoint = {"name": "http", "address": "localhost", "port": 8000}
    with lookupd() as server, peer(server.url) as node:

        def get(path: str) -> requests.Response:
            return requests.get(server.url + path, timeout=10)

        node.identify("n1", id="a1")
        node.ask("SNAPSHOT", seq=1, jobs={"shop.web": [{"pid": 1, "state": "ready", "endpoints": [endpoint]}]})
        answer = get("/prometheus/sd?endpoint=http&session=")
        assert answer.headers["Content-Type"] == "application/json"
        assert [group["targets"] for group in answer.json()] == [["localhost:8000"]]
        assert get("/prometheus/sd?job=none").json() == []
        answer = get("/upstreams/shop.web")
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert answer.text == get("/upstreams/shop.web?format=plain").text == "localhost:8000\n"
        assert get("/upstreams/shop.web?format=nginx").text == ("upstream shop.web {\n    server localhost:8000;\n}\n")
        assert get("/upstreams/shop.web?endpoint=none").text == ""
        for wrong in ("/upstreams/shop.web?format=yaml", "/upstreams/a%7Db", "/upstreams/7"):
            assert get(wrong).status_code == 400


def test_nginx_gets_no_name_that_does_not_resolve() -> None:
    with lookupd() as server, peer(server.url) as node:
        node.identify("n1", id="a1")
        hosts = ["localhost", "127.0.0.1", "web9.invalid"]
        processes = [
            {"pid": number, "endpoints": [{"name": "http", "address": host, "port": 80}]}
            for number, host in enumerate(hosts)
        ]
        node.ask("SNAPSHOT", seq=1, jobs={"shop.web": processes, "shop.odd": processes[2:]})

        def get(path: str) -> str:
            return requests.get(server.url + path, timeout=10).text

        lines = get("/upstreams/shop.web?format=nginx").splitlines()
        assert [line for line in lines if "server" in line] == [
            "    server 127.0.0.1:80;",
            "    server localhost:80;",
        ]
        assert "    # web9.invalid does not resolve" in lines
        assert "down" in get("/upstreams/shop.odd?format=nginx")
        assert get("/upstreams/shop.odd") == "web9.invalid:80\n"


# Following a job that moves

PROGRAM = """
import os
from http.server import BaseHTTPRequestHandler, HTTPServer

class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(f'served{{by="{os.environ["WHERE"]}"}} 1\\n'.encode())

HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Page).serve_forever()
"""


class Cluster:
    """A lookupd and two nodes; a web server of session shop runs on one of them."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.program = folder / "page.py"
        self.program.write_text(PROGRAM)
        self.lookupd = stack.enter_context(lookupd("--ttl=3", "--interval=1"))
        self.nodes = {
            name: stack.enter_context(gafferd("--lookupd-address", self.lookupd.url, "--node-name", name))
            for name in ("n1", "n2")
        }

    def start(self, name: str) -> None:
        """Run the job on that node; returns when it is ready."""
        job = {
            "name": "web",
            "cmd": sys.executable,
            "args": ["-u", str(self.program)],
            "env": {"WHERE": name},
            "port": "auto",
            "startsecs": 0.2,
        }
        answer = requests.post(f"{self.nodes[name].url}/jobs/shop", json=job, timeout=10)
        assert answer.status_code in (200, 201), answer.text
        eventually(lambda: len(self.upstream("plain").splitlines()) == 1)

    def stop(self, name: str) -> None:
        """Unload it; returns when lookupd knows."""
        assert requests.delete(f"{self.nodes[name].url}/jobs/shop/web", timeout=10).ok
        eventually(lambda: not self.upstream("plain"))

    def upstream(self, form: str) -> str:
        answer = requests.get(f"{self.lookupd.url}/upstreams/shop.web?format={form}", timeout=10)
        assert answer.ok
        return answer.text


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with contextlib.ExitStack() as stack:
        yield Cluster(tmp_path_factory.mktemp("cluster"), stack)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A program until the block ends."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


@needs_prometheus
def test_prometheus_scrapes_a_job_that_moves(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "prometheus.yml").write_text(f"""
scrape_configs:
  - job_name: gaffer
    scrape_interval: 1s
    http_sd_configs:
      - url: {cluster.lookupd.url}/prometheus/sd?job=shop.web
        refresh_interval: 1s
    relabel_configs:
      - {{source_labels: [__meta_gaffer_node], target_label: node}}
      - {{source_labels: [__meta_gaffer_session, __meta_gaffer_job], separator: ., target_label: job}}
""")
    port = free_port()
    url = f"http://127.0.0.1:{port}/api/v1/query"

    def up() -> dict[tuple[str, str], str]:
        """The last sample of each target."""
        answer = requests.get(url, params={"query": "up"}, timeout=10)
        answer.raise_for_status()
        metrics = [(found["metric"], found["value"][1]) for found in answer.json()["data"]["result"]]
        return {(metric["node"], metric["job"]): value for metric, value in metrics}

    command = ["prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
    cluster.start("n1")
    with running([*command, f"--web.listen-address=127.0.0.1:{port}"]):
        eventually(lambda: up() == {("n1", "shop.web"): "1"}, 20, retry_on=(requests.RequestException,))
        cluster.stop("n1")
        cluster.start("n2")
        eventually(lambda: up() == {("n2", "shop.web"): "1"}, 20)
        cluster.stop("n2")


@needs_nginx
def test_the_documented_script_installs_nothing_that_nginx_can_not_start_with(tmp_path: Path) -> None:
    page = Path(__file__).parents[2].joinpath("docs/lookupd.md").read_text()
    script = next(block for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) if "nginx -s reload" in block)
    programs = tmp_path / "bin"
    programs.mkdir()
    reloads, answer = tmp_path / "reloads", tmp_path / "answer"
    (programs / "nginx").write_text(
        f'#!/bin/sh\n[ "$1" = -s ] && {{ echo "$2" >> {reloads}; exit; }}\n'
        f'[ "$*" = "-t -q" ] && exit\nexec {NGINX} -e {tmp_path}/log -g "pid {tmp_path}/pid;" "$@"\n'
    )
    (programs / "curl").write_text(f"#!/bin/sh\n[ -s {answer} ] || exit 22\ncp {answer} shop.web.new\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    folder = tmp_path / "conf.d"
    folder.mkdir()
    script = script.replace("/etc/nginx/conf.d", str(folder))

    def run(text: str) -> str:
        """What is installed after the script has run while lookupd answers `text`."""
        answer.write_text(text)
        env = {"PATH": f"{programs}:{os.environ['PATH']}"}
        subprocess.run(["sh", "-c", script], env=env, capture_output=True, check=False)
        return (folder / "shop.web.conf").read_text()

    first, second = (nginx_upstream("shop.web", [InstanceAddress("127.0.0.1", port)]) for port in (8000, 8001))
    assert run(first) == first
    assert run(first) == first
    assert run(first.replace("127.0.0.1", "web9.invalid")) == first
    assert run("") == first  # no answer, or 503
    assert run(second) == second
    assert reloads.read_text() == "reload\nreload\n"


@needs_nginx
def test_nginx_serves_a_job_that_moves(cluster: Cluster, tmp_path: Path) -> None:
    port = free_port()
    upstream = tmp_path / "shop.web.conf"
    config = tmp_path / "nginx.conf"
    config.write_text(f"""
pid {tmp_path}/pid;
error_log {tmp_path}/error.log;
events {{}}
http {{
    access_log off;
    {"".join(f"{name}_temp_path {tmp_path}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))}
    include {upstream};
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://shop.web; }}
    }}
}}
""")
    command = [NGINX, "-c", str(config), "-e", f"{tmp_path}/error.log"]

    def refresh() -> None:
        """What a timer on the host of nginx does."""
        upstream.write_text(cluster.upstream("nginx"))
        checked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr

    def page() -> requests.Response:
        return requests.get(f"http://127.0.0.1:{port}/", timeout=10)

    def served_by(name: str) -> bool:
        return page().text == f'served{{by="{name}"}} 1\n'

    refresh()
    with running([*command, "-g", "daemon off;"]):
        eventually(lambda: page().status_code == 502, retry_on=(requests.ConnectionError,))
        cluster.start("n1")
        refresh()
        subprocess.run([*command, "-s", "reload"], check=True)
        eventually(lambda: served_by("n1"))
        cluster.stop("n1")
        cluster.start("n2")
        refresh()
        subprocess.run([*command, "-s", "reload"], check=True)
        eventually(lambda: served_by("n2"))
        cluster.stop("n2")
