"""Memory that runs out (RLIMIT_AS): said in a line, survived where possible, never a hang nor a flood of log lines."""

import re
import resource
from pathlib import Path

import requests

from support.daemons import gafferd
from support.needs import needs_linux
from support.poll import eventually

pytestmark = needs_linux


def address_space(pid: int) -> int:
    found = re.search(r"VmSize:\s*([0-9]+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def limit(pid: int, size: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))


def test_a_node_without_memory_says_so_recovers_and_ends(tmp_path: Path) -> None:
    config = tmp_path / "gafferd.ini"
    config.write_text("[process:loud]\ncmd = sh -c 'while echo 0123456789; do sleep 0.01; done'\nnumprocesses = 3\n")
    # Else each thread brings 64 MB of address space that malloc can use.
    with gafferd(str(config), env={"MALLOC_ARENA_MAX": "1"}) as node:
        eventually(lambda: requests.get(f"{node.url}/jobs/default/loud").json()["running"] == 3)
        body = {"name": "big", "cmd": "sleep 1000", "env": {"A": "x" * 900_000}}
        limit(node.pid, address_space(node.pid))
        for _ in range(5):
            try:
                answer = requests.post(f"{node.url}/jobs/default", json=body, timeout=1)
                assert answer.status_code in (200, 409, 431, 503)  # 431: no memory for the head of the request
            except requests.exceptions.RequestException:
                continue
        limit(node.pid, resource.RLIM_INFINITY)
        assert eventually(lambda: requests.get(f"{node.url}/ping", timeout=5).text, retry_on=(OSError,)) == "OK"
        limit(node.pid, address_space(node.pid))
        node.stop()
        assert len(node.stderr.splitlines()) < 60, node.stderr
        assert "out of memory" in node.stderr
