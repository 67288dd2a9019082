import re
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from gafferd.exit_log import BURST, PERIOD, Throttle, describe
from support.daemons import gafferd
from support.poll import eventually


def event(**changes: Any) -> dict[str, Any]:
    return {
        "pid": 7,
        "os_pid": 4711,
        "exit_code": 3,
        "term_signal": 0,
        "reason": "exited",
        "uptime": 2.04,
        "restarts": 5,
        "stopped": False,
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "process 7 (os pid 4711) exited with 3 after 2.0 s; 5 restarts so far"),
        ({"restarts": 1}, "process 7 (os pid 4711) exited with 3 after 2.0 s; 1 restart so far"),
        (
            {"exit_code": None, "term_signal": 11, "reason": "signaled"},
            "process 7 (os pid 4711) was killed by SIGSEGV after 2.0 s; 5 restarts so far",
        ),
        (
            {"exit_code": None, "term_signal": 9, "reason": "oom"},
            "process 7 (os pid 4711) was killed by SIGKILL: out of memory after 2.0 s; 5 restarts so far",
        ),
        (
            {"exit_code": None, "term_signal": 15, "reason": "stopped", "stopped": True},
            "process 7 (os pid 4711) was killed by SIGTERM after 2.0 s, as requested; 5 restarts so far",
        ),
        (
            {"exit_code": None, "term_signal": 15, "reason": "max_memory", "stopped": True},
            "process 7 (os pid 4711) was killed by SIGTERM after 2.0 s (max_memory); 5 restarts so far",
        ),
        (
            {"exit_code": None, "term_signal": None, "reason": "unknown", "restarts": 0},
            "process 7 (os pid 4711) ended in an unknown way after 2.0 s; 0 restarts so far",
        ),
    ],
)
def test_what_is_said_of_an_exit(changes: dict[str, Any], line: str) -> None:
    assert describe(event(**changes)) == line


def test_a_job_that_ends_all_the_time_is_logged_by_number() -> None:
    throttle = Throttle()
    assert [throttle.admit("a", f"exit {number}", 0.0) for number in range(BURST + 20)] == [True] * BURST + [False] * 20
    assert throttle.admit("b", "exit", 1.0)
    assert throttle.collect(PERIOD - 1) == []
    assert throttle.collect(PERIOD) == [f"a: 20 more exits in 60 s, the last: exit {BURST + 19}"]
    assert not throttle.admit("a", "again", PERIOD + 1)
    assert throttle.collect(2 * PERIOD + 1) == ["a: 1 more exit in 61 s, the last: again"]
    assert throttle.collect(4 * PERIOD) == []
    assert throttle.idle
    assert throttle.admit("a", "after a quiet time", 4 * PERIOD)


def test_an_update_that_is_undone_is_in_the_log(tmp_path: Path) -> None:
    config = tmp_path / "gafferd.ini"
    good = "[process:web]\ncmd = sleep 1000\nready = exec:true\nstart_timeout = 0.3s\nauto_rollback = true\n"
    config.write_text(good)
    with gafferd(str(config)) as node:
        url = f"{node.url}/jobs/default/web"

        def ready(number: int) -> bool:
            return [(e["state"], e["pid"]) for e in requests.get(url).json()["instances"]] == [("ready", number)]

        for number in range(1, BURST + 2):
            eventually(partial(ready, number))
            requests.post(f"{url}/restart?rolling=true")
        eventually(partial(ready, BURST + 2))
        config.write_text(good.replace("exec:true", "exec:false"))
        node.signal(signal.SIGHUP)
        line = node.wait_for_line("default.web: update stopped")
        assert re.search(
            r"WARNING gafferd.exits: .*: process \d+ did not become ready within 0.3 s: exited with 1", line
        )
        node.wait_for_line("INFO gafferd.exits: default.web: rolling back")
        assert "(not ready)" in node.wait_for_line("WARNING gafferd.exits: default.web: process"), "not suppressed"
        node.stop()
    assert re.search(r"INFO gafferd.exits: default.web: \d more exits? in", node.stderr)


def test_a_crash_loop_is_in_the_log_and_in_the_job(tmp_path: Path) -> None:
    config = tmp_path / "gafferd.ini"
    config.write_text(
        "[process:bad]\ncmd = sh -c 'echo no database >&2; exit 3'\nstartsecs = 0\n"
        "[process:good]\ncmd = sleep 1000\n[process:killed]\ncmd = sh -c 'kill -SEGV $$'\nbackoff = 1000\n"
    )
    with gafferd(str(config)) as node:
        node.wait_for_line("WARNING gafferd.exits: default.bad: process ")
        assert "was killed by SIGSEGV after 0." in node.wait_for_line("default.killed: process")
        info = eventually(
            lambda: (found := requests.get(f"{node.url}/jobs/default/bad").json())["restarts"] > 10 and found
        )
        last = info["last_exit"]
        assert (last["exit_code"], last["reason"], last["output"]) == (3, "exited", "no database")
        assert re.match(r"crash loop, \d+ times in a row: the last process exited with 3 after 0\.\d s", info["reason"])
        last = requests.get(f"{node.url}/jobs/default/killed").json()["last_exit"]
        assert (last["exit_code"], last["term_signal"], last["reason"]) == (None, 11, "signaled")
        assert requests.get(f"{node.url}/jobs/default/good").json()["reason"] is None
        node.stop()
    lines = [line for line in node.stderr.splitlines() if "WARNING gafferd.exits: default.bad: process" in line]
    assert len(lines) == BURST
    assert all(re.search(r"exited with 3 after \d\.\d s; \d restarts? so far$", line) for line in lines)
    assert re.search(r"default\.bad: \d+ more exits in \d+ s, the last: process", node.stderr)
    assert re.search(
        r"INFO gafferd.exits: default\.good: process .* was killed by SIGTERM .*, as requested;", node.stderr
    )


def test_a_crash_loop_is_the_reason_of_a_job_that_pauses(tmp_path: Path) -> None:
    config = tmp_path / "gafferd.ini"
    config.write_text("[process:bad]\ncmd = sh -c 'exit 3'\nbackoff = 0.5\n")
    with gafferd(str(config)) as node:

        def pauses() -> Any:
            found = requests.get(f"{node.url}/jobs/default/bad").json()
            return found["restarts"] >= 3 and found["state"] == "backoff" and found

        pattern = r"crash loop, [34] times in a row: the last process exited with 3 after 0\.\d s"
        assert re.fullmatch(pattern, eventually(pauses)["reason"])
