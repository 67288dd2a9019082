"""A picture of `gaffer top`; with `GAFFER_SCREENSHOTS=docs/_static`, the one in the README."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gaffer_client import Server
from support.daemons import Daemon, command_path, gafferd, lookupd
from support.needs import needs_browser, needs_tmux
from support.poll import eventually
from support.terminal_picture import draw
from support.tmux import tmux

COLUMNS, ROWS = 128, 16
BUSY = """
import sys, time
share, held = float(sys.argv[1]), b"x" * (int(sys.argv[2]) << 20)
while True:
    began = time.process_time()
    while time.process_time() - began < share / 10:
        pass
    time.sleep((1 - share) / 10)
"""


def busy(share: float, megabytes: int) -> dict[str, Any]:
    """A program that uses a share of a processor, and memory."""
    return {"cmd": sys.executable, "args": ["-c", BUSY, str(share), str(megabytes)]}


JOBS: dict[str, list[dict[str, Any]]] = {
    "web1": [
        {"name": "web", **busy(0.04, 40), "numprocesses": 3},
        {"name": "worker", "cmd": "sh -c 'sleep 0.2; exit 3'"},
        {"name": "search", **busy(0.01, 90), "ready": "tcp:9", "ready_interval": 0.1},
    ],
    "web2": [
        {"name": "web", **busy(0.03, 40), "numprocesses": 3},
        {"name": "mailer", "cmd": "sh -c 'exit 1'", "max_restarts": 1},
        {"name": "import", **busy(0.01, 40)},
    ],
    "db1": [
        {"name": "db", **busy(0.06, 200)},
        {"name": "queue", **busy(0.02, 60), "numprocesses": 2},
        {"name": "backup", "cmd": "sleep 60", "schedule": "30 3 * * *", "timezone": "UTC"},
    ],
}


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Daemon]:
    """A lookupd that knows three nodes with such jobs."""
    with ExitStack() as stack:
        registry = stack.enter_context(lookupd("--ttl", "60", "--interval", "20"))
        for name, jobs in JOBS.items():
            options = ("--lookupd-address", registry.url, "--node-name", name)
            node = stack.enter_context(gafferd(*options, state_dir=tmp_path / name))
            server = stack.enter_context(Server(node.url))
            for job in jobs:
                server.load(job, "shop")
            if name == "web2":
                server.get_job("shop.import").disable("the disk is replaced", 7200)
                eventually(partial(has_failed, server))
        yield registry


def has_failed(server: Server) -> bool:
    return server.get_job("shop.mailer").info()["state"] == "failed"


@needs_tmux
@needs_browser
def test_a_cluster_with_jobs_of_which_some_fail(tmp_path: Path, registry: Daemon) -> None:
    with tmux(tmp_path, COLUMNS, ROWS, GAFFER_LOOKUPD=registry.url) as terminal:
        terminal.run(command_path("gaffer"), "top", "--cluster", "--interval", "0.5")
        terminal.shows("9 jobs", "backoff", "disabled until", "connection refused")
        eventually(lambda: re.search(r"shop\.worker +backoff", terminal.screen.splitlines()[3]))
        terminal.type("Home", "Down")
        # Its reason is in full above the keys: no room is left for it in the table.
        terminal.shows("shop.worker on web1 backoff 0/1: crash loop")
        eventually(lambda: terminal.screen.count("starting") == 1)
        styled = terminal.styled
        target = Path(os.environ.get("GAFFER_SCREENSHOTS", tmp_path)) / "top.png"
        draw(styled, COLUMNS, "$ gaffer top --cluster", target)
        assert target.read_bytes().startswith(b"\x89PNG")
