"""The limits of the HTTP server, as the configuration file sets them."""

import json
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from gafferd.config.file import load_config
from support.daemons import gafferd, run_command


def test_the_daemon_keeps_the_limits_of_its_file(tmp_path: Path) -> None:
    config = tmp_path / "gafferd.ini"
    config.write_text("[http]\nmax_body = 2K\nmax_header = 1024\nheader_timeout = 0.3\n")
    with gafferd("-c", str(config)) as node:
        answer = requests.post(f"{node.url}/jobs/default", data="x" * 3000, timeout=10)
        assert (answer.status_code, answer.json()["error"]) == (413, "too_large")
        answer = requests.get(f"{node.url}/ping", headers={"X": "x" * 1100}, timeout=10)
        assert (answer.status_code, answer.json()["error"]) == (431, "header_too_large")
        address = urlsplit(node.url)
        with socket.create_connection((address.hostname, address.port), timeout=10) as slow:
            slow.sendall(b"GET /ping HTTP/1.1\r\n")
            head, _, body = b"".join(iter(lambda: slow.recv(4096), b"")).partition(b"\r\n\r\n")
        assert b" 408 " in head
        assert json.loads(body)["error"] == "request_timeout"
        assert requests.get(f"{node.url}/ping", timeout=10).text == "OK"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("max_body = 1 MiB", 1024**2),
        ("max_header = 64K", 65536),
        ("header_timeout = 0.5", 0.5),
        ("body_timeout = 60", 60.0),
        ("idle_timeout = 3600", 3600.0),
        ("max_connections = 100", 100),
    ],
)
def test_each_limit_is_read(tmp_path: Path, line: str, value: float) -> None:
    path = tmp_path / "gafferd.ini"
    path.write_text(f"[http]\n{line}\n")
    assert load_config(path).settings == {line.partition(" =")[0]: value}


@pytest.mark.parametrize(
    "line",
    [
        "max_body = 0",
        "max_body = much",
        "max_header = 1G",
        "header_timeout = 0",
        "body_timeout = never",
        "idle_timeout = inf",
        "max_connections = 0",
        "max_headers = 5",
    ],
)
def test_a_wrong_limit_is_told(tmp_path: Path, line: str) -> None:
    path = tmp_path / "gafferd.ini"
    path.write_text(f"[http]\n{line}\n")
    done = run_command("gafferd", "-c", str(path), env={"GAFFER_STATE_DIR": str(tmp_path / "state")})
    assert done.returncode == 2
    assert f"{path}:2" in done.stderr
    assert line.partition(" =")[0] in done.stderr
