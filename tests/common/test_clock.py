"""Timers follow the monotonic clock: the wall clock may be set to anything."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.needs import faketime_library, needs_faketime

# Sets the wall clock while a manager has a back-off, a graceful stop and a stats timer under way, and tells how long
# each took by the monotonic clock. The jump is made by writing to the file that libfaketime reads.
PROGRAM = """
import json, select, sys, threading, time
from pathlib import Path
from gaffer import Manager
from gaffer.loop import new_loop
from gaffer.process import ProcessConfig

clock, jump, kind = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
stubborn = "sh -c 'trap \\"\\" TERM; echo ready; while :; do sleep 0.1; done'"

def wait(predicate):
    deadline = time.monotonic() + 20
    while not (value := predicate()):
        if time.monotonic() > deadline:
            raise SystemExit("it did not happen")
        select.select([], [], [], 0.01)  # libfaketime breaks time.sleep
    return value

manager = Manager(new_loop(kind))
events = []
manager.events.subscribe(".", lambda name, message: events.append((name, message, time.monotonic())))
manager.start()
thread = threading.Thread(target=manager.run, daemon=True)
thread.start()
manager.load(ProcessConfig("steady", "sleep 1000", numprocesses=2))
manager.load(ProcessConfig("crashing", "sleep 0.01", backoff=1.0))
manager.load(ProcessConfig("stubborn", stubborn, graceful_timeout=1.0, redirect_output=["out"]))
wait(lambda: len(manager.pids("steady")) == 2)
wait(lambda: any(ring.end for process in manager.list("stubborn") for ring in process.rings.values()))
wait(lambda: manager.info("crashing")["state"] == "backoff")
manager.stop_job("stubborn")
wall, monotonic = time.time(), time.monotonic()
clock.write_text(jump)
wait(lambda: abs(time.time() - wall) > 3000)
samples = []
manager.monitor("steady", lambda event, message: samples.append(time.monotonic()))
wait(lambda: sum(name == "proc.crashing.spawn" for name, *_ in events) == 2)
wait(lambda: any(name == "proc.stubborn.exit" for name, *_ in events))
wait(lambda: len(samples) >= 10)
uptime = manager.info("steady")["instances"][0]["uptime"]
cpu = manager.stats("steady")["max_cpu"]
times = {name: at for name, _, at in events if name in ("proc.crashing.spawn", "proc.stubborn.exit")}
print(json.dumps({
    "moved": time.time() - wall - (time.monotonic() - monotonic),
    "restarted": [m["pid"] for name, m, _ in events if name == "exit" and m["name"] == "steady"],
    "backoff": times["proc.crashing.spawn"] - monotonic,
    "kill": times["proc.stubborn.exit"] - monotonic,
    "sampling": samples[9] - samples[0],
    "uptime": uptime,
    "cpu": cpu,
}))
manager.stop(now=True)
thread.join()
"""


@needs_faketime
@pytest.mark.row("MGR-16")
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize(("jump", "seconds"), [("+3600", 3600), ("-3600", -3600)])
def test_nothing_restarts_and_nothing_is_late_when_the_wall_clock_jumps(
    tmp_path: Path, loop: str, jump: str, seconds: int
) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0")
    environment = {
        **os.environ,
        "LD_PRELOAD": str(faketime_library()),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(clock), jump, loop],
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout)
    assert abs(seen["moved"] - seconds) < 60
    assert seen["restarted"] == []
    assert 0.3 < seen["backoff"] < 5
    assert 0.5 < seen["kill"] < 5
    assert 0.3 < seen["sampling"] < 5
    assert 0 < seen["uptime"] < 30
    assert 0 <= seen["cpu"] < 200
