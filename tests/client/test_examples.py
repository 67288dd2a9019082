"""The example of a client runs, and does what the documentation shows."""

import subprocess
import sys
from pathlib import Path

import pytest

from gaffer_client import Server
from support.daemons import clean_env, gafferd
from support.poll import eventually

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def echo_client(url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / "echo_client.py", url],
        env=clean_env(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.row("STR-23", "STR-20")
def test_the_echo_client(tmp_path: Path) -> None:
    config = (EXAMPLES / "gaffer.ini").read_text().replace("127.0.0.1:5000", "127.0.0.1:0")
    (tmp_path / "gaffer.ini").write_text(config.replace("cmd = ./", f"cmd = {EXAMPLES}/"))
    with gafferd("-c", str(tmp_path / "gaffer.ini")) as node, Server(node.url) as server:
        eventually(lambda: server.get_job("echo").pids)
        for _ in range(2):
            done = echo_client(node.url)
            assert (done.stdout, done.stderr) == ("Sent\nReceiving...\nReceived 'ECHO\n'\n", "")


def test_nobody_is_there(closed: str) -> None:
    done = echo_client(closed)
    assert (done.returncode, done.stderr) == (1, f"echo_client.py: can't reach {closed}: connection refused\n")
