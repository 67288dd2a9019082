"""The examples of embedding run, and do what they say."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from support.daemons import clean_env

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "embed"


def run(name: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name],
        env=clean_env(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.row("APP-01", "APP-02", "APP-03")
def test_own_application() -> None:
    lines = run("own_application.py").splitlines()
    assert [line.split()[0] for line in lines[:6]] == ["spawn", "exit"] * 3
    assert lines[-1] == "stopped after 3 exits"


@pytest.mark.row("STAT-02", "STAT-03", "STAT-06")
def test_watch_stats() -> None:
    lines = run("watch_stats.py").splitlines()
    assert len(lines) == 5
    assert {line.split()[1] for line in lines} == {"1", "2"}
    assert all(re.fullmatch(r"STATS \d+ [\d.]+ % CPU, [\d.]+ % of memory, \d+[KMB]", line) for line in lines)


@pytest.mark.row("IO-02", "MGR-46")
def test_read_output() -> None:
    lines = run("read_output.py").splitlines()
    assert len(lines) == 3
    assert all(re.fullmatch(r"stdout of dummy: hello, dummy \(pid: \d+\) is alive", line) for line in lines)


@pytest.mark.row("IO-10", "IO-11", "IO-12")
def test_write_stdin() -> None:
    assert run("write_stdin.py") == "received: line1 line2 somedata thread\n"


@pytest.mark.row("EMT-01")
def test_emit_events() -> None:
    assert run("emit_events.py").splitlines() == [
        "order.placed: 1",
        "order.paid: 1",
        "first payment: 1",
        "order.placed: 2",
        "order.paid: 2",
    ]


@pytest.mark.row("APP-06", "MISC-TP-13")
def test_control_over_http() -> None:
    command = [sys.executable, "-W", "error", str(EXAMPLES / "control_over_http.py"), "127.0.0.1:0"]
    with subprocess.Popen(
        command, env=clean_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().removeprefix("serving on ").strip()
            assert requests.get(f"{url}/status/dummy").json()["max_processes"] == 2
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0
            assert process.stderr is not None
            assert process.stderr.read() == ""
        finally:
            process.kill()
